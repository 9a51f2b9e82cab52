/** The pace of the demo's services: work at a constant rate, and periodic jobs. */
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { pause } from '../supervise.ts';

const TICK_MS = 40;

export interface Pace {
  /** starts per second */
  readonly perSecond: number;
  /** the most that run at once, so that a slow database is not overloaded */
  readonly limit: number;
}

/**
 * Starts `work` at a constant rate until `signal` aborts, then waits for what still runs. `work` gets the same signal and must end soon after it aborts. Throws
 * the first failure.
 */
export async function pace({ perSecond, limit }: Pace, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  // each running `work` may listen to it
  setMaxListeners(0, signal);
  const underWay = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let owed = 0;
  let last = performance.now();
  while (!signal.aborted && failures.length === 0) {
    const now = performance.now();
    // starts that were missed while the process was paused are skipped
    owed = Math.min(owed + ((now - last) * perSecond) / 1000, perSecond);
    last = now;
    for (; owed >= 1 && underWay.size < limit; owed -= 1) {
      const task: Promise<void> = work()
        .catch((error: unknown) => void failures.push(error))
        .finally(() => underWay.delete(task));
      underWay.add(task);
    }
    await pause(TICK_MS, signal);
  }
  await Promise.all(underWay);
  if (failures.length > 0) throw failures[0];
}

/** Runs `work` every `seconds` until `signal` aborts, less often if it takes long, so that it takes a fifth of the time at most. */
export async function every(seconds: number, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  let took = 0;
  for (;;) {
    await pause(Math.max(seconds * 1000, took * 4), signal);
    if (signal.aborted) return;
    const began = performance.now();
    await work();
    took = performance.now() - began;
  }
}

/** Waits until `left` returns 0 seconds, or `signal` aborts. */
export async function pauseWhile(left: () => number, signal: AbortSignal): Promise<void> {
  while (left() > 0 && !signal.aborted) await pause(Math.min(left() * 1000, 1_000), signal);
}

/**
 * Polls `condition` until it is true, the time is over or `signal` aborts. Returns true if it was true. An expensive condition is polled less often: it takes a
 * fifth of the time at most.
 */
export async function waitFor(
  condition: () => Promise<boolean>,
  { seconds, signal }: { readonly seconds: number; readonly signal?: AbortSignal },
): Promise<boolean> {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const asked = performance.now();
    if (await condition()) return true;
    const now = performance.now();
    if (now >= end || signal?.aborted === true) return false;
    await delay(Math.max(20, (now - asked) * 4), undefined, signal === undefined ? {} : { signal }).catch(() => {});
  }
}
