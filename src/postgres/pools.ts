/** Pools of PostgreSQL connections: postgres.js for every query. */
import type { Socket } from 'node:net';
import postgres from 'postgres';
import type { Config } from '../settings.ts';
import { addressOf } from './address.ts';
import { postgresSocket, startupOf, type Opening } from './clients.ts';
import type { Session } from './login.ts';
import { isPooled, logInForQueries } from './pooler.ts';
import { SESSION_OPTIONS } from './session.ts';

export type Sql = postgres.Sql;

/**
 * Opens a pool of at most `max` connections; `options` are those of its sessions beside ours. Through a pooler in transaction mode there are no prepared statements, and nothing relies on session
 * state anyway. `transactions`: for `begin`.
 *
 * Each connection sends one statement after the other: PgBouncer takes its session away from a statement that asks for its parameters' types behind another one's answer,
 * and it waits for ever (pgbouncer issue 759). What begins a transaction needs the connection to take a second statement, and waits for each of them itself.
 */
export function openDatabase(
  config: Config,
  {
    max,
    name,
    options = '',
    transactions = false,
    ...surroundings
  }: Opening & { max: number; options?: string; transactions?: boolean },
): Sql {
  const address = addressOf(config.DATABASE_URL ?? '');
  const known: Known = { sockets: new Set() };
  const { sockets } = known;
  const opened = (socket: Socket) => void sockets.add(socket.once('close', () => sockets.delete(socket)));
  const logIn = async () => {
    // as it is now: it may have been read again
    const now = addressOf(config.DATABASE_URL ?? '');
    known.session = await logInForQueries(config, now, {
      startup: startupOf(now, name, `${SESSION_OPTIONS} ${options}`),
      pooled: startupOf(now, name, ''),
      opened,
      ...surroundings,
    });
    // read for each statement: no session has had any yet
    sql.options.prepare = !isPooled(config);
    return known.session;
  };
  const sql = ownSettings({
    socket: () => postgresSocket(logIn()),
    // who is connected and how is the socket's affair: the rest is for the client's messages alone
    host: address.hosts[0]?.name || 'localhost',
    port: address.hosts[0]?.port,
    database: address.database,
    username: address.user,
    password: 'none',
    ssl: false,
    keep_alive: null,
    max,
    // postgres.js keeps what a connection that closed had not sent, and then writes no message by itself that leaves it under 1 kB: this StartupMessage goes at
    // once, with all that was kept before it, and the socket swallows it
    connection: { padding: '-'.repeat(1024) },
    // the loops have their own
    backoff: 0,
    fetch_types: false,
    max_pipeline: transactions ? 100 : 0,
    idle_timeout: 60,
    connect_timeout: 10,
    onnotice: () => {},
  });
  KNOWN.set(sql.options, known);
  return sql;
}

interface Known {
  readonly sockets: Set<Socket>;
  /** the last one */
  session?: Session;
}
/** By the options of a pool, which it shares with its proxies. */
const KNOWN = new WeakMap<object, Known>();

/**
 * Cuts every connection of a pool; what waits for an answer fails with CONNECTION_CLOSED, the next query opens a new one. For a path that died
 * in silence: nothing else ends a query whose answer never comes.
 */
export function dropConnections(sql: Sql): void {
  for (const socket of KNOWN.get(sql.options)?.sockets ?? []) socket.destroy();
}

/** Cancels what a pool of one connection runs. postgres.js would log in for that, which is one session more. */
export async function cancelStatement(sql: Sql): Promise<void> {
  await KNOWN.get(sql.options)?.session?.cancel();
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

/** The settings for a connection that goes to the server itself: DATABASE_REPLICATION_URL. */
export function directly(config: Config): Config {
  return {
    ...config,
    get DATABASE_URL() {
      return config.DATABASE_REPLICATION_URL;
    },
    DATABASE_POOLED: 'false',
  };
}
