-- Up Migration
-- Prefixes of Ukrainian mobile numbers, for verification.sms_delivery_by_prefix. Edit it as you like: migrate never touches it again.
create table if not exists smslogd.operator_prefix (
  prefix   text primary key check (prefix ~ '^\+[0-9]{1,7}$'),
  operator text not null
);
comment on table smslogd.operator_prefix is 'Who first gave numbers with this prefix out; numbers are portable. The longest prefix that fits counts. Yours to edit';
comment on column smslogd.operator_prefix.prefix is 'Beginning of a phone number, + and at most 7 digits: no whole number';
insert into smslogd.operator_prefix (prefix, operator)
select * from (values
  ('+38067', 'Kyivstar'), ('+38068', 'Kyivstar'), ('+38077', 'Kyivstar'), ('+38096', 'Kyivstar'), ('+38097', 'Kyivstar'), ('+38098', 'Kyivstar'),
  ('+38050', 'Vodafone'), ('+38066', 'Vodafone'), ('+38075', 'Vodafone'), ('+38095', 'Vodafone'), ('+38099', 'Vodafone'),
  ('+38063', 'lifecell'), ('+38073', 'lifecell'), ('+38093', 'lifecell'), ('+38091', 'TriMob'), ('+38092', 'PEOPLEnet'), ('+38094', 'Intertelecom')) as known (prefix, operator)
 where not exists (select from smslogd.operator_prefix);
