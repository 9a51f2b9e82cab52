/** psql is the measure of what an address means: where it gets in smslogd does, as the same role, in the same database and the same way; where it does not, neither does smslogd. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, afterEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createAuthority, type Authority } from '../support/certificates.ts';
import { startProcess } from '../support/daemon.ts';

const WHO = `select concat_ws('|', current_user, current_database(), current_setting('port'), inet_server_addr() is null,
                    coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false), current_setting('work_mem'))`;
let cluster: Cluster;
let admin: Sql;
let authority: Authority;
let other: Authority;
let home: string;
let closed: number;

beforeAll(async () => {
  if (spawnSync('psql', ['--version']).error !== undefined)
    throw new Error('psql is missing: apt-get install postgresql-client');
  cluster = await createCluster({ settings: { fsync: 'off', unix_socket_directories: tmpdir() } });
  admin = openDatabase(loadConfig({ DATABASE_URL: cluster.url('postgres') }), { max: 1, name: 'test' });
  [authority, other] = [createAuthority(), createAuthority('another')];
  closed = await freePort();
  const { certFile, keyFile } = authority.issue({ hosts: ['localhost'], ownedAs: cluster.dataDirectory });
  for (const statement of [
    "create role daemon login password 'made-up'",
    "create role onlytls login password 'made-up'",
    "create role onlyplain login password 'made-up'",
    `create role "пан" login password 'пароль№1 ﬁ…'`,
    'create database app',
    'create database "a/b c"',
    `alter system set ssl_cert_file = '${certFile}'`,
    `alter system set ssl_key_file = '${keyFile}'`,
    'alter system set ssl = on',
  ])
    await admin.unsafe(statement);
  writeFileSync(
    join(cluster.dataDirectory, 'pg_hba.conf'),
    [
      'local all all trust',
      'hostssl all onlytls all scram-sha-256',
      'hostnossl all onlytls all reject',
      'hostnossl all onlyplain all scram-sha-256',
      'host all daemon,postgres,"пан" all scram-sha-256',
      '',
    ].join('\n'),
  );
  await cluster.stop();
  await cluster.start();
});
afterAll(async () => {
  await admin.end({ timeout: 1 });
  await cluster.remove();
  authority.remove();
  other.remove();
});
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'smslogd-home-'));
});
afterEach(() => rmSync(home, { recursive: true }));

/** What psql prints; undefined where it fails. */
function psql(url: string, env: Record<string, string>): string | undefined {
  const { status, stdout } = spawnSync('psql', ['-w', '-X', '-A', '-t', '-c', WHO, url], {
    env: { PATH: process.env['PATH'], HOME: home, ...env },
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}

const CLIENT = `
  const { openDatabase } = await import(process.argv[1] + '/dist/postgres/pools.js');
  const { loadConfig } = await import(process.argv[1] + '/dist/settings.js');
  try {
    const sql = openDatabase(loadConfig(process.env), { max: 1, name: 'test' });
    const [row] = await sql.unsafe(process.argv[2]);
    console.log(Object.values(row)[0]);
    await sql.end({ timeout: 1 });
  } catch (error) {
    console.error(error.message);
    process.exit(1);
  }`;

/** The same by smslogd, in a process with the same environment. */
async function ours(url: string, env: Record<string, string>): Promise<string | undefined> {
  const flags = ['--input-type=module', '-e', CLIENT, process.cwd(), WHO];
  const run = startProcess([], { HOME: home, DATABASE_URL: url, ...env }, flags);
  const code = await run.exited;
  expect(run.stderr()).not.toMatch(/unexpected|made-up/);
  return code === 0 ? run.lines[0] : undefined;
}

interface Case {
  readonly url: string;
  readonly env?: Record<string, string>;
  readonly passfile?: string;
  readonly root?: () => string;
}

/** `PORT`, `CLOSED`, `SOCKETS`, `CA` and `OTHER` stand for those of the test. */
const CASES: readonly Case[] = [
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app' },
  { url: 'postgresql://daemon:made-up@localhost:PORT/app?sslmode=disable' },
  { url: 'postgres://daemon:wrong@127.0.0.1:PORT/app' },
  { url: 'postgres://daemon:wrong@127.0.0.1:PORT/app?password=made-up' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?dbname=postgres' },
  { url: 'postgres://postgres@127.0.0.1:PORT/app?user=daemon&password=made-up' },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED/app?port=PORT' },
  { url: 'postgres://daemon:made-up@nowhere.invalid/app?host=127.0.0.1&port=PORT' },
  { url: 'postgres://daemon:made-up@nowhere.invalid:PORT/app?hostaddr=127.0.0.1' },
  { url: 'postgres://daemon@/app?host=SOCKETS&port=PORT' },
  { url: 'postgres://daemon@:PORT/app?host=SOCKETS&sslmode=verify-full' },
  { url: 'postgres://daemon@ENCODED:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/a%2Fb%20c' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/a/b%20c' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT' },
  {
    url: 'postgres://',
    env: { PGHOST: '127.0.0.1', PGPORT: 'PORT', PGUSER: 'daemon', PGPASSWORD: 'made-up', PGDATABASE: 'app' },
  },
  {
    url: 'postgres://127.0.0.1:PORT',
    env: { PGUSER: 'daemon', PGPASSWORD: 'made-up', PGDATABASE: 'app', PGSSLMODE: 'disable' },
  },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', env: { PGOPTIONS: '-c work_mem=3MB', PGPASSWORD: 'made-up' } },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?options=-c%20work_mem%3D5MB' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?options=-c+work_mem%3D5MB' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '127.0.0.1:PORT:app:daemon:made-up\n*:*:*:*:wrong\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '*:*:*:*:wrong\n127.0.0.1:PORT:app:daemon:made-up\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: String.raw`127.0.0.1:PORT:app:d\aemon:made\-up` },
  {
    url: 'postgres://daemon@127.0.0.1:CLOSED,localhost:PORT/app',
    passfile: '127.0.0.1:*:*:*:wrong\nlocalhost:*:*:*:made-up\n',
  },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED,127.0.0.1:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1,localhost/app?port=PORT' },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED,127.0.0.1:PORT/app?target_session_attrs=read-write' },
  {
    url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?target_session_attrs=primary&options=-c%20default_transaction_read_only%3Don',
  },
  {
    url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?target_session_attrs=read-write&options=-c%20default_transaction_read_only%3Don',
  },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT,127.0.0.1:PORT/app?port=PORT,PORT,PORT' },
  { url: 'postgres://daemon:made-up@[::1:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?sslmod=require' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?ssl=true' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?ssl=verify-full' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?sslmode=' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?' },
  { url: 'postgres://daemon:made%zz@127.0.0.1:PORT/app' },
  ...['disable', 'allow', 'prefer', 'require'].flatMap((mode) =>
    ['daemon', 'onlytls', 'onlyplain'].map((role) => ({
      url: `postgres://${role}:made-up@127.0.0.1:PORT/app?sslmode=${mode}`,
    })),
  ),
  ...['prefer', 'require', 'verify-ca', 'verify-full'].flatMap((mode) =>
    ['', '&sslrootcert=CA', '&sslrootcert=OTHER'].flatMap((root) =>
      ['127.0.0.1', 'localhost'].map((host) => ({
        url: `postgres://daemon:made-up@${host}:PORT/app?sslmode=${mode}${root}`,
      })),
    ),
  ),
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full', root: () => authority.caFile },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=require', root: () => other.caFile },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full&hostaddr=127.0.0.1&sslrootcert=CA' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?ssl_min_protocol_version=TLSv1.3&sslmode=require' },
  { url: `postgres://${encodeURIComponent('пан')}:${encodeURIComponent('пароль№1 ﬁ…')}@127.0.0.1:PORT/app` },
];

