/**
 * psql is the measure of what an address means: where it gets in smslogd does, as the same role, in the same database and the same way; where it does not,
 * neither does smslogd. The server takes each role in its own way.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, afterEach, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { toSmslogdError } from '../../src/errors.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { debianBinaries } from '../support/debian.ts';
import { CASES, NAMES, PASSWORDS } from '../support/addresses.ts';
import { createAuthority, type Authority } from '../support/certificates.ts';
import { until } from '../support/database.ts';

const WHO = `select concat_ws('|', current_user, current_database(), current_setting('port'), inet_server_addr() is null,
                    coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false), current_setting('work_mem'))`;
/** itself: Debian's /usr/bin/psql sets PGHOST */
const PSQL = join(debianBinaries(), 'psql');
let cluster: Cluster;
let admin: Sql;
let authority: Authority;
let other: Authority;
let home: string;
let scratch: string;
/** what the words of an address stand for */
let words: Record<string, string>;
const ABSTRACT = `smslogd-${process.pid}`;

beforeAll(async () => {
  cluster = await createCluster({
    settings: { fsync: 'off', unix_socket_directories: `${tmpdir()},@${ABSTRACT}`, listen_addresses: '127.0.0.1,::1' },
  });
  admin = openDatabase(loadConfig({ DATABASE_URL: cluster.url('postgres') }), { max: 1, name: 'test' });
  scratch = mkdtempSync(join(tmpdir(), 'smslogd-psql-'));
  [authority, other] = [createAuthority(), createAuthority('another')];
  const server = authority.issue({ hosts: ['localhost'], ownedAs: cluster.dataDirectory });
  for (const statement of [
    "create role daemon login password 'made-up'",
    "create role onlytls login password 'made-up'",
    "create role onlyplain login password 'made-up'",
    'create role odd',
    'create role bycert login',
    String.raw`create role "co:lon" login password 'pa:ss\word'`,
    `create role "пан" login password 'пароль№1 ﬁ…'`,
    'create database app',
    'create database "a/b c"',
    `alter system set ssl_cert_file = '${server.certFile}'`,
    `alter system set ssl_key_file = '${server.keyFile}'`,
    `alter system set ssl_ca_file = '${authority.caFile}'`,
    'alter system set ssl = on',
  ])
    await admin.unsafe(statement);
  writeFileSync(
    join(cluster.dataDirectory, 'pg_hba.conf'),
    [
      'local all all trust',
      'hostssl all bycert all cert',
      'hostssl all onlytls all scram-sha-256',
      'hostnossl all onlytls all reject',
      'hostnossl all onlyplain all scram-sha-256',
      'host all daemon,postgres,"пан","co:lon",+odd all scram-sha-256',
      '',
    ].join('\n'),
  );
  await cluster.stop();
  await cluster.start();
  const [client, open] = [authority.issue({ name: 'bycert' }), join(scratch, 'open.key')];
  copyFileSync(client.keyFile, open);
  chmodSync(open, 0o644);
  execFileSync('openssl', [
    'pkey',
    '-in',
    client.keyFile,
    '-aes256',
    '-passout',
    'pass:key-secret',
    '-out',
    join(scratch, 'locked.key'),
  ]);
  chmodSync(join(scratch, 'locked.key'), 0o600);
  execFileSync('openssl', ['pkey', '-in', client.keyFile, '-outform', 'DER', '-out', join(scratch, 'binary.key')]);
  chmodSync(join(scratch, 'binary.key'), 0o600);
  writeFileSync(join(scratch, 'passwords'), '*:*:*:*:made-up\n', { mode: 0o600 });
  words = {
    PORT: String(cluster.port),
    CLOSED: String(await freePort()),
    SOCKETS: tmpdir(),
    ENCODED: encodeURIComponent(tmpdir()),
    ABSTRACT,
    PASSWORDS: join(scratch, 'passwords'),
    CA: authority.caFile,
    OTHER: other.caFile,
    CERT: client.certFile,
    KEY: client.keyFile,
    OPEN: open,
    LOCKED: join(scratch, 'locked.key'),
    UNREVOKED: authority.revoke(),
    REVOKED: authority.revoke(server),
    LISTS: listsOf(other.revoke(), authority.revoke()),
    LISTED: listsOf(other.revoke(), authority.revoke(server)),
    BINARY: join(scratch, 'binary.key'),
  };
});
afterAll(async () => {
  await admin.end({ timeout: 1 });
  await cluster.remove();
  rmSync(scratch, { recursive: true });
  authority.remove();
  other.remove();
});
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'smslogd-home-'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true });
});

/** A file with several lists of revoked certificates, as a chain of authorities needs it. */
function listsOf(...files: readonly string[]): string {
  const path = join(mkdtempSync(join(scratch, 'lists-')), 'all.crl');
  writeFileSync(path, files.map((file) => readFileSync(file, 'utf8')).join(''));
  return path;
}

