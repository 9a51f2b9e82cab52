import { setTimeout as delay } from 'node:timers/promises';
import { toSmslogdError, type Reaction, type SmslogdError } from './errors.ts';
import { logProblem, type Log } from './log.ts';

export interface Supervision {
  readonly name: string;
  readonly log: Log;
  /** told of each failure; `standby` is no failure */
  readonly onProblem?: (problem: SmslogdError) => void;
}

/** Milliseconds before the next try: the first wait of a row of failures and the longest. */
const WAITS: Readonly<Record<Exclude<Reaction, 'fatal'>, { first: number; longest: number }>> = {
  retry: { first: 100, longest: 4_000 },
  slow: { first: 1_000, longest: 30_000 },
  standby: { first: 500, longest: 1_000 },
};

/** A loop that ran for so long worked, whether it said so or not. */
const STEADY_MS = 60_000;

/**
 * Runs `loop` again and again until `signal` aborts: at once after it ends well, after a backoff with jitter where it fails with the
 * reaction retry, slow or standby. A fatal error is thrown to the caller. The loop calls `works` when it does: that resets the backoff.
 */
export async function supervise(
  { name, log, onProblem }: Supervision,
  loop: (signal: AbortSignal, works: () => void) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let failures = 0;
  let said: string | undefined;
  const works = () => {
    failures = 0;
    said = undefined;
  };
  while (!signal.aborted) {
    const began = performance.now();
    try {
      await loop(signal, works);
    } catch (error) {
      if (signal.aborted) return;
      if (performance.now() - began > STEADY_MS) works();
      const problem = toSmslogdError(error);
      failures += 1;
      // the same failure again and again is said once, and then every tenth time; what is only waited for, once
      if (said !== problem.code || (problem.reaction !== 'standby' && failures % 10 === 0)) {
        if (problem.reaction === 'standby')
          log.info({ loop: name, code: problem.code, hint: problem.hint }, problem.message);
        else logProblem(log, problem.reaction === 'fatal' ? 'error' : 'warn', problem, { loop: name, failures });
      }
      said = problem.code;
      if (problem.reaction !== 'standby') onProblem?.(problem);
      if (problem.reaction === 'fatal') throw problem;
      await pause(backoff(problem.reaction, failures), signal);
    }
  }
}

/** Full jitter over the upper half of a doubling wait; milliseconds. */
export function backoff(
  reaction: Exclude<Reaction, 'fatal'>,
  failures: number,
  random: () => number = Math.random,
): number {
  const { first, longest } = WAITS[reaction];
  const wait = Math.min(longest, first * 2 ** Math.min(failures - 1, 20));
  return Math.round(wait * (0.5 + random() / 2));
}

/** Waits `ms` milliseconds or until `signal` aborts, whichever is first; never rejects. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {});
}

/**
 * How long to rest before the next look of one each `everyMs` that took `tookMs`; milliseconds. A look of up to half of `everyMs` takes a twentieth of
 * the time at most. What takes longer may only have waited for somebody's lock: the rest is ten times `everyMs` at most.
 */
export function restAfter(everyMs: number, tookMs: number): number {
  return Math.min(Math.max(everyMs, 20 * tookMs), 10 * everyMs);
}
