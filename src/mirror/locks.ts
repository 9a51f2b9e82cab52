/**
 * Logs when a statement of the daemon waits for a lock, or a commit for a synchronous standby: nothing fails then, only the lag grows. It polls pg_stat_activity, so that the
 * writes themselves cost nothing more; and only while a statement of ours waits, so that a daemon at rest costs nothing.
 */
import type { Config } from '../settings.ts';
import { SmslogdError, type ErrorCode } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Sql } from '../postgres/pools.ts';
import { SESSION_NAME } from '../postgres/transactions.ts';
import { pause } from '../supervise.ts';

const CHECK_MS = 2_000;
/** The server's sender is checked every so many times: no statement of ours waits while it does. */
const SENDER_CHECKS = 3;
/** Shorter waits are normal: statements with a lock timeout are retried. */
const MIN_WAIT_SECONDS = 2;

interface Wait {
  readonly code: ErrorCode;
  /** finds what has waited for longer than that */
  readonly check: (seconds: number) => Promise<{ readonly waitedSeconds: number } | undefined>;
  readonly message: string;
  readonly resolved: string;
  /** of a statement that was sent: it is checked only while one waits */
  readonly ofStatement: boolean;
}

export interface WaitsDeps {
  /** a connection that never waits for a table lock */
  readonly control: Sql;
  /** how long the oldest statement on another connection has waited for its answer; milliseconds */
  readonly waitedMs: () => number;
  /** the end of the application_name of the sessions that are watched */
  readonly tag: string;
  readonly config: Pick<Config, 'SLOT_NAME'>;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors'>;
}

interface LockHolder {
  readonly waitedSeconds: number;
  /** null: a row of a table */
  readonly table: string | null;
  /** null: a prepared transaction, which has no session */
  readonly holderPid: number | null;
  readonly holderApplication: string | null;
  readonly holderRole: string | null;
}

interface StandbyWait {
  readonly waitedSeconds: number;
  readonly standbyNames: string;
}

interface SenderWait {
  readonly at: string;
  readonly standbySlots: string;
}

/** The kinds of waits; each check finds a wait only if it lasts. */
function waitsOf({ control, tag, config }: WaitsDeps): readonly Wait[] {
  const ours = `smslogd % ${tag}`;
  const name = control.unsafe(SESSION_NAME);
  let lastPosition: string | undefined;
  return [
    {
      code: 'log_locked',
      check: async (seconds) => {
        const [holder] = await control<LockHolder[]>`
          select extract(epoch from clock_timestamp() - a.query_start)::int as "waitedSeconds",
                 (select l.relation::regclass::text from pg_locks l where l.pid = a.pid and not l.granted limit 1) as "table", h.pid as "holderPid",
                 h.application_name as "holderApplication", h.usename as "holderRole"
            from pg_stat_activity a cross join unnest(pg_blocking_pids(a.pid)) b (pid) left join pg_stat_activity h on h.pid = b.pid
           where a.wait_event_type = 'Lock' and a.datname = current_database() and ${name} like ${ours}
             and a.query_start < clock_timestamp() - ${seconds}::int * interval '1 second'
             and (b.pid = 0 or coalesce(h.application_name, '') not like 'smslogd %')
           -- not one that itself waits before ours for the same lock
           order by a.query_start, exists (select from pg_locks l where l.pid = b.pid and not l.granted) limit 1`;
        return holder;
      },
      message: 'a statement waits for a lock that another session holds',
      resolved: 'no statement waits for the lock any more',
      ofStatement: true,
    },
    {
      code: 'standby_missing',
      check: async (seconds) => {
        const [wait] = await control<StandbyWait[]>`
          select extract(epoch from clock_timestamp() - query_start)::int as "waitedSeconds", current_setting('synchronous_standby_names') as "standbyNames"
            from pg_stat_activity a
           where wait_event = 'SyncRep' and datname = current_database() and ${name} like ${ours}
             and query_start < clock_timestamp() - ${seconds}::int * interval '1 second'
           order by query_start limit 1`;
        return wait;
      },
      message: 'a commit waits for a synchronous standby',
      resolved: 'no commit waits for a standby any more',
      ofStatement: true,
    },
    {
      code: 'standby_missing',
      // a healthy standby is also waited for, but the position moves between two checks; what a session of another role waits for is hidden from ours
      check: async () => {
        const [wait] = await control<SenderWait[]>`
          select s.confirmed_flush_lsn::text as at, current_setting('synchronized_standby_slots', true) as "standbySlots"
            from pg_replication_slots s join pg_stat_activity a on a.pid = s.active_pid
           where s.slot_name = ${config.SLOT_NAME}
             and (a.wait_event = 'WaitForStandbyConfirmation'
                  or a.wait_event is null
                     and exists (select from unnest(string_to_array(current_setting('synchronized_standby_slots', true), ',')) n (name)
                                  where not exists (select from pg_replication_slots o where o.slot_name = trim(n.name) and o.active)))`;
        const unchanged = wait?.at === lastPosition;
        lastPosition = wait?.at;
        return wait !== undefined && unchanged
          ? { waitedSeconds: (SENDER_CHECKS * CHECK_MS) / 1_000, standbySlots: wait.standbySlots }
          : undefined;
      },
      message: 'the server sends nothing before a standby has it',
      resolved: 'the server no longer waits for a standby: streaming continues',
      ofStatement: false,
    },
  ];
}

/**
 * Logs each wait once, with each session that holds the lock, and once when it is resolved; until `signal` aborts. Nothing is
 * known while a check fails.
 */
export async function watchWaits(deps: WaitsDeps, signal: AbortSignal): Promise<void> {
  const { log, metrics, waitedMs } = deps;
  const waits = waitsOf(deps);
  const lasting = new Map<Wait, { readonly began: number; readonly told: Set<string> }>();
  for (let checks = 1; ; checks += 1) {
    await pause(CHECK_MS, signal);
    if (signal.aborted) return;
    for (const wait of waits) {
      const { code, check, message, resolved, ofStatement } = wait;
      if (!ofStatement && checks % SENDER_CHECKS > 0) continue;
      const last = lasting.get(wait);
      // the statement that waited may have been cut with its connection: then it still waits
      const due = !ofStatement || last !== undefined || waitedMs() > MIN_WAIT_SECONDS * 1_000;
      const found = due
        ? await check(last === undefined ? MIN_WAIT_SECONDS : 0).catch(() => 'unknown' as const)
        : undefined;
      if (signal.aborted) return;
      if (found === 'unknown') continue;
      if (found === undefined) {
        if (last === undefined) continue;
        log.info({ waitedSeconds: Math.round((performance.now() - last.began) / 1_000) }, resolved);
        lasting.delete(wait);
        continue;
      }
      const { waitedSeconds, ...what } = found;
      const { began, told } = last ?? { began: performance.now() - waitedSeconds * 1_000, told: new Set<string>() };
      lasting.set(wait, { began, told });
      // others may have come and gone since, for a moment
      if (waitedSeconds < MIN_WAIT_SECONDS || told.has(JSON.stringify(what))) continue;
      told.add(JSON.stringify(what));
      metrics.errors.inc({ code });
      logProblem(log, 'warn', new SmslogdError(code, message), found);
    }
  }
}
