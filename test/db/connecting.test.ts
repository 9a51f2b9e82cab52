/** How both clients connect: TLS, logins and hosts as libpq has them, and what is said where they fail. Each test says how the server takes connections. */
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { toSmslogdError } from '../../src/errors.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { isPooled } from '../../src/postgres/pooler.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createAuthority, type Authority, type Certificate } from '../support/certificates.ts';
import { until } from '../support/database.ts';

let cluster: Cluster;
let admin: Sql;
let ours: Authority;
let others: Authority;
let home: string;

beforeAll(async () => {
  cluster = await createCluster({
    settings: { fsync: 'off', unix_socket_directories: tmpdir(), listen_addresses: '127.0.0.1,127.0.0.2' },
  });
  [ours, others] = [createAuthority(), createAuthority('another authority')];
  admin = openDatabase(loadConfig({ DATABASE_URL: cluster.url('postgres') }), { max: 1, name: 'test' });
  await admin.unsafe("create role daemon login password 'made-up'");
  await admin.unsafe('create database app');
  await serve({ hosts: ['localhost', '127.0.0.1'] });
});
afterAll(async () => {
  await admin.end({ timeout: 1 });
  await cluster.remove();
  ours.remove();
  others.remove();
});
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'smslogd-home-'));
  vi.stubEnv('HOME', home);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true });
});

/** Reloads the server's settings; a connection that is opened afterwards meets them. */
async function reload(): Promise<void> {
  const loaded = async () => (await admin`select pg_conf_load_time()::text as at`)[0]?.['at'] as string;
  const before = await loaded();
  await admin`select pg_reload_conf()`;
  await until('the settings to be loaded', async () => (await loaded()) !== before);
}

async function set(settings: Record<string, string>): Promise<void> {
  for (const [name, value] of Object.entries(settings)) await admin.unsafe(`alter system set ${name} = '${value}'`);
  await reload();
}

/** Gives the server a certificate of `authority`. */
async function serve(options: { hosts: string[]; days?: number }, authority = ours): Promise<void> {
  const { certFile, keyFile } = authority.issue({ ...options, ownedAs: cluster.dataDirectory });
  await set({ ssl_cert_file: certFile, ssl_key_file: keyFile, ssl_ca_file: ours.caFile, ssl: 'on' });
}

/** Who may connect beside the test itself, each line for the role and database of the test. */
async function allow(...lines: string[]): Promise<void> {
  const own = 'host all postgres 127.0.0.1/32 scram-sha-256';
  writeFileSync(join(cluster.dataDirectory, 'pg_hba.conf'), [own, ...lines, ''].join('\n'));
  await reload();
}
const SCRAM = 'host all daemon all scram-sha-256';

interface Outcome {
  readonly client: string;
  readonly role?: string;
  readonly database?: string;
  readonly encrypted?: boolean;
  readonly code?: string;
  readonly message?: string;
  readonly hint?: string;
}

const WHO = `select current_user::text as role, current_database()::text as database,
                    coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as encrypted`;

/** Connects with both clients. Both must come to the same. */
async function connect(url: string): Promise<Outcome> {
  const failed =
    (client: string) =>
    (error: unknown): Outcome => {
      const { code, message, hint } = toSmslogdError(error);
      return { client, code, message, hint };
    };
  const queries = async (): Promise<Outcome> => {
    const sql = openDatabase(loadConfig({ DATABASE_URL: url }), { max: 1, name: 'test' });
    try {
      const [row] = await sql.unsafe(WHO);
      return { client: 'postgres.js', ...(row as Outcome | undefined) };
    } finally {
      await sql.end({ timeout: 1 });
    }
  };
  const stream = async (): Promise<Outcome> => {
    const client = new Client(await pgConfig(url, { name: 'test' }));
    await client.connect();
    try {
      return { client: 'pg', ...(await client.query<Outcome>(WHO)).rows[0] };
    } finally {
      await client.end();
    }
  };
  const { client: _, ...first } = await queries().catch(failed('postgres.js'));
  const { client, ...second } = await stream().catch(failed('pg'));
  expect({ client, ...second }).toEqual({ client, ...first });
  return { client: 'both', ...first };
}

const at = (parameters = '', { host = '127.0.0.1', login = 'daemon:made-up' } = {}) =>
  `postgres://${login}@${host}:${cluster.port}/app?${parameters}`;
