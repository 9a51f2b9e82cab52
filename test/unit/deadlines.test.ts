import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createDeadlines } from '../../src/gateway/deadlines.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

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
