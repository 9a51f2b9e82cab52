/**
 * The time in which this process ran. While it stands still (suspended, or with its host) it hears nobody, so that time says nothing about others: whoever
 * takes a silence for a fault measures it by this clock.
 */
import { atEachBeat } from './beat.ts';
import { pause } from './supervise.ts';

/** Between two turns; what is shorter is load. */
const STANDSTILL_MS = 2_000;

/** `now`: a monotonic clock in milliseconds. The result must be called each half a second, and when a time is over: it counts no gap between two calls. */
export function createRunningTime(now: () => number): () => number {
  let last = now();
  let stood = 0;
  return () => {
    const at = now();
    if (at - last > STANDSTILL_MS) stood += at - last;
    last = at;
    return at - stood;
  };
}

/** Milliseconds. */
export const runningMs = createRunningTime(() => performance.now());
atEachBeat(runningMs);

/** Waits until the process has run for `ms` milliseconds, or until `signal` aborts; never rejects. */
export async function runFor(ms: number, signal: AbortSignal): Promise<void> {
  const end = runningMs() + ms;
  for (let left = ms; left > 0 && !signal.aborted; left = end - runningMs()) await pause(Math.ceil(left), signal);
}