const IN = { role: 'daemon', database: 'app' };
const ENCRYPTED = { ...IN, encrypted: true };
const PLAIN = { ...IN, encrypted: false };

test('a certificate of an own authority is verified with sslrootcert, for a name and for an IP address', async () => {
  await allow(SCRAM);
  await serve({ hosts: ['localhost', '127.0.0.1'] });
  for (const mode of ['require', 'verify-ca', 'verify-full'])
    expect(await connect(at(`sslmode=${mode}&sslrootcert=${ours.caFile}`))).toMatchObject(ENCRYPTED);
  expect(await connect(at(`sslmode=verify-full&sslrootcert=${ours.caFile}`, { host: 'localhost' }))).toMatchObject(
    ENCRYPTED,
  );
  expect(await connect(at(`sslmode=verify-full&sslrootcert=${ours.caFile}&sslnegotiation=postgres`))).toMatchObject(
    ENCRYPTED,
  );
  expect(await connect(at('sslmode=require'))).toMatchObject(ENCRYPTED);
});

test("the home directory's root.crt counts where sslrootcert is not said, also for the modes that need none", async () => {
  await allow(SCRAM);
  await serve({ hosts: ['127.0.0.1'] });
  mkdirSync(join(home, '.postgresql'));
  copyFileSync(ours.caFile, join(home, '.postgresql', 'root.crt'));
  expect(await connect(at('sslmode=verify-full'))).toMatchObject(ENCRYPTED);
  copyFileSync(others.caFile, join(home, '.postgresql', 'root.crt'));
  expect(await connect(at('sslmode=require'))).toMatchObject({ code: 'database_tls' });
  // as libpq: what TLS does not give may be had without
  expect(await connect(at('sslmode=prefer'))).toMatchObject(PLAIN);
});

test.for([
  ['verify-full without a root certificate', 'sslmode=verify-full', /no root certificate/, /sslrootcert=FILE/],
  ['verify-ca without a root certificate', 'sslmode=verify-ca', /no root certificate/, /sslrootcert=FILE/],
  ['the system’s roots', 'sslrootcert=system', /not of a trusted authority/, /sslrootcert=FILE/],
] as const)(
  'what cannot be verified is told of by its own code and what to set: %s',
  async ([, parameters, says, hint]) => {
    await allow(SCRAM);
    await serve({ hosts: ['127.0.0.1'] });
    expect(await connect(at(parameters))).toMatchObject({
      code: 'database_tls',
      message: expect.stringMatching(says),
      hint: expect.stringMatching(hint),
    });
  },
);

test("the system's roots are those that OpenSSL's variable names", async () => {
  await allow(SCRAM);
  await serve({ hosts: ['127.0.0.1'] });
  vi.stubEnv('SSL_CERT_FILE', ours.caFile);
  expect(await connect(at('sslrootcert=system'))).toMatchObject(ENCRYPTED);
  expect(await connect(at('sslrootcert=system', { host: '127.0.0.2' }))).toMatchObject({ code: 'database_tls' });
});

test('a certificate of another authority, for another host, out of its time: each is told of with what to do', async () => {
  await allow(SCRAM);
  const verified = at(`sslmode=verify-full&sslrootcert=${ours.caFile}`);
  await serve({ hosts: ['127.0.0.1'] }, others);
  expect(await connect(verified)).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('trusted authority'),
    hint: expect.stringContaining('sslrootcert='),
  });
  await serve({ hosts: ['db.example'] });
  expect(await connect(verified)).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('host of the address'),
    hint: expect.stringContaining('hostaddr='),
  });
  expect(await connect(at(`sslmode=verify-ca&sslrootcert=${ours.caFile}`))).toMatchObject(ENCRYPTED);
  expect(
    await connect(at(`sslmode=verify-full&sslrootcert=${ours.caFile}&hostaddr=127.0.0.1`, { host: 'db.example' })),
  ).toMatchObject(ENCRYPTED);
  await serve({ hosts: ['127.0.0.1'], days: -1 });
  expect(await connect(verified)).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('not valid at this time'),
    hint: expect.stringContaining('Renew'),
  });
});

