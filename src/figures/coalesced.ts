/** A reading of the database that many ask for: done once at a time, at most every few seconds, and for a fifth of the time where it takes less than five seconds. */
import { pause } from '../supervise.ts';

export interface ReadingOptions {
  /** milliseconds for which values are fresh at the least */
  readonly maxAgeMs: number;
  /** milliseconds that who asks waits */
  readonly waitMs: number;
  /** told of a failure, and whether it is the first of a row */
  readonly onFailure: (error: unknown, first: boolean) => void;
}

/** Values stay fresh for so many times as long as their reading took. */
const REST = 4;
/** But no longer: what took so much has waited, for a lock or on a dead path, and that may be over. */
const MOST_REST_MS = 20_000;

/** The returned function reads again where what was read is no longer fresh. It never rejects, and returns in time; a slower reading goes on. */
export function createReading(
  read: () => Promise<void>,
  { maxAgeMs, waitMs, onFailure }: ReadingOptions,
): () => Promise<void> {
  let running: Promise<void> | undefined;
  let freshUntil = -Infinity;
  let failing = false;

  const readOnce = async () => {
    const started = performance.now();
    try {
      await read();
      failing = false;
    } catch (error) {
      onFailure(error, !failing);
      failing = true;
    } finally {
      const ended = performance.now();
      freshUntil =
        maxAgeMs === 0 ? ended : ended + Math.max(maxAgeMs, Math.min(MOST_REST_MS, REST * (ended - started)));
      running = undefined;
    }
  };

  return async () => {
    if (performance.now() < freshUntil) return;
    running ??= readOnce();
    const limit = new AbortController();
    await Promise.race([running, pause(waitMs, limit.signal)]);
    limit.abort();
  };
}
