/**
 * A failover as PostgreSQL 15 has it: the primary crashes, its standby is promoted, and its slot is gone with it. Both daemons have both hosts in their addresses,
 * for queries and for the stream.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { command as doctor } from '../../src/commands/doctor.ts';
import { freePort, type Cluster } from '../../src/demo/cluster.ts';
import { DAEMON_ROLE, REPLICATION_ROLE } from '../../src/demo/roles.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { debianBinaries } from '../support/debian.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { connect, createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

const bin = debianBinaries();
let primary: Cluster;
let db: TestDatabase;
let standby: ChildProcess;
let port: number;
let promoted: Sql;
let daemons: Daemon[] = [];

/** The address of a database on the standby; and on both, the standby first. */
const onStandby = (url: string) => url.replace(`:${primary.port}/`, `:${port}/`);
const onBoth = (url: string) =>
  `${url.replace(`@localhost:${primary.port}/`, `@localhost:${port},localhost:${primary.port}/`)}&target_session_attrs=read-write`;

beforeAll(async () => {
  primary = await createServer({}, { binaries: bin });
  db = await createDatabase({ adminUrl: primary.url('postgres') });
  appendFileSync(
    join(primary.dataDirectory, 'pg_hba.conf'),
    'hostssl replication postgres 127.0.0.1/32 scram-sha-256\n',
  );
  await db.sql`select pg_reload_conf()`;
  // as the server's user, who owns the copy
  const { uid, gid } = statSync(primary.dataDirectory);
  const asServer = {
    ...(process.getuid?.() === 0 ? { uid, gid } : {}),
    cwd: primary.directory,
    env: { ...process.env, HOME: primary.directory },
  };
  const copy = join(primary.directory, 'standby');
  const words = ['-D', copy, '-d', primary.url('postgres'), '-R', '-c', 'fast', '--no-sync'];
  const taken = spawnSync(join(bin, 'pg_basebackup'), words, { ...asServer, encoding: 'utf8' });
  if (taken.status !== 0) throw new Error(taken.stderr);
  port = await freePort();
  standby = spawn(join(bin, 'postgres'), ['-D', copy, '-p', String(port)], { ...asServer, stdio: 'ignore' });
  promoted = connect(onStandby(db.superuser.url), { max: 2 });
  await until('the standby to answer', () =>
    promoted`select`.then(
      () => true,
      () => false,
    ),
  );
}, 120_000);
afterAll(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await promoted?.end({ timeout: 1 });
  await db?.sql.end({ timeout: 1 });
  if (standby?.exitCode === null) {
    standby.kill('SIGQUIT');
    await once(standby, 'exit');
  }
  await primary?.remove();
});

/** Where psql is led, in the same way. */
const psql = () =>
  spawnSync(join(bin, 'psql'), ['-X', '-A', '-t', '-c', "select current_setting('port')", onBoth(db.url)], {
    encoding: 'utf8',
  }).stdout.trim();

/** The daemons' roles that have sessions there. */
const connected = async (sql: Sql) => {
  const rows = await sql<{ name: string }[]>`
    select distinct usename::text as name from pg_stat_activity where usename in ${sql([DAEMON_ROLE, REPLICATION_ROLE])} order by 1`;
  return rows.map(({ name }) => name);
};
const all = (sql: Sql) =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(sql);
    return missing === 0 && surplus === 0;
  });

test('doctor tells of a standby that it is one, and nothing that follows from it', async () => {
  const lines: string[] = [];
  const io = {
    env: db.env({ DATABASE_URL: onStandby(db.url), LOOPS: 'mirror' }),
    print: (line: string) => lines.push(line),
    stdoutIsTerminal: false,
  };
  expect(await doctor.run({}, io)).toBe(1);
  expect(lines.filter((line) => /^(?:FAIL|warn)/.test(line))).toEqual([
    'FAIL  database: this server is a standby\n      fix: Point DATABASE_URL at the primary.',
  ]);
});

test('the daemons find the promoted standby as psql does, and the log is whole though the slot was lost', async () => {
  const env = {
    ...db.env({ LOOPS: 'mirror' }),
    DATABASE_URL: onBoth(db.url),
    DATABASE_REPLICATION_URL: onBoth(db.replicationUrl),
  };
  daemons = [startDaemon(env), startDaemon(env)];
  await Promise.race(
    daemons.map((daemon) => daemon.line('it streams', (line) => line.includes('"the mirror streams"'))),
  );
  await insertMany(db.sql, 100);
  await all(db.sql);
  expect(psql()).toBe(String(primary.port));
  expect(await connected(db.sql)).toEqual([DAEMON_ROLE, REPLICATION_ROLE]);
  // rows that the new primary has and that no stream has told of
  const locked = await db.sql.reserve();
  await locked`begin`;
  await locked`lock verification.sms_log in exclusive mode`;
  await insertMany(db.sql, 50);
  const [{ at } = { at: '' }] = await db.sql<{ at: string }[]>`select pg_current_wal_flush_lsn()::text as at`;
  await until('the standby to have them', async () => {
    const [row] = await promoted`select pg_last_wal_replay_lsn() >= ${at}::text::pg_lsn as so`;
    return row?.['so'] === true;
  });

  // once it is promoted the daemons may be quicker than a look
  expect(await promoted`select slot_name from pg_replication_slots`).toEqual([]);
  expect((await difference(promoted)).missing).toBe(50);
  await primary.stop('immediate');
  await promoted`select pg_promote()`;
  await insertMany(promoted, 25);
  await all(promoted);
  await until('a new slot to be read', async () => {
    const slots = await promoted`select active from pg_replication_slots where slot_name = ${db.name}`;
    return slots[0]?.['active'] === true;
  });
  await insertMany(promoted, 10);
  await all(promoted);
  expect(psql()).toBe(String(port));
  expect(await connected(promoted)).toEqual([DAEMON_ROLE, REPLICATION_ROLE]);
  const lines = daemons.flatMap((daemon) => daemon.lines);
  expect(lines.some((line) => line.includes('"slot_missing"'))).toBe(true);
  expect(lines.filter((line) => line.includes('"unexpected"'))).toEqual([]);
  const verify = startProcess(['verify'], env);
  expect(await verify.exited, `it said: ${verify.stderr()}`).toBe(0);
});