test('a server without TLS, and one with another version of it, are told of', async () => {
  await allow(SCRAM);
  await serve({ hosts: ['127.0.0.1'] });
  await set({ ssl_min_protocol_version: 'TLSv1.3' });
  expect(await connect(at('sslmode=require&ssl_max_protocol_version=TLSv1.2'))).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('no version of TLS'),
    hint: expect.stringContaining('ssl_min_protocol_version'),
  });
  await set({ ssl_min_protocol_version: 'TLSv1.2', ssl: 'off' });
  for (const mode of ['require', 'verify-full'])
    expect(await connect(at(`sslmode=${mode}&sslrootcert=${ours.caFile}`))).toMatchObject({
      code: 'database_tls',
      message: expect.stringContaining('has no TLS'),
      hint: expect.stringContaining('ssl = on'),
    });
  for (const mode of ['disable', 'allow', 'prefer']) expect(await connect(at(`sslmode=${mode}`))).toMatchObject(PLAIN);
  await set({ ssl: 'on' });
});

const files = ({ certFile, keyFile }: Certificate) => `sslmode=require&sslcert=${certFile}&sslkey=${keyFile}`;

test('a client certificate that is wanted, one that is not taken, and its key', async () => {
  await allow('hostssl all daemon all cert');
  await serve({ hosts: ['127.0.0.1'] });
  const passwordless = { login: 'daemon' };
  expect(await connect(at('sslmode=require', passwordless))).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('wants a client certificate'),
    hint: expect.stringContaining('sslcert='),
  });
  const good = ours.issue({ name: 'daemon' });
  expect(await connect(at(files(good), passwordless))).toMatchObject(ENCRYPTED);
  expect(await connect(at(`${files(good)}&sslcertmode=disable`, passwordless))).toMatchObject({ code: 'database_tls' });
  expect(await connect(at(files(ours.issue({ name: 'somebody' })), passwordless))).toMatchObject({
    code: 'database_auth',
  });
  for (const bad of [others.issue({ name: 'daemon' }), ours.issue({ name: 'daemon', days: -1 })])
    expect(await connect(at(files(bad), passwordless))).toMatchObject({
      code: 'database_tls',
      message: expect.stringContaining('does not take the client certificate'),
    });

  const locked = ours.issue({ name: 'daemon', password: 'key-secret' });
  expect(await connect(at(`${files(locked)}&sslpassword=key-secret`, passwordless))).toMatchObject(ENCRYPTED);
  for (const parameters of [
    files(locked),
    `${files(locked)}&sslpassword=another`,
    `sslmode=require&sslcert=${good.certFile}&sslkey=${locked.certFile}`,
  ]) {
    const said = await connect(at(parameters, passwordless));
    expect(said).toMatchObject({ code: 'database_tls', hint: expect.stringMatching(/sslkey|0600/) });
    expect(JSON.stringify(said)).not.toMatch(/key-secret|another/);
  }
  await set({ ssl_ca_file: '' });
  expect(await connect(at(files(good), passwordless))).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('root certificate store'),
    hint: expect.stringContaining('ssl_ca_file'),
  });
  await set({ ssl_ca_file: ours.caFile });
  chmodSync(good.keyFile, 0o644);
  expect(await connect(at(files(good), passwordless))).toMatchObject({
    code: 'database_tls',
    message: expect.stringContaining('open to others'),
    hint: expect.stringContaining('0600'),
  });
});

test('where pg_hba.conf has one kind of connection alone, allow and prefer find it as in libpq', async () => {
  await serve({ hosts: ['127.0.0.1'] });
  await allow('hostssl all daemon all scram-sha-256');
  for (const mode of ['allow', 'prefer', 'require'])
    expect(await connect(at(`sslmode=${mode}`))).toMatchObject(ENCRYPTED);
  expect(await connect(at('sslmode=disable'))).toMatchObject({
    code: 'database_auth',
    message: expect.stringMatching(/28000.*no pg_hba.conf entry for host .*no encryption/),
  });
  await allow('hostnossl all daemon all scram-sha-256');
  for (const mode of ['disable', 'allow', 'prefer']) expect(await connect(at(`sslmode=${mode}`))).toMatchObject(PLAIN);
  expect(await connect(at())).toMatchObject(PLAIN);
  expect(await connect(at('sslmode=require'))).toMatchObject({
    code: 'database_auth',
    message: expect.stringMatching(/no pg_hba.conf entry for host .*SSL encryption/),
  });
  // of two refusals the one that says more
  expect(await connect(at('sslmode=prefer', { login: 'daemon:wrong' }))).toMatchObject({
    code: 'database_auth',
    message: expect.stringMatching(/28P01.*password authentication failed/),
  });
  await allow();
  for (const mode of ['disable', 'allow', 'prefer', 'require'])
    expect(await connect(at(`sslmode=${mode}`))).toMatchObject({
      code: 'database_auth',
      message: expect.stringContaining('no pg_hba.conf entry'),
    });
});

