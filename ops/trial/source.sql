-- For the trial of docker-compose.yml only: the OTP service's table as it is in the field, and the daemon's role.
-- A test keeps the table equal to the one that the demo and the tests use (src/demo/source-table.ts).
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

create role smslogd login replication password 'trial';
