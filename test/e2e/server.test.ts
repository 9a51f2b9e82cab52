/** A server that stops, crashes, or throws the slot's WAL away. */
import { execFileSync } from 'node:child_process';
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { formOf } from '../../src/mirror/apply.ts';
import { runApplyLoop } from '../../src/mirror/apply-loop.ts';
import { describeServer } from '../../src/replication/server.ts';
import { describeSlot } from '../../src/mirror/slot.ts';
import { createStore } from '../../src/mirror/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

let server: Cluster;
let db: TestDatabase;
let mirror: RunningMirror;
let lines: string[];
const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) });

/** The codes of the warnings so far that speak of slot, checkpoint, database or missing rows. */
const warnings = () =>
  lines
    .map((line) => (JSON.parse(line) as { code: string }).code)
    .filter((code) => /^(slot|checkpoint|rows)_|^database_changed/.test(code));

beforeEach(async () => {
  lines = [];
  server = await createServer({ max_slot_wal_keep_size: '1MB', min_wal_size: '32MB', max_wal_size: '48MB' });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  mirror = startMirror(db, { log });
  await mirror.streaming();
});
afterEach(async () => {
  await mirror.stop();
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });

/** A stream with nothing beside it that asks the server anything. */
async function idleStream(): Promise<{ ended: Promise<unknown> }> {
  const config = db.config();
  const sql = openDatabase(config, { max: 1, name: 'test' });
  const [source, { confirmed }] = [await describeSource(sql, config), (await describeSlot(sql, db.name))!];
  const deps = { config, store: createStore(sql, config), log: silentLog, metrics: createMetrics('test') };
  const health = { beat: () => {}, waits: () => {} };
  const ignored = {
    health,
    caughtUp: () => {},
    ended: () => {},
    opened: async () => {},
    replication: () => ({ name: 'mirror' }),
    settled: async (tasks: readonly Promise<unknown>[]) => void (await Promise.allSettled(tasks)),
    raiseTerm: () => Promise.resolve(0n),
  };
  const start = {
    server: await describeServer(sql),
    source,
    form: formOf(source, config),
    term: 0n,
    durable: confirmed,
    resumeAt: confirmed,
    senderTimeoutMs: 0,
  };
  let ended!: Promise<unknown>;
  await new Promise<void>((streams) => {
    ended = runApplyLoop({ ...deps, ...ignored }, start, new AbortController().signal, () => (streams(), []))
      .catch(() => {})
      .then(() => sql.end({ timeout: 1 }));
  });
  return { ended };
}

// the server waits as long as its readers take: one that held it up would do so for ever
test("the server's fast shutdown is not held up, neither by an idle stream nor by a write in hand, and the mirror goes on when it is back", async () => {
  await db.sql`alter system set wal_sender_timeout = 0`;
  await db.sql`select pg_reload_conf()`;
  await mirror.stop();
  // alone, so that nothing but the stream itself can see that the server goes down
  const idle = await idleStream();
  await server.stop('fast');
  await idle.ended;
  await server.start();
  mirror = startMirror(db);
  await mirror.streaming();
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertMany(db.sql, 100);
  await untilLocked('the write to wait', db.sql);
  await server.stop('fast');
  await server.start();
  await insertMany(db.sql, 100);
  await everyRowOnce();
});

test('a standby that is away, and that the server waits for, is told of, and its end, too', async () => {
  const lines: string[] = [];
  const told = (word: string) => lines.filter((line) => line.includes(word));
  const set = async (name: string, value: string) => {
    await db.sql.unsafe(`alter system set ${name} = '${value}'`);
    await db.sql`select pg_reload_conf()`;
    await until('it to be taken', async () => (await db.sql.unsafe(`show ${name}`))[0]?.[name] === value);
  };
  // from the first commit of the mirror's life on
  await mirror.stop();
  await set('synchronous_standby_names', 'absent');
  const talking = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  mirror = startMirror(db, { log: talking });
  await until('it to be told', () => told('standby_missing').length > 0);
  await set('synchronous_standby_names', '');
  await until('its end to be told', () => told('no commit waits for a standby any more').length > 0);
  const expected: object[] = [{ standbyNames: 'absent' }];
  const [known] = await db.sql`select from pg_settings where name = 'synchronized_standby_slots'`;
  if (known !== undefined) {
    await mirror.streaming();
    await set('synchronized_standby_slots', 'absent');
    await insertMany(db.sql, 10);
    await until('it to be told', () => told('standby_missing').length > 1);
    await set('synchronized_standby_slots', '');
    await until('its end to be told', () => told('streaming continues').length > 0);
    expected.push({ standbySlots: 'absent' });
  }
  await insertMany(db.sql, 10);
  await everyRowOnce();
  expect(told('standby_missing').map((line) => JSON.parse(line) as object)).toMatchObject(expected);
});

test('an immediate shutdown is told as the server tells it, and not as a path that died', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  await sql`select`;
  const waiting = Promise.allSettled([sql`select pg_sleep(600)`]);
  await until(
    'it to run',
    async () => (await db.sql`select from pg_stat_activity where wait_event = 'PgSleep'`).length > 0,
  );
  await server.stop('immediate');
  expect(await waiting).toMatchObject([{ reason: { code: '57P01', severity: 'WARNING' } }]);
  await sql.end({ timeout: 1 });
  await server.start();
});

test("after the server's crash, under load, every row is in the log once", async () => {
  for (let round = 0; round < 3; round += 1) {
    const writing = (async () => {
      for (;;) await insertMany(db.sql, 50);
    })().catch(() => {});
    await until(
      'some rows',
      async () =>
        (await db.sql`select from verification.sms_log limit ${round * 100 + 100}`).length >= round * 100 + 100,
    );
    await server.stop('immediate');
    await writing;
    await server.start();
  }
  await insertMany(db.sql, 10);
  await everyRowOnce();
});

