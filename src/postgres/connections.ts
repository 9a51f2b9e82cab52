/**
 * The daemon's connections, each for one purpose, so that a statement that waits for somebody's lock delays nothing that does not need that lock; and
 * the watch over them.
 *
 * - The sessions on the server are at most DAEMON_CONNECTIONS, whatever happens: a lock held for hours makes statements wait, and a connection that was lost,
 *   however that was, may have left a session on the server, so that none is opened in its place before the server has none left.
 * - Each session has its own name on the server (application_name): a dead one is told from a busy one.
 * - `control` runs only statements that no lock on a table can delay: the lease, catalog lookups, the watch itself. While it answers, the path to the server
 *   is alive, and a statement that takes long waits for a lock, or is slow: it is left alone.
 * - A connection whose statement the server does not know of is dead: it alone is cut.
 * - Where `control` gets no answer the path is dead; a refusal is an answer. It alone is cut and opened again, beside the one session that it may have left, which
 *   the new one terminates first: nobody else could. Once the server answers, every older session of this process is terminated there before its socket is cut here.
 * - The replication role's sessions are its own to terminate: one beside another, as for a stream that is dead. Control sees how many are left. A new one terminates
 *   first what is left of those for statements; a lost stream ends by wal_sender_timeout, a lost login because it rests.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Config } from '../settings.ts';
import { sqlstateOf, toSmslogdError } from '../errors.ts';
import { runFor, runningMs } from '../running-time.ts';
import { pause } from '../supervise.ts';
import type { Opening } from './clients.ts';
import { openDirect, type Direct } from './direct.ts';
import { observed, type Waiting } from './observed.ts';
import { isPooled } from './pooler.ts';
import { directly, dropConnections, openDatabase, type Sql } from './pools.ts';
import { soleSession } from './sole-session.ts';
import { RUNS, SESSION_NAME } from './transactions.ts';

/** One connection each. */
const PURPOSES = [
  /** the lease, catalog lookups, the watch */
  'control',
  /** the sink: the mirror's writes from the stream */
  'apply',
  /** reads of the source (reconcile, audit, gateway ids that come late), and the mirror's other statements */
  'copy',
  'claim',
  /** what becomes of an SMS: answers, and verdicts without one */
  'complete',
  /** what /metrics and the page show */
  'figures',
  /** stored counters, retention, repair of the queue */
  'upkeep',
] as const;

type Purpose = (typeof PURPOSES)[number];

/** Of the replication role: one, and another one that terminates it. */
export const REPLICATION_CONNECTIONS = 2;
/** Sessions of one daemon on the server at most: these, a second one of control, and those of the replication role. */
export const DAEMON_CONNECTIONS = PURPOSES.length + 1 + REPLICATION_CONNECTIONS;

export type Connections = { readonly [P in Exclude<Purpose, 'apply'>]: Sql } & {
  readonly apply: Pick<Direct, 'row'>;
  /** How a session of the replication role is opened; `purpose` is the first word of its name, the slot the last. */
  replication(purpose: string): Opening;
  /** Does `work` in one, which the watch sees. */
  asReplication<T>(purpose: string, work: (sql: Sql) => Promise<T>): Promise<T>;
  /** names this process among the daemons: the third word in the application_name of its sessions */
  readonly tag: string;
  /** How long the oldest statement has waited for its answer, those of `control` aside; milliseconds. */
  waitedMs(): number;
  /** Watches until `signal` aborts; never rejects. */
  watch(signal: AbortSignal): Promise<void>;
  /** Waits for what is to end. What of the mirror's statements waits for a lock by then is cancelled: nobody needs its result any more. */
  settled(tasks: readonly Promise<unknown>[]): Promise<void>;
  /** Told of a failure: cuts all where it was that sessions are read only. They keep what ALTER ROLE had set when they began, new ones need not. */
  refresh(error: unknown): void;
  end(): Promise<void>;
};

