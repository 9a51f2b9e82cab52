-- Up Migration
-- The log: the contract's nine fields, one plain table. Its primary key is the last line of "exactly once".
-- Both defaults are the moment, not the start of the transaction: an SMS that is written late in a long one lives as long as any other.
-- No index, index predicate or BRIN may name gateway_status, status_changed_at or updated_at: it would make no status update HOT.
do $$
begin
  if not exists (select from pg_catalog.pg_namespace where nspname = 'verification') then
    create schema verification;
  end if;
end $$;

create table if not exists verification.sms_log (
  id                uuid primary key default gen_random_uuid(),
  phone_number      text not null,
  type              text not null check (type in ('verification', 'medication_request', 'text', '2FA')),
  body              text,
  gateway_id        text,
  gateway_status    text check (gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Expired', 'Deleted',
                                                   'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated')),
  status_changed_at timestamptz,
  updated_at        timestamptz not null default clock_timestamp(),
  inserted_at       timestamptz not null default clock_timestamp()
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);

create index if not exists sms_log_phone_number_inserted_at_idx on verification.sms_log (phone_number, inserted_at desc);
create index if not exists sms_log_gateway_id_idx on verification.sms_log (gateway_id);
-- new page ranges of a BRIN index must not wait for a vacuum
create index if not exists sms_log_inserted_at_idx on verification.sms_log using brin (inserted_at) with (autosummarize = on);
-- Counts read the hour that they count, whatever the order of the log's rows: a first copy writes them in the order of their ids, and new rows
-- take the places of those that retention removed, and both make the BRIN index name every block. inserted_at never changes, so status updates stay HOT.
create index if not exists sms_log_time_idx on verification.sms_log (inserted_at);

comment on table verification.sms_log is 'Every SMS, once: written by smslogd (type verification) and by the services that send the other types. Holds personal data.';
comment on column verification.sms_log.id is 'For a mirrored row the id of its verification';
comment on column verification.sms_log.phone_number is 'As in the source, +380XXXXXXXXX; personal data';
comment on column verification.sms_log.type is 'verification, medication_request, text or 2FA';
comment on column verification.sms_log.body is 'The SMS text; of a mirrored row put together from OTP_CODE_TEXT and the code; personal data';
comment on column verification.sms_log.gateway_id is 'The id in the gateway''s reply: 7 to 25 digits as text; may contain the phone number';
comment on column verification.sms_log.gateway_status is 'Accepted, Enroute, Pending, Unknown (open); Delivered, Expired, Deleted, Undeliverable, Rejected, Unaccepted, Terminated (final, never changes); null while no gateway id is known';
comment on column verification.sms_log.status_changed_at is 'The date in the gateway''s reply; of Terminated and Unaccepted the time of the verdict; null until the first reply';
comment on column verification.sms_log.updated_at is 'When this row was last written';
comment on column verification.sms_log.inserted_at is 'When the SMS was created; of a mirrored row the verification''s own inserted_at';
