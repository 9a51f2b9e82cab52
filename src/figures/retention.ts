/**
 * The loop that keeps RETENTION_DAYS: older rows leave the log, their counters stay.
 *
 * A turn first counts what is noted of the hours before the cutoff and raises settings.frozen_before to it, in one transaction: from
 * then on these hours are never counted again, and only then may their rows go. It goes from full hour to full hour, and whoever raises
 * the mark removes the rows of that hour: one daemon of several. What a daemon that died has left is found by its next start, or by whoever
 * raises the mark next: a pass takes every row before the cutoff, not those of one hour.
 *
 * A pass lists the places of old rows (through the index on inserted_at) and removes them a thousand at a time,
 * whatever their status: SMS_STATUSES_GIVE_UP is no longer than the retention, so an open row is one that nobody ever asked for. Rows that
 * somebody holds, or that a trigger refuses to remove, are left for the next list. As with the counters the pause is nine times the work.
 *
 * The mirror does not bring rows back: its horizon is younger than the cutoff (see the store).
 */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import type { Log } from '../log.ts';
import { refusalOf, writeAccepted } from '../postgres/refusal.ts';
import { tellOfRow } from '../throttled-log.ts';
import { pause } from '../supervise.ts';
import { freezeHours, oldRows, removeRows } from './counters.ts';

const TURN_MS = 300_000;
const REST = 9;
/** Rows removed in one statement. */
const BATCH = 1_000;
/** Rows listed in one statement. */
const LIST = 50_000;

export interface RetentionDeps {
  readonly config: Pick<Config, 'RETENTION_DAYS'>;
  readonly sql: Sql;
  readonly log: Log;
  /** SQL that is true while this daemon leads */
  readonly fence?: (() => string) | undefined;
  /** told after each turn that succeeded */
  readonly works?: () => void;
}

/** Removes what is past RETENTION_DAYS (more than 0) every few minutes until `signal` aborts. Throws what the database throws; safe to start again. */
export async function runRetention(
  { config, sql, log, fence, works }: RetentionDeps,
  signal: AbortSignal,
): Promise<void> {
  let first = true;
  const refused = (id: string, error: unknown) =>
    tellOfRow({ log }, id, refusalOf(error, 'It stays in the log; smslogd tries again each hour.'));
  while (!signal.aborted) {
    const mark = await rested(signal, () => freezeHours(sql, config.RETENTION_DAYS, fence?.()));
    if (!mark.frozen) continue;
    if (mark.raised || first) {
      const rows = await removeBefore({ sql, fence }, mark.before, refused, signal);
      if (rows > 0) log.info({ rows, before: mark.before }, 'SMS past RETENTION_DAYS are removed');
    }
    first = false;
    works?.();
    await pause(TURN_MS, signal);
  }
}

/** One pass: removes all rows before `before` that nobody holds and no trigger keeps (`refused`); returns how many. */
async function removeBefore(
  { sql, fence }: Pick<RetentionDeps, 'sql' | 'fence'>,
  before: string,
  refused: (id: string, error: unknown) => void,
  signal: AbortSignal,
): Promise<number> {
  let sum = 0;
  for (;;) {
    const rows = await rested(signal, () => oldRows(sql, before, LIST));
    let removed = 0;
    const remove = async (some: readonly { place: string }[]) => {
      const places = some.map(({ place }) => place);
      removed += await rested(signal, () => removeRows(sql, places, before, fence?.()));
    };
    for (let from = 0; from < rows.length && !signal.aborted; from += BATCH)
      await writeAccepted(rows.slice(from, from + BATCH), remove, async ({ id }, error) => refused(id, error));
    sum += removed;
    if (removed === 0 || rows.length < LIST || signal.aborted) return sum;
  }
}

/** Does `work`, then rests in proportion to the time that it took. */
async function rested<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await work();
  await pause(REST * (performance.now() - began), signal);
  return result;
}
