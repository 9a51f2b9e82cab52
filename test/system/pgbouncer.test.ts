/** The daemon behind a real PgBouncer in transaction mode, with fewer server connections than the daemon has itself. Only replication goes direct. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { createRoles, DAEMON_ROLE, REPLICATION_ROLE } from '../../src/demo/roles.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { until } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { difference, insertMany } from '../support/verifications.ts';

const PASSWORD = 'made-up';
const POOL = 2;
const SMS = 1_000;
let cluster: Cluster;
let sql: Sql;
let gateway: Simulator;
let bouncer: ChildProcess;
let bouncerPort: number;
let directory: string;
let daemon: Daemon | undefined;

beforeEach(async () => {
  if (spawnSync('pgbouncer', ['--version']).error !== undefined)
    throw new Error('PgBouncer is missing: apt-get install pgbouncer');
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
  bouncer.kill('SIGKILL');
  await gateway.close();
  await sql.end({ timeout: 1 });
  await cluster.remove();
  rmSync(directory, { recursive: true });
});

async function startBouncer(more: readonly string[]): Promise<void> {
  directory = mkdtempSync(join(tmpdir(), 'smslogd-pgbouncer-'));
  chmodSync(directory, 0o755);
  bouncerPort = await freePort();
  const file = (name: string, lines: readonly string[]) => {
    writeFileSync(join(directory, name), lines.map((line) => `${line}\n`).join(''));
    return join(directory, name);
  };
  const users = file('users.txt', [`"${DAEMON_ROLE}" "${PASSWORD}"`]);
  const settings = file('pgbouncer.ini', [
    '[databases]',
    `* = host=127.0.0.1 port=${cluster.port}`,
    '[pgbouncer]',
    'listen_addr = 127.0.0.1',
    `listen_port = ${bouncerPort}`,
    'unix_socket_dir =',
    'auth_type = scram-sha-256',
    `auth_file = ${users}`,
    'pool_mode = transaction',
    `default_pool_size = ${POOL}`,
    ...more,
  ]);
  // it does not run as root
  bouncer = spawn('pgbouncer', [...(process.getuid?.() === 0 ? ['-u', 'nobody'] : []), settings], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const said: string[] = [];
  const lines = createInterface({ input: bouncer.stderr! });
  lines.on('line', (line) => said.push(line));
  const ended = once(bouncer, 'exit').then(() => true);
  await until('PgBouncer to run', async () => {
    if (await Promise.race([ended, Promise.resolve(false)])) throw new Error(`PgBouncer ended:\n${said.join('\n')}`);
    return said.some((line) => line.includes('process up'));
  });
}

test.for([
  ['found by what it refuses', 'auto', []],
  ['found by who answers', 'auto', ['ignore_startup_parameters = options']],
  ['named by the setting', 'true', []],
] as const)(
  'behind PgBouncer in transaction mode, %s, mirror, poller, figures and commands work',
  async ([, pooled, more]) => {
    await startBouncer(more);
    const direct = cluster.url('postgres', REPLICATION_ROLE, PASSWORD);
    const env = {
      DATABASE_URL: cluster.url('postgres', DAEMON_ROLE, PASSWORD).replace(`:${cluster.port}/`, `:${bouncerPort}/`),
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
