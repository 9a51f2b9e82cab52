/** A dump taken under a running daemon and restored on another server, with the programs of Debian's PostgreSQL: docs/operations.md says how. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { createDatabase, until, type Less, type TestDatabase } from '../support/database.ts';
import { debianBinaries } from '../support/debian.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

const bin = debianBinaries();
let servers: Cluster[];
let daemons: Daemon[];
let databases: TestDatabase[];

beforeEach(() => {
  [servers, daemons, databases] = [[], [], []];
});
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await Promise.all(databases.map((db) => db.drop()));
  await Promise.all(servers.map((server) => server.remove()));
});

/** A database on a server of its own. */
async function elsewhere(less: Less = {}): Promise<TestDatabase> {
  const cluster = await createServer({}, { binaries: bin });
  servers.push(cluster);
  const db = await createDatabase({ adminUrl: cluster.url('postgres'), ...less });
  databases.push(db);
  return db;
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
  const old = await elsewhere();
  start(old.env());
  const dumped = new AbortController();
  const writing = (async () => {
    while (!dumped.signal.aborted) await insertMany(old.sql, 10);
  })();
  await until(
    'some rows in the log',
    async () => (await old.sql`select from verification.sms_log limit 500`).length === 500,
  );
  const file = join(servers[0]!.directory, 'dump');
  runProgram('pg_dump', ['-Fc', '-f', file, '-d', old.superuser.url]);
  dumped.abort();
  await writing;

  const restored = await elsewhere({ empty: true });
  runProgram('pg_restore', ['--exit-on-error', '-d', restored.superuser.url, file]);
  const env = restored.env({ SLOT_NAME: old.name });
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
