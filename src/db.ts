/**
 * PostgreSQL connections: postgres.js for every query, and the same address as a `pg` configuration for the replication stream and
 * the migrations. TLS follows libpq's sslmode in both.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { ConnectionOptions } from 'node:tls';
import type { ClientConfig } from 'pg';
import postgres from 'postgres';
import type { Config } from './config.ts';
import { codeOf, SmslogdError } from './errors.ts';

export type Sql = postgres.Sql;

type Tls = { mode: 'off' } | { mode: 'prefer' | 'on'; options: ConnectionOptions };

interface Address {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly tls: Tls;
}

/**
 * Opens a pool of at most `max` connections. Where `DATABASE_REPLICATION_URL` is another address, `DATABASE_URL` is taken to go through a
 * pooler in transaction mode: no prepared statements then, and nothing relies on session state anyway.
 */
export function openDatabase(config: Config, options: { max: number; name: string }): Sql {
  const address = addressOf(config.DATABASE_URL ?? '');
  const sockets = new Set<Socket>();
  const sql = postgres({
    socket: () => dial(address, sockets),
    host: address.host,
    port: address.port,
    database: address.database,
    username: address.user,
    password: address.password,
    ssl: address.tls.mode === 'off' ? false : address.tls.mode === 'prefer' ? 'prefer' : address.tls.options,
    max: options.max,
    prepare: !isPooled(config),
    fetch_types: false,
    idle_timeout: 60,
    connect_timeout: 10,
    onnotice: () => {},
    connection: { application_name: `smslogd ${options.name}`, ...(isPooled(config) ? {} : UNLIMITED) },
  } as postgres.Options<Record<string, never>>);
  SOCKETS.set(sql, sockets);
  return sql;
}

/**
 * What an ALTER ROLE or ALTER DATABASE for other programs may have set: creating a slot waits for as long as others' transactions take, and every
 * statement that must be short has limits of its own, and a connection that is cut while it rests may be cut just when it is needed. A pooler refuses such
 * start-up parameters; doctor then tells of the limits.
 */
const UNLIMITED = {
  options: String.raw`-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c default_transaction_isolation=read\ committed`,
};

/** Queries of a daemon at once: the mirror's write and its reconcile, the poller's claim and completion, the figures, and a spare. */
export const DAEMON_CONNECTIONS = 8;

const TRIES = 10;

const SOCKETS = new WeakMap<Sql, ReadonlySet<Socket>>();

/**
 * Cuts every connection of a pool; what waits for an answer fails with CONNECTION_CLOSED, the next query opens a new one. For a path that died
 * in silence: nothing else ends a query whose answer never comes.
 */
export function dropConnections(sql: Sql): void {
  for (const socket of SOCKETS.get(sql) ?? []) socket.destroy();
}

/** Does that where a statement failed as its session is read only: a session keeps what ALTER ROLE had set when it began. */
export function dropReadOnly(sql: Sql, error: unknown): void {
  if (codeOf(error) === '25006') dropConnections(sql);
}

/** Does that where a small query gets no answer within `ms` either: else somebody's lock is waited for. */
export async function dropDeadConnections(sql: Sql, ms: number): Promise<void> {
  const answered = sql`select 1`.then(
    () => true,
    () => true,
  );
  if (!(await Promise.race([answered, delay(ms, false)]))) dropConnections(sql);
}

/** A socket as postgres.js makes it itself (`host` is what it gives to TLS), but known to us. It need not be connected yet. */
function dial({ host, port }: Address, sockets: Set<Socket>): Socket {
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  sockets.add(socket);
  socket.once('close', () => sockets.delete(socket));
  return Object.assign(socket, { host });
}

/**
 * Runs `work` again where it was the victim of a deadlock, or of another transaction in a stricter isolation level: it has written nothing. Not at once,
 * or those who met meet again: each time after up to twice as long, a second in all.
 */
export async function withRetry<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (codeOf(error)?.startsWith('40') !== true || tries === TRIES) throw error;
      await delay(Math.random() * 2 ** tries);
    }
  }
}

/** The statements that make `settings`, such as `jit = off`, hold for one transaction. */
export function setLocal(settings: readonly string[]): string {
  return settings.map((setting) => `set local ${setting};`).join('\n');
}

