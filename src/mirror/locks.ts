/**
 * Says when what we write waits for somebody's lock or for a synchronous standby: nothing fails then, the lag alone grows. Looked at from outside,
 * in the server's view of our sessions, so that no write pays for it.
 */
import type { Config } from '../settings.ts';
import { SmslogdError, type ErrorCode } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Sql } from '../postgres/pools.ts';
import { pause } from '../supervise.ts';

const LOOK_MS = 2_000;
/** Statements that give up soon by themselves, and try again, are not meant. */
const PATIENCE_SECONDS = 2;

interface Wait {
  readonly code: ErrorCode;
  readonly look: () => Promise<{ readonly waitedSeconds: number } | undefined>;
  readonly says: string;
  readonly over: string;
}

export interface WaitsDeps {
  /** a connection that no table's lock can occupy */
  readonly control: Sql;
  /** the end of the application_name of the sessions that are watched */
  readonly tag: string;
  readonly config: Pick<Config, 'SLOT_NAME'>;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors'>;
}

interface LockHolder {
  readonly waitedSeconds: number;
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

/** What may keep us waiting; each look finds it only where it lasts. */
function waitsOf({ control, tag, config }: WaitsDeps): readonly Wait[] {
  const ours = `smslogd % ${tag}`;
  let stood: string | undefined;
  return [
    {
      code: 'log_locked',
      look: async () => {
        const [holder] = await control<LockHolder[]>`
          select extract(epoch from clock_timestamp() - w.query_start)::int as "waitedSeconds", h.pid as "holderPid",
                 h.application_name as "holderApplication", h.usename as "holderRole"
            from pg_stat_activity w cross join unnest(pg_blocking_pids(w.pid)) b (pid) left join pg_stat_activity h on h.pid = b.pid
           where w.wait_event_type = 'Lock' and w.datname = current_database() and w.application_name like ${ours}
             and w.query_start < clock_timestamp() - ${PATIENCE_SECONDS}::int * interval '1 second'
             and (b.pid = 0 or coalesce(h.application_name, '') not like 'smslogd %')
           order by w.query_start limit 1`;
        return holder;
      },
      says: 'a write waits for a lock that another session holds',
      over: 'the lock is free: writes go on',
    },
    {
      code: 'standby_missing',
      look: async () => {
        const [wait] = await control<StandbyWait[]>`
          select extract(epoch from clock_timestamp() - query_start)::int as "waitedSeconds", current_setting('synchronous_standby_names') as "standbyNames"
            from pg_stat_activity
           where wait_event = 'SyncRep' and datname = current_database() and application_name like ${ours}
             and query_start < clock_timestamp() - ${PATIENCE_SECONDS}::int * interval '1 second'
           order by query_start limit 1`;
        return wait;
      },
      says: 'a commit waits for a synchronous standby',
      over: 'commits no longer wait for a standby: writes go on',
    },
    {
      code: 'standby_missing',
      // one that is there is waited for, too, again and again, but for a moment
      look: async () => {
        const [wait] = await control<SenderWait[]>`
          select s.confirmed_flush_lsn::text as at, current_setting('synchronized_standby_slots', true) as "standbySlots"
            from pg_replication_slots s join pg_stat_activity a on a.pid = s.active_pid
           where s.slot_name = ${config.SLOT_NAME} and a.wait_event = 'WaitForStandbyConfirmation'`;
        const stands = wait?.at === stood;
        stood = wait?.at;
        return wait !== undefined && stands
          ? { waitedSeconds: LOOK_MS / 1_000, standbySlots: wait.standbySlots }
          : undefined;
      },
      says: 'the server sends nothing before a standby has it',
      over: 'the server no longer waits for a standby: it sends again',
    },
  ];
}

/**
 * Says it once when something keeps us waiting, with the session that holds a lock, and once when that is over; until `signal` aborts. A look that
 * fails says nothing: the writes fail then, too.
 */
export async function watchWaits(deps: WaitsDeps, signal: AbortSignal): Promise<void> {
  const { log, metrics } = deps;
  const waits = waitsOf(deps);
  const since = new Map<Wait, number>();
  for (;;) {
    await pause(LOOK_MS, signal);
    if (signal.aborted) return;
    for (const wait of waits) {
      const { code, look, says, over } = wait;
      const found = await look().catch(() => undefined);
      if (signal.aborted) return;
      const began = since.get(wait);
      if (found !== undefined && began === undefined) {
        since.set(wait, performance.now() - found.waitedSeconds * 1_000);
        metrics.errors.inc({ code });
        logProblem(log, 'warn', new SmslogdError(code, says), found);
      }
      if (found === undefined && began !== undefined) {
        log.info({ waitedSeconds: Math.round((performance.now() - began) / 1_000) }, over);
        since.delete(wait);
      }
    }
  }
}
