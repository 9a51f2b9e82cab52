/**
 * How the free places are shared among the lanes of the queue: a quarter for SMS older than ten minutes (drawn by chance where a quarter is no
 * whole number, so that neither side starves when there is one place), the rest for young ones; at most a tenth of the limit for those that were
 * past their life when they came. And from where the next scan of each lane starts.
 */
import type { Claimed, Floors, Wanted } from './store.ts';

const OLD_SHARE = 0.25;
const PAST_SHARE = 0.1;
/** Nothing that is due may hide below a floor for longer than this. */
const FLOOR_AGE_MS = 60_000;
/** Where a transaction elsewhere keeps what is dead, a scan without floors reads all of it: at most so much of the time goes there. */
const UNBOUNDED_SHARE = 0.05;
const FLOOR_MARGIN_MS = 60_000;

export interface Lanes {
  /** `free` places of `size`; `random` from 0 to 1 */
  share(free: number, size: number, random: number): Wanted;
  /** for a claim that begins `now`, milliseconds of one monotonic clock */
  floors(now: number): Floors;
  /** what the claim brought that ended `now` */
  claimed(rows: readonly Claimed[], wanted: Wanted, now: number): void;
  ended(lane: number): void;
  /** true where rows past their life hold all the places that they may */
  pastIsFull(size: number): boolean;
}

export function createLanes(): Lanes {
  let pastInFlight = 0;
  const floors: [number | null, number | null, number | null] = [null, null, null];
  let unbounded = { began: -Infinity, ended: -Infinity };
  let underWay: number | undefined;
  let short = false;
  return {
    share(free, size, random) {
      return {
        total: free,
        old: Math.min(free, Math.floor(free * OLD_SHARE + random)),
        past: Math.max(0, pastRoom(size) - pastInFlight),
      };
    },
    floors(now) {
      // a claim that came back short may have missed what is below a floor
      const rest = short ? (unbounded.ended - unbounded.began) / UNBOUNDED_SHARE : FLOOR_AGE_MS;
      underWay = now - unbounded.ended < Math.min(rest, FLOOR_AGE_MS) ? undefined : now;
      return underWay === undefined ? [...floors] : [null, null, null];
    },
    claimed(rows, wanted, now) {
      if (underWay !== undefined) unbounded = { began: underWay, ended: now };
      short = rows.length < wanted.total;
      const lowest: [number, number, number] = [Infinity, Infinity, Infinity];
      for (const { lane, dueMs } of rows) {
        // a row that has just become old lowers the floor of the other lane: lower is always safe
        lowest[lane] = Math.min(lowest[lane], dueMs - FLOOR_MARGIN_MS);
        if (lane === 2) pastInFlight += 1;
      }
      // a lane that brought nothing keeps its floor: all that died in it since is above
      for (const lane of [0, 1, 2] as const) if (lowest[lane] < Infinity) floors[lane] = lowest[lane];
    },
    ended(lane) {
      if (lane === 2) pastInFlight -= 1;
    },
    pastIsFull: (size) => pastInFlight >= pastRoom(size),
  };
}

function pastRoom(size: number): number {
  return Math.max(1, Math.floor(size * PAST_SHARE));
}
