import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { inTime, walkByPlace, type Piece } from '../../src/reconcile/chunks.ts';

const tooLong = () => Object.assign(new Error('canceling statement due to statement timeout'), { code: '57014' });
const SIZES = { least: 100, most: 10_000 };

// how long a piece takes decides the size of the next one: time passes only where a test says so
beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

test('a piece that takes too long is tried smaller, and the least one without a limit', async () => {
  const tried: [number, boolean][] = [];
  const { result, next } = await inTime(6_400, SIZES, async (size, limited) => {
    tried.push([size, limited]);
    if (limited) throw tooLong();
    return 'done';
  });
  expect(tried).toEqual([
    [6_400, true],
    [1_600, true],
    [400, true],
    [100, false],
  ]);
  expect(result).toBe('done');
  expect(next).toBe(200);
});

test.each([
  [0, 2_000],
  [120, 1_000],
  [240, 500],
  [10_000, 100],
])('after a piece of 1,000 that took %i ms the next one has %i', async (ms, size) => {
  const { next } = await inTime(1_000, SIZES, async () => void vi.advanceTimersByTime(ms));
  expect(next).toBe(size);
});

test('what fails otherwise, or without a limit, is thrown', async () => {
  await expect(inTime(6_400, SIZES, () => Promise.reject(new Error('another')))).rejects.toThrow('another');
  await expect(inTime(100, SIZES, () => Promise.reject(tooLong()))).rejects.toMatchObject({ code: '57014' });
});

test('a walk by place reads each page once, though some pieces are given up', async () => {
  const read: [number, number][] = [];
  let times = 0;
  const look = async ({ parameters, limited }: Piece) => {
    times += 1;
    if (limited && times % 3 === 0) throw tooLong();
    const [from, to] = parameters.map((place) => Number(/\d+/.exec(place)![0]));
    read.push([from!, to!]);
  };
  await walkByPlace(1_234, 800, { parameter: 1, share: 1 }, look, new AbortController().signal);
  expect(times).toBeGreaterThan(read.length);
  // each begins where the one before it ended
  expect(read.map(([from]) => from)).toEqual([0, ...read.slice(0, -1).map(([, to]) => to)]);
  expect(read.at(-1)![1]).toBe(1_234);
});