const meant = (text: string) =>
  text
    .replaceAll('PORT', String(cluster.port))
    .replaceAll('CLOSED', String(closed))
    .replaceAll('SOCKETS', tmpdir())
    .replaceAll('ENCODED', encodeURIComponent(tmpdir()))
    .replaceAll('CA', authority.caFile)
    .replaceAll('OTHER', other.caFile);

test.for(CASES)('as psql: $url $env $passfile', async ({ url, env = {}, passfile, root }) => {
  const around = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, meant(value)]));
  if (passfile !== undefined) writeFileSync(join(home, '.pgpass'), meant(passfile), { mode: 0o600 });
  if (root !== undefined) {
    mkdirSync(join(home, '.postgresql'));
    copyFileSync(root(), join(home, '.postgresql', 'root.crt'));
  }
  expect(await ours(meant(url), around)).toEqual(psql(meant(url), around));
});

const outcome = (parameters: string) =>
  psql(`postgres://daemon:made-up@localhost:${cluster.port}/app?${parameters}`, {});

test('psql gets in with some of these addresses, and not with others', () => {
  expect(outcome('sslmode=disable')).toMatch(/^daemon\|app\|/);
  expect(outcome(`sslmode=verify-full&sslrootcert=${other.caFile}`)).toBeUndefined();
});
