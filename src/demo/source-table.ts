import type { Sql } from '../postgres/pools.ts';

/** The OTP service's table as in production; the demo and the tests create it. */
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

export const OWNER_ROLE = 'otp_owner';

/** Creates the table over an administrator's `sql`; its owner is not a superuser and may create what `migrate` creates. */
export async function createSource(sql: Sql): Promise<void> {
  await sql.unsafe(`${SOURCE_DDL}
do $$ begin
  if to_regrole('${OWNER_ROLE}') is null then create role ${OWNER_ROLE}; end if;
  execute format('grant create, temporary on database %I to ${OWNER_ROLE}', current_database());
end $$;
alter schema verification owner to ${OWNER_ROLE};
alter table verification.verifications owner to ${OWNER_ROLE}`);
}
