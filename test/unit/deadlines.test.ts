import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createDeadlines } from '../../src/gateway/deadlines.ts';
import { createRunningTime, runFor } from '../../src/running-time.ts';
import { pause } from '../../src/supervise.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test('each ends at its own time, and what ended by itself does not', () => {
  const deadlines = createDeadlines(100);
  const over: string[] = [];
  const begin = (name: string) => deadlines.begin(() => over.push(name));
  begin('first');
  vi.advanceTimersByTime(40);
  const done = begin('second');
  begin('third');
  vi.advanceTimersByTime(59);
  expect(over).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(over).toEqual(['first']);
  done.end();
  vi.advanceTimersByTime(40);
  expect(over).toEqual(['first', 'third']);
  expect(vi.getTimerCount()).toBe(0);
});

test('one that begins after all others ended has its whole time, and nothing keeps the process awake', () => {
  const deadlines = createDeadlines(100);
  let over = 0;
  deadlines.begin(() => (over += 1)).end();
  expect(vi.getTimerCount()).toBe(0);
  vi.advanceTimersByTime(50);
  deadlines.begin(() => (over += 1));
  vi.advanceTimersByTime(99);
  expect(over).toBe(0);
  vi.advanceTimersByTime(1);
  expect(over).toBe(1);
});

test('time in which the process stood still is not counted, and what is only load is', () => {
  let clock = 0;
  const ran = createRunningTime(() => clock);
  for (clock = 0; clock < 10_000; clock += 500) ran();
  expect(ran()).toBe(10_000);
  clock += 1_900;
  expect(ran()).toBe(11_900);
  clock += 60_000;
  expect(ran()).toBe(11_900);
  clock += 100;
  expect(ran()).toBe(12_000);
  clock += 30_000;
  expect(ran()).toBe(12_000);
});

test('who waits for a while in which the process stands still waits for as long as it then runs', async () => {
  vi.useRealTimers();
  let clock = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => clock);
  const { signal } = new AbortController();
  let over = false;
  const ran = runFor(20, signal).then(() => (over = true));
  clock += 60_000;
  // begins later, and so ends later than what began before
  await pause(20, signal);
  expect(over).toBe(false);
  // more than is left, as sums of fractions are not exact
  clock += 21;
  await ran;
});

test('a request that was answered while the process stood still has not timed out', () => {
  const deadlines = createDeadlines(8_000);
  let over = 0;
  const request = deadlines.begin(() => (over += 1));
  // suspended: no timer ran, and all are due at once
  vi.setSystemTime(60_000);
  const now = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => now() + 60_000);
  vi.runOnlyPendingTimers();
  expect(over).toBe(0);
  request.end();
  // what begins afterwards has its whole time, and no more
  const { endsAt } = createDeadlines(1_000).begin(() => (over += 1));
  expect(endsAt).toBe(performance.now() + 1_000);
  vi.advanceTimersByTime(999);
  expect(over).toBe(0);
  vi.advanceTimersByTime(1);
  expect(over).toBe(1);
});
