/**
 * How the free slots are shared among the lanes of the queue: a quarter for SMS older than ten minutes (rounded at random, so that neither lane starves when
 * there is one slot), the rest for newer ones; at most a tenth of the limit for those that were past their deadline when they were queued. And where the next
 * scan of each lane starts.
 */
import type { Claimed, Floors, Wanted } from './queue.ts';

const OLD_SHARE = 0.25;
const PAST_SHARE = 0.1;
/**
 * How far below the oldest due time of the last claim a scan starts, in milliseconds. If an old transaction keeps dead rows from being vacuumed, a scan reads
 * all of them from there on. The widest scan has no floor.
 */
const MARGINS = [250, 60_000, Infinity] as const;
/** The longest time that a due row may be missed below the floors. */
const FLOOR_AGE_MS = 60_000;
/** The fraction of the time that each of the wider scans may take. */
const WIDER_SHARE = 0.05;

export interface Lanes {
  /** `free` slots of `size`; `random` from 0 to 1 */
  share(free: number, size: number, random: number): Wanted;
  /** for a claim that starts `now`, in milliseconds of a monotonic clock */
  floors(now: number): Floors;
  /** the claim that ended `now` returned these rows */
  claimed(rows: readonly Claimed[], wanted: Wanted, now: number): void;
  ended(lane: number): void;
  /** true if rows past their deadline have all the slots that they may */
  pastIsFull(size: number): boolean;
}

export function createLanes(): Lanes {
  let pastInFlight = 0;
  const lowest: [number, number, number] = [-Infinity, -Infinity, -Infinity];
  const scans = MARGINS.map(() => ({ took: 0, ended: -Infinity }));
  let currentScan = { scan: 0, began: 0 };
  let short = false;
  /** True if the scan may run again: one that took long is not repeated soon. */
  const mayRun = (scan: number, now: number) =>
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
      // a claim that returned too few rows may have missed some below a floor
      const widest = short ? mayRun(2, now) : now - scans[2]!.ended >= FLOOR_AGE_MS;
      currentScan = { scan: widest ? 2 : mayRun(1, now) ? 1 : 0, began: now };
      const margin = MARGINS[currentScan.scan]!;
      const floor = (lane: 0 | 1 | 2) => (Number.isFinite(lowest[lane] - margin) ? lowest[lane] - margin : null);
      return [floor(0), floor(1), floor(2)];
    },
    claimed(rows, wanted, now) {
      scans[currentScan.scan] = { took: now - currentScan.began, ended: now };
      short = rows.length < wanted.total;
      const brought: [number, number, number] = [Infinity, Infinity, Infinity];
      for (const { lane, dueMs } of rows) {
        // a row that has just become old lowers the other lane's floor, which is always safe
        brought[lane] = Math.min(brought[lane], dueMs);
        if (lane === 2) pastInFlight += 1;
      }
      // a lane without rows keeps its floor: rows that died in it since are above
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
