/** The connection stays alive whatever blocks the log, a dead one is noticed, and an idle source keeps no WAL. */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { startProxy } from '../support/proxy.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirror: RunningMirror | undefined;

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  await mirror?.stop();
  await db.drop();
});

const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const consumer = async () =>
  (await db.sql`select active_pid from pg_replication_slots where slot_name = ${db.name}`)[0]?.['active_pid'] as number;

/** Waits until so much time has passed by the server's clock. */
async function passed(interval: string): Promise<void> {
  const [{ end }] =
    (await db.sql`select (clock_timestamp() + ${interval}::text::interval)::text as end`) as unknown as [
      { end: string },
    ];
  await until(`${interval} to pass`, async () => {
    const [row] = await db.sql`select clock_timestamp() > ${end}::text::timestamptz as passed`;
    return row?.['passed'] === true;
  });
}

for (const [senderTimeoutMs, blocked, times] of [
  // longer than a socket may be silent that is not paused
  [5_000, 12, 1],
  [0, 1, 2],
] as const) {
  test(`with wal_sender_timeout = ${senderTimeoutMs} a log that is blocked for long does not cost the connection, and is told of once each time: ${times}`, async () => {
    const lines: string[] = [];
    const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
    mirror = startMirror(db, { log, senderTimeoutMs });
    await mirror.streaming();
    const before = await consumer();
    const blocker = await db.sql.reserve();
    const [holder] = await blocker`select pg_backend_pid() as pid`;
    const told = (word: string) => lines.filter((line) => line.includes(word));
    for (let time = 1; time <= times; time += 1) {
      await blocker.unsafe('begin; lock verification.sms_log in access exclusive mode');
      // more than is gathered: the socket is paused
      await insertMany(db.sql, 10_000);
      await passed(`${blocked} s`);
      await until('it to be told', () => told('log_locked').length === time);
      await blocker.unsafe('rollback');
      await until('the rows', async () => (await logged()) === time * 10_000);
      expect(await consumer()).toBe(before);
      await until('its end to be told', () => told('no statement waits for the lock any more').length === time);
    }
    blocker.release();
    expect(told('log_locked').map((line) => (JSON.parse(line) as { holderPid: number }).holderPid)).toEqual(
      Array<unknown>(times).fill(holder?.['pid']),
    );
  });
}

test('whoever gets the lock next is told of, too, once, and its end when nobody has it any more', async () => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  mirror = startMirror(db, { log });
  await mirror.streaming();
  const holders = [await db.sql.reserve(), await db.sql.reserve()] as const;
  const pids: unknown[] = [];
  for (const holder of holders) pids.push((await holder`select pg_backend_pid() as pid`)[0]!['pid']);
  const lock = 'begin; lock verification.sms_log in access exclusive mode';
  const told = () =>
    lines
      .filter((line) => line.includes('log_locked'))
      .map((line) => (JSON.parse(line) as { holderPid: number }).holderPid);
  await holders[0].unsafe(lock);
  const next = holders[1].unsafe(lock).execute();
  await untilLocked('the next one to wait', db.sql, 'verification.sms_log');
  await insertVerification(db.sql);
  await until('the first to be told', () => told().includes(pids[0] as number));
  await holders[0].unsafe('rollback');
  await next;
  await until('the next one to be told', () => told().includes(pids[1] as number));
  await holders[1].unsafe('rollback');
  for (const holder of holders) holder.release();
  const ends = () => lines.filter((line) => line.includes('no statement waits for the lock any more')).length;
  await until('its end to be told', () => ends() > 0);
  expect(new Set(told()).size).toBe(told().length);
  expect(ends()).toBe(1);
});

test('one large transaction that waits behind a lock is as late as its commit is old', async () => {
  mirror = startMirror(db);
  await mirror.streaming();
  const blocker = await db.sql.reserve();
  await blocker.unsafe('begin; lock verification.sms_log in access exclusive mode');
  // more than is gathered: its end is not read before it is written
  await insertMany(db.sql, 20_000);
  const lag = async () => (await mirror!.metrics.mirrorLagSeconds.get()).values[0]!.value;
  await until('the lag to be told', async () => (await lag()) > 2);
  await blocker.unsafe('rollback');
  blocker.release();
  await until('the rows', async () => (await logged()) === 20_000);
  await until('no lag', async () => (await lag()) === 0);
});

test('while the path to the server is dead nothing is said of a lock that a write waited for', async () => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  const url = new URL(db.url);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  mirror = startMirror(db, { log, env: { DATABASE_URL: url.href } });
  await mirror.streaming();
  const blocker = await db.sql.reserve();
  await blocker.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertVerification(db.sql);
  const told = (word: string) => lines.filter((line) => line.includes(word)).length;
  await until('the lock to be told', () => told('log_locked') === 1);
  const opened = proxy.connections;
  proxy.newcomers = 'ignored';
  proxy.stall(60_000);
  await until('it to have tried to connect', () => proxy.connections > opened + 3);
  expect(told('no statement waits')).toBe(0);
  proxy.newcomers = 'forwarded';
  await blocker.unsafe('rollback');
  blocker.release();
  await until('the row', async () => (await logged()) === 1);
  await until('it to be told', () => told('no statement waits') === 1);
  await mirror.stop();
  await proxy.close();
});

