/** A major upgrade of PostgreSQL by pg_upgrade under two running daemons: the cluster gets another identifier, and its slots are gone. */
import { spawnSync } from 'node:child_process';
import { appendFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { debianBinaries } from '../support/debian.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { connect, createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

const bin = debianBinaries();
let server: Cluster;
let db: TestDatabase;
let daemons: Daemon[] = [];

beforeEach(async () => {
  server = await createServer({}, { binaries: bin });
  db = await createDatabase({ adminUrl: server.url('postgres') });
}, 120_000);
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

/** Everything of the old cluster in a new one, which takes its place. pg_upgrade takes one of the same version, too. */
function upgrade(): void {
  const { directory, dataDirectory: data } = server;
  // as the server's user, who owns both
  const { uid, gid } = statSync(data);
  const asServer = {
    ...(process.getuid?.() === 0 ? { uid, gid } : {}),
    cwd: directory,
    env: { ...process.env, HOME: directory },
    encoding: 'utf8',
  } as const;
  const run = (program: string, ...words: string[]) => {
    const { status, stdout, stderr } = spawnSync(program, words, asServer);
    if (status !== 0) throw new Error(`${program}: ${stdout}${stderr}`);
  };
  const made = join(directory, 'new');
  run(join(bin, 'initdb'), '-D', made, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync');
  const old = ['postgresql.conf', 'pg_hba.conf', 'server.crt', 'server.key'].map((file) => join(data, file));
  // its two servers have a socket, which nobody else reaches
  appendFileSync(join(data, 'pg_hba.conf'), 'local all all trust\n');
  run('cp', '-p', ...old, made);
  run(join(bin, 'pg_upgrade'), '-b', bin, '-B', bin, '-d', data, '-D', made, '-U', 'postgres', '--link');
  renameSync(data, join(directory, 'old'));
  renameSync(made, data);
}

const all = (sql: Sql) =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(sql);
    return missing === 0 && surplus === 0;
  });

test('pg_upgrade loses and doubles nothing, changes no status, and the daemons go on by themselves', async () => {
  const env = db.env();
  daemons = [startDaemon(env), startDaemon(env)];
  await Promise.race(
    daemons.map((daemon) => daemon.line('it streams', (line) => line.includes('"the mirror streams"'))),
  );
  await insertMany(db.sql, 100);
  await all(db.sql);
  await db.sql`update verification.sms_log set gateway_status = 'Delivered' where id in (select id from verification.sms_log limit 40)`;
  // rows that no stream tells of any more
  const locked = await db.sql.reserve();
  await locked`begin`;
  await locked`lock verification.sms_log in exclusive mode`;
  await insertMany(db.sql, 50);
  const [{ id } = { id: '' }] = await db.sql<
    { id: string }[]
  >`select system_identifier::text as id from pg_control_system()`;
  await db.sql.end({ timeout: 0 });
  await server.stop();

  upgrade();
  await server.start();
  const sql = connect(db.superuser.url, { max: 2 });
  expect(await sql`select system_identifier::text as id from pg_control_system()`).not.toEqual([{ id }]);
  await insertMany(sql, 25);
  await all(sql);
  await until('a new slot to be read', async () => {
    const slots = await sql`select active from pg_replication_slots where slot_name = ${db.name}`;
    return slots[0]?.['active'] === true;
  });
  await insertMany(sql, 10);
  await all(sql);
  expect(
    await sql`select gateway_status, count(*)::int as sms from verification.sms_log group by 1 order by 1`,
  ).toEqual([
    { gateway_status: 'Accepted', sms: 145 },
    { gateway_status: 'Delivered', sms: 40 },
  ]);
  const [queue] = await sql`
    select count(*)::int as open, count(p.id)::int as queued from verification.sms_log l left join smslogd.sms_poll p using (id)
     where l.gateway_status = 'Accepted'`;
  expect(queue).toEqual({ open: 145, queued: 145 });
  const lines = daemons.flatMap((daemon) => daemon.lines);
  expect(lines.filter((line) => line.includes('"database_changed"'))).toHaveLength(1);
  expect(lines.filter((line) => line.includes('"unexpected"'))).toEqual([]);
  const verify = startProcess(['verify'], env);
  expect(await verify.exited, `it said: ${verify.stderr()}`).toBe(0);
  const doctor = startProcess(['doctor', '--json'], env);
  await doctor.exited;
  const { checks } = JSON.parse(doctor.lines.join('\n')) as { checks: { name: string; level: string }[] };
  await sql.end({ timeout: 1 });
  expect(checks.filter(({ level }) => level === 'FAIL').map(({ name }) => name)).toEqual(['gateway']);
}, 120_000);