const confirmed = async () =>
  (await db.sql`select confirmed_flush_lsn::text as lsn from pg_replication_slots`)[0]?.['lsn'] as string;

test('a confirmed position that a crash took back lets transactions come again, and every row is in the log once', async () => {
  await db.sql`checkpoint`;
  const saved = await confirmed();
  await insertMany(db.sql, 100);
  await insertMany(db.sql, 100);
  await everyRowOnce();
  await until('the slot to be confirmed', async () => {
    const [row] =
      await db.sql`select s.confirmed_flush_lsn >= c.lsn as so from pg_replication_slots s, smslogd.checkpoint c`;
    return row?.['so'] === true;
  });
  await mirror.stop();
  await server.stop('immediate');
  await server.start();
  const [back] =
    await db.sql`select ${await confirmed()}::text::pg_lsn < c.lsn as so, c.lsn > ${saved}::text::pg_lsn as ahead from smslogd.checkpoint c`;
  expect(back).toEqual({ so: true, ahead: true });
  mirror = startMirror(db);
  await mirror.streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  expect((await mirror.metrics.mirrorDuplicates.get()).values[0]?.value).toBeGreaterThanOrEqual(2);
});

/** Copies the data directory with its owners; the server stands still. */
const copy = (from: string, to: string) => {
  rmSync(to, { recursive: true, force: true });
  execFileSync('cp', ['-a', from, to]);
};
const timeline = async () => (await db.sql`select timeline_id as id from pg_control_checkpoint()`)[0]?.['id'] as number;

// a new timeline alone is no fault of the slot
test.each([
  ['with its slot', []],
  ['without its slot', ['slot_missing']],
  ['with the slot of the later state', ['slot_lost']],
])(
  'after a restore to an older base backup %s, on a new timeline, under a running daemon, every row is in the log once',
  async (how, told) => {
    const backup = join(server.directory, 'backup');
    await insertMany(db.sql, 50);
    await everyRowOnce();
    await server.stop('fast');
    copy(server.dataDirectory, backup);
    await server.start();
    await insertMany(db.sql, 500);
    await everyRowOnce();
    // the position of now on disk, further than the backup will be for some time
    await db.sql`select pg_switch_wal()`;
    await db.sql`checkpoint`;
    await server.stop('fast');
    if (how === 'with the slot of the later state')
      copy(join(server.dataDirectory, 'pg_replslot'), join(backup, 'pg_replslot'));
    if (how === 'without its slot') execFileSync('find', [join(backup, 'pg_replslot'), '-mindepth', '1', '-delete']);
    copy(backup, server.dataDirectory);
    // recovery to the end of what is there, then a timeline of its own
    appendFileSync(join(server.dataDirectory, 'postgresql.auto.conf'), "restore_command = 'false'\n");
    writeFileSync(join(server.dataDirectory, 'recovery.signal'), '');
    await server.start();
    await insertMany(db.sql, 20);
    await everyRowOnce();
    await until('it to stream', () => mirror.health.mirrorState === 'streaming');
    await insertMany(db.sql, 20);
    await everyRowOnce();
    expect((await db.sql`select count(*)::int as rows from verification.sms_log`)[0]).toEqual({ rows: 90 });
    await db.sql`checkpoint`;
    expect(await timeline()).toBe(2);
    expect(warnings()).toEqual(told);
  },
);

test('a daemon that is gone does not fill the disk where max_slot_wal_keep_size is set', async () => {
  await mirror.stop();
  await db.sql`create table filler (filler text)`;
  for (let round = 0; round < 8; round += 1) {
    await db.sql`insert into filler select repeat('x', 1000) from generate_series(1, 25000)`;
    await db.sql`checkpoint`;
  }
  // 200 MiB and more were written; max_wal_size and the limit of the slot are 49 MiB
  const [row] =
    await db.sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as written, (select sum(size) from pg_ls_waldir())::float8 as kept`;
  expect(row?.['written']).toBeGreaterThan(200 * 1024 * 1024);
  expect(row?.['kept']).toBeLessThan(100 * 1024 * 1024);
});

test('a slot that really lost its WAL is made again once, and what passed is reconciled', async () => {
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await insertMany(db.sql, 100);
  await db.sql`create table filler (filler text)`;
  await until('the slot to be lost', async () => {
    await db.sql`insert into filler select repeat('x', 1000) from generate_series(1, 20000)`;
    await db.sql`checkpoint`;
    const [slot] = await db.sql`select wal_status from pg_replication_slots`;
    return slot?.['wal_status'] === 'lost';
  });
  mirror = startMirror(db, { log });
  await mirror.streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  expect(warnings()).toEqual(['slot_lost']);
  const [slot] =
    await db.sql`select wal_status, to_jsonb(s) ->> 'failover' as failover, current_setting('server_version_num')::int as version
                                from pg_replication_slots s`;
  expect(slot).toMatchObject({ wal_status: 'reserved', failover: slot?.['version'] >= 170_000 ? 'true' : null });
});

test('a slot whose WAL files somebody took away is made again once, and what passed is reconciled', async () => {
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await insertMany(db.sql, 10);
  const [slot] = await db.sql`select pg_walfile_name(restart_lsn) as file from pg_replication_slots`;
  await db.sql`select pg_switch_wal()`;
  rmSync(join(server.dataDirectory, 'pg_wal', slot?.['file'] as string));
  mirror = startMirror(db);
  await everyRowOnce();
  await mirror.streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
});
