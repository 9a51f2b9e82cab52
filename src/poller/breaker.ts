/**
 * The circuit breaker of the gateway:
 *
 *   closed    --- 8 faults in a row ---> open for half a second, doubling to 5 s
 *   closed    --- 401 or 403 ----------> open for a minute, doubling to 15 (more requests could prolong a lock-out)
 *   closed    --- Retry-After ---------> open for that long, at most 5 minutes; with a refusal for the longer of the two
 *   open      --- the time is over ----> half-open: one request at a time
 *   open      --- new credentials -----> half-open, if the login was refused
 *   open      --- an operator's wish ---> half-open
 *   half-open --- an answer -----------> closed
 *   half-open --- a fault or 401 ------> open, for longer
 *
 * A request that started before the last change of state is ignored, except for its Retry-After.
 */
export type BreakerEvent = 'answer' | 'fault' | 'unauthorized';
export type BreakerState = 'closed' | 'open' | 'half-open';

export interface Breaker {
  /** milliseconds of one monotonic clock */
  state(now: number): BreakerState;
  /** milliseconds until it is half-open; 0 if it is not open */
  remaining(now: number): number;
  /** a request ended that started at `startedAt`; true if the breaker opened or closed */
  note(event: BreakerEvent, startedAt: number, now: number, retryAfterMs?: number): boolean;
  /** the credentials changed that were refused: half-open, but for a Retry-After */
  retry(now: number): void;
  /** an operator wants it half-open now, whatever it was opened for */
  tryNow(now: number): void;
}

/** After fewer faults only the concurrency limit reacts. */
const FAULTS_IN_A_ROW = 8;
const FAULT = { first: 500, longest: 5_000 };
const REFUSAL = { first: 60_000, longest: 900_000 };
const LONGEST_RETRY_AFTER = 300_000;

export function createBreaker(): Breaker {
  let until: number | undefined;
  let changedAt = -Infinity;
  let inARow = 0;
  let faultOpenings = 0;
  let refusals = 0;
  let pausedUntil = -Infinity;
  const open = (now: number, ms: number) => {
    until = Math.max(until ?? 0, now + ms);
    changedAt = now;
    inARow = 0;
  };
  const breaker: Breaker = {
    state: (now) => (until === undefined ? 'closed' : now < until ? 'open' : 'half-open'),
    remaining: (now) => (until === undefined ? 0 : Math.max(0, until - now)),
    note(event, startedAt, now, retryAfterMs) {
      const before = breaker.state(now);
      const stale = startedAt < changedAt;
      if (event === 'unauthorized' && !stale) {
        open(now, doubling(REFUSAL, refusals));
        refusals += 1;
      }
      if (retryAfterMs !== undefined && retryAfterMs > 0 && event !== 'answer') {
        const end = now + Math.min(retryAfterMs, LONGEST_RETRY_AFTER);
        pausedUntil = Math.max(pausedUntil, end);
        open(now, end - now);
        return before !== 'open';
      }
      if (stale) return false;
      if (event === 'unauthorized') return true;
      if (event === 'answer') {
        inARow = 0;
        if (before !== 'half-open') return false;
        until = undefined;
        changedAt = now;
        faultOpenings = 0;
        refusals = 0;
        return true;
      }
      inARow += 1;
      if (before === 'open' || (before === 'closed' && inARow < FAULTS_IN_A_ROW)) return false;
      open(now, doubling(FAULT, faultOpenings));
      faultOpenings += 1;
      return true;
    },
    retry(now) {
      if (breaker.state(now) !== 'open') return;
      until = Math.max(now, pausedUntil);
      changedAt = now;
      refusals = 0;
    },
    tryNow(now) {
      if (breaker.state(now) !== 'open') return;
      until = now;
      pausedUntil = -Infinity;
      changedAt = now;
      refusals = 0;
      faultOpenings = 0;
    },
  };
  return breaker;
}

function doubling({ first, longest }: { first: number; longest: number }, times: number): number {
  return Math.min(longest, first * 2 ** Math.min(times, 20));
}
