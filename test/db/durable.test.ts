/**
 * What the mirror acknowledges is on disk, though the database's own commits don't wait for it, and what it waits for itself: on a server of its own,
 * which flushes nothing by itself and on which nobody else has a transaction.
 */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { command as send } from '../../src/commands/send.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createRow } from '../../src/leader/row.ts';
import { openConnections } from '../../src/postgres/connections.ts';
import type { Cluster } from '../../src/demo/cluster.ts';
import { createStore } from '../../src/mirror/store.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { batchOf, startMirror, nextTerm } from '../support/mirror.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { createServer } from '../support/postgres.ts';
import { insertVerification } from '../support/verifications.ts';

let server: Cluster;
let db: TestDatabase;
let sql: Sql;

beforeAll(async () => {
  const quiet = { synchronous_commit: 'off', wal_writer_delay: '10s', autovacuum: 'off' };
  server = await createServer({ ...quiet, max_prepared_transactions: 1 });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  sql = openDatabase(db.config(), { max: 1, name: 'test' });
});
afterEach(() => signalWriters('SIGCONT'));
afterAll(async () => {
  await sql.end({ timeout: 1 });
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

const onDisk = async () =>
  (await db.sql`select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() as all`)[0]?.['all'] as boolean;

const WRITERS = `pg_stat_activity where backend_type in ('walwriter', 'background writer', 'checkpointer')`;
/** The processes that write to the WAL, or flush it, by themselves. */
const signalWriters = async (signal: 'SIGSTOP' | 'SIGCONT') => {
  for (const { pid } of await db.sql.unsafe(`select pid from ${WRITERS}`)) process.kill(pid as number, signal);
};
/** Stops them while they sleep: in the middle of their work they hold locks. */
const stopWriters = () =>
  until('nobody else to write', async () => {
    await signalWriters('SIGCONT');
    await signalWriters('SIGSTOP');
    return (await db.sql.unsafe(`select from ${WRITERS} and wait_event_type is distinct from 'Activity'`)).length === 0;
  });

/** A row of the owner, which is not on disk yet, and gets there by nobody's own accord. */
const hurried = async () => {
  await stopWriters();
  await insertVerification(db.sql);
  expect(await onDisk()).toBe(false);
};

test('a batch with its checkpoint, a chunk of a reconcile and a row kept aside are on disk when they are written', async () => {
  const store = createStore(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  await hurried();
  await store.write(batchOf(randomUUID()), term);
  expect(await onDisk()).toBe(true);
  await hurried();
  const source = await describeSource(sql, db.config());
  expect(await store.reconcileChunk(source, undefined, 100)).toMatchObject({ inserted: 2 });
  expect(await onDisk()).toBe(true);
  await db.sql`alter table verification.sms_log add constraint one_alone check (phone_number <> '+380000000001') not valid`;
  await hurried();
  expect((await store.write(batchOf(randomUUID()), term)).refused).toHaveLength(1);
  expect(await onDisk()).toBe(true);
});

test('an answer, a verdict with and without one, and a gateway id of the source are on disk when they are written', async () => {
  const store = createPollerStore(sql, 20_000);
  const source = await describeSource(sql, db.config());
  await db.sql`delete from verification.sms_log`;
  await db.sql`alter table verification.sms_log drop constraint if exists one_alone`;
  const ids = ['answered', 'overdue', 'without', 'late'].map(() => randomUUID());
  const [answered, overdue, without, late] = ids as [string, string, string, string];
  await db.sql`insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
               select id, '+380000000001', 'verification', 'text', case when n < 3 then n::text end, case when n < 3 then 'Accepted' end, now()
                 from unnest(${`{${ids.join()}}`}::text::uuid[]) with ordinality i (id, n)`;
  await insertVerification(db.sql, { id: late, gateway_id: '4', gateway_status: 'Delivered' });
  await db.sql`update smslogd.sms_poll set due_at = now(), deadline_at = now(), give_up_at = case when id = ${overdue} then now() else give_up_at end`;
  const { rows } = await store.claim({ total: 10, old: 0, past: 0 }, [null, null, null]);
  const claimed = (id: string) => rows.find((row) => row.id === id)!;
  const { attempt, gatewayId } = claimed(answered);
  const answer = {
    id: answered,
    attempt,
    gatewayId: gatewayId!,
    result: 'ok',
    status: 'Delivered',
    date: null,
    gapMs: 0,
  } as const;
  for (const write of [
    async () => (await store.completeClaims([answer])).changes,
    () => store.markTerminated([overdue]),
    () => store.markUnaccepted([claimed(without)], source),
    () => store.fillFromSource(source, [late]),
  ]) {
    await hurried();
    expect(await write()).toHaveLength(1);
    expect(await onDisk()).toBe(true);
  }
});

test('an SMS is on disk before the gateway has it, and its gateway id once it is told', async () => {
  let before: boolean | undefined;
  const gateway = await startGateway(async () => {
    before = await onDisk();
    await hurried();
    return reply('7654321', 'Accepted');
  });
  await hurried();
  const given = { to: '+380000000001', text: 'text', type: undefined };
  const env = db.env({ IP2SMS_URL: gateway.url });
  expect(await send.run(given, { env, print: () => {}, stdoutIsTerminal: false })).toBe(0);
  expect([before, await onDisk()]).toEqual([true, true]);
  await gateway.close();
});

test('a term of the lease is on disk when it is taken or raised', async () => {
  const connections = openConnections(db.config());
  const [first, second] = ['first', 'second'].map((holder) =>
    createRow({ connections, slot: 'another', holder, mirrors: true }),
  );
  const taken = [() => first!.take(undefined), () => first!.raise(), async () => second!.take(await second!.look())];
  for (const [before, take] of taken.entries()) {
    await hurried();
    if (before === 2) await first!.release();
    expect(await take()).toBe(BigInt(before + 1));
    expect(await onDisk()).toBe(true);
  }
  await connections.end();
  await db.sql`delete from smslogd.leader`;
});

/** A mirror, and the first line of its log, past or to come, that says `words`. */
function talkative() {
  const lines: string[] = [];
  const mirror = startMirror(db, { log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }) });
  const said = async (words: string) => {
    const find = () => lines.find((line) => line.includes(words));
    await until(words, () => find() !== undefined);
    return JSON.parse(find()!) as Record<string, unknown>;
  };
  return { mirror, said };
}

test.each(['a session', 'a prepared transaction'])(
  'while a slot waits for open transactions the oldest one is named: %s',
  async (oldest) => {
    const session = openDatabase(db.config(), { max: 1, name: 'open' });
    const [{ pid }] = (await session`select pg_backend_pid() as pid`) as unknown as [{ pid: number }];
    const open = () => session.unsafe('begin; select pg_current_xact_id()');
    const prepare = () => sql.unsafe(`begin; select pg_current_xact_id(); prepare transaction 'kept'`);
    for (const begin of oldest === 'a session' ? [open, prepare] : [prepare, open]) await begin();
    const { mirror, said } = talkative();
    const named =
      oldest === 'a session' ? { oldestPid: pid, oldestPrepared: null } : { oldestPid: null, oldestPrepared: 'kept' };
    expect(await said('creating the slot waits')).toMatchObject({ slot: db.name, ...named });
    // on this server a slot is not made soon after the end of a transaction
    await mirror.stop();
    await sql`rollback prepared 'kept'`;
    await session`rollback`;
    await session.end();
    await until('the slot to be gone', async () => (await db.sql`select from pg_replication_slots`).length === 0);
  },
);

test('a commit that waits for a standby, which a reconcile cannot see yet and the slot has passed, is copied by its second look', async () => {
  const first = startMirror(db);
  await first.streaming();
  await first.stop();
  // at a reload nobody waits before the checkpointer has read the setting, too, which no other session sees
  await db.sql.unsafe(`alter system set synchronous_standby_names = 'nobody'`);
  await server.stop();
  await server.start();
  await db.sql`checkpoint`;
  const committed = db.sql.begin(async (tx) => {
    await tx`set local synchronous_commit = on`;
    return await insertVerification(tx);
  });
  await until(
    'the commit to wait',
    async () => (await db.sql`select from pg_stat_activity where wait_event = 'SyncRep'`).length === 1,
  );
  await db.sql`select pg_replication_slot_advance(${db.name}, pg_current_wal_insert_lsn())`;
  await db.sql`update smslogd.checkpoint set reconcile_due = 'by hand'`;
  const { mirror, said } = talkative();
  await said('reconcile waits with its second pass');
  const has = async (id: string) => (await db.sql`select from verification.sms_log where id = ${id}`).length === 1;
  await db.sql.unsafe('alter system reset synchronous_standby_names');
  await db.sql`select pg_reload_conf()`;
  const { id } = await committed;
  await until('the row', () => has(id));
  await mirror.streaming();
  await mirror.stop();
});
