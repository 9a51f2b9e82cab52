/**
 * The leader's repair of the queue: it requeues SMS that are open in the log and missing from the queue, or queued without the gateway id that the log has
 * (somebody emptied it, or a trigger of ours failed or was disabled), and resets rows whose due time is too far away.
 *
 * No pass reads the whole log: the stored counters name the hours with open SMS, and only these hours are read, by the index on inserted_at.
 */
import { SmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Sql } from '../postgres/pools.ts';
import { pause } from '../supervise.ts';
import { openHours, requeueHour, resetStuck } from './queue.ts';

const EVERY_MS = 180_000;
/** The pause after each hour, as a multiple of the time that it took. */
const PAUSE_FACTOR = 9;

const WITHOUT_SETTINGS = 'the row of smslogd.settings was deleted: no SMS is queued or counted';

export interface RepairDeps {
  readonly sql: Sql;
  readonly log: Log;
  /** SQL condition that is true while this daemon leads */
  readonly fence?: () => string;
  readonly works?: () => void;
  /** between two passes; milliseconds */
  readonly everyMs?: number;
}

/** Repeats passes until `signal` aborts. Throws what the database throws. */
export async function repairQueue(
  { sql, log, fence = () => 'true', works, everyMs = EVERY_MS }: RepairDeps,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    if ((await sql`select from smslogd.settings`).length === 0)
      logProblem(log, 'warn', new SmslogdError('schema_missing', WITHOUT_SETTINGS));
    const reset = await withRetry(() => resetStuck(sql, fence()));
    if (reset > 0) log.info({ rows: reset }, 'queue repair: SMS with a due time too far away were reset');
    let queued = 0;
    for (const hour of await openHours(sql)) {
      if (signal.aborted) return;
      const began = performance.now();
      queued += await withRetry(() => requeueHour(sql, hour, fence()));
      await pause(PAUSE_FACTOR * (performance.now() - began), signal);
    }
    if (queued > 0)
      log.info({ rows: queued }, 'queue repair: open SMS that were missing from the queue were queued again');
    works?.();
    await pause(everyMs, signal);
  }
}
