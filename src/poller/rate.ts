/** The rate limit of IP2SMS_MAX_RPS: a token bucket that holds a tenth of a second's requests, at least one. */
export interface Rate {
  /** the size of the bucket */
  readonly room: number;
  /** how many requests may start now; times are milliseconds of a monotonic clock */
  available(now: number): number;
  take(count: number): void;
}

/** `perSecond` 0: no limit. */
export function createRate(perSecond: number, start: number): Rate {
  if (perSecond === 0) return { room: Infinity, available: () => Infinity, take: () => {} };
  const room = Math.max(1, perSecond / 10);
  let tokens = room;
  let filledAt = start;
  return {
    room,
    available(now) {
      tokens = Math.min(room, tokens + ((now - filledAt) / 1000) * perSecond);
      filledAt = now;
      return Math.max(0, Math.floor(tokens));
    },
    take(count) {
      tokens -= count;
    },
  };
}