test("a role's transaction_timeout does not end the sending of a transaction that takes longer", async ({ skip }) => {
  const [known] = await db.sql`select from pg_settings where name = 'transaction_timeout'`;
  skip(known === undefined, 'this server does not know it');
  const role = `streamer_${db.name}`;
  await db.sql.unsafe(
    `create role ${role} superuser login password 'made-up'; alter role ${role} set transaction_timeout = '500ms';
    alter table verification.verifications add column filler text default repeat('x', 1500)`,
  );
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const env = { DATABASE_REPLICATION_URL: db.url.replace(/[^/]+@/, `${role}:made-up@`) };
  mirror = startMirror(db, { env, failpoints: { beforeWrite: () => held } });
  await mirror.streaming();
  const before = await consumer();
  await insertMany(db.sql, 5_000);
  await passed('1.5 seconds');
  release();
  await until('the rows', async () => (await logged()) === 5_000);
  expect(await consumer()).toBe(before);
  await mirror.stop();
  await db.sql.unsafe(`drop role ${role}`);
});

test('once a write fails for the server is going down, the replication connection is given up', async () => {
  mirror = startMirror(db);
  await mirror.streaming();
  for (const [i, code] of ['57P01', '57P02', '57P03'].entries()) {
    const before = await consumer();
    await db.sql.unsafe(`
      create or replace function going_down() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '${code}'; end $$;
      create trigger going_down before insert on verification.sms_log execute function going_down()`);
    await insertVerification(db.sql);
    await until('it to be given up', async () => (await consumer()) !== before);
    await db.sql`drop trigger going_down on verification.sms_log`;
    await until('the row', async () => (await logged()) === i + 1);
    await mirror.streaming();
  }
});

test.each([
  ['that writes', "wait_event_type = 'Lock'"],
  ['that reads the slot', "backend_type = 'walsender'"],
])('a session %s and that somebody ends is told as that: the server does not stop for it', async (_, which) => {
  const lines: string[] = [];
  mirror = startMirror(db, { log: pino({ level: 'warn' }, { write: (line) => void lines.push(line) }) });
  await mirror.streaming();
  const blocker = await db.sql.reserve();
  await blocker.unsafe('begin; lock verification.sms_log in share mode');
  await insertVerification(db.sql);
  await until('the write to wait', async () => {
    const rows = await db.sql`select from pg_stat_activity where datname = ${db.name} and wait_event_type = 'Lock'`;
    return rows.length > 0;
  });
  await db.sql.unsafe(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${db.name}' and application_name like 'smslogd%' and ${which}`,
  );
  await until('it to be told', () => lines.some((line) => line.includes('57P01')));
  await blocker`rollback`;
  blocker.release();
  await until('the row', async () => (await logged()) === 1);
  const codes = lines.map((line) => (JSON.parse(line) as { code?: string }).code);
  expect(codes).toContain('database_session_ended');
  expect(codes).not.toContain('database_going_down');
});

test('a connection that is open but dead is given up and replaced', async () => {
  const url = new URL(db.env()['DATABASE_REPLICATION_URL']!);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  // the row must come by the stream, not by what is left of a first copy
  mirror = startMirror(db, { env: { DATABASE_REPLICATION_URL: url.href, SNAPSHOT: 'never' } });
  await mirror.streaming();
  const opened = proxy.connections;
  proxy.stall();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
  expect(proxy.connections).toBeGreaterThan(opened);
  await mirror.stop();
  await proxy.close();
});

test('where the host of every connection goes away the other host of the address is taken, for the stream too', async () => {
  const { hostname: host, port } = new URL(db.url);
  const proxies = [await startProxy({ host, port: Number(port) }), await startProxy({ host, port: Number(port) })];
  const both = (url: string) =>
    `${url.replace(/@[^/]+/, `@${proxies.map((proxy) => `${host}:${proxy.port}`).join()}`)}&target_session_attrs=read-write`;
  const env = db.env();
  mirror = startMirror(db, {
    env: {
      DATABASE_URL: both(db.url),
      DATABASE_REPLICATION_URL: both(env['DATABASE_REPLICATION_URL']!),
      SNAPSHOT: 'never',
    },
  });
  await mirror.streaming();
  const [first, second] = proxies;
  expect(second!.connections).toBe(0);
  const before = await consumer();
  await first!.close();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
  await until('another stream', async () => ![before, null].includes(await consumer()));
  expect(second!.connections).toBeGreaterThan(1);
  await mirror.stop();
  await second!.close();
});

test.each([1, 10_000])(
  'when the path of every connection dies in silence while %d rows wait for a lock, and the socket is paused for many, nothing is held up',
  async (count) => {
    const url = new URL(db.url);
    const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
    url.port = String(proxy.port);
    mirror = startMirror(db, { env: { DATABASE_URL: url.href } });
    await mirror.streaming();
    const locked = await db.sql.reserve();
    await locked.unsafe('begin; lock verification.sms_log in access exclusive mode');
    await insertMany(db.sql, count);
    await untilLocked('the write to wait', db.sql);
    proxy.stall();
    await locked.unsafe('rollback');
    locked.release();
    await until('the rows', async () => (await logged()) === count);
    await insertVerification(db.sql);
    await until('the next row', async () => (await logged()) === count + 1);
    await mirror.stop();
    await proxy.close();
  },
);

test('an idle source with busy other tables keeps less than two WAL segments', async () => {
  mirror = startMirror(db);
  await mirror.streaming();
  await db.sql`create table busy (filler text)`;
  for (let round = 0; round < 6; round += 1) {
    await db.sql`insert into busy select repeat('x', 1000) from generate_series(1, 12000)`;
  }
  await until('the slot to follow', async () => {
    const [row] = await db.sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) < 1000000 as near
                                 from pg_replication_slots where slot_name = ${db.name}`;
    return row?.['near'] === true;
  });
  await until('the WAL to be released', async () => {
    // a snapshot of running transactions, which moves restart_lsn, is written by checkpoints
    await db.sql`checkpoint`;
    const [row] = await db.sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) < 2 * 16777216 as small
                                 from pg_replication_slots where slot_name = ${db.name}`;
    return row?.['small'] === true;
  });
});
