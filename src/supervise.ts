import { setTimeout as delay } from 'node:timers/promises';
import { beatBefore } from './beat.ts';
import { toSmslogdError, type ErrorCode, type Reaction, type SmslogdError } from './errors.ts';
import { logProblem, type Log } from './log.ts';

export interface Supervision {
  readonly name: string;
  readonly log: Log;
  /** called for each failure; `standby` is no failure */
  readonly onProblem?: (problem: SmslogdError) => void;
}

/** Milliseconds before a retry: after the first failure, and at most. */
const WAITS: Readonly<Record<Exclude<Reaction, 'fatal'>, { first: number; longest: number }>> = {
  retry: { first: 100, longest: 4_000 },
  slow: { first: 1_000, longest: 30_000 },
  standby: { first: 500, longest: 1_000 },
};

/** A loop that ran this long worked, even if it did not call `works`. */
const STABLE_MS = 60_000;

/**
 * Repeats `loop` until `signal` aborts: at once after a normal end, after a backoff with jitter if it fails with the reaction retry, slow or standby. Throws a
 * fatal error. The loop calls `works` once it works, which resets the backoff.
 */
export async function supervise(
  { name, log, onProblem }: Supervision,
  loop: (signal: AbortSignal, works: () => void) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let failures = 0;
  /** since it worked: failures may come in turns */
  const logged = new Set<ErrorCode>();
  const works = () => {
    failures = 0;
    logged.clear();
  };
  while (!signal.aborted) {
    const began = performance.now();
    try {
      await loop(signal, works);
    } catch (error) {
      if (signal.aborted) return;
      if (performance.now() - began > STABLE_MS) works();
      const problem = toSmslogdError(error);
      failures += 1;
      // each code is logged once, and then every tenth failure; a standby only once
      if (!logged.has(problem.code) || (problem.reaction !== 'standby' && failures % 10 === 0)) {
        if (problem.reaction === 'standby')
          log.info({ loop: name, code: problem.code, hint: problem.hint }, problem.message);
        else logProblem(log, problem.reaction === 'fatal' ? 'error' : 'warn', problem, { loop: name, failures });
      }
      logged.add(problem.code);
      if (problem.reaction !== 'standby') onProblem?.(problem);
      if (problem.reaction === 'fatal') throw problem;
      await pause(backoff(problem.reaction, failures), signal);
    }
  }
}

/** Exponential backoff, with jitter over the upper half; milliseconds. */
export function backoff(
  reaction: Exclude<Reaction, 'fatal'>,
  failures: number,
  random: () => number = Math.random,
): number {
  const { first, longest } = WAITS[reaction];
  const wait = Math.min(longest, first * 2 ** Math.min(failures - 1, 20));
  return Math.round(wait * (0.5 + random() / 2));
}

/** Pauses of so many milliseconds and more end with a beat. */
const LONG_MS = 1_000;

/** Waits `ms` milliseconds, a long time less up to half a second, or until `signal` aborts; never rejects. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms >= LONG_MS) await beatBefore(ms, signal);
  else await delay(ms, undefined, { signal }).catch(() => {});
}

/** Waits until `signal` aborts; never rejects. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  await pause(Infinity, signal);
}

/**
 * Milliseconds to pause between periodic queries: `everyMs`, longer after a query that took `tookMs`, so that queries take 5 % of the time at most. The pause
 * is at most ten times `everyMs`, because a slow query may only have waited for a lock.
 */
export function pauseAfter(everyMs: number, tookMs: number): number {
  return Math.min(Math.max(everyMs, 20 * tookMs), 10 * everyMs);
}
