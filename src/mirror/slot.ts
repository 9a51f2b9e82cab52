/** The replication slot as the server knows it: look, create, drop. Never probed with pg_logical_slot_peek_*: that decodes everything each time. */
import type { Config } from '../config.ts';
import { openDatabase, type Sql } from '../postgres/pools.ts';
import { codeOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { parseLsn, type Lsn } from '../lsn.ts';
import { oldestTransaction } from './store.ts';

/** After so long the wait for others' transactions is told of, and again. */
const WAITING_MS = { first: 1_000, again: 30_000 };
const WAITING = 'creating the slot waits for the transactions that were open when it began; the oldest is named here';

export interface Slot {
  /** the server's process that reads it; undefined: nobody does */
  readonly reader: number | undefined;
  /** reserved, extended, unreserved or lost; a slot that the server invalidated counts as lost */
  readonly walStatus: string;
  readonly confirmed: Lsn;
  /** true where the confirmed position is beyond the server's own: the slot is another history's */
  readonly inFuture: boolean;
  /** the database that it belongs to, and its plugin */
  readonly database: string;
  readonly plugin: string;
  /** true where it was made to send prepared transactions before their commit, in messages that the mirror does not ask for */
  readonly twoPhase: boolean;
}

export interface Server {
  readonly systemId: string;
  readonly version: number;
  readonly database: string;
  readonly walLevel: string;
  /** 0: the server never hangs up */
  readonly senderTimeoutMs: number;
}

export async function describeServer(sql: Sql): Promise<Server> {
  const [row] = await sql<
    { id: string; version: number; database: string; level: string; timeout: number }[]
  >`select (select system_identifier::text from pg_control_system()) as id, current_setting('server_version_num')::int as version,
           current_database() as database, current_setting('wal_level') as level,
           (select setting::int from pg_settings where name = 'wal_sender_timeout') as timeout`;
  return {
    systemId: row!.id,
    version: row!.version,
    database: row!.database,
    walLevel: row!.level,
    senderTimeoutMs: row!.timeout,
  };
}

export async function describeSlot(sql: Sql, name: string): Promise<Slot | undefined> {
  const [row] = await sql<
    {
      reader: number | null;
      status: string | null;
      confirmed: string | null;
      future: boolean | null;
      database: string;
      plugin: string;
      two_phase: boolean;
    }[]
  >`
    select active_pid as reader, case when to_jsonb(s) ->> 'invalidation_reason' is not null or (to_jsonb(s) ->> 'conflicting')::bool then 'lost'
                        else wal_status end as status,
           confirmed_flush_lsn::text as confirmed, confirmed_flush_lsn > pg_current_wal_lsn() as future, coalesce(database, '') as database, coalesce(plugin, '') as plugin, two_phase
      from pg_replication_slots s where slot_name = ${name}`;
  if (row === undefined) return undefined;
  return {
    reader: row.reader ?? undefined,
    walStatus: row.status ?? 'lost',
    confirmed: parseLsn(row.confirmed ?? '0/0'),
    inFuture: row.future === true,
    database: row.database,
    plugin: row.plugin,
    twoPhase: row.two_phase,
  };
}

/**
 * Creates the slot. The server waits for every transaction that is open at this moment: the oldest one is named in the log while it does.
 * That can take hours, so it has a connection of its own, behind which no other query waits, and ends when `signal` aborts: a server left
 * alone would go on waiting and keep the next daemon from the slot. From PostgreSQL 17 on the slot is a failover slot.
 */
export async function createSlot(
  sql: Sql,
  config: Config,
  server: Server,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const name = config.SLOT_NAME;
  const own = openDatabase(config, { max: 1, name: 'slot' });
  const creation =
    server.version >= 170_000
      ? own`select pg_create_logical_replication_slot(${name}, 'pgoutput', false, false, true)`
      : own`select pg_create_logical_replication_slot(${name}, 'pgoutput')`;
  const cancel = () => creation.cancel();
  signal.addEventListener('abort', cancel);
  const tell = () => {
    waiting = setTimeout(tell, WAITING_MS.again);
    oldestTransaction(sql)
      .then((oldest) => log.info({ slot: name, ...oldest }, WAITING))
      .catch(() => {});
  };
  let waiting = setTimeout(tell, WAITING_MS.first);
  try {
    await creation;
  } catch (error) {
    // another daemon was quicker
    if (codeOf(error) === '42710') return;
    throw error;
  } finally {
    clearTimeout(waiting);
    signal.removeEventListener('abort', cancel);
    await own.end({ timeout: 1 });
  }
}

/** Ends a reader of ours that the server still keeps although its connection is dead; it needs no more than the role that began it. */
export async function endReader(sql: Sql, pid: number): Promise<void> {
  await sql`select pg_terminate_backend(${pid})`;
}

export async function dropSlot(sql: Sql, name: string): Promise<void> {
  await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = ${name}`;
}
