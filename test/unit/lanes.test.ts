import { expect, test } from 'vitest';
import { createLanes } from '../../src/poller/lanes.ts';
import type { Claimed } from '../../src/poller/queue.ts';

const WANTED = { total: 1, old: 0, past: 1 };
const UNBOUNDED = [null, null, null];
const row = (lane: 0 | 1 | 2, dueMs: number): Claimed => ({
  id: 'id',
  gatewayId: '1',
  attempt: 1,
  lane,
  ageMs: 0,
  leftMs: 0,
  dueMs,
});

test('a scan starts a minute before the oldest of the last claim, and once a minute from the beginning', () => {
  const lanes = createLanes();
  expect(lanes.floors(0)).toEqual(UNBOUNDED);
  lanes.claimed([row(0, 100_000)], WANTED, 0);
  expect(lanes.floors(20)).toEqual([40_000, null, null]);
  lanes.claimed([row(0, 200_000), row(0, 210_000)], WANTED, 20);
  expect(lanes.floors(59_999)).toEqual([140_000, null, null]);
  expect(lanes.floors(60_000)).toEqual(UNBOUNDED);
});

test('where scans take long most of them start just before the oldest of the last claim, one in a while a minute before it', () => {
  const lanes = createLanes();
  lanes.floors(0);
  lanes.claimed([row(0, 100_000)], WANTED, 0);
  expect(lanes.floors(10)).toEqual([40_000, null, null]);
  // a transaction elsewhere keeps what is dead: the scan takes a tenth of a second
  lanes.claimed([row(0, 101_000)], WANTED, 110);
  expect(lanes.floors(111)).toEqual([100_750, null, null]);
  lanes.claimed([row(0, 102_000)], WANTED, 113);
  expect(lanes.floors(2_109)).toEqual([101_750, null, null]);
  lanes.claimed([], WANTED, 2_109);
  // and one that brought less than wanted lets the next one start at the beginning
  expect(lanes.floors(2_110)).toEqual(UNBOUNDED);
  lanes.claimed([row(0, 102_000)], WANTED, 2_111);
  expect(lanes.floors(2_112)).toEqual([42_000, null, null]);
});

test('a lane that brought nothing keeps its floor', () => {
  const lanes = createLanes();
  lanes.floors(0);
  lanes.claimed([row(1, 100_000)], WANTED, 0);
  lanes.claimed([row(0, 300_000)], WANTED, 0);
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
  lanes.claimed([], WANTED, 20_000);
  expect(lanes.floors(21_029)).toEqual([40_000, null, null]);
  expect(lanes.floors(21_030)).toEqual(UNBOUNDED);
  // what another lane still lacks may lie below its floor
  lanes.claimed([row(0, 100_000)], { ...WANTED, total: 2 }, 21_030);
  expect(lanes.floors(21_060)).toEqual(UNBOUNDED);
});

test('one free slot goes to old SMS in a quarter of the claims, and of more they have a quarter', () => {
  const lanes = createLanes();
  const old = (free: number, random: number) => lanes.share(free, 100, random).old;
  expect([0, 0.74, 0.75, 0.99].map((random) => old(1, random))).toEqual([0, 0, 1, 1]);
  expect([0, 0.99].map((random) => old(8, random))).toEqual([2, 2]);
});

test('SMS that were queued past their deadline have a tenth of the limit, one at the least, and no more while these are asked for', () => {
  const lanes = createLanes();
  const past = (size: number) => lanes.share(1, size, 0).past;
  expect([1, 19, 20, 100].map(past)).toEqual([1, 1, 2, 10]);
  lanes.claimed([row(2, 0), row(2, 0)], WANTED, 0);
  expect([1, 20, 30].map(past)).toEqual([0, 0, 1]);
  expect([20, 30].map((size) => lanes.pastIsFull(size))).toEqual([true, false]);
  lanes.ended(2);
  expect(past(20)).toBe(1);
});
