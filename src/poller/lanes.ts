/**
 * How the free places are shared among the lanes of the queue: a quarter for SMS older than ten minutes (drawn by chance where a quarter is no
 * whole number, so that neither side starves when there is one place), the rest for young ones; at most a tenth of the limit for those that were
 * past their life when they came. And from where the next scan of each lane starts.
 */
import type { Claimed, Floors, Wanted } from './queue.ts';

const OLD_SHARE = 0.25;
const PAST_SHARE = 0.1;
/**
 * How far below the last claim's oldest due time a scan begins, milliseconds. Where a transaction elsewhere keeps what is dead, a scan reads all of
 * it from there on: the further, the more. The widest has no floor.
 */
const MARGINS = [250, 60_000, Infinity] as const;
/** Nothing that is due may hide below the widest floor for longer than this. */
const FLOOR_AGE_MS = 60_000;
/** At most so much of the time goes into the wider scans, each. */
const WIDER_SHARE = 0.05;

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
  const lowest: [number, number, number] = [-Infinity, -Infinity, -Infinity];
  const scans = MARGINS.map(() => ({ took: 0, ended: -Infinity }));
  let underWay = { scan: 0, began: 0 };
  let short = false;
  /** A scan that took long is not repeated soon. */
  const rested = (scan: number, now: number) =>
    now - scans[scan]!.ended >= Math.min(scans[scan]!.took / WIDER_SHARE, FLOOR_AGE_MS);
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
      const widest = short ? rested(2, now) : now - scans[2]!.ended >= FLOOR_AGE_MS;
      underWay = { scan: widest ? 2 : rested(1, now) ? 1 : 0, began: now };
      const margin = MARGINS[underWay.scan]!;
      const floor = (lane: 0 | 1 | 2) => (Number.isFinite(lowest[lane] - margin) ? lowest[lane] - margin : null);
      return [floor(0), floor(1), floor(2)];
    },
    claimed(rows, wanted, now) {
      scans[underWay.scan] = { took: now - underWay.began, ended: now };
      short = rows.length < wanted.total;
      const brought: [number, number, number] = [Infinity, Infinity, Infinity];
      for (const { lane, dueMs } of rows) {
        // a row that has just become old lowers the floor of the other lane: lower is always safe
        brought[lane] = Math.min(brought[lane], dueMs);
        if (lane === 2) pastInFlight += 1;
      }
      // a lane that brought nothing keeps its floor: all that died in it since is above
      for (const lane of [0, 1, 2] as const) if (brought[lane] < Infinity) lowest[lane] = brought[lane];
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
