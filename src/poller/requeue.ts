/**
 * The leader's care for the queue: SMS that are open in the log and not in the queue are queued again, as after somebody emptied it or a trigger of ours was
 * disabled, and what the queue would keep for too long is made due.
 *
 * No pass reads the whole log: the stored counters tell which hours have open SMS, and only these hours are read, by the index on inserted_at.
 */
import type { Log } from '../log.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Sql } from '../postgres/pools.ts';
import { pause } from '../supervise.ts';
import { openHours, requeueHour, resetStuck } from './queue.ts';

const EVERY_MS = 180_000;
/** The pause after an hour, as a multiple of the time that it took. */
const REST = 9;

export interface RepairDeps {
  readonly sql: Sql;
  readonly log: Log;
  /** SQL that is true while this daemon leads */
  readonly fence?: () => string;
  readonly works?: () => void;
  /** between two passes; milliseconds */
  readonly everyMs?: number;
}

/** One pass after the other until `signal` aborts. Throws what the database throws. */
export async function repairQueue(
  { sql, log, fence = () => 'true', works, everyMs = EVERY_MS }: RepairDeps,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const due = await withRetry(() => resetStuck(sql, fence()));
    if (due > 0) log.info({ rows: due }, 'SMS that waited for a time too far away are due now');
    let queued = 0;
    for (const hour of await openHours(sql)) {
      if (signal.aborted) return;
      const began = performance.now();
      queued += await withRetry(() => requeueHour(sql, hour, fence()));
      await pause(REST * (performance.now() - began), signal);
    }
    if (queued > 0) log.info({ rows: queued }, 'open SMS that were not queued are queued again');
    works?.();
    await pause(everyMs, signal);
  }
}
