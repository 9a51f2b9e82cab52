/** The replication slot: describe, create, drop. Never probed with pg_logical_slot_peek_*, which decodes everything each time. */
import { Client } from 'pg';
import type { Config } from '../settings.ts';
import { pgConfig } from '../postgres/clients.ts';
import { REPLICATION_OPTIONS, TAG_LENGTH, type Connections } from '../postgres/connections.ts';
import { cancelStatement, type Sql } from '../postgres/pools.ts';
import { quoteIdentifier } from '../postgres/quoting.ts';
import { NO_TRANSACTION_TIMEOUT } from '../postgres/session.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import type { Log } from '../log.ts';
import { parseLsn, type Lsn } from '../postgres/lsn.ts';
import { describeServer, requireSame, SERVER, type Server } from '../replication/server.ts';
import { FAILOVER_SLOTS } from './mode.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { oldestTransaction } from '../postgres/transactions.ts';

/** When a wait for other transactions is logged first, and again. */
const WAITING_MS = { first: 1_000, again: 30_000 };
/** How long a terminated session may take to release the slot. */
const RELEASE_MS = 5_000;
/** The command that makes it a failover slot waits for nobody. */
const COMMAND_MS = 10_000;
const WAITING = 'creating the slot waits for transactions that were open when it started; this is the oldest';

export interface Slot {
  /** the session that reads it, and whether it is a daemon's; undefined: none */
  readonly reader: { readonly pid: number; readonly ours: boolean } | undefined;
  /** reserved, extended, unreserved or lost; a slot that the server invalidated counts as lost */
  readonly walStatus: string;
  readonly invalidationReason: string | undefined;
  readonly confirmed: Lsn;
  /** the confirmed position is ahead of the server's own */
  readonly inFuture: boolean;
  /** bytes of WAL that are not confirmed */
  readonly behindBytes: number;
  /** the size of the WAL that it retains, as pg_size_pretty writes it */
  readonly retained: string | undefined;
  /** logical or physical; a physical one has no database and no plugin ('') */
  readonly type: string;
  readonly database: string;
  readonly plugin: string;
  readonly twoPhase: boolean;
  /** standbys keep a copy of it (PostgreSQL 17 and later) */
  readonly failover: boolean;
}

export async function describeSlot(sql: Sql, name: string): Promise<Slot | undefined> {
  const [row] = await sql<
    {
      reader: number | null;
      ours: boolean;
      failover: boolean;
      status: string | null;
      confirmed: string | null;
      future: boolean | null;
      reason: string | null;
      behind: number;
      retained: string | null;
      type: string;
      database: string;
      plugin: string;
      two_phase: boolean;
    }[]
  >`
    select active_pid as reader, coalesce((to_jsonb(s) ->> 'failover')::bool, false) as failover,
           exists (select from pg_stat_activity a where a.pid = s.active_pid and a.application_name like 'smslogd %') as ours,
           case when to_jsonb(s) ->> 'invalidation_reason' is not null or (to_jsonb(s) ->> 'conflicting')::bool then 'lost'
                        else wal_status end as status,
           to_jsonb(s) ->> 'invalidation_reason' as reason, confirmed_flush_lsn::text as confirmed, confirmed_flush_lsn > pg_current_wal_lsn() as future,
           coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::float8 as behind,
           pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as retained, slot_type as type,
           coalesce(database, '') as database, coalesce(plugin, '') as plugin, two_phase
      from pg_replication_slots s where slot_name = ${name}`;
  if (row === undefined) return undefined;
  return {
    reader: row.reader === null ? undefined : { pid: row.reader, ours: row.ours },
    walStatus: row.status ?? 'lost',
    confirmed: parseLsn(row.confirmed ?? '0/0'),
    invalidationReason: row.reason ?? undefined,
    inFuture: row.future === true,
    behindBytes: row.behind,
    retained: row.retained ?? undefined,
    type: row.type,
    database: row.database,
    plugin: row.plugin,
    twoPhase: row.two_phase,
    failover: row.failover,
  };
}

/** Runs `work` on a new connection as the replication role, which alone may manage the slot and its reader. */
async function withReplication<T>(
  { control, asReplication }: Pick<Connections, 'control' | 'asReplication'>,
  work: (sql: Sql) => Promise<T>,
  { purpose = 'slot', before }: { purpose?: string; before?: (() => Promise<void>) | undefined } = {},
): Promise<T> {
  return asReplication(purpose, async (sql) => {
    requireSame(await describeServer(control), await describeServer(sql));
    await sql`select set_config('smslogd.session', 'first', false)`;
    await sql.unsafe(NO_TRANSACTION_TIMEOUT);
    await before?.();
    return await work(sql);
  });
}

