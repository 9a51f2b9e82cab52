/** Rows for the source table, as the OTP service writes them. Made-up numbers only. */
import { randomUUID } from 'node:crypto';
import type { Sql, TransactionSql } from 'postgres';

export interface Verification {
  readonly id: string;
  readonly phone_number: string;
  readonly code: number;
  readonly gateway_id: string | null;
  readonly gateway_status: string | null;
  readonly inserted_at: string;
}

let serial = 0;

export function verification(over: Partial<Verification> = {}): Verification {
  serial += 1;
  return {
    id: randomUUID(),
    phone_number: `+38000${String(serial).padStart(7, '0')}`,
    code: 1000 + (serial % 9000),
    gateway_id: String(6_614_000_000_000 + serial),
    gateway_status: 'Accepted',
    inserted_at: '2026-11-20 10:20:30.123456',
    ...over,
  };
}

export async function insertVerification(
  sql: Sql | TransactionSql,
  over: Partial<Verification> = {},
): Promise<Verification> {
  const row = verification(over);
  await sql`insert into verification.verifications
              (id, phone_number, check_digit, status, code, code_expired_at, gateway_id, gateway_status, inserted_at)
            values (${row.id}, ${row.phone_number}, 1, 'new', ${row.code}, '2026-11-20 10:35:30'::timestamp, ${row.gateway_id},
                    ${row.gateway_status}, ${row.inserted_at}::text::timestamp)`;
  return row;
}

/** `count` rows in one statement, made by the server; inactive, so that phones may repeat. */
export async function insertMany(sql: Sql | TransactionSql, count: number): Promise<void> {
  await sql`insert into verification.verifications
              (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
            select gen_random_uuid(), '+38000' || lpad((n % 10000000)::text, 7, '0'), 1, 'new', 1000 + n % 9000, now() at time zone 'UTC',
                   false, (6614000000000 + n)::text, 'Accepted', clock_timestamp() at time zone 'UTC'
              from generate_series(1, ${count}::int) n`;
}

/** `count` transactions of one row each, made by the server; the last of them need not be durable. */
export async function insertOneByOne(sql: Sql, count: number): Promise<void> {
  await sql.unsafe(`do $$ begin
    set synchronous_commit = off;
    for i in 1..${count} loop
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
      values (gen_random_uuid(), '+38000' || lpad((i % 10000000)::text, 7, '0'), 1, 'new', 1234, now(), false, (6614000000000 + i)::text, 'Accepted', clock_timestamp());
      commit;
    end loop;
    reset synchronous_commit; end $$`);
}

/** Ids that the source has and the log lacks, and ids that the log has and the source lacks. */
export async function difference(sql: Sql): Promise<{ missing: number; surplus: number }> {
  const [row] = await sql<{ missing: number; surplus: number }[]>`
    select count(*) filter (where l.id is null)::int as missing, count(*) filter (where v.id is null)::int as surplus
      from verification.verifications v full join (select id from verification.sms_log where type = 'verification') l using (id)`;
  return row!;
}
