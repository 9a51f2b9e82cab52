/** A slot's backlog that can be read again and again, and ways to read it. Several benches use one backlog. */
import { randomBytes } from 'node:crypto';
import type { Sql } from 'postgres';
import { until } from '../support/database.ts';
import { processorMicros, serverMicros } from './processor.ts';
import type { BenchDatabase, Figures, Stage } from './stage.ts';

export interface Backlog {
  readonly db: BenchDatabase;
  readonly rows: number;
  /** ids of the first and the last row, in commit order */
  readonly first: string;
  readonly last: string;
  /** a new slot that stands before the backlog */
  slot(): Promise<string>;
  /** drops a slot once its reader has let go of it */
  drop(slot: string): Promise<void>;
  /** as many rows once more, in place of the others: for slots that live on */
  again(): Promise<void>;
}

/** Row `n` of the OTP service: phone numbers are unique and scattered, as in the field. */
export const NEW_ROW = `gen_random_uuid(), '+38000' || lpad((n * 7919::int8 % 10000000)::text, 7, '0'), 1, 'new', 1000 + n % 9000, now() + interval '5 minutes', true,
  (6614000000000 + n)::text, 'Accepted', 0, clock_timestamp() at time zone 'UTC'`;

/** `transactions` transactions of `rowsEach` rows that wait in a slot. The rows stay in the source. */
export async function makeBacklog(
  stage: Stage,
  { transactions, rowsEach }: { transactions: number; rowsEach: number },
): Promise<Backlog> {
  const db = await stage.database();
  const { sql } = db;
  const origin = `origin_${db.name}`;
  await sql`select pg_create_logical_replication_slot(${origin}, 'pgoutput')`;
  await sql.unsafe(`create procedure public.write_rows(transactions int, rows_each int) language plpgsql as $$
    begin
      for t in 0 .. transactions - 1 loop
        insert into verification.verifications select ${NEW_ROW} from generate_series(t * rows_each + 1, (t + 1) * rows_each) n;
        commit;
      end loop;
    end $$`);
  const idOf = async (n: number) => {
    const [row] = await sql`select id from verification.verifications where gateway_id = ${String(6614000000000 + n)}`;
    return row?.['id'] as string;
  };
  const rows = transactions * rowsEach;
  let [first, last] = ['', ''];
  const again = async () => {
    const began = performance.now();
    await sql`truncate verification.verifications`;
    const session = await sql.reserve();
    await session`set synchronous_commit = off`;
    await session.unsafe(`call public.write_rows(${transactions}, ${rowsEach})`);
    await session`reset synchronous_commit`;
    session.release();
    stage.say(
      `${transactions} transactions with ${rowsEach} rows wait, made in ${Math.round((performance.now() - began) / 1000)} s`,
    );
    await sql`vacuum analyze verification.verifications`;
    await sql`checkpoint`;
    [first, last] = [await idOf(1), await idOf(rows)];
  };
  await again();
  return {
    db,
    rows,
    again,
    get first() {
      return first;
    },
    get last() {
      return last;
    },
    slot: async () => {
      const name = `copy_${randomBytes(4).toString('hex')}`;
      await sql`select pg_copy_logical_replication_slot(${origin}, ${name})`;
      return name;
    },
    drop: (slot) => dropSlotOnceFree(sql, slot),
  };
}

/** Waits for the first and the last row in `table`; milliseconds from `began` to each. */
async function arrivals(sql: Sql, table: string, { first, last }: Backlog, began: number): Promise<[number, number]> {
  const here = async (id: string) => {
    const [row] = await sql.unsafe(`select exists (select from ${table} where id = $1::uuid) as here`, [id], {
      prepare: true,
    });
    return row?.['here'] === true;
  };
  await until('the first row', () => here(first), 120);
  const started = performance.now() - began;
  await until('the last row', () => here(last), 300);
  return [started, performance.now() - began];
}

function figures(rows: number, [first, last]: [number, number]): Figures {
  return { rate: rows / ((last - first) / 1000), whole: rows / (last / 1000), first };
}

/** Processor time a row of the server's processes that `where` finds, since each began; microseconds. */
async function serversTime(sql: Sql, where: string, rows: number): Promise<number> {
  const found = await sql.unsafe<{ pid: number }[]>(`select pid from pg_stat_activity where ${where}`);
  return found.reduce((sum, { pid }) => sum + processorMicros(pid), 0) / rows;
}

/** Returns what tells how much the whole server has used since now; microseconds a row. The WAL of an asynchronous commit is written by a process of its own. */
async function serverSince(sql: Sql, rows: number): Promise<() => number> {
  const [row] = await sql`select pg_backend_pid() as pid`;
  const pid = row!['pid'] as number;
  const before = serverMicros(pid);
  return () => (serverMicros(pid) - before) / rows;
}

const sender = (slot: string) => `pid = (select active_pid from pg_replication_slots where slot_name = '${slot}')`;

/**
 * One catch-up by smslogd from a checkpoint at the slot's position. `rate`: rows/s from the first row to the last; `whole`: from the start of the
 * process to the last row; `first`: milliseconds to the first row; `memory`: peak, MiB; `sender`, `node` (from when it streams on), `writer`, and `processor`, the sum
 * of `node` and all of the server: microseconds a row. `lives`: a slot that lives on, from where it is.
 */