test('a password in clear text needs encryption, a loopback address, a socket, or the word', async () => {
  await serve({ hosts: ['127.0.0.1'] });
  await allow('host all daemon all password', 'local all daemon password');
  expect(await connect(at('sslmode=require'))).toMatchObject(ENCRYPTED);
  await allow('hostnossl all daemon all password', 'local all daemon password');
  // this address leads to this host, too, but is none of its loopback interface
  const elsewhere = { host: '0.0.0.0' };
  for (const mode of ['allow', 'prefer']) {
    const said = await connect(at(`sslmode=${mode}`, elsewhere));
    expect(said).toMatchObject({
      code: 'database_auth',
      message: expect.stringContaining('in clear text'),
      hint: expect.stringContaining('sslmode=disable'),
    });
  }
  expect(await connect(at('sslmode=disable', elsewhere))).toMatchObject(PLAIN);
  expect(await connect(at())).toMatchObject(PLAIN);
  expect(await connect(at(`host=${tmpdir()}`))).toMatchObject(PLAIN);
  await allow('host all daemon all md5');
  await admin.unsafe("set password_encryption = md5; alter role daemon password 'made-up'; reset password_encryption");
  expect(await connect(at('sslmode=disable', elsewhere))).toMatchObject(PLAIN);
  await admin.unsafe("alter role daemon password 'made-up'");
});

test('require_auth is kept to', async () => {
  await serve({ hosts: ['127.0.0.1'] });
  await allow('hostssl all daemon all scram-sha-256', 'hostnossl all daemon all trust');
  for (const list of ['scram-sha-256', 'md5,scram-sha-256', '!password,!none'])
    expect(await connect(at(`sslmode=require&require_auth=${list}`))).toMatchObject(ENCRYPTED);
  for (const list of ['md5', '!scram-sha-256', 'none'])
    expect(await connect(at(`sslmode=require&require_auth=${list}`))).toMatchObject({
      code: 'database_auth',
      message: expect.stringContaining('require_auth'),
    });
  expect(await connect(at('sslmode=disable&require_auth=scram-sha-256'))).toMatchObject({ code: 'database_auth' });
  expect(await connect(at('sslmode=disable&require_auth=none'))).toMatchObject(PLAIN);
});

test('the password comes from the environment or from the password file, and its absence is told of', async () => {
  await allow(SCRAM);
  const bare = at('sslmode=disable', { login: 'daemon' });
  const none = {
    code: 'database_auth',
    message: expect.stringContaining('there is none'),
    hint: expect.stringContaining('PGPASSFILE'),
  };
  expect(await connect(bare)).toMatchObject(none);
  vi.stubEnv('PGPASSWORD', 'made-up');
  expect(await connect(bare)).toMatchObject(PLAIN);
  vi.stubEnv('PGPASSWORD', '');
  const file = join(home, '.pgpass');
  writeFileSync(
    file,
    `# logins\nlocalhost:*:*:*:wrong\n127.0.0.1:${cluster.port}:other:daemon:wrong\n127.0.0.1:${cluster.port}:app:daemon:made-up\n*:*:*:*:wrong\n`,
    { mode: 0o600 },
  );
  expect(await connect(bare)).toMatchObject(PLAIN);
  expect(await connect(at('sslmode=disable', { login: 'daemon:wrong' }))).toMatchObject({
    code: 'database_auth',
    message: expect.stringContaining('28P01'),
  });
  chmodSync(file, 0o640);
  expect(await connect(bare)).toMatchObject({
    code: 'database_auth',
    message: expect.stringContaining('let others read it'),
    hint: `Run: chmod 600 ${file}`,
  });
  rmSync(file);
  const elsewhere = join(home, 'passwords');
  writeFileSync(elsewhere, String.raw`*:*:*:daemon:with\:colon`, { mode: 0o600 });
  await admin.unsafe("alter role daemon password 'with:colon'");
  expect(await connect(`${bare}&passfile=${elsewhere}`)).toMatchObject(PLAIN);
  vi.stubEnv('PGPASSFILE', elsewhere);
  expect(await connect(bare)).toMatchObject(PLAIN);
  await admin.unsafe("alter role daemon password 'made-up'");
});

