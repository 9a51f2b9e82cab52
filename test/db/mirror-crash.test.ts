/** What the acknowledged position is, to the byte, and what a crash at each durable step leaves. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Batch } from '../../src/mirror/batch.ts';
import { openDatabase } from '../../src/db.ts';
import { formatLsn, parseLsn } from '../../src/lsn.ts';
import { patiently } from '../../src/mirror/pieces.ts';
import { createStore } from '../../src/mirror/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirrors: RunningMirror[];

beforeEach(async () => {
  db = await createDatabase();
  mirrors = [];
});
afterEach(async () => {
  await Promise.all(mirrors.map((mirror) => mirror.stop()));
  await db.drop();
});

function start(options?: Parameters<typeof startMirror>[1]): RunningMirror {
  const mirror = startMirror(db, options);
  mirrors.push(mirror);
  return mirror;
}

const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const confirmed = async () =>
  (await db.sql`select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = ${db.name}`)[0]?.[
    'lsn'
  ] as string;
const checkpoint = async () =>
  (await db.sql`select lsn::text from smslogd.checkpoint where slot_name = ${db.name}`)[0]?.['lsn'] as string;

/** Fails once, as if the process had died there; the supervisor's next life is the restart. */
function crashOnce(): { point: () => void; readonly crashed: boolean } {
  let crashed = false;
  return {
    point: () => {
      if (crashed) return;
      crashed = true;
      throw new Error('crash');
    },
    get crashed() {
      return crashed;
    },
  };
}

test('the confirmed position is exactly the durable end_lsn, with keepalives unanswered', async () => {
  const ends: string[] = [];
  const afterCommit = (batch: Batch) => {
    if (batch.end !== undefined) ends.push(formatLsn(batch.end));
  };
  const mirror = start({ failpoints: { answerKeepalives: false, afterCommit } });
  await mirror.streaming();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
  await until('the slot to be confirmed', async () => (await confirmed()) === (await checkpoint()));
  expect(ends.at(-1)).toBe(await checkpoint());
  // what the server shows of us carries our clock's time
  const [shown] = await db.sql`
    select reply_time between clock_timestamp() - interval '1 hour' and clock_timestamp() + interval '1 hour' as recent
      from pg_stat_replication where application_name like ${`%${db.name}`}`;
  expect(shown).toEqual({ recent: true });
});

