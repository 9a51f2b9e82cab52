/** Doctor names who keeps vacuum from its work once dead rows have piled up, whoever it is. */
import { appendFileSync } from 'node:fs';
import { Client, type ClientConfig } from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/doctor.ts';
import type { Cluster } from '../../src/demo/cluster.ts';
import type { Result } from '../../src/doctor/check.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { connect, createServer } from '../support/postgres.ts';

let server: Cluster;
let db: TestDatabase;
beforeAll(async () => {
  server = await createServer({ max_prepared_transactions: 2, autovacuum: 'off' });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  // a pool that is new does not answer to reserve()
  await db.sql`select`;
});
afterEach(() => db.sql`vacuum smslogd.changed_hour`);
afterAll(async () => {
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

async function found(): Promise<Result> {
  const lines: string[] = [];
  const io = { env: db.env({ LOOPS: 'mirror' }), print: (line: string) => lines.push(line), stdoutIsTerminal: false };
  await command.run({ json: true }, io);
  return (JSON.parse(lines.join('\n')) as { checks: Result[] }).checks.find(({ name }) => name === 'dead rows')!;
}

/** Notes of hours, as many as a busy day leaves, counted and gone. */
async function pileUp(): Promise<void> {
  await db.sql.begin(async (tx) => {
    await tx`insert into smslogd.changed_hour select now() from generate_series(1, 150000)`;
  });
  await db.sql.begin(async (tx) => {
    await tx`delete from smslogd.changed_hour`;
    await tx`select pg_stat_force_next_flush()`;
  });
  await until('the server to know of them', async () => {
    await Promise.all(Array.from({ length: 4 }, () => db.sql`select pg_stat_force_next_flush()`));
    const [row] =
      await db.sql`select n_dead_tup > 100000 as so from pg_stat_all_tables where relid = 'smslogd.changed_hour'::regclass`;
    return row?.['so'] === true;
  });
}

/** What a standby with hot_standby_feedback says: its oldest snapshot is of now. Returns how to end it. */
async function feedback(name: string, slot?: string): Promise<() => Promise<void>> {
  const [row] = await db.sql<{ xid: string; lsn: string }[]>`
    select pg_current_xact_id()::text as xid, pg_current_wal_flush_lsn()::text as lsn`;
  const xid = BigInt(row!.xid);
  const sender = new Client({
    connectionString: server.url('postgres'),
    application_name: name,
    replication: 'true',
  } as ClientConfig);
  await sender.connect();
  const { connection } = sender as unknown as { connection: Connection };
  sender.on('error', () => {});
  const over = sender.query(`START_REPLICATION ${slot === undefined ? '' : `SLOT ${slot}`} PHYSICAL ${row!.lsn}`);
  await Promise.race([over, new Promise((resolve) => connection.once('replicationStart', resolve))]);
  over.catch(() => {});
  const message = Buffer.alloc(25);
  message.write('h');
  message.writeUInt32BE(Number(xid & 0xffff_ffffn), 9);
  message.writeUInt32BE(Number(xid >> 32n), 13);
  connection.sendCopyFromChunk(message);
  await until('the server to know of it', async () => {
    const [known] = await db.sql<{ so: boolean }[]>`
      select exists (select from pg_stat_activity where application_name = ${name} and backend_xmin is not null)
          or exists (select from pg_replication_slots where slot_name = ${slot ?? ''} and xmin is not null) as so`;
    return known!.so;
  });
  return () => sender.end();
}

interface Connection {
  once(event: 'replicationStart', listener: (message: unknown) => void): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

test('few dead rows are nothing to tell of, whatever is open', async () => {
  const other = await db.sql.reserve();
  await other`begin isolation level repeatable read`;
  await other`select from smslogd.settings`;
  expect((await found()).level).toBe('ok');
  await other`rollback`;
  other.release();
});

test('a session is named by its pid and its application, and after the fix vacuum does its work', async () => {
  // of another database: vacuum here does not mind it
  const elsewhere = connect(server.url('postgres'), { max: 1 });
  await elsewhere`begin isolation level repeatable read`;
  await elsewhere`select from pg_class`;
  await db.sql`select pg_current_xact_id()`;
  const other = await db.sql.reserve();
  await other`set application_name = 'report'`;
  await other`begin isolation level repeatable read`;
  const [{ pid } = { pid: 0 }] = await other<{ pid: number }[]>`select pg_backend_pid() as pid`;
  await db.sql`select pg_current_xact_id()`;
  const younger = await db.sql.reserve();
  await younger.unsafe('begin isolation level repeatable read; select from smslogd.settings');
  await pileUp();
  const result = await found();
  expect(result).toMatchObject({
    level: 'warn',
    says: expect.stringMatching(
      `of report \\(pid ${pid}\\), \\d+ (?:s|transactions) old: smslogd.changed_hour 1\\d{5}`,
    ),
  });
  expect(result.fix).toContain(`pg_terminate_backend(${pid})`);
  for (const session of [other, younger]) {
    await session`rollback`;
    session.release();
  }
  const after = await found();
  expect(after.says).toContain('vacuum is behind');
  await db.sql.unsafe(after.fix!);
  expect((await found()).level).toBe('ok');
  await elsewhere.end({ timeout: 1 });
});

test('a prepared transaction is named, and none of another database', async () => {
  const elsewhere = connect(server.url('postgres'), { max: 1 });
  await elsewhere.unsafe("begin; select pg_current_xact_id(); prepare transaction 'elsewhere'");
  const other = await db.sql.reserve();
  await other.unsafe("begin; create table public.prepared (); prepare transaction 'forgotten'");
  other.release();
  await pileUp();
  const result = await found();
  expect(result).toMatchObject({ level: 'warn', says: expect.stringContaining('the prepared transaction forgotten') });
  await db.sql.unsafe(result.fix!);
  expect((await found()).says).toContain('vacuum is behind');
  await elsewhere`rollback prepared 'elsewhere'`;
  await elsewhere.end({ timeout: 1 });
});

test('a standby whose feedback holds vacuum up is named, and a slot that keeps it when the standby is gone', async () => {
  const [{ file } = { file: '' }] = await db.sql<{ file: string }[]>`select current_setting('hba_file') as file`;
  appendFileSync(file, 'hostssl replication postgres 127.0.0.1/32 scram-sha-256\n');
  await db.sql`select pg_reload_conf()`;
  const end = await feedback('reports_standby');
  await pileUp();
  const connected = await found();
  expect(connected).toMatchObject({
    level: 'warn',
    says: expect.stringMatching(/feedback of the standby reports_standby \(pid \d+\)/),
    fix: expect.stringContaining('hot_standby_feedback = off'),
  });
  await end();
  await until('vacuum to be held up by nobody', async () => (await found()).says.includes('vacuum is behind'));

  await db.sql`select pg_create_physical_replication_slot('reports')`;
  await (
    await feedback('reports_standby', 'reports')
  )();
  await db.sql`vacuum smslogd.changed_hour`;
  await pileUp();
  const gone = await found();
  expect(gone).toMatchObject({
    level: 'warn',
    says: expect.stringContaining('the feedback of a standby through the slot reports'),
  });
  await until(
    'the slot to be free',
    async () => (await db.sql`select from pg_replication_slots where active`).length === 0,
  );
  await db.sql.unsafe(gone.fix!);
  expect((await found()).says).toContain('vacuum is behind');
});