test.for([
  'пароль№1',
  'no\u00a0break',
  'ﬁne',
  'и\u0306од',
  'wait…',
  'soft\u00adhyphen',
  'Ⅳ',
  // forbidden by SASLprep, or unknown to it: taken as it is
  '😀ﬁ',
  'ﬁ\u0007',
  'אa',
  // PostgreSQL looks before it normalizes
  'ᴬx',
  '🄰x',
  '℻x',
  'x\u0340',
  'x\u0341',
  // of one kind as it was typed, and of another once it is normalized
  'א№א',
  '\ufb1d',
  'ا\u0653',
  'ℵﬁ',
])('a password that SASLprep changes or forbids logs in: %j', async (password) => {
  await allow(SCRAM);
  await admin.unsafe(`alter role daemon password '${password}'`);
  const login = `daemon:${encodeURIComponent(password)}`;
  expect(await connect(at('sslmode=disable', { login }))).toMatchObject(PLAIN);
  expect(await connect(at('sslmode=disable', { login: `${login}x` }))).toMatchObject({ code: 'database_auth' });
  await admin.unsafe("alter role daemon password 'made-up'");
});

const hosts = (...ports: number[]) =>
  `postgres://daemon:made-up@${ports.map((port) => `127.0.0.1:${port}`).join(',')}/app?sslmode=disable`;

/** The port of the server that the address leads to. */
const portOf = async (url: string) => {
  const client = new Client(await pgConfig(url, { name: 'test' }));
  await client.connect();
  const { rows } = await client.query<{ is: string }>("select current_setting('port') as is");
  await client.end();
  return Number(rows[0]?.is);
};

test('of several hosts the first that answers, and with target_session_attrs the first that takes writes', async () => {
  const readOnly = await createCluster({ settings: { fsync: 'off', default_transaction_read_only: 'on' } });
  try {
    await allow(SCRAM);
    const closed = await freePort();
    const second = openDatabase(loadConfig({ DATABASE_URL: readOnly.url('postgres') }), { max: 1, name: 'test' });
    await second.unsafe('set default_transaction_read_only = off');
    await second.unsafe("create role daemon login password 'made-up'");
    await second.unsafe('create database app');
    await second.end();
    const { port } = cluster;
    expect(await portOf(hosts(closed, port, readOnly.port))).toBe(port);
    expect(await portOf(hosts(closed, readOnly.port, port))).toBe(readOnly.port);
    for (const attributes of ['read-write', 'any', 'primary']) {
      const found = attributes === 'read-write' ? port : readOnly.port;
      expect(await portOf(`${hosts(closed, readOnly.port, port)}&target_session_attrs=${attributes}`)).toBe(found);
    }
    const none = await connect(`${hosts(closed, readOnly.port)}&target_session_attrs=read-write`);
    expect(none).toMatchObject({
      code: 'database_unreachable',
      message: expect.stringMatching(/ECONNREFUSED.*the session is read-only/),
    });
    expect(await connect(hosts(closed, closed))).toMatchObject({
      message: expect.stringContaining('no host of the address can be reached ('),
    });
    // a host that refuses the login ends the search
    expect(await connect(hosts(port, readOnly.port).replace('made-up', 'wrong'))).toMatchObject({
      code: 'database_auth',
    });

    // a failover: the pool's next connection finds the new primary
    const pool = openDatabase(
      loadConfig({ DATABASE_URL: `${hosts(readOnly.port, port)}&target_session_attrs=read-write` }),
      { max: 1, name: 'test' },
    );
    const where = async () => Number((await pool`select current_setting('port') as is`)[0]?.['is']);
    expect(await where()).toBe(port);
    await admin.unsafe('alter system set default_transaction_read_only = on');
    await reload();
    const promoted = openDatabase(loadConfig({ DATABASE_URL: readOnly.url('postgres') }), { max: 1, name: 'test' });
    await promoted.unsafe('alter system set default_transaction_read_only = off');
    await promoted`select pg_reload_conf()`;
    await promoted.end();
    await admin.unsafe("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'daemon'");
    await until('the new primary to be found', async () => (await where().catch(() => 0)) === readOnly.port);
    await pool.end();
    await admin.unsafe('set default_transaction_read_only = off');
    await admin.unsafe('alter system reset default_transaction_read_only');
    await reload();
  } finally {
    await readOnly.remove();
  }
});

