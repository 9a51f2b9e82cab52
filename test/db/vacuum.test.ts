/** Doctor names who keeps vacuum from its work once dead rows have piled up, whoever it is. */
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
