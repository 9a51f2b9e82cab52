/** Requests a second, for IP2SMS_MAX_RPS: a bucket that holds a tenth of a second's worth, at least one. */
export interface Rate {
  /** the most that may begin at once */
  readonly room: number;
  /** how many requests may begin now; times are milliseconds of one monotonic clock */
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
