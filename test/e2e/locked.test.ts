/** What stands in the daemon's way outside of it: a locked log, a database that is not there. It waits, says so, and does no harm. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DAEMON_CONNECTIONS } from '../../src/postgres/connections.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { startGateway, reply, type TestGateway } from '../support/gateway.ts';
import { createServer } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { difference, insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let gateway: TestGateway;
let daemons: Daemon[];

beforeEach(async () => {
  db = await createDatabase();
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  daemons = [];
});
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map(({ exited }) => exited));
  await gateway.close();
  await db.drop();
});

const start = (env: Record<string, string> = {}): Daemon => {
  const daemon = startDaemon(db.env({ IP2SMS_URL: gateway.url, ...env }));
  daemons.push(daemon);
  return daemon;
};
const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });

test.each([
  ['smslogd.sms_poll', 'poller'],
  ['smslogd.sms_poll', 'mirror'],
  ['smslogd.leader', 'poller'],
  ['smslogd.leader', 'mirror'],
  ['smslogd.checkpoint', 'mirror'],
  ['verification.sms_log', 'mirror'],
])('while %s is missing a daemon (%s) names it and is not ready; it goes on once it is back', async (table, loops) => {
  const daemon = start({ LOOPS: loops });
  const url = await daemon.url();
  const ready = async () => (await fetch(`${url}/readyz`)).status;
  await until('it to be ready', async () => (await ready()) === 200);
  const [schema, name] = table.split('.');
  await db.sql.unsafe(`alter table ${table} rename to elsewhere`);
  await insertMany(db.sql, 3);
  const part = table === 'smslogd.leader' ? '"part":"lease"' : `"loop":"${loops}"`;
  const isMissed = (line: string) => line.includes('"object_missing"') && line.includes(part);
  const line = await daemon.line('it to be told', isMissed);
  expect(JSON.parse(line)).toMatchObject({ level: 'warn', msg: `${table} is missing in the database (42P01)` });
  await until('it not to be ready', async () => (await ready()) === 503);
  expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/smslogd_errors_total\{code="object_missing"\} [1-9]/);
  await db.sql.unsafe(`alter table ${schema}.elsewhere rename to ${name}`);
  await until('it to be ready again', async () => (await ready()) === 200);
  expect(daemon.lines.filter(isMissed)).toHaveLength(1);
  if (loops === 'mirror') await everyRowOnce();
});

test.each([
  ['smslogd.sms_poll', 'due_at', 'poller', 'the column due_at of a table of smslogd'],
  ['verification.sms_log', 'body', 'mirror', 'a column of verification.sms_log'],
])(
  'while %s lacks its column %s a daemon (%s) says so and is not ready; it goes on once it is back',
  async (table, column, loops, said) => {
    const daemon = start({ LOOPS: loops });
    const url = await daemon.url();
    const ready = async () => (await fetch(`${url}/readyz`)).status;
    await until('it to be ready', async () => (await ready()) === 200);
    await db.sql.unsafe(`alter table ${table} rename ${column} to elsewhere`);
    await insertMany(db.sql, 3);
    const isMissed = (line: string) => line.includes('"object_missing"') && line.includes(`"loop":"${loops}"`);
    const line = await daemon.line('it to be told', isMissed);
    expect(JSON.parse(line)).toMatchObject({ level: 'warn', msg: `${said} is missing in the database (42703)` });
    await until('it not to be ready', async () => (await ready()) === 503);
    await db.sql.unsafe(`alter table ${table} rename elsewhere to ${column}`);
    await until('it to be ready again', async () => (await ready()) === 200);
  },
);

test('a table that was dropped, and its lease, are told of; migrate makes both again, and the daemon goes on', async () => {
  const daemon = start();
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  await insertMany(db.sql, 3);
  await everyRowOnce();
  await db.sql`drop table smslogd.sms_poll, smslogd.leader cascade`;
  await daemon.line('the queue', (line) => line.includes('smslogd.sms_poll is missing'));
  await daemon.line('the lease', (line) => line.includes('smslogd.leader is missing'));
  await migrate(db.owner.config(), { say: () => {} });
  await insertMany(db.sql, 3);
  await everyRowOnce();
  expect((await db.sql`select from smslogd.sms_poll`).length).toBeGreaterThan(2);
});

const isTold = (line: string) => line.includes('"log_locked"');

test.each([
  ['smslogd.migrations', 'mirror,poller'],
  ['smslogd.settings', 'poller'],
])(
  'while somebody holds a lock of %s a daemon (%s) that starts says once what it waits for, is alive and not ready, and goes on afterwards',
  async (table, loops) => {
    const session = await db.sql.reserve();
    const [holder] = await session<{ pid: number }[]>`select pg_backend_pid() as pid`;
    await session.unsafe(`begin; lock ${table} in access exclusive mode`);
    const daemon = start({ LOOPS: loops });
    const line = await daemon.line('what it waits for', isTold);
    expect(JSON.parse(line)).toMatchObject({ level: 'warn', table, holderPid: holder!.pid });
    const url = await daemon.url();
    const status = async (path: string) => (await fetch(`${url}/${path}`)).status;
    expect(await status('healthz')).toBe(200);
    expect(await status('readyz')).toBe(503);
    await session.unsafe('rollback');
    session.release();
    await until('it to be ready', async () => (await status('readyz')) === 200);
    await daemon.line('the end of it', (text) => text.includes('no statement waits for the lock any more'));
    expect(daemon.lines.filter(isTold)).toHaveLength(1);
  },
);

test('a log that is locked for long makes statements wait, not sessions: their number stays, no connection is cut, and the path is not taken for dead', async () => {
  const daemon = start();
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  await insertMany(db.sql, 50);
  await everyRowOnce();
  const sessions = async () =>
    await db.sql<{ pid: number; waits: boolean }[]>`
      select pid, wait_event_type = 'Lock' as waits from pg_stat_activity
       where datname = ${db.name} and application_name like 'smslogd %'`;
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertMany(db.sql, 10_000);
  await until('writes to wait', async () => (await sessions()).filter(({ waits }) => waits).length >= 2);
  // several times as long as a statement may take before it is looked for
  const [{ end }] = (await db.sql`select (clock_timestamp() + interval '12 seconds')::text as end`) as unknown as [
    { end: string },
  ];
  const url = await daemon.url();
  const pids = new Set<number>();
  let most = 0;
  await until(
    'the lock to have lasted',
    async () => {
      // as Prometheus and people do
      await Promise.all(['/metrics', '/', '/status.json'].map(async (path) => await (await fetch(url + path)).text()));
      const now = await sessions();
      most = Math.max(most, now.length);
      for (const { pid } of now) pids.add(pid);
      const [row] = await db.sql`select clock_timestamp() > ${end}::text::timestamptz as passed`;
      return row?.['passed'] === true;
    },
    60,
  );
  expect(most).toBeLessThanOrEqual(DAEMON_CONNECTIONS);
  expect(pids.size).toBeLessThanOrEqual(DAEMON_CONNECTIONS);
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  await session.unsafe('rollback');
  session.release();
  await everyRowOnce();
  expect(daemon.lines.filter((line) => /database_unreachable|stream_stalled/.test(line))).toEqual([]);
  expect(daemon.lines.filter(isTold)).toHaveLength(1);
});

test('a daemon that starts before its database waits for it, with /healthz well and /readyz not, and says so once', async () => {
  const server = await createServer();
  const there = await createDatabase({ adminUrl: server.url('postgres') });
  try {
    await server.stop();
    const daemon = startDaemon(there.env({ IP2SMS_URL: gateway.url }));
    daemons.push(daemon);
    const url = await daemon.url();
    await daemon.line('it waits', (line) => line.includes('"waiting":true'));
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    expect((await fetch(`${url}/readyz`)).status).toBe(503);
    await server.start();
    await daemon.line('it streams', (line) => line.includes('the mirror streams'));
    await until('it to be ready', async () => (await fetch(`${url}/readyz`)).status === 200);
    expect(daemon.lines.filter((line) => line.includes('"waiting":true'))).toHaveLength(1);
    // and it says what is amiss, not what it cannot know
    await server.stop();
    await until('the page to tell it', async () => {
      const page = await (await fetch(`${url}/`)).text();
      return page.includes('PostgreSQL cannot be reached');
    });
    const { verdict } = (await (await fetch(`${url}/status.json`)).json()) as {
      verdict: { level: string; findings: { sentence: string }[] };
    };
    expect(verdict.level).toBe('unknown');
    expect(verdict.findings.map(({ sentence }) => sentence).join()).not.toContain('another daemon');
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    await server.start();
    await until('it to be ready again', async () => (await fetch(`${url}/readyz`)).status === 200);
  } finally {
    for (const daemon of daemons) daemon.kill('SIGKILL');
    await server.remove();
  }
});

/** Holds what a daemon reads first. */
const lockOfStart = async () => {
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock smslogd.migrations in access exclusive mode');
  return async () => {
    await session.unsafe('rollback');
    session.release();
  };
};
const startToWait = () => untilLocked('the start to wait', db.sql);

test('a daemon whose path to the database dies while it starts goes on by another connection, and where it is silent SIGTERM ends it with 0', async () => {
  const url = new URL(db.url);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  const unlock = await lockOfStart();
  const daemon = start({ DATABASE_URL: url.href });
  await startToWait();
  proxy.stall();
  await unlock();
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  expect((await fetch(`${await daemon.url()}/healthz`)).status).toBe(200);
  proxy.holds = true;
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  await proxy.close();
});

test('SIGTERM ends a daemon with 0 whose start waits for a lock', async () => {
  const unlock = await lockOfStart();
  const daemon = start();
  await startToWait();
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  await unlock();
});