/** What creates the slot, in the name of its session. */
const MAKER = 'maker';

/** Sessions that create the slot or may do so in a moment, of whatever daemon. PostgreSQL cuts a long name. */
export async function makersOf(sql: Sql, slot: string): Promise<number[]> {
  const head = `smslogd ${MAKER} `;
  const rows = await sql<{ pid: number }[]>`
    select pid from pg_stat_activity
     where datname = current_database() and starts_with(application_name, ${head})
       and substr(application_name, ${head.length + TAG_LENGTH + 2}) = ${slot.slice(0, 63 - head.length - TAG_LENGTH - 1)}`;
  return rows.map(({ pid }) => pid);
}

/**
 * Creates the slot; on PostgreSQL 17 and later with failover. The server waits for all transactions that are open now, which can take hours: the oldest one
 * is logged meanwhile, read over `control`. An abort of `signal` cancels the statement, since the server would go on waiting and block the next daemon.
 *
 * `before` commits in its term what the new slot makes necessary, while the session is open that will create it, and no other session does: a later leader,
 * in whose term that is void, terminates this one before it looks at the slot. So a daemon that was suspended in between creates none.
 */
export async function createSlot(
  connections: Pick<Connections, 'control' | 'asReplication'>,
  config: Config,
  server: Pick<Server, 'version'>,
  { log, before }: { log: Log; before: () => Promise<void> },
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const name = config.SLOT_NAME;
  await withReplication(
    connections,
    async (sql) => {
      const failover = server.version >= FAILOVER_SLOTS ? sql`, false, false, true` : sql``;
      const creation = sql`select pg_create_logical_replication_slot(${name}, 'pgoutput' ${failover})
                            where current_setting('smslogd.session', true) = 'first'`;
      const cancel = () => void cancelStatement(sql).catch(() => {});
      // until here nobody has heard an abort
      signal.throwIfAborted();
      signal.addEventListener('abort', cancel);
      const logWaiting = () => {
        waiting = setTimeout(logWaiting, WAITING_MS.again);
        oldestTransaction(connections.control)
          .then((oldest) => log.info({ slot: name, ...oldest }, WAITING))
          .catch(() => {});
      };
      let waiting = setTimeout(logWaiting, WAITING_MS.first);
      try {
        if ((await creation).length === 0) throw steppedDown();
      } catch (error) {
        // another session created it first
        if (codeOf(error) !== '42710') throw error;
      } finally {
        clearTimeout(waiting);
        signal.removeEventListener('abort', cancel);
      }
    },
    {
      purpose: MAKER,
      before: async () => {
        await requireFreeSlot(connections.control);
        await before();
      },
    },
  );
}

/** Throws slots_exhausted where no slot can be made: a mark would reset the reconcile with each try. */
async function requireFreeSlot(sql: Sql): Promise<void> {
  const [row] =
    await sql`select count(*) >= current_setting('max_replication_slots')::int as none from pg_replication_slots`;
  if (row?.['none'] === true) throw new SmslogdError('slots_exhausted', 'PostgreSQL has no free replication slot');
}

/** Terminates a session of a daemon, which reads or creates the slot, and waits until it has ended; false if it has not after a few seconds. */
export async function terminate(
  connections: Pick<Connections, 'control' | 'asReplication'>,
  pid: number,
): Promise<boolean> {
  await withReplication(connections, async (sql) => {
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where pid = ${pid} and application_name like 'smslogd %'`;
  });
  const deadline = performance.now() + RELEASE_MS;
  while (performance.now() < deadline) {
    if ((await connections.control`select from pg_stat_activity where pid = ${pid}`).length === 0) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

export async function dropSlot(
  connections: Pick<Connections, 'control' | 'asReplication'>,
  config: Config,
  before?: () => Promise<void>,
): Promise<void> {
  const drop = async (sql: Sql) =>
    await sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
  await withReplication(connections, drop, { before });
}

/** Makes it a failover slot: one created by hand or before an upgrade is none. Only the replication protocol has a command for it. */
export async function enableFailover(
  { replication }: Pick<Connections, 'replication'>,
  config: Config,
  server: Server,
): Promise<void> {
  const url = config.DATABASE_REPLICATION_URL ?? '';
  const opening = await pgConfig(url, { ...replication('slot'), options: REPLICATION_OPTIONS, replication: true });
  const client = new Client({ ...opening, query_timeout: COMMAND_MS });
  client.on('error', () => {});
  try {
    await client.connect();
    requireSame(server, (await client.query<Server>(SERVER)).rows[0]);
    await client.query(`ALTER_REPLICATION_SLOT ${quoteIdentifier(config.SLOT_NAME)} (FAILOVER true)`);
  } finally {
    // where the path is dead nobody answers
    client.end().catch(() => {});
  }
}
