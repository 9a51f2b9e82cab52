/**
 * How many requests may be under way at once. It starts at `FIRST`, doubles each round trip until the gateway is overloaded for the first time,
 * halves then (once for all requests that were already under way), and grows by a thirty-second of the ceiling a round trip from half
 * of where it was. It grows only while it is used.
 */
export interface Limit {
  /** requests that may be under way now, at least 1 */
  readonly current: number;
  /** a request ended that began at `startedAt`; `used`: more would be asked if more were allowed. Times are of one monotonic clock */
  ended(outcome: 'ok' | 'overload', startedAt: number, now: number, used: boolean): void;
}

const FIRST = 8;

export function createLimit(ceiling: number): Limit {
  let size = Math.min(FIRST, ceiling);
  /** below it the limit doubles, above it grows by a step */
  let threshold = ceiling;
  let decreasedAt = -Infinity;
  let healthy = true;
  const step = Math.max(1, ceiling / 32);
  return {
    get current() {
      return Math.max(1, Math.floor(size));
    },
    ended(outcome, startedAt, now, used) {
      if (outcome === 'overload') {
        if (startedAt < decreasedAt) return;
        // a row of decreases is one event: the way back starts from half of what worked before it
        if (healthy) threshold = Math.max(1, size / 2);
        healthy = false;
        size = Math.max(1, size / 2);
        decreasedAt = now;
        return;
      }
      if (startedAt < decreasedAt) return;
      healthy = true;
      if (!used) return;
      size = Math.min(ceiling, size + (size < threshold ? 1 : step / size));
    },
  };
}
