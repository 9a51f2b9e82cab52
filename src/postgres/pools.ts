/** Pools of PostgreSQL connections: postgres.js for every query. */
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import postgres from 'postgres';
import type { Config } from '../config.ts';
import { codeOf } from '../errors.ts';
import { addressOf, type Address } from './address.ts';

export type Sql = postgres.Sql;

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

/** True where queries go through a pooler. */
export function isPooled(config: Config): boolean {
  return config.DATABASE_REPLICATION_URL !== config.DATABASE_URL;
}
