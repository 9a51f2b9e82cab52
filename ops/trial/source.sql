-- For the trial of docker-compose.yml only: the OTP service's table as it is in the field, its owner, and the daemon's two roles.
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

create role otp_owner;
alter schema verification owner to otp_owner;
alter table verification.verifications owner to otp_owner;
grant create on database postgres to otp_owner;

create role smslogd login password 'trial';
create role smslogd_replication login replication password 'trial';