test('libpq’s variable for sessions is honoured once, and not by the client again', async () => {
  await allow(SCRAM);
  for (const attributes of ['any', 'read-write', 'primary']) {
    vi.stubEnv('PGTARGETSESSIONATTRS', attributes);
    expect(await connect(at('sslmode=disable'))).toMatchObject(PLAIN);
    expect(process.env['PGTARGETSESSIONATTRS']).toBe(attributes);
  }
});

test('a server that accepts and says nothing is given up after connect_timeout, and the next host is tried', async () => {
  await allow(SCRAM);
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await until('it to listen', () => silent.listening);
  const { port } = silent.address() as { port: number };
  const url = `postgres://daemon:made-up@127.0.0.1:${port},127.0.0.1:${cluster.port}/app?sslmode=disable&connect_timeout=2`;
  expect(await connect(url)).toMatchObject(PLAIN);
  expect(await connect(`postgres://daemon@127.0.0.1:${port}/app?connect_timeout=2`)).toMatchObject({
    code: 'database_unreachable',
    message: expect.stringContaining('CONNECT_TIMEOUT'),
  });
  silent.close();
});

test('a connection that ends while TLS begins is told as that, and not as a fault of certificates', async () => {
  let asked = 0;
  const server = createServer((socket) => {
    asked += 1;
    socket
      .on('error', () => {})
      .on('data', (bytes) => (bytes.length === 8 ? socket.write('S') : socket.resetAndDestroy()));
  }).listen(0, '127.0.0.1');
  await until('it to listen', () => server.listening);
  const { port } = server.address() as { port: number };
  const url = `postgres://daemon:made-up@127.0.0.1:${port}/app?sslmode=`;
  const ended = { code: 'database_unreachable', message: expect.stringContaining('TLS') };
  expect(await connect(`${url}require`)).toMatchObject(ended);
  // as libpq: what TLS does not give may be had without
  asked = 0;
  expect(await connect(`${url}prefer`)).toMatchObject({ code: 'database_unreachable' });
  expect(asked).toBe(4);
  server.close();
});

test('an address of its own for replication makes no pooler of the other: sessions keep their settings and prepared statements', async () => {
  await allow(SCRAM);
  const url = at('sslmode=disable');
  const config = loadConfig({ DATABASE_URL: url, DATABASE_REPLICATION_URL: cluster.url('app') });
  const sql = openDatabase(config, { max: 1, name: 'test' });
  await sql`select ${1}::int as n`;
  const [row] = await sql`select count(*)::int as n from pg_prepared_statements`;
  expect(row?.['n']).toBeGreaterThan(0);
  expect(isPooled(config)).toBe(false);
  await sql.end();
});

test.for([
  ['host=/nowhere', 'ENOENT'],
  ['host=nowhere.invalid', 'ENOTFOUND|EAI_AGAIN'],
  ['port=1', 'ECONNREFUSED'],
])('a server that is not there is no fault of smslogd: %s', async ([parameters, code]) => {
  expect(await connect(at(parameters))).toMatchObject({
    code: 'database_unreachable',
    message: expect.stringMatching(new RegExp(`cannot be reached \\((?:${code})\\)`)),
  });
});

test('the connection for the stream is made in the same way', async () => {
  await allow(SCRAM);
  await serve({ hosts: ['127.0.0.1'] });
  const url = `${cluster.url('app').replace('sslmode=disable', 'sslmode=verify-full')}&sslrootcert=${ours.caFile}`;
  const { socket, ...config } = await pgConfig(url, { name: 'test', replication: true });
  const client = new Client(config);
  await client.connect();
  const { rows } = await client.query<{ dbname: string }>('IDENTIFY_SYSTEM');
  expect(rows[0]?.dbname).toBe('app');
  expect((socket as TLSSocket).authorized).toBe(true);
  await client.end();
});
