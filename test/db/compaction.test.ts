/** Tables are written anew while mirror, poller, counters and another service work on them, and a transaction elsewhere holds every dead row. */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import type { TransactionSql } from 'postgres';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runCompaction, type Table } from '../../src/compaction.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { recountHours } from '../../src/figures/store.ts';
import { runHourly } from '../../src/figures/hourly.ts';
import { scopeOf } from '../../src/mirror/compare.ts';
import { createStore } from '../../src/mirror/store.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { batchOf, startMirror } from '../support/mirror.ts';
import { insertSms, startPoller } from '../support/poller.ts';
import { difference, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let sql: Sql;
let stop: AbortController;
let said: { level: number; msg: string; table?: string }[];

beforeEach(async () => {
  db = await createDatabase();
  sql = openDatabase(db.config(), { max: 8, name: 'test' });
  stop = new AbortController();
  said = [];
});
afterEach(async () => {
  stop.abort();
  await sql.end({ timeout: 1 });
  await db.drop();
});

const log = pino(
  { level: 'debug' },
  { write: (line: string) => void said.push(JSON.parse(line) as (typeof said)[number]) },
);
const NAMES = ['checkpoint', 'changed_hour', 'sms_poll'] as const;
/** Whatever their size. */
const ALWAYS: readonly Table[] = NAMES.map((name) => ({ name, mostBytes: 0, mostRows: 1_000 }));
/** How many sessions wait for a lock in this database. */
const waiting = async (tx: TransactionSql) => {
  const [row] = await tx`select count(distinct pid)::int as n from pg_locks where not granted
                          and database = (select oid from pg_database where datname = current_database())`;
  return row?.['n'] as number;
};
/** How often all of them were. */
const turns = () => Math.min(...NAMES.map(rewritten));
const rewritten = (table: string) => said.filter((line) => line.table === table && line.msg.endsWith('anew')).length;

test('what a transaction elsewhere keeps from being cleaned up is written anew under all that use it, and nothing is lost, doubled or left', async () => {
  const other = await db.sql.reserve();
  await other`begin isolation level repeatable read`;
  await other`select from smslogd.settings`;
  const gateway = await startGateway(({ id }) => reply(id, gateway.count(id) > 1 ? 'Delivered' : 'Enroute'));
  const poller = await startPoller(db, { IP2SMS_URL: gateway.url }, log);
  const mirror = startMirror(db, { env: { SNAPSHOT: 'never' }, log });
  await mirror.streaming();
  const counting = runHourly({ sql, log }, stop.signal);
  const compacting = runCompaction({ sql, log, tables: ALWAYS, everyMs: 20 }, stop.signal);

  let sent = 0;
  while (sent < 150 || turns() < 8) {
    await insertVerification(db.sql, { inserted_at: new Date().toISOString().replace('Z', '') });
    await insertSms(db, { gatewayId: String(7_000_000 + sent) });
    sent += 1;
  }
  await until('every final status', async () => {
    const [row] =
      await db.sql`select count(*) filter (where gateway_status = 'Delivered')::int as n from verification.sms_log`;
    return row?.['n'] === 2 * sent;
  });
  stop.abort();
  await Promise.all([counting, compacting, mirror.stop(), poller.stop(), gateway.close()]);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
  expect(await db.sql`select from smslogd.sms_poll`).toHaveLength(0);
  const [figures] = await db.sql`select sum(sms)::int as counted from smslogd.hour_counts where status = 'Delivered'`;
  expect(figures?.['counted']).toBe(2 * sent);
  // above all not that another daemon works, or that the checkpoint is gone
  expect(said.filter(({ level }) => level >= 40)).toEqual([]);
  await other`rollback`;
  other.release();
});

test('a statement that waits for a table that is written anew goes on with its rows', async () => {
  const store = createStore(sql, db.config());
  await store.read();
  const { epoch } = await store.acquire();
  // twice: the second time the place of the checkpoint's row is known
  await store.write(batchOf(randomUUID(), '0/10'), ['Accepted'], epoch);
  await store.write(batchOf(randomUUID(), '0/20'), ['Accepted'], epoch);
  const poller = createPollerStore(sql, 15_000);
  const asked = await insertSms(db, { gatewayId: '7000001' });
  const [claimed] = await poller.claim({ total: 1, old: 0, past: 0 }, [null, null, null]);
  const due = await insertSms(db, { gatewayId: '7000002' });

  const work = await db.sql.begin(async (tx) => {
    for (const name of NAMES) await tx.unsafe(`select smslogd.compact_${name}()`);
    const answer = { id: asked, attempt: claimed!.attempt, gatewayId: '7000001', result: 'ok', gapMs: 1_000 } as const;
    // not a promise of promises: what waits for this transaction must not be awaited in it
    const begun = {
      written: store.write(batchOf(randomUUID(), '0/30'), ['Accepted'], epoch),
      completed: poller.complete([{ ...answer, status: 'Delivered', date: Date.now() }]),
      claimed: poller.claim({ total: 1, old: 0, past: 0 }, [null, null, null]),
      inserted: insertSms(db, { gatewayId: '7000003' }),
      counted: recountHours(sql, { wait: false }),
    };
    await until('all of them to wait', async () => (await waiting(tx)) === Object.keys(begun).length);
    return begun;
  });
  expect((await work.written).inserted).toBe(1);
  expect((await work.completed).changes.map(({ to }) => to)).toEqual(['Delivered']);
  expect((await work.claimed).map(({ id }) => id)).toEqual([due]);
  expect(await work.counted).toMatchObject({ left: 0 });
  const queued = await db.sql`select id from smslogd.sms_poll where gateway_id = '7000003'`;
  expect(queued.map(({ id }) => id as string)).toEqual([await work.inserted]);
  const [checkpoint] = await db.sql`select lsn from smslogd.checkpoint`;
  expect(checkpoint?.['lsn']).toBe('0/30');
});

test('though the sessions of a pooler look before they have their locks, what is noted meanwhile stays noted, and an audit finds its horizon', async () => {
  await db.sql.unsafe(`alter database ${db.name} set default_transaction_isolation = 'repeatable read'`);
  const pooled = openDatabase(db.config({ DATABASE_REPLICATION_URL: db.url.replace('127.0.0.1', 'localhost') }), {
    max: 1,
    name: 'test pooled',
  });
  const tables: readonly Table[] = [{ name: 'changed_hour', mostBytes: 0, mostRows: 1_000 }];
  // again until the lock was waited for, and was had in time
  let noted = 0;
  do {
    said = [];
    const turn = new AbortController();
    let compacting: Promise<void> | undefined;
    await db.sql.begin(async (tx) => {
      await tx`insert into smslogd.changed_hour values (now())`;
      noted += 1;
      compacting = runCompaction({ sql: pooled, log, tables, everyMs: 1 }, turn.signal);
      await until('the lock to be waited for', async () => (await waiting(tx)) > 0);
    });
    await until('it to be written anew', () => rewritten('changed_hour') > 0);
    turn.abort();
    await compacting;
  } while (said.some(({ msg }) => msg.endsWith('just now')));
  expect(await db.sql`select from smslogd.changed_hour`).toHaveLength(noted);

  await db.sql`insert into smslogd.checkpoint (slot_name, horizon) values (${db.name}, now())`;
  const source = await describeSource(sql, db.config());
  const { scope } = await db.sql.begin(async (tx) => {
    await tx`select smslogd.compact_checkpoint()`;
    const begun = { scope: scopeOf(pooled, db.config(), source, undefined, false) };
    await until('the audit to wait', async () => (await waiting(tx)) > 0);
    return begun;
  });
  expect(await scope).not.toMatchObject({ horizon: '-infinity' });
  await pooled.end();
});

test('a table that is small, or holds much, is left alone, one that somebody holds is left for later, and one that a view reads fails alone', async () => {
  for (let n = 0; n < 3; n += 1) await insertSms(db, { gatewayId: String(7_000_000 + n) });
  const file = async (name: string) =>
    (await db.sql`select pg_relation_filenode(${`smslogd.${name}`}::text::regclass) as file`)[0]?.['file'] as number;
  const [poll, hour, checkpoint] = [await file('sms_poll'), await file('changed_hour'), await file('checkpoint')];
  const reader = await db.sql.reserve();
  await reader`begin`;
  await reader`select from smslogd.checkpoint`;
  const tables: readonly Table[] = [
    { name: 'sms_poll', mostBytes: 1_000_000, mostRows: 1_000 },
    { name: 'changed_hour', mostBytes: 0, mostRows: 2 },
    { name: 'checkpoint', mostBytes: 0, mostRows: 1_000 },
  ];
  const compacting = runCompaction({ sql, log, tables, everyMs: 20 }, stop.signal);
  await until('a try', () => said.some(({ table, msg }) => table === 'checkpoint' && msg.endsWith('just now')));
  expect([await file('sms_poll'), await file('changed_hour')]).toEqual([poll, hour]);
  await reader`rollback`;
  reader.release();
  await until('the next one', () => rewritten('checkpoint') > 0);
  stop.abort();
  await compacting;
  expect(await file('checkpoint')).not.toBe(checkpoint);

  await db.sql`create view mine as select * from smslogd.checkpoint`;
  await expect(
    runCompaction({ sql, log, tables: ALWAYS, everyMs: 1 }, new AbortController().signal),
  ).rejects.toMatchObject({ code: '0A000' });
  expect(rewritten('sms_poll')).toBeGreaterThan(0);
});
