/**
 * The daemon's connections, each for one purpose, so that a statement that waits for somebody's lock delays nothing that does not need that lock; and
 * the watch over them.
 *
 * - Their number is fixed (DAEMON_CONNECTIONS): a lock held for hours makes statements wait, never more sessions.
 * - `control` runs only statements that no lock on a table can delay: the lease, catalog lookups, the watch itself. While it answers, the path to the server
 *   is alive, and a statement that takes long waits for a lock, or is slow: it is left alone.
 * - A connection whose statement the server does not know of is dead: it alone is cut.
 * - Where `control` gets no answer the path is dead; a refusal is an answer. It alone is cut and opened again; once the server answers, every older session
 *   of this process is terminated there before its socket is cut here, so that no orphaned session waits on beside its successor.
 */
import { randomBytes } from 'node:crypto';
import type { Config } from '../settings.ts';
import { sqlstateOf, toSmslogdError } from '../errors.ts';
import { pause } from '../supervise.ts';
import { openDirect, type Direct } from './direct.ts';
import { isPooled } from './pooler.ts';
import { dropConnections, openDatabase, type Sql } from './pools.ts';

/** The purposes, and how many connections each has. */
const PURPOSES = {
  /** the lease, catalog lookups, the watch */
  control: 1,
  /** the mirror's writes from the stream: a pool of one, and beside it the sink, which is direct */
  apply: 2,
  /** reads of the source: reconcile, audit, gateway ids that come late */
  copy: 1,
  claim: 1,
  complete: 2,
  /** verdicts without the gateway */
  verdict: 1,
  /** what /metrics and the page show */
  figures: 1,
  /** stored counters, retention, repair of the queue */
  upkeep: 1,
} as const;

export type Purpose = keyof typeof PURPOSES;

/** Sessions of one daemon on the server: these and the replication connection, which a slot is made over, too. */
export const DAEMON_CONNECTIONS = Object.values(PURPOSES).reduce<number>((sum, each) => sum + each, 1);

