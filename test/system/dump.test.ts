/** A dump taken under a running daemon and restored on another server, with the programs of Debian's PostgreSQL: docs/operations.md says how. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { createRoles, DAEMON_ROLE, REPLICATION_ROLE } from '../../src/demo/roles.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { until } from '../support/database.ts';
import { debianBinaries } from '../support/debian.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { difference, insertMany } from '../support/verifications.ts';

const PASSWORD = 'made-up';
const bin = debianBinaries();
let servers: Cluster[];
let daemons: Daemon[];
let connections: Sql[];

beforeEach(() => {
  [servers, daemons, connections] = [[], [], []];
});
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await Promise.all(connections.map((sql) => sql.end({ timeout: 1 })));
  await Promise.all(servers.map((server) => server.remove()));
});

async function server(): Promise<{ cluster: Cluster; admin: string; sql: Sql }> {
  const cluster = await createCluster({ binaries: bin, settings: { fsync: 'off' } });
  servers.push(cluster);
  const admin = cluster.url('postgres');
  const sql = openDatabase(loadConfig({ DATABASE_URL: admin }), { max: 2, name: 'test' });
  connections.push(sql);
  await createRoles(sql, PASSWORD);
  await sql.unsafe('create role otp_owner');
  return { cluster, admin, sql };
}

async function settings(cluster: Cluster): Promise<Record<string, string>> {
  return {
    DATABASE_URL: cluster.url('postgres', DAEMON_ROLE, PASSWORD),
    DATABASE_REPLICATION_URL: cluster.url('postgres', REPLICATION_ROLE, PASSWORD),
    HTTP_PORT: '0',
    // nobody answers there: what waits for the gateway waits
    IP2SMS_URL: `http://127.0.0.1:${await freePort()}/ip2sms/`,
    IP2SMS_LOGIN: 'login',
    IP2SMS_PASSWORD: 'password',
  };
}

function start(env: Record<string, string>): Daemon {
  const daemon = startDaemon(env);
  daemons.push(daemon);
  return daemon;
}

function runProgram(program: string, words: readonly string[]): void {
  const { status, stderr } = spawnSync(join(bin, program), words, { encoding: 'utf8' });
  if (status !== 0 || stderr !== '') throw new Error(`${program}: ${stderr}`);
}

test('a dump taken under a running daemon, restored on another server, goes on there with every row once', async () => {
  const old = await server();
  await createSource(old.sql);
  await migrate(loadConfig({ DATABASE_URL: old.admin }), { role: DAEMON_ROLE, say: () => {} });
  start(await settings(old.cluster));
  const dumped = new AbortController();
  const writing = (async () => {
    while (!dumped.signal.aborted) await insertMany(old.sql, 10);
  })();
  await until(
    'some rows in the log',
    async () => (await old.sql`select from verification.sms_log limit 500`).length === 500,
  );
  const file = join(old.cluster.directory, 'dump');
  runProgram('pg_dump', ['-Fc', '-f', file, '-d', old.admin]);
  dumped.abort();
  await writing;

  const restored = await server();
  runProgram('pg_restore', ['--exit-on-error', '-d', restored.admin, file]);
  const env = await settings(restored.cluster);
  const daemon = start(env);
  await daemon.line('it reconciles', (line) => line.includes('"reconcile done"'));
  await insertMany(restored.sql, 10);
  await until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(restored.sql);
    return missing === 0 && surplus === 0;
  });
  const [queue] = await restored.sql`
    select count(*)::int as open, count(p.id)::int as queued from verification.sms_log l left join smslogd.sms_poll p using (id)`;
  expect(queue?.['queued']).toBe(queue?.['open']);
  const verify = startProcess(['verify'], env);
  expect(await verify.exited).toBe(0);
  const doctor = startProcess(['doctor', '--json'], env);
  await doctor.exited;
  const { checks } = JSON.parse(doctor.lines.join('\n')) as { checks: { name: string; level: string }[] };
  expect(checks.filter(({ level }) => level === 'FAIL').map(({ name }) => name)).toEqual(['gateway']);
});
