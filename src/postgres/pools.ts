/** Pools of PostgreSQL connections: postgres.js for every query. */
import type { Socket } from 'node:net';
import postgres from 'postgres';
import type { Config } from '../config.ts';
import { addressOf } from './address.ts';
import { postgresSocket, startupOf } from './clients.ts';
import { SESSION_OPTIONS } from './session.ts';

export type Sql = postgres.Sql;

/**
 * Opens a pool of at most `max` connections. Where `DATABASE_REPLICATION_URL` is another address, `DATABASE_URL` is taken to go through a
 * pooler in transaction mode: no prepared statements then, and nothing relies on session state anyway.
 */
export function openDatabase(config: Config, options: { max: number; name: string }): Sql {
  const address = addressOf(config.DATABASE_URL ?? '');
  const startup = startupOf(address, options.name, isPooled(config) ? '' : SESSION_OPTIONS);
  const sockets = new Set<Socket>();
  const opened = (socket: Socket) => void sockets.add(socket.once('close', () => sockets.delete(socket)));
  const sql = ownSettings({
    socket: () => postgresSocket(address, startup, opened),
    // who is connected and how is the socket's affair: the rest is for the client's messages alone
    host: address.hosts[0]?.name || 'localhost',
    port: address.hosts[0]?.port,
    database: address.database,
    username: address.user,
    password: 'none',
    ssl: false,
    keep_alive: null,
    max: options.max,
    prepare: !isPooled(config),
    fetch_types: false,
    idle_timeout: 60,
    connect_timeout: 10,
    onnotice: () => {},
  });
  SOCKETS.set(sql, sockets);
  return sql;
}

const SOCKETS = new WeakMap<Sql, ReadonlySet<Socket>>();

/**
 * Cuts every connection of a pool; what waits for an answer fails with CONNECTION_CLOSED, the next query opens a new one. For a path that died
 * in silence: nothing else ends a query whose answer never comes.
 */
export function dropConnections(sql: Sql): void {
  for (const socket of SOCKETS.get(sql) ?? []) socket.destroy();
}

/** A pool for which libpq's variable is none: postgres.js would read it and look for another session once more. */
function ownSettings(options: object): Sql {
  const name = 'PGTARGETSESSIONATTRS';
  const { [name]: said } = process.env;
  delete process.env[name];
  try {
    return postgres(options);
  } finally {
    if (said !== undefined) process.env[name] = said;
  }
}

/** True where queries go through a pooler. */
export function isPooled(config: Config): boolean {
  return config.DATABASE_REPLICATION_URL !== config.DATABASE_URL;
}