export type Connections = { readonly [P in Purpose]: Sql } & {
  readonly sink: Pick<Direct, 'row'>;
  /** names this process among the daemons: the end of the application_name of its sessions */
  readonly tag: string;
  /** How long the oldest statement has waited for its answer, those of `control` aside; milliseconds. */
  waitedMs(): number;
  /** Watches until `signal` aborts; never rejects. */
  watch(signal: AbortSignal): Promise<void>;
  /** Cancels the statement that a purpose waits for: nobody needs its result any more. */
  cancel(purpose: Purpose): Promise<void>;
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
  const waiting = new Map<Purpose, Map<object, number>>();
  const pools = new Map<Purpose, Sql>();
  /** when a purpose had its last answer */
  const answered = new Map<Purpose, number>();
  const direct = openDirect(config, `apply ${tag}`);
  const open = (purpose: Purpose): Sql => {
    const statements = new Map<object, number>();
    const max = purpose === 'apply' ? 1 : PURPOSES[purpose];
    const pool = openDatabase(config, { max, name: `${purpose} ${tag}` });
    waiting.set(purpose, statements);
    pools.set(purpose, pool);
    return observed(pool, statements, () => answered.set(purpose, performance.now()));
  };
  const cut = (purpose: Purpose) => {
    dropConnections(pools.get(purpose)!);
    if (purpose === 'apply') direct.drop();
  };
  const purposes = Object.keys(PURPOSES) as Purpose[];
  const lanes = Object.fromEntries(purposes.map((purpose) => [purpose, open(purpose)])) as Record<Purpose, Sql>;
  const { control } = lanes;
  const others = purposes.filter((purpose) => purpose !== 'control');

  /** The statements that a purpose has waited for longer than `ms`. */
  const stalled = (purpose: Purpose, ms: number): object[] => {
    const now = performance.now();
    return [...waiting.get(purpose)!].filter(([, since]) => now - since > ms).map(([statement]) => statement);
  };
  const longest = () => Math.max(0, ...others.flatMap((purpose) => [...waiting.get(purpose)!.values()].map(since)));
  const active = async () =>
    await control<{ name: string; n: number }[]>`
      select application_name as name, count(*)::int as n from pg_stat_activity
       where application_name like ${`smslogd % ${tag}`} and state <> 'idle' group by 1`;
  const terminate = async (pattern: string) =>
    await control`select pg_terminate_backend(pid) from pg_stat_activity
                   where application_name like ${pattern} and pid <> pg_backend_pid() and (state <> 'idle' or not ${pooled()}::boolean)`;

  return {
    ...lanes,
    tag,
    waitedMs: longest,
    sink: {
      async row(...words) {
        const statement = {};
        waiting.get('apply')!.set(statement, performance.now());
        try {
          return await direct.row(...words);
        } finally {
          waiting.get('apply')!.delete(statement);
          answered.set('apply', performance.now());
        }
      },
    },
    async watch(signal) {
      /** statements that the server did not know of at the last look */
      let unknown = new Set<object>();
      let dead = false;
      while (!signal.aborted) {
        await pause(lookMs, signal);
        if (signal.aborted) return;
        // the renewal of the lease had its answer just now, and nobody else misses one
        if (!dead && since(answered.get('control')) < lookMs && longest() < stallMs) continue;
        const seen = await within(
          stallMs,
          active().catch((error: unknown) => (SILENCE.has(sqlstateOf(error) ?? '') ? undefined : 'refused')),
        );
        // by a server that restarts: what it had of our sessions has ended
        if (seen === 'refused') continue;
        if (seen === undefined) {
          dead = true;
          cut('control');
          continue;
        }
        if (dead) {
          dead = false;
          // the server answers again on a new connection
          await within(stallMs, terminate(`smslogd % ${tag}`));
          for (const purpose of others) cut(purpose);
          continue;
        }
        const lost = new Set<object>();
        for (const purpose of others) {
          const late = stalled(purpose, lostMs());
          const known = seen.find(({ name }) => name === `smslogd ${purpose} ${tag}`)?.n ?? 0;
          if (late.length === 0 || known > 0) continue;
          if (late.some((statement) => unknown.has(statement))) {
            await within(stallMs, terminate(`smslogd ${purpose} ${tag}`));
            cut(purpose);
          } else for (const statement of late) lost.add(statement);
        }
        unknown = lost;
      }
    },
    async cancel(purpose) {
      await within(
        stallMs,
        control`select pg_cancel_backend(pid) from pg_stat_activity
                 where application_name = ${`smslogd ${purpose} ${tag}`} and state <> 'idle'`,
      );
    },
    refresh(error) {
      if (toSmslogdError(error).code !== 'database_read_only') return;
      for (const purpose of purposes) cut(purpose);
    },
    async end() {
      await Promise.all(purposes.map(async (purpose) => await lanes[purpose].end({ timeout: 1 })));
      direct.end();
    },
  };
}

/** Milliseconds since a moment of the monotonic clock; undefined: there was none. */
function since(moment = -Infinity): number {
  return performance.now() - moment;
}

/** What `work` returns; undefined where it fails or takes longer than `ms`. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  const limit = new AbortController();
  const answer = await Promise.race([work.catch(() => undefined), pause(ms, limit.signal).then(() => undefined)]);
  limit.abort();
  return answer;
}

/** What of postgres.js's Query is used to see when a statement is sent and when its answer has come. */
interface Statement {
  handler: (statement: Statement) => unknown;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

/** The same pool; `statements` holds those that wait for their answer, and since when. */
function observed(sql: Sql, statements: Map<object, number>, answered: () => void): Sql {
  const observe = (made: unknown): unknown => {
    // names and values are no statements, and a fragment of another statement is never sent by itself
    if (!(made instanceof Promise)) return made;
    const statement = made as unknown as Statement;
    const { handler, resolve, reject } = statement;
    statement.handler = (each) => {
      statements.set(made, performance.now());
      return handler(each);
    };
    statement.resolve = (value) => {
      statements.delete(made);
      answered();
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
