/** The daemon behind a real PgBouncer in transaction mode, with fewer server connections than the daemon has itself. Only replication goes direct. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Sql } from 'postgres';
import type { Cluster } from '../../src/demo/cluster.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { startBouncer, type Bouncer } from '../support/bouncer.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { connect, createServer } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { difference, insertMany } from '../support/verifications.ts';

const POOL = 2;
const SMS = 1_000;
let cluster: Cluster;
let db: TestDatabase;
let sql: Sql;
let gateway: Simulator;
let bouncer: Bouncer | undefined;
let daemon: Daemon | undefined;

beforeEach(async () => {
  cluster = await createServer();
  db = await createDatabase({ adminUrl: cluster.url('postgres') });
  ({ sql } = db);
  gateway = await startSimulator({ login: 'login', password: 'password' });
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  await bouncer?.close();
  await gateway.close();
  await db.drop();
  await cluster.remove();
});

test.for([
  ['found by what it refuses', 'auto', []],
  ['found by who answers', 'auto', ['ignore_startup_parameters = options']],
  ['named by the setting', 'true', []],
] as const)(
  'behind PgBouncer in transaction mode, %s, mirror, poller, figures and commands work',
  { timeout: 180_000 },
  async ([, pooled, more]) => {
    bouncer = await startBouncer({ url: db.url, pool: POOL, more });
    const pooling = { DATABASE_URL: bouncer.url, DATABASE_POOLED: pooled };
    const env = { ...db.env({ IP2SMS_URL: gateway.url }), ...pooling };
    await insertMany(sql, SMS / 2);
    for (let n = 1; n <= SMS / 2; n += 1) gateway.load(String(6_614_000_000_000 + n), fate());
    daemon = startDaemon(env);
    const url = await daemon.url();
    await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
    await insertMany(sql, SMS / 2);

    await until('every SMS to be delivered', async () => {
      const connections = await sql`
      select count(*)::int as n from pg_stat_activity where usename = ${DAEMON_ROLE} and backend_type = 'client backend'`;
      expect(connections[0]?.['n']).toBeLessThanOrEqual(POOL);
      const [row] = await sql`select count(*)::int as n from verification.sms_log where gateway_status = 'Delivered'`;
      return row?.['n'] === SMS;
    });
    expect(await difference(sql)).toEqual({ missing: 0, surplus: 0 });
    await until('it to be ready', async () => (await fetch(`${url}/readyz`)).status === 200);
    await until('the figures', async () =>
      (await (await fetch(`${url}/metrics`)).text()).includes(
        `smslogd_period_sms{type="verification",period="today",status="Delivered"} ${SMS}\n`,
      ),
    );
    // the hours of SMS that still change are counted again after a rest of 99 times as long as it took
    const counted = async () => {
      const [row] = await sql`select sum(sms)::int as n from smslogd.sms_hourly where status = 'Delivered'`;
      return row?.['n'] === SMS;
    };
    await until('the stored counters', counted, 90);
    for (const command of ['verify', 'doctor']) {
      const run = startProcess([command], env);
      expect(await run.exited, `${command}: ${run.lines.join('\n')}${run.stderr()}`).toBe(0);
    }
    expect(daemon.lines.filter((line) => !line.includes('"level":"info"'))).toEqual([]);
    daemon.kill('SIGTERM');
    expect(await daemon.exited, `the last it said: ${daemon.lines.slice(-3).join('\n')}`).toBe(0);

    // the daemon's connections are the next client's: nothing of a session may stay on them
    const next = openDatabase(db.config(pooling), { max: POOL, name: 'test' });
    const left = () => next`select count(*)::int as n from pg_prepared_statements, pg_sleep(0.1)`;
    const found = await Promise.all(Array.from({ length: POOL }, left));
    expect(found.map(([row]) => row?.['n'])).toEqual(Array.from({ length: POOL }, () => 0));
    await next.end({ timeout: 1 });
  },
);

test('where only the path of the session that writes the log dies in silence, every row is in the log within half a minute', async () => {
  const [user, password] = [new URL(db.url).username, new URL(db.url).password];
  bouncer = await startBouncer({ url: db.url, pool: 10, more: [`admin_users = ${user}`] });
  const proxy = await startProxy({ host: 'localhost', port: Number(new URL(bouncer.url).port) });
  const through = new URL(bouncer.url);
  through.port = String(proxy.port);
  daemon = startDaemon({ ...db.env({ IP2SMS_URL: gateway.url }), DATABASE_URL: through.href });
  await daemon.line('its first copy', (line) => line.includes('"reconcile done"'));
  const everyRow = () => until('every row to be in the log', async () => (await difference(sql)).missing === 0, 30);
  await insertMany(sql, 10);
  await everyRow();

  const console = new URL(bouncer.url);
  console.pathname = 'pgbouncer';
  const admin = connect(console.href, { max: 1, fetch_types: false, username: user, password });
  const clients = await admin.unsafe<{ application_name: string; port: number }[]>('show clients').simple();
  const writers = clients.filter(({ application_name: name }) => name.startsWith('smslogd apply '));
  expect(writers).toHaveLength(1);
  proxy.stall(
    undefined,
    writers.map(({ port }) => port),
  );
  await insertMany(sql, 10);
  await everyRow();
  await admin.end({ timeout: 1 });
  await proxy.close();
});

test("behind one that adds its clients' addresses to the names of their sessions it streams, and tells of a lock", async () => {
  bouncer = await startBouncer({ url: db.url, pool: 10, more: ['application_name_add_host = 1'] });
  daemon = startDaemon({ ...db.env({ IP2SMS_URL: gateway.url }), DATABASE_URL: bouncer.url });
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const holder = connect(db.superuser.url, { max: 1 });
  await holder.unsafe('begin; lock verification.sms_log in exclusive mode');
  await insertMany(sql, 10);
  await daemon.line('the lock', (line) => line.includes('"log_locked"'));
  await holder.end({ timeout: 0 });
  await until('every row to be in the log', async () => (await difference(sql)).missing === 0);
});

const fate = () => [
  { status: 'Accepted', at: Date.now() - 5_000 },
  { status: 'Delivered', at: Date.now() - 1_000 },
];