/** Of a daemon's tag. */
export const TAG_LENGTH = 8;
/** How a new connection fails where nobody answers. */
const SILENCE = new Set(['CONNECT_TIMEOUT', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH']);
const LOOK_MS = 2_000;
/** A statement that takes longer is looked for on the server. */
const STALL_MS = 5_000;
/** Through a pooler a statement may wait for a free session there, where nobody sees it; to be cut then does it no harm. */
const POOLED_STALL_MS = 15_000;
/** Between two looks whether a session has ended. */
const ENDS_MS = 20;
/** A connection that does not end is cut after so many seconds. */
const END_S = 0.5;
/** What is to end may take so long. */
const STUCK_MS = 2_000;

/** The server ends a session of the replication role that rests for so long; one that will create the slot waits for its mark. */
export const REPLICATION_OPTIONS = '-c idle_session_timeout=15s';
/** What the server knows of a long application_name. */
const NAME_LENGTH = 63;

/** One connection, as the watch sees it. */
interface Lane extends Waiting {
  /** the application_name of its sessions */
  readonly name: string;
  cut(): void;
  end(): Promise<void>;
}

interface Options {
  readonly lookMs?: number;
  readonly stallMs?: number;
}

export function openConnections(config: Config, options: Options = {}): Connections {
  // known once there is a connection
  const pooled = () => isPooled(config);
  const { lookMs = LOOK_MS, stallMs = STALL_MS } = options;
  const lostMs = () => (pooled() ? Math.max(POOLED_STALL_MS, stallMs) : stallMs);
  const tag = randomBytes(TAG_LENGTH / 2).toString('hex');
  const lanes = {} as Record<Purpose, Lane>;
  /** those that control watches */
  const others = new Set<Lane>();
  const pool = (purpose: Exclude<Purpose, 'apply'>, opening: Omit<Opening, 'name'> & { options?: string }): Sql => {
    const name = `${purpose} ${tag}`;
    const sql = openDatabase(config, { max: 1, name, ...opening });
    lanes[purpose] = laneOf(sql, name, END_S);
    if (purpose !== 'control') others.add(lanes[purpose]);
    return observed(sql, lanes[purpose]);
  };
  /** Every other session of a purpose, or of all ('%'). */
  const sessionsOf = (purpose: string) =>
    `select pid from pg_stat_activity a
      where ${SESSION_NAME} like 'smslogd ${purpose} ${tag}' and pid <> pg_backend_pid() and (${RUNS} or not ${pooled()})`;
  const control = pool(
    'control',
    soleSession(() => sessionsOf('control'), pooled),
  );
  /** Terminates them, and resolves once the server has none left. */
  const ended = async (purpose: string): Promise<void> => {
    for (;;) {
      const left = await control.unsafe(`select pg_terminate_backend(pid) from (${sessionsOf(purpose)}) s`);
      if (left.length === 0) return;
      await delay(ENDS_MS);
    }
  };
  /** Nothing may be left of the last session of a purpose when the next one is opened. */
  const alone = (purpose: Purpose): Omit<Opening, 'name'> => {
    let first = true;
    return {
      around: async (login) => {
        if (!first) await ended(purpose);
        first = false;
        return login();
      },
    };
  };
  const sink = openDirect(config, { name: `apply ${tag}`, ...alone('apply') });
  lanes.apply = {
    name: `smslogd apply ${tag}`,
    statements: new Map(),
    cut: () => sink.drop(),
    end: async () => sink.end(),
  };
  others.add(lanes.apply);

  /** The statements that have waited for longer than `ms`. */
  const stalled = ({ statements }: Lane, ms: number): object[] =>
    [...statements].filter(([, sent]) => since(sent) > ms).map(([statement]) => statement);
  const longest = () => Math.max(0, ...[...others].flatMap(({ statements }) => [...statements.values()].map(since)));
  const active = async () =>
    (
      await control.unsafe<{ name: string }[]>(
        `select ${SESSION_NAME} as name from pg_stat_activity a where application_name like 'smslogd % ${tag}%' and ${RUNS}`,
      )
    ).map(({ name }) => name);
  const ofReplication = `select pid from pg_stat_activity a where ${SESSION_NAME} like 'smslogd % ${tag} %'`;
  const replication = (purpose: string): Opening => ({
    name: `${purpose} ${tag} ${config.SLOT_NAME}`,
    around: async (login) => {
      while ((await control.unsafe(ofReplication)).length >= REPLICATION_CONNECTIONS) await delay(ENDS_MS);
      return login();
    },
    // a daemon needs one for statements at a time
    first: async (ask) => {
      await ask(`select count(pg_terminate_backend(pid))
                   from (${ofReplication} and application_name not like 'smslogd mirror %' and pid <> pg_backend_pid()) s`);
    },
  });
  const cancelWrites = async () =>
    await control.unsafe(`select pg_cancel_backend(pid) from pg_stat_activity a
                           where ${SESSION_NAME} in ('smslogd apply ${tag}', 'smslogd copy ${tag}') and state <> 'idle'`);

  return {
    control,
    apply: {
      async row(...words) {
        const { statements } = lanes.apply;
        const statement = {};
        statements.set(statement, runningMs());
        try {
          return await sink.row(...words);
        } finally {
          statements.delete(statement);
        }
      },
    },
    copy: pool('copy', alone('copy')),
    claim: pool('claim', alone('claim')),
    complete: pool('complete', alone('complete')),
    figures: pool('figures', alone('figures')),
    upkeep: pool('upkeep', alone('upkeep')),
    replication,
    asReplication: async (purpose, work) => {
      const opening = replication(purpose);
      const sql = openDatabase(directly(config), { max: 1, ...opening, options: REPLICATION_OPTIONS });
      const lane = laneOf(sql, opening.name, 1);
      others.add(lane);
      try {
        return await work(observed(sql, lane));
      } finally {
        others.delete(lane);
        await lane.end();
      }
    },
    tag,
    waitedMs: longest,
    async watch(signal) {
      /** statements that the server did not know of at the last look */
      let unknown = new Set<object>();
      let dead = false;
      while (!signal.aborted) {
        await pause(lookMs, signal);
        if (signal.aborted) return;
        // the renewal of the lease had its answer just now, and nobody else misses one
        if (!dead && since(lanes.control.answeredAt) < lookMs && longest() < stallMs) continue;
        const seen = await within(
          stallMs,
          active().catch((error: unknown) => (SILENCE.has(sqlstateOf(error) ?? '') ? undefined : 'refused')),
        );
        // by a server that restarts: what it had of our sessions has ended
        if (seen === 'refused') continue;
        if (seen === undefined) {
          dead = true;
          lanes.control.cut();
          continue;
        }
        if (dead) {
          dead = false;
          // the server answers again on a new connection
          await within(stallMs, ended('%'));
          for (const lane of others) lane.cut();
          continue;
        }
        const missed = new Set<object>();
        for (const lane of others) {
          const late = stalled(lane, lostMs());
          if (late.length === 0 || seen.includes(lane.name)) continue;
          if (late.some((statement) => unknown.has(statement))) lane.cut();
          else for (const statement of late) missed.add(statement);
        }
        unknown = missed;
      }
    },
    async settled(tasks) {
      let cancelled: Promise<unknown> = Promise.resolve();
      const stuck = setInterval(() => {
        cancelled = cancelWrites().catch(() => {});
      }, STUCK_MS);
      await Promise.allSettled(tasks);
      clearInterval(stuck);
      // one that is still on its way would cancel what is done next
      await within(stallMs, cancelled);
    },
    refresh(error) {
      if (toSmslogdError(error).code !== 'database_read_only') return;
      for (const purpose of PURPOSES) lanes[purpose].cut();
    },
    async end() {
      await Promise.all(PURPOSES.map((purpose) => lanes[purpose].end()));
    },
  };
}

function laneOf(sql: Sql, name: string, endS: number): Lane {
  return {
    name: `smslogd ${name}`.slice(0, NAME_LENGTH),
    statements: new Map(),
    cut: () => dropConnections(sql),
    end: async () => await sql.end({ timeout: endS }),
  };
}

/** Milliseconds that the process ran since a moment; undefined: there was none. */
function since(moment = -Infinity): number {
  return runningMs() - moment;
}

/** What `work` returns; undefined where it fails or takes longer than `ms`. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  const limit = new AbortController();
  const answer = await Promise.race([work.catch(() => undefined), runFor(ms, limit.signal).then(() => undefined)]);
  limit.abort();
  return answer;
}