/** True where queries go through a pooler. */
export function isPooled(config: Config): boolean {
  return config.DATABASE_REPLICATION_URL !== config.DATABASE_URL;
}

/** The address as `pg` takes it. `pg` knows no sslmode=prefer: the server is asked whether it takes TLS. */
export async function pgConfig(url: string, options: { name: string }): Promise<ClientConfig> {
  const address = addressOf(url);
  const { tls } = address;
  const encrypted = tls.mode === 'prefer' ? await takesTls(address) : tls.mode === 'on';
  return {
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    password: address.password,
    ssl: encrypted && tls.mode !== 'off' ? tls.options : false,
    application_name: `smslogd ${options.name}`,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
  };
}

/** Sends PostgreSQL's SSLRequest and reads the one byte that answers it. No answer counts as no: connecting then says why. */
async function takesTls({ host, port }: Address): Promise<boolean> {
  if (host.startsWith('/')) return false;
  const socket = connect({ host, port, timeout: 5_000 });
  try {
    const request = Buffer.alloc(8);
    request.writeInt32BE(8, 0);
    request.writeInt32BE(80_877_103, 4);
    socket.once('timeout', () => socket.destroy(new Error('no answer')));
    socket.write(request);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    return answer[0] === 0x53;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

function addressOf(text: string): Address {
  const url = new URL(text);
  const user = decodeURIComponent(url.username) || process.env['PGUSER'] || 'postgres';
  return {
    // a `host` parameter names a socket directory, as in libpq
    host: url.searchParams.get('host') ?? (url.hostname.replace(/^\[|\]$/g, '') || 'localhost'),
    port: url.port === '' ? 5432 : Number(url.port),
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    user,
    password: decodeURIComponent(url.password) || process.env['PGPASSWORD'] || '',
    tls: tlsOf(url),
  };
}

/** libpq's meanings: require encrypts without checking (unless a root certificate is given), verify-ca and verify-full check. */
function tlsOf({ hostname, searchParams: parameters }: URL): Tls {
  const mode = parameters.get('sslmode') ?? 'prefer';
  if (mode === 'disable' || mode === 'allow') return { mode: 'off' };
  const file = (name: string) => {
    const path = parameters.get(name);
    if (path === null || path === 'system') return undefined;
    try {
      return readFileSync(path);
    } catch (error) {
      throw new SmslogdError('config_invalid', `DATABASE_URL: the file of ${name} cannot be read`, { cause: error });
    }
  };
  const ca = file('sslrootcert');
  const cert = file('sslcert');
  const key = file('sslkey');
  const checked = mode === 'verify-full' || mode === 'verify-ca' || (mode === 'require' && ca !== undefined);
  return {
    mode: mode === 'prefer' ? 'prefer' : 'on',
    options: {
      rejectUnauthorized: checked,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      // both clients give TLS no name where the host is an IP address: Node.js would look for localhost in the certificate
      ...(mode === 'verify-full' ? { host: hostname.replace(/^\[|\]$/g, '') } : {}),
      ...(checked && mode !== 'verify-full' ? { checkServerIdentity: () => undefined } : {}),
    },
  };
}

/** Quotes a name for SQL. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Quotes a text for SQL, for the few statements that take no parameters. */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Splits `schema.table` (either part may be "quoted") and quotes both parts; without a schema it is public. */
export function quoteTable(table: string): string {
  const parts = [...table.matchAll(/"((?:[^"]|"")+)"|([^".]+)/g)].map((m) => m[1]?.replaceAll('""', '"') ?? m[2] ?? '');
  const [schema, name] = parts.length > 1 ? [parts[0] ?? '', parts.slice(1).join('.')] : ['public', parts[0] ?? ''];
  return `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;
}

/** Writes values as one PostgreSQL array literal: sent as one text parameter, it is the cheapest way to bring many rows. */
export function arrayLiteral(values: readonly (string | number | null)[]): string {
  if (values.length === 0) return '{}';
  // one look at all of them together; the words of an array are quoted, so that no value is taken for NULL
  if (!values.includes(null) && !SPECIAL.test(values.join(''))) return `{"${values.join('","')}"}`;
  const words = values.map((value) => (value === null ? 'NULL' : `"${String(value).replace(/["\\]/g, '\\$&')}"`));
  return `{${words.join(',')}}`;
}

/** What needs an escape within quotes. */
const SPECIAL = /["\\]/;
