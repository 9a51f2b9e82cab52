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
const FLOOR_MARGIN_MS = 60_000;

export interface Lanes {
  /** `free` places of `size`; `random` from 0 to 1 */
  share(free: number, size: number, random: number): Wanted;
  floors(now: number): Floors;
  claimed(rows: readonly Claimed[], wanted: Wanted): void;
  ended(lane: number): void;
  /** true where rows past their life hold all the places that they may */
  pastIsFull(size: number): boolean;
}

export function createLanes(): Lanes {
  let pastInFlight = 0;
  let floors: [number | null, number | null, number | null] = [null, null, null];
  let unboundedAt = -Infinity;
  return {
    share(free, size, random) {
      return {
        total: free,
        old: Math.min(free, Math.floor(free * OLD_SHARE + random)),
        past: Math.max(0, pastRoom(size) - pastInFlight),
      };
    },
    floors(now) {
      if (now - unboundedAt < FLOOR_AGE_MS) return floors;
      unboundedAt = now;
      return [null, null, null];
    },
    claimed(rows, wanted) {
      // a claim that came back short may have missed what is below a floor
      if (rows.length < wanted.total) unboundedAt = -Infinity;
      const next: [number | null, number | null, number | null] = [null, null, null];
      for (const { lane, dueMs } of rows) {
        // a row that has just become old lowers the floor of the other lane: lower is always safe
        next[lane] = Math.min(next[lane] ?? Infinity, dueMs - FLOOR_MARGIN_MS);
        if (lane === 2) pastInFlight += 1;
      }
      floors = next;
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
