/** The beat of the demo's services: work begun so many times a second, jobs every few seconds. */
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { pause } from '../supervise.ts';

const TICK_MS = 40;

export interface Pace {
  /** begun each second */
  readonly perSecond: number;
  /** under way at once, at the most: a database that is slow is not buried */
  readonly limit: number;
}

/**
 * Begins `work` again and again until `signal` aborts, then waits for what is under way. `work` sees the same signal and ends soon after it.
 * The first failure ends it and is thrown.
 */
export async function pace({ perSecond, limit }: Pace, work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  // each work under way may listen to it
  setMaxListeners(0, signal);
  const underWay = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let owed = 0;
  let last = performance.now();
  while (!signal.aborted && failures.length === 0) {
    const now = performance.now();
    // what a pause of the process left undone is not made up for
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

/** Does `work` every `seconds` until `signal` aborts; less often where it takes long, so that it never takes more than a fifth of the time. */
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

/** Pauses until `left` gives no more seconds, or `signal` aborts. */
export async function pauseWhile(left: () => number, signal: AbortSignal): Promise<void> {
  while (left() > 0 && !signal.aborted) await pause(Math.min(left() * 1000, 1_000), signal);
}

/**
 * Asks `condition` again and again until it holds, the time is over or `signal` aborts. True where it held. A dear condition is asked less
 * often: at most a fifth of the time goes into it.
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
