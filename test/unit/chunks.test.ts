import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { withAdaptiveSize, scanByCtid, type ChunkQuery } from '../../src/reconcile/chunks.ts';

const tooLong = () => Object.assign(new Error('canceling statement due to statement timeout'), { code: '57014' });
const SIZES = { min: 100, max: 10_000 };
/** Tries after which a chunk succeeds, so that one that is tried without end fails its test instead of never ending it. */
const ENOUGH = 9;

// how long a chunk takes decides the size of the next one: time passes only where a test says so
beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

test('a chunk that takes too long is retried smaller, and the smallest one without a limit', async () => {
  const tried: [number, boolean][] = [];
  const { result, next } = await withAdaptiveSize(6_400, SIZES, async (size, limited) => {
    tried.push([size, limited]);
    if (limited && tried.length < ENOUGH) throw tooLong();
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
])('after a chunk of 1,000 that took %i ms the next one has %i', async (ms, size) => {
  const { next } = await withAdaptiveSize(1_000, SIZES, async () => void vi.advanceTimersByTime(ms));
  expect(next).toBe(size);
});

test('what fails otherwise, or without a limit, is thrown', async () => {
  await expect(withAdaptiveSize(6_400, SIZES, () => Promise.reject(new Error('another')))).rejects.toThrow('another');
  let tries = 0;
  const fails = async () => {
    if ((tries += 1) < ENOUGH) throw tooLong();
  };
  await expect(withAdaptiveSize(100, SIZES, fails)).rejects.toMatchObject({ code: '57014' });
});

test('a scan by ctid reads each page once, even if some chunks time out', async () => {
  const read: [number, number][] = [];
  let times = 0;
  const look = async ({ parameters, limited }: ChunkQuery) => {
    times += 1;
    if (limited && times % 3 === 0) throw tooLong();
    const [from, to] = parameters.map((place) => Number(/\d+/.exec(place)![0]));
    read.push([from!, to!]);
  };
  await scanByCtid(1_234, 800, { parameter: 1, share: 1 }, look, new AbortController().signal);
  expect(times).toBeGreaterThan(read.length);
  // each begins where the one before it ended
  expect(read.map(([from]) => from)).toEqual([0, ...read.slice(0, -1).map(([, to]) => to)]);
  expect(read.at(-1)![1]).toBe(1_234);
});
