/**
 * The concurrency limit, by additive increase and multiplicative decrease: it starts at `INITIAL`, doubles each round trip until the first overload, and is
 * then halved (once for all requests in flight). From half of its former size it grows by 1/32 of the ceiling each round trip. It grows only while it is used.
 */
export interface Limit {
  /** requests that may be in flight now, at least 1 */
  readonly current: number;
  /** a request ended that started at `startedAt`; `used`: more requests would be sent if allowed. Times are of a monotonic clock */
  ended(outcome: 'ok' | 'overload', startedAt: number, now: number, used: boolean): void;
}

const INITIAL = 8;

export function createLimit(ceiling: number): Limit {
  let size = Math.min(INITIAL, ceiling);
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
        // consecutive decreases are one event: the threshold is half of what worked before them
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
