import { expect, test } from 'vitest';
import { createLanes } from '../../src/poller/lanes.ts';
import type { Claimed } from '../../src/poller/store.ts';

const WANTED = { total: 1, old: 0, past: 1 };
const UNBOUNDED = [null, null, null];
const row = (lane: 0 | 1 | 2, dueMs: number): Claimed => ({
  id: 'id',
  gatewayId: '1',
  attempt: 1,
  lane,
  ageMs: 0,
  dueMs,
});

test('a scan starts a minute before the oldest of the last claim, and once a minute from the beginning', () => {
  const lanes = createLanes();
  expect(lanes.floors(0)).toEqual(UNBOUNDED);
  lanes.claimed([row(0, 100_000)], WANTED, 10);
  expect(lanes.floors(20)).toEqual([40_000, null, null]);
  lanes.claimed([row(0, 200_000)], WANTED, 30);
  expect(lanes.floors(60_000)).toEqual([140_000, null, null]);
  expect(lanes.floors(60_010)).toEqual(UNBOUNDED);
});

test('a lane that brought nothing keeps its floor', () => {
  const lanes = createLanes();
  lanes.floors(0);
  lanes.claimed([row(1, 100_000)], WANTED, 10);
  lanes.claimed([row(0, 300_000)], WANTED, 20);
  expect(lanes.floors(30)).toEqual([240_000, 40_000, null]);
});

test('where less is due than wanted, scans from the beginning follow at once, but take no more than a twentieth of the time', () => {
  const lanes = createLanes();
  lanes.floors(0);
  lanes.claimed([], WANTED, 1);
  expect(lanes.floors(30)).toEqual(UNBOUNDED);
  // a transaction elsewhere keeps what is dead: the scan takes a second
  lanes.claimed([row(0, 100_000)], { ...WANTED, total: 2 }, 1_030);
  expect(lanes.floors(20_000)).toEqual([40_000, null, null]);
  lanes.claimed([], WANTED, 20_001);
  expect(lanes.floors(21_029)).toEqual([40_000, null, null]);
  expect(lanes.floors(21_030)).toEqual(UNBOUNDED);
});
