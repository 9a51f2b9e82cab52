/**
 * The loop that keeps the stored hourly counters, smslogd.sms_hourly.
 *
 * How it knows what changed: triggers on the log note the hour of every row that a statement inserts, updates or deletes, whoever runs it
 * (mirror, poller, reconcile, another service, a DBA by hand), in that statement's own transaction. Looking for changes instead would need an
 * index on updated_at, which no status update could then avoid; remembering them in the daemon would miss what others write. Notes
 * are appended, never merged, so that writers do not wait for each other: measured, the cost of a note is below the noise of an insert.
 *
 * Why it is right: a turn takes the notes and counts their hours, whole, from one snapshot in one transaction. A change is visible together with
 * its note, so it is either counted or still noted; nothing is added to a stored number, so nothing can be counted twice, whatever is
 * killed when. Only the leader counts, fenced by its term, and whoever counts by hand excludes it by an advisory lock of that transaction: an older count
 * never replaces a younger one.
 * Hours before settings.frozen_before (retention has removed rows) are left as they are.
 *
 * The net under it, in case somebody had disabled the triggers: every ten minutes one hour of the last days is counted again, so that each comes within
 * two days. The cost is that of one hour, however long the leader leads and however often it changes.
 *
 * What it costs: at most a tenth of one connection's time, however much there is to count: the pause is nine times the work, and a turn takes as many hours
 * as it can count in a quarter of a second. Views do not wait for it, they count stale hours themselves, the youngest ones. The hours whose rows are not yet
 * 2 minutes old they always do, whatever is stored, so that these are counted for a hundredth of the time only.
 */
import type { Sql } from '../postgres/pools.ts';
import type { Log } from '../log.ts';
import { pause } from '../supervise.ts';
import { hoursNoted, noteRecentHour, recountHours } from './counters.ts';

/** An SMS is open for three days at most (SMS_STATUSES_GIVE_UP); the rest is margin. */
const RECENT_DAYS = 8;
const NET_MS = 600_000;
const PAUSE_MS = 5_000;
const REST = 9;
const MOVING_REST = 99;
/** What one turn may take; a statement holds a snapshot. */
const TURN_MS = 250;
const FIRST_HOURS = 168;
const MOST_HOURS = 1_000;

export interface HourlyDeps {
  readonly sql: Sql;
  readonly log: Log;
  /** SQL that is true while this daemon leads */
  readonly fence?: () => string;
  /** told after each turn that succeeded */
  readonly works?: () => void;
}

/** Counts changed hours every few seconds until `signal` aborts. Throws what the database throws; safe to start again. */
export async function runHourly({ sql, log, fence, works }: HourlyDeps, signal: AbortSignal): Promise<void> {
  let most = FIRST_HOURS;
  let movingAt = 0;
  let netAt = 0;
  while (!signal.aborted) {
    if (performance.now() >= netAt) {
      await noteRecentHour(sql, RECENT_DAYS, NET_MS / 1_000);
      netAt = performance.now() + NET_MS;
    }
    const started = performance.now();
    const noted = await hoursNoted(sql);
    const done = noted ? await recountHours(sql, { wait: false, most, which: 'settled', fence: fence?.() }) : undefined;
    const took = performance.now() - started;
    if (done?.hours === most || took > TURN_MS) most = hoursAfter(done?.hours ?? most, took);
    if (noted && performance.now() >= movingAt) {
      const began = performance.now();
      await recountHours(sql, { wait: false, most, which: 'moving', fence: fence?.() });
      movingAt = performance.now() + MOVING_REST * (performance.now() - began);
    }
    works?.();
    if (done !== undefined && done.hours > 0) log.debug({ ...done, ms: Math.round(took) }, 'hours counted');
    await pause(countingPause(took, (done?.left ?? 0) > 0), signal);
  }
}

/** How many hours to take after a turn of `took` milliseconds that counted `hours`. */
export function hoursAfter(hours: number, took: number): number {
  return Math.round(Math.min(MOST_HOURS, Math.max(1, hours * Math.min(2, TURN_MS / took))));
}

/** Milliseconds to wait after a turn of `took` milliseconds. */
export function countingPause(took: number, more: boolean): number {
  return Math.max(more ? 0 : PAUSE_MS, REST * took);
}

/** Counts all hours that are noted now, waiting for other daemons; after it the stored counters equal the log as it was at the call. */
export async function refreshHourly(sql: Sql): Promise<void> {
  for (;;) {
    const done = await recountHours(sql, { wait: true, most: MOST_HOURS });
    if (done === undefined || done.left === 0) return;
  }
}