/** What psql prints; undefined where it fails. */
function psql(url: string, env: Record<string, string>): string | undefined {
  const { status, stdout } = spawnSync(PSQL, ['-w', '-X', '-A', '-t', '-c', WHO, url], {
    env: { PATH: process.env['PATH'], HOME: home, ...env },
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}

function refused(error: unknown): undefined {
  expect(toSmslogdError(error).message).not.toMatch(/unexpected|made-up/);
}

const value = (row: object | undefined) => Object.values(row ?? {})[0] as string;

/** The same by both clients in this process, with the same environment. */
async function ours(url: string, env: Record<string, string>): Promise<string | undefined> {
  for (const [name, value] of Object.entries({ HOME: home, ...env })) vi.stubEnv(name, value);
  const queries = async () => {
    const sql = openDatabase(loadConfig({ DATABASE_URL: url }), { max: 1, name: 'test' });
    try {
      return value((await sql.unsafe(WHO))[0]);
    } finally {
      await sql.end({ timeout: 1 });
    }
  };
  const stream = async () => {
    const config = loadConfig({ DATABASE_URL: url });
    const client = new Client(await pgConfig(config.DATABASE_URL ?? '', { name: 'test' }));
    await client.connect();
    try {
      return value((await client.query<object>(WHO)).rows[0]);
    } finally {
      await client.end();
    }
  };
  const found = await queries().catch(refused);
  expect({ url, stream: await stream().catch(refused) }).toEqual({ url, stream: found });
  return found;
}

const meant = (text: string) => text.replaceAll(/(?<![A-Z])[A-Z]{2,}(?![A-Z])/g, (word) => words[word] ?? word);

test.for(CASES)(
  'as psql: $url $env $passfile',
  async ({ url, env = {}, passfile, mode = 0o600, files = {}, stricter }) => {
    const around = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, meant(value)]));
    if (passfile !== undefined) writeFileSync(join(home, '.pgpass'), meant(passfile), { mode });
    mkdirSync(join(home, '.postgresql'));
    for (const [name, file] of Object.entries(files)) {
      copyFileSync(meant(file), join(home, '.postgresql', name));
      if (name.endsWith('.key')) chmodSync(join(home, '.postgresql', name), 0o600);
    }
    const theirs = psql(meant(url), around);
    const psqlGetsIn = stricter === true || theirs !== undefined;
    expect({ ours: await ours(meant(url), around), psqlGetsIn }).toEqual({
      ours: stricter === true ? undefined : theirs,
      psqlGetsIn: theirs !== undefined,
    });
  },
);

const outcome = (parameters: string) =>
  psql(`postgres://daemon:made-up@localhost:${cluster.port}/app?${parameters}`, {});

test('psql gets in with some of these addresses, and not with others', () => {
  expect(outcome('sslmode=disable')).toMatch(/^daemon\|app\|/);
  expect(outcome(`sslmode=verify-full&sslrootcert=${other.caFile}`)).toBeUndefined();
});

test('both clients get in with the passwords with which psql does, typed as they were set or normalized', async () => {
  const theirs: string[] = [];
  const ways: string[] = [];
  for (const [n, password] of PASSWORDS.entries()) {
    await admin.unsafe(`create role odd${n} login password '${password}' in role odd`);
    for (const typed of new Set([password, password.normalize('NFKC'), password.normalize('NFD')])) {
      const url = `postgres://odd${n}:${encodeURIComponent(typed)}@127.0.0.1:${cluster.port}/app?sslmode=disable`;
      const name = `${JSON.stringify(password)} typed ${JSON.stringify(typed)}`;
      if (psql(url, {}) !== undefined) theirs.push(name);
      if ((await ours(url, {})) !== undefined) ways.push(name);
    }
  }
  expect(ways).toEqual(theirs);
  expect(theirs.length).toBeGreaterThanOrEqual(PASSWORDS.length);
});

test('a certificate is for the hosts for which libpq takes it', async () => {
  const theirs: string[] = [];
  const ways: string[] = [];
  for (const { asked, ...options } of NAMES) {
    const { certFile, keyFile } = authority.issue({ ...options, ownedAs: cluster.dataDirectory });
    await admin.unsafe(`alter system set ssl_cert_file = '${certFile}'`);
    await admin.unsafe(`alter system set ssl_key_file = '${keyFile}'`);
    const before = await admin`select pg_conf_load_time()::text as at`;
    await admin`select pg_reload_conf()`;
    await until(
      'it to be loaded',
      async () => (await admin`select pg_conf_load_time()::text as at`)[0]?.['at'] !== before[0]?.['at'],
    );
    for (const host of asked) {
      const name = `${JSON.stringify(options)} for ${host}`;
      const url = `postgres://daemon:made-up@/app?host=${host}&hostaddr=127.0.0.1&port=${cluster.port}&sslmode=verify-full&sslrootcert=${authority.caFile}`;
      if (psql(url, {}) !== undefined) theirs.push(name);
      if ((await ours(url, {})) !== undefined) ways.push(name);
    }
  }
  expect(ways).toEqual(theirs);
  expect(theirs.length).toBeGreaterThan(5);
});
