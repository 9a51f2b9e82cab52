/** The daemon behind a real PgBouncer in transaction mode, with fewer server connections than the daemon has itself. Only replication goes direct. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createCluster, type Cluster } from '../../src/demo/cluster.ts';
import { createRoles, DAEMON_ROLE, REPLICATION_ROLE } from '../../src/demo/roles.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { startBouncer, type Bouncer } from '../support/bouncer.ts';
import { until } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { difference, insertMany } from '../support/verifications.ts';

const PASSWORD = 'made-up';
const POOL = 2;
const SMS = 1_000;
let cluster: Cluster;
let sql: Sql;
let gateway: Simulator;
let bouncer: Bouncer | undefined;
let daemon: Daemon | undefined;

beforeEach(async () => {
  cluster = await createCluster({ settings: { fsync: 'off' } });
  const admin = cluster.url('postgres');
  sql = openDatabase(loadConfig({ DATABASE_URL: admin }), { max: 2, name: 'test' });
  await createRoles(sql, PASSWORD);
  await createSource(sql);
  await migrate(loadConfig({ DATABASE_URL: admin }), { role: DAEMON_ROLE, say: () => {} });
  gateway = await startSimulator({ login: 'login', password: 'password' });
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  await bouncer?.close();
  await gateway.close();
  await sql.end({ timeout: 1 });
  await cluster.remove();
});

test.for([
  ['found by what it refuses', 'auto', []],
  ['found by who answers', 'auto', ['ignore_startup_parameters = options']],
  ['named by the setting', 'true', []],
] as const)(
  'behind PgBouncer in transaction mode, %s, mirror, poller, figures and commands work',
  async ([, pooled, more]) => {
    bouncer = await startBouncer({ port: cluster.port, role: DAEMON_ROLE, password: PASSWORD, pool: POOL, more });
    const direct = cluster.url('postgres', REPLICATION_ROLE, PASSWORD);
    const env = {
      DATABASE_URL: cluster.url('postgres', DAEMON_ROLE, PASSWORD).replace(`:${cluster.port}/`, `:${bouncer.port}/`),
      DATABASE_REPLICATION_URL: direct,
      DATABASE_POOLED: pooled,
      HTTP_PORT: '0',
      IP2SMS_URL: gateway.url,
      IP2SMS_LOGIN: 'login',
      IP2SMS_PASSWORD: 'password',
    };
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
    await until('the stored counters', async () => {
      const [row] = await sql`select sum(sms)::int as n from smslogd.sms_hourly where status = 'Delivered'`;
      return row?.['n'] === SMS;
    });
    for (const command of ['verify', 'doctor']) {
      const run = startProcess([command], env);
      expect(await run.exited, `${command}: ${run.lines.join('\n')}${run.stderr()}`).toBe(0);
    }
    expect(daemon.lines.filter((line) => !line.includes('"level":"info"'))).toEqual([]);
    daemon.kill('SIGTERM');
    expect(await daemon.exited).toBe(0);

    // the daemon's connections are the next client's: nothing of a session may stay on them
    const next = openDatabase(loadConfig(env), { max: POOL, name: 'test' });
    const left = () => next`select count(*)::int as n from pg_prepared_statements, pg_sleep(0.1)`;
    const found = await Promise.all(Array.from({ length: POOL }, left));
    expect(found.map(([row]) => row?.['n'])).toEqual(Array.from({ length: POOL }, () => 0));
    await next.end({ timeout: 1 });
  },
);

const fate = () => [
  { status: 'Accepted', at: Date.now() - 5_000 },
  { status: 'Delivered', at: Date.now() - 1_000 },
];