export async function mirrorBacklog(stage: Stage, backlog: Backlog, lives?: string): Promise<Figures> {
  const { db, rows } = backlog;
  const slot = lives ?? (await backlog.slot());
  await db.sql`truncate verification.sms_log, smslogd.sms_poll, smslogd.changed_hour`;
  await db.sql`insert into smslogd.checkpoint (slot_name, lsn, committed_at, system_id)
               select slot_name, confirmed_flush_lsn, now(), (select system_identifier::text from pg_control_system())
                 from pg_replication_slots where slot_name = ${slot} on conflict do nothing`;
  const server = await serverSince(db.sql, rows);
  const began = performance.now();
  const daemon = stage.daemon(db.env({ SLOT_NAME: slot }));
  const pid = daemon.child.pid!;
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const started = processorMicros(pid);
  const times = await arrivals(db.sql, 'verification.sms_log', backlog, began);
  const node = (processorMicros(pid) - started) / rows;
  const all = node + server();
  const writer = await serversTime(db.sql, "application_name like 'smslogd apply %'", rows);
  const processor = { sender: await serversTime(db.sql, sender(slot), rows), node, writer, processor: all };
  const memory = daemon.peakMemory() / 1024 / 1024;
  daemon.kill('SIGTERM');
  await daemon.exited;
  await requireRows(db.sql, 'verification.sms_log', rows);
  if (lives === undefined) await db.sql`select pg_drop_replication_slot(${slot})`;
  return { ...figures(rows, times), ...processor, memory };
}

/**
 * One catch-up by PostgreSQL's own subscription, with its defaults (asynchronous commit of the apply worker among them), into another database of
 * the same server: the source's columns, the log's key and indexes, no triggers, no queue. `binary`: its values are sent in binary form.
 * `lives`: a slot that lives on with its subscription, which the first time makes.
 */
export async function subscribeBacklog(
  stage: Stage,
  backlog: Backlog,
  binary = false,
  lives?: string,
): Promise<Figures> {
  const target = await stage.share('subscriber', () => createSubscriber(stage));
  await target.sql`truncate verification.verifications`;
  const slot = lives ?? (await backlog.slot());
  const name = lives === undefined ? 'bench' : 'lives';
  const [known] = await target.sql`select from pg_subscription where subname = ${name}`;
  const make = `create subscription ${name} connection '${libpq(backlog.db.url)}' publication smslogd
                             with (create_slot = false, slot_name = ${slot}, copy_data = false, enabled = false, binary = ${binary})`;
  if (known === undefined) await target.sql.unsafe(make);
  const server = await serverSince(target.sql, backlog.rows);
  const began = performance.now();
  await target.sql.unsafe(`alter subscription ${name} enable`);
  const times = await arrivals(target.sql, 'verification.verifications', backlog, began);
  const processor = server();
  const sending = await serversTime(backlog.db.sql, sender(slot), backlog.rows);
  const worker = `datname = '${target.name}' and backend_type like 'logical replication%'`;
  const writer = await serversTime(target.sql, worker, backlog.rows);
  await target.sql.unsafe(`alter subscription ${name} disable`);
  await requireRows(target.sql, 'verification.verifications', backlog.rows);
  if (lives === undefined) {
    await target.sql.unsafe(`alter subscription ${name} set (slot_name = none)`);
    await target.sql.unsafe(`drop subscription ${name}`);
    await dropSlotOnceFree(backlog.db.sql, slot);
  }
  return { ...figures(backlog.rows, times), sender: sending, writer, processor };
}

export async function createSubscriber(stage: Stage): Promise<BenchDatabase> {
  const target = await stage.database({ plain: true });
  await target.sql.unsafe(SUBSCRIBER_DDL);
  return target;
}

/** The source's columns with the log's key and indexes. */
const SUBSCRIBER_DDL = `
create schema verification;
create table verification.verifications (
  id uuid primary key, phone_number varchar(255) not null, check_digit integer not null, status varchar(255) not null, code integer not null,
  code_expired_at timestamp not null, active boolean default true, gateway_id varchar(255), gateway_status varchar(255),
  attempts_count integer default 0, inserted_at timestamp not null
);
create index on verification.verifications (phone_number, inserted_at desc);
create index on verification.verifications (gateway_id);
create index on verification.verifications using brin (inserted_at) with (autosummarize = on);
create index on verification.verifications (inserted_at);
`;

/** An address as libpq takes it in a subscription. */
export function libpq(url: string): string {
  return url.replaceAll("'", "''");
}

export async function dropSlotOnceFree(sql: Sql, slot: string): Promise<void> {
  await until(`the slot ${slot} to be free`, async () => {
    const [row] = await sql`select active from pg_replication_slots where slot_name = ${slot}`;
    return row?.['active'] === false;
  });
  await sql`select pg_drop_replication_slot(${slot})`;
}

export async function requireRows(sql: Sql, table: string, wanted: number): Promise<void> {
  const [row] = await sql.unsafe(`select count(*)::int as n from ${table}`);
  if (row?.['n'] !== wanted) throw new Error(`${row?.['n']} rows are in ${table}, ${wanted} are right`);
}
