/** The poller's metrics and log lines: status changes, requests by their result, refused rows. */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { isFinal } from '../status.ts';
import { SmslogdError, toSmslogdError } from '../errors.ts';
import { refusalOf } from '../postgres/refusal.ts';
import { createThrottledLog, tellOfRow } from '../throttled-log.ts';
import { tellOfSourceWord, tellOfWord } from '../unknown-words.ts';
import type { Change, Completion } from './final-status.ts';
import type { Outcome } from './outcome.ts';

/** A date further in the future is not due to rounding. */
const FUTURE_MS = 30_000;

export interface Tally {
  /** a request ended; `ok` and `unchanged` are counted by `written`, which tells them apart */
  asked(id: string, outcome: Outcome, seconds: number): void;
  written(rows: readonly Completion[], changes: readonly Change[]): void;
  changed(changes: readonly Change[]): void;
  /** so many SMS could not be ended now */
  postponed(rows: number, error: unknown): void;
  /** the database rejects a write of this SMS */
  refused(id: string, error: unknown): void;
}

export function createTally({ metrics, log }: { metrics: Metrics; log: Log }): Tally {
  const throttledLog = createThrottledLog({ metrics, log });
  const changed = (changes: readonly Change[], rows: readonly Completion[] = []) => {
    const reasons = new Map(rows.filter(({ reason }) => reason !== undefined).map(({ id, reason }) => [id, reason]));
    for (const { id, type, from, to, seconds, history, word } of changes) {
      tellOfSourceWord({ log, metrics }, id, word ?? null);
      if (history) continue;
      metrics.transitions.inc({ type, from, to });
      if (!isFinal(to)) continue;
      metrics.final.inc({ type, status: to });
      if (to === 'Rejected') metrics.rejects.inc({ reason: reasons.get(id) ?? 'other' });
      if (to !== 'Delivered' || seconds === null) continue;
      if (seconds < 0) metrics.negativeLatency.inc();
      metrics.delivery.observe({ type }, Math.max(0, seconds));
    }
  };
  return {
    asked(id, { result, answer, why, again }, seconds) {
      if (result === undefined) {
        throttledLog.problem('warn', new SmslogdError('gateway_id_unsendable', 'the gateway id of an SMS is invalid'), {
          id,
        });
        return;
      }
      metrics.pollDuration.observe(seconds);
      if (result !== 'ok') metrics.pollRequests.inc({ result });
      if (result === 'protocol' || result === 'mismatch' || again === 'rejected') {
        const message =
          result === 'mismatch' ? 'the gateway answered about another SMS' : 'the gateway sent an invalid answer';
        throttledLog.problem('warn', new SmslogdError('gateway_protocol', message), { id, result, why });
      }
      if (answer === undefined) return;
      metrics.pollLastSuccess.setToCurrentTime();
      if (answer.date === undefined) metrics.badDates.inc();
      else if (answer.date > Date.now() + FUTURE_MS) metrics.futureDates.inc();
      if (answer.word === undefined) return;
      tellOfWord({ log, metrics }, { by: 'gateway', id, word: answer.word });
    },
    written(rows, changes) {
      changed(changes, rows);
      const ids = new Set(changes.map(({ id }) => id));
      for (const { id, result } of rows)
        if (result === 'ok') metrics.pollRequests.inc({ result: ids.has(id) ? 'ok' : 'unchanged' });
    },
    changed: (changes) => changed(changes),
    postponed: (rows, error) => throttledLog.problem('warn', toSmslogdError(error), { rows }),
    refused: (id, error) =>
      tellOfRow(
        { log, metrics },
        id,
        refusalOf(error, 'smslogd tries again in a quarter of an hour; `smslogd doctor` names the triggers.'),
      ),
  };
}
