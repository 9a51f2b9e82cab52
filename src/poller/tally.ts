/** What the poller counts: changes of the log, requests by how they ended, and what it says about them in the log. */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { isFinal } from '../status.ts';
import { SmslogdError, toSmslogdError } from '../errors.ts';
import { logProblem } from '../log.ts';
import { refusalOf, tellRefused } from '../postgres/refusal.ts';
import { createSaid } from './throttled-log.ts';
import type { Change, Completion } from './verdicts.ts';
import type { Outcome } from './outcome.ts';

/** Different unknown words that are worth a line in the log; all are counted. */
const WORDS_SAID = 20;
/** A date that is later than now by more is no matter of rounding. */
const FUTURE_MS = 30_000;

export interface Tally {
  /** a request ended: all of it but ok and unchanged, which `written` tells apart */
  asked(id: string, outcome: Outcome, seconds: number): void;
  written(rows: readonly Completion[], changes: readonly Change[]): void;
  changed(changes: readonly Change[]): void;
  /** so many SMS get no verdict now */
  postponed(rows: number, error: unknown): void;
  /** the database refuses what was to be written of this SMS alone */
  refused(id: string, error: unknown): void;
}

export function createTally({ metrics, log }: { metrics: Metrics; log: Log }): Tally {
  const said = createSaid({ metrics, log });
  const words = new Set<string>();
  const changed = (changes: readonly Change[], rows: readonly Completion[] = []) => {
    const reasons = new Map(rows.filter(({ reason }) => reason !== undefined).map(({ id, reason }) => [id, reason]));
    for (const { id, type, from, to, seconds, history } of changes) {
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
        said.trouble('warn', new SmslogdError('gateway_id_unsendable', 'the gateway id of an SMS may not be sent'), {
          id,
        });
        return;
      }
      metrics.pollDuration.observe(seconds);
      if (result !== 'ok') metrics.pollRequests.inc({ result });
      if (result === 'protocol' || result === 'mismatch' || again === 'refused') {
        const what = result === 'mismatch' ? 'about another SMS' : 'something else than a status';
        said.trouble('warn', new SmslogdError('gateway_protocol', `the gateway answered ${what}`), { id, result, why });
      }
      if (answer === undefined) return;
      metrics.pollLastSuccess.setToCurrentTime();
      if (answer.date === undefined) metrics.badDates.inc();
      else if (answer.date > Date.now() + FUTURE_MS) metrics.futureDates.inc();
      if (answer.word === undefined) return;
      metrics.unknownWords.inc();
      metrics.errors.inc({ code: 'unknown_status_word' });
      if (words.has(answer.word) || words.size >= WORDS_SAID) return;
      words.add(answer.word);
      const shown = answer.word === '' ? 'that is not a plain word' : `"${answer.word}"`;
      logProblem(log, 'warn', new SmslogdError('unknown_status_word', `the gateway used the status word ${shown}`), {
        id,
      });
    },
    written(rows, changes) {
      changed(changes, rows);
      const ids = new Set(changes.map(({ id }) => id));
      for (const { id, result } of rows)
        if (result === 'ok') metrics.pollRequests.inc({ result: ids.has(id) ? 'ok' : 'unchanged' });
    },
    changed: (changes) => changed(changes),
    postponed: (rows, error) => said.trouble('warn', toSmslogdError(error), { rows }),
    refused: (id, error) =>
      tellRefused(
        { log, metrics },
        id,
        refusalOf(error, 'smslogd tries again in a quarter of an hour; `smslogd doctor` names the triggers.'),
      ),
  };
}
