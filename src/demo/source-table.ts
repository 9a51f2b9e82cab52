/** The OTP service's table as it is in the field; the demo and the tests create it. */
export const SOURCE_DDL = `
create schema if not exists verification;
create table verification.verifications (
  id uuid primary key,
  phone_number varchar(255) not null,
  check_digit integer not null,
  status varchar(255) not null,
  code integer not null,
  code_expired_at timestamp not null,
  active boolean default true,
  gateway_id varchar(255),
  gateway_status varchar(255),
  attempts_count integer default 0,
  inserted_at timestamp not null
);
create unique index on verification.verifications (phone_number) where active;
create index on verification.verifications (phone_number, inserted_at);
`;
