/**
 * The daemon's connections, each for one purpose, so that a statement that waits for somebody's lock delays nothing that does not need that lock; and
 * the watch over them.
 *
 * - Their number is fixed (DAEMON_CONNECTIONS): a lock held for hours makes statements wait, never more sessions.
 * - Each session has its own name on the server (application_name): a dead one is told from a busy one.
 * - `control` runs only statements that no lock on a table can delay: the lease, catalog lookups, the watch itself. While it answers, the path to the server
 *   is alive, and a statement that takes long waits for a lock, or is slow: it is left alone.
 * - A connection whose statement the server does not know of is dead: it alone is cut.
 * - Where `control` gets no answer the path is dead; a refusal is an answer. It alone is cut and opened again; once the server answers, every older session
 *   of this process is terminated there before its socket is cut here, so that no orphaned session waits on beside its successor.
 */
import { randomBytes } from 'node:crypto';
import type { Config } from '../settings.ts';
import { sqlstateOf, toSmslogdError } from '../errors.ts';
import { runFor, runningMs } from '../running-time.ts';
import { pause } from '../supervise.ts';
import { openDirect, type Direct } from './direct.ts';
import { isPooled } from './pooler.ts';
import { dropConnections, openDatabase, type Sql } from './pools.ts';

/** One connection each. */
const PURPOSES = [
  /** the lease, catalog lookups, the watch */
  'control',
  /** the sink: the mirror's writes from the stream */
  'apply',
  /** reads of the source (reconcile, audit, gateway ids that come late), and the mirror's other statements */
  'copy',
  'claim',
  'complete',
  /** while a batch of answers is written, the next one is on its way */
  'complete2',
  /** verdicts without the gateway */
  'verdict',
  /** what /metrics and the page show */
  'figures',
  /** stored counters, retention, repair of the queue */
  'upkeep',
] as const;

type Purpose = (typeof PURPOSES)[number];

/** Sessions of one daemon on the server: these and the replication connection, which a slot is made over, too. */
export const DAEMON_CONNECTIONS = PURPOSES.length + 1;

export type Connections = { readonly [P in Exclude<Purpose, 'apply' | 'complete2'>]: Sql } & {
  readonly apply: Pick<Direct, 'row'>;
  /** names this process among the daemons: the end of the application_name of its sessions */
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

/** How a new connection fails where nobody answers. */
const SILENCE = new Set(['CONNECT_TIMEOUT', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH']);
const LOOK_MS = 2_000;
/** A statement that takes longer is looked for on the server. */
const STALL_MS = 5_000;
/** Through a pooler a statement may wait for a free session there, where nobody sees it. */
const POOLED_STALL_MS = 60_000;
/** A connection that does not end is cut after so many seconds. */
const END_S = 0.5;
/** What is to end may take so long. */
const STUCK_MS = 2_000;

/** One connection, as the watch sees it. */
interface Lane {
  /** those that wait for their answer, and since when */
  readonly statements: Map<object, number>;
  /** when the last answer came */
  answeredAt?: number;
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
  const tag = randomBytes(4).toString('hex');
  const lanes = {} as Record<Purpose, Lane>;
  const pool = (purpose: Exclude<Purpose, 'apply'>): Sql => {
    const sql = openDatabase(config, { max: 1, name: `${purpose} ${tag}` });
    lanes[purpose] = {
      statements: new Map(),
      cut: () => dropConnections(sql),
      end: async () => await sql.end({ timeout: END_S }),
    };
    return observed(sql, lanes[purpose]);
  };
  const sink = openDirect(config, `apply ${tag}`);
  lanes.apply = { statements: new Map(), cut: () => sink.drop(), end: async () => sink.end() };
  const control = pool('control');
  const others = PURPOSES.filter((purpose) => purpose !== 'control');

  /** The statements that a purpose has waited for longer than `ms`. */
  const stalled = (purpose: Purpose, ms: number): object[] =>
    [...lanes[purpose].statements].filter(([, sent]) => since(sent) > ms).map(([statement]) => statement);
  const longest = () => Math.max(0, ...others.flatMap((purpose) => [...lanes[purpose].statements.values()].map(since)));
  const active = async () =>
    (
      await control<{ name: string }[]>`
        select application_name as name from pg_stat_activity where application_name like ${`smslogd % ${tag}`} and state <> 'idle'`
    ).map(({ name }) => name);
  const terminate = async (pattern: string) =>
    await control`select pg_terminate_backend(pid) from pg_stat_activity
                   where application_name like ${pattern} and pid <> pg_backend_pid() and (state <> 'idle' or not ${pooled()}::boolean)`;
  const cancelWrites = async () =>
    await control`select pg_cancel_backend(pid) from pg_stat_activity
                   where application_name in (${`smslogd apply ${tag}`}, ${`smslogd copy ${tag}`}) and state <> 'idle'`;

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
    copy: pool('copy'),
    claim: pool('claim'),
    complete: either(
      pool('complete'),
      pool('complete2'),
      () => lanes.complete.statements.size - lanes.complete2.statements.size,
    ),
    verdict: pool('verdict'),
    figures: pool('figures'),
    upkeep: pool('upkeep'),
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
          await within(stallMs, terminate(`smslogd % ${tag}`));
          for (const purpose of others) lanes[purpose].cut();
          continue;
        }
        const lost = new Set<object>();
        for (const purpose of others) {
          const late = stalled(purpose, lostMs());
          if (late.length === 0 || seen.includes(`smslogd ${purpose} ${tag}`)) continue;
          if (late.some((statement) => unknown.has(statement))) {
            await within(stallMs, terminate(`smslogd ${purpose} ${tag}`));
            lanes[purpose].cut();
          } else for (const statement of late) lost.add(statement);
        }
        unknown = lost;
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

/** What of postgres.js's Query is used to see when a statement is sent and when its answer has come. */
interface Statement {
  handler: (statement: Statement) => unknown;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

/** The same pool, whose statements `lane` sees. */
function observed(sql: Sql, lane: Lane): Sql {
  const { statements } = lane;
  const observe = (made: unknown): unknown => {
    // names and values are no statements, and a fragment of another statement is never sent by itself
    if (!(made instanceof Promise)) return made;
    const statement = made as unknown as Statement;
    const { handler, resolve, reject } = statement;
    statement.handler = (each) => {
      statements.set(made, runningMs());
      return handler(each);
    };
    statement.resolve = (value) => {
      statements.delete(made);
      lane.answeredAt = runningMs();
      resolve(value);
    };
    statement.reject = (error) => {
      statements.delete(made);
      reject(error);
    };
    return made;
  };
  const unsafe = (...words: Parameters<Sql['unsafe']>) => observe(sql.unsafe(...words));
  return new Proxy(sql, {
    apply: (_, self, words: never) => observe(Reflect.apply(sql, self, words)),
    get: (_, name) => (name === 'unsafe' ? unsafe : (Reflect.get(sql, name) as unknown)),
  });
}

/** Two connections as one pool: a statement goes where fewer wait, or not where the last one went. `excess`: how many more wait for the first one. */
function either(first: Sql, second: Sql, excess: () => number): Sql {
  let last = second;
  const next = () => {
    const more = excess();
    last = more > 0 || (more === 0 && last === first) ? second : first;
    return last;
  };
  return new Proxy(first, {
    apply: (_, self, words: never) => Reflect.apply(next(), self, words) as unknown,
    get: (_, name) => Reflect.get(name === 'unsafe' ? next() : first, name) as unknown,
  });
}