test('a commit that touches the acknowledged one comes again after a restart', async () => {
  // two sessions commit at once, so that most commit records are adjacent; the mirror acknowledges the first and dies before it writes the second
  for (let round = 0; round < 15; round += 1) {
    let crash = false;
    const beforeWrite = () => {
      if (crash) throw new Error('crash');
    };
    const afterCommit = () => {
      crash = true;
    };
    const mirror = startMirror(db, { failpoints: { answerKeepalives: false, beforeWrite, afterCommit } });
    await mirror.streaming();
    await Promise.all([insertVerification(db.sql), insertVerification(db.sql)]);
    await until('one write', () => crash);
    await mirror.stop();
  }
  const mirror = start();
  await mirror.streaming();
  await insertVerification(db.sql);
  await until('every row', async () => (await logged()) === 31);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('a crash after the commit and before the acknowledgement writes every row once', async () => {
  const crash = crashOnce();
  // a first copy that goes on in the next life could write the second row before the stream
  const mirror = start({ failpoints: { afterCommit: crash.point }, env: { SNAPSHOT: 'never' } });
  await mirror.streaming();
  await insertVerification(db.sql);
  await until('the crash', () => crash.crashed);
  await insertVerification(db.sql);
  await until('both rows', async () => (await logged()) === 2);
  await until('the first one to be counted as skipped', async () => {
    const skipped = (await mirror.metrics.mirrorDuplicates.get()).values[0]?.value;
    return skipped === 1;
  });
});

test('a crash in the middle of a big transaction writes every row once', async () => {
  const crash = crashOnce();
  let written = 0;
  const beforeWrite = (batch: Batch) => {
    written += batch.rows.length;
    if (written > 12_000) crash.point();
  };
  const mirror = start({ failpoints: { beforeWrite } });
  await mirror.streaming();
  await insertMany(db.sql, 20_000);
  await until('the crash', () => crash.crashed);
  await insertVerification(db.sql);
  await until('every row', async () => (await logged()) === 20_001);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

/** A batch of one row. */
function batch(id: string): Batch {
  return {
    rows: [
      { id, phone: '+380000000001', code: '1', insertedAt: '2026-01-01 00:00:00', gatewayId: '1', gatewayStatus: null },
    ],
    end: parseLsn('0/10'),
    commitTimes: [0n],
    skipped: 0,
    unreadable: [],
  };
}

test('an older daemon cannot write behind its successor: not the checkpoint, and no row', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const older = await store.acquire();
  const newer = await store.acquire();
  await expect(store.write(batch(randomUUID()), ['Accepted'], older.epoch)).rejects.toMatchObject({
    code: 'stepped_down',
  });
  await expect(store.keepReconcile(undefined, undefined, older.epoch)).rejects.toMatchObject({ code: 'stepped_down' });
  expect(await logged()).toBe(0);
  expect(await checkpoint()).toBeNull();
  await store.write(batch(randomUUID()), ['Accepted'], newer.epoch);
  expect(await logged()).toBe(1);
  expect(await checkpoint()).toBe('0/10');
  await sql.end();
});

test('rows that are there already stop no batch, although rows are inserted without looking first', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const { epoch } = await store.acquire();
  const known = randomUUID();
  const one = batch(known);
  expect(await store.write(one, ['Accepted'], epoch)).toMatchObject({ inserted: 1, duplicates: 0 });
  for (let i = 0; i < 10; i += 1) await store.write(batch(randomUUID()), ['Accepted'], epoch);
  const both = { ...one, rows: [...batch(randomUUID()).rows, ...one.rows, ...batch(randomUUID()).rows] };
  const written = await store.write(both, ['Accepted', 'Accepted', 'Accepted'], epoch);
  expect(written).toMatchObject({ inserted: 2, duplicates: 1, refused: [] });
  expect(await logged()).toBe(13);
  await sql.end();
});

test('a row that the stream writes while a reconcile does so too is written once', async () => {
  await insertMany(db.sql, 20);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  const session = await db.sql.reserve();
  await session`begin`;
  await session`insert into verification.sms_log (id, phone_number, type)
                select id, phone_number, 'verification' from verification.verifications order by id limit 1`;
  const chunk = patiently(new AbortController().signal, () => store.reconcileChunk(source, undefined, 100));
  await until('the reconcile to wait for it', async () => {
    const waiting = await db.sql`select from pg_locks where locktype = 'transactionid' and not granted`;
    return waiting.length > 0;
  });
  await session`commit`;
  session.release();
  // its gateway id is filled in
  expect(await chunk).toMatchObject({ looked: 20, inserted: 19, completed: 1 });
  expect(await logged()).toBe(20);
  await sql.end();
});

test('a daemon whose connection was cut in the middle of a write steps down when another has taken over', async () => {
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let holding = false;
  const old = start({
    failpoints: {
      beforeWrite: () => {
        holding = true;
        return held;
      },
    },
  });
  await old.streaming();
  await insertVerification(db.sql);
  await until('the old daemon to hold a batch', () => holding);
  await db.sql`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${db.name}`;
  const successor = start();
  await successor.streaming();
  await until('the row', async () => (await logged()) === 1);
  release();
  await until('the old daemon to stand by', () => old.health.mirrorState === 'standby');
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('two daemons: one streams, the other stands by and takes over when the first stops', async () => {
  const first = start();
  await first.streaming();
  const second = start();
  await until('the second to stand by', () => second.health.mirrorState === 'standby');
  await first.stop();
  await second.streaming();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
});

test('a reconcile that is under way keeps no position once another one is due', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const { epoch } = await store.acquire();
  await store.markReconcile('by the one who works', { epoch });
  await store.keepReconcile(randomUUID(), undefined, epoch);
  await store.markReconcile('by the next one');
  await expect(store.keepReconcile(randomUUID(), undefined, epoch)).rejects.toMatchObject({ code: 'stepped_down' });
  await store.markReconcile('by the former one, late', { epoch });
  await store.clearReconcile(epoch);
  expect((await db.sql`select reconcile_due, reconcile_after from smslogd.checkpoint`)[0]).toEqual({
    reconcile_due: 'by the next one',
    reconcile_after: null,
  });
  await sql.end();
});
