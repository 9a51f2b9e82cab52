import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

beforeEach(() => {
  // another file's has a real timer
  vi.resetModules();
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  vi.resetModules();
});

test('waits that begin at different moments end together, each at a beat before its time is over or a moment after it', async () => {
  const { beatBefore } = await import('../../src/beat.ts');
  const ended: Record<string, number> = {};
  const wait = (name: string, ms: number) =>
    void beatBefore(ms, new AbortController().signal).then(() => (ended[name] = performance.now()));
  wait('at a beat', 1_000);
  wait('long', 60_000);
  await vi.advanceTimersByTimeAsync(40);
  wait('a moment after it', 1_000);
  await vi.advanceTimersByTimeAsync(350);
  wait('before the next', 1_000);
  await vi.advanceTimersByTimeAsync(60);
  wait('a moment before the next', 1_000);
  await vi.advanceTimersByTimeAsync(4_000);
  expect(ended).toEqual({
    'at a beat': 1_000,
    'a moment after it': 1_000,
    'before the next': 1_000,
    'a moment before the next': 1_500,
  });
});

test('a wait for which the process stood still too long ends with the next beat', async () => {
  const { beatBefore } = await import('../../src/beat.ts');
  const { signal } = new AbortController();
  let ended = false;
  void beatBefore(60_000, signal).then(() => (ended = true));
  const now = performance.now();
  vi.spyOn(performance, 'now').mockReturnValue(now + 3_600_000);
  await vi.advanceTimersByTimeAsync(500);
  expect(ended).toBe(true);
  // signals live as long as the daemon
  expect(getEventListeners(signal, 'abort')).toEqual([]);
});

test('an abort ends a wait at once, also one that comes before it', async () => {
  const { beatBefore } = await import('../../src/beat.ts');
  const stop = new AbortController();
  const waits = beatBefore(1_000, stop.signal);
  stop.abort();
  await expect(waits).resolves.toBeUndefined();
  await expect(beatBefore(1_000, stop.signal)).resolves.toBeUndefined();
});

test('what is done at each beat is done until it is told not to be', async () => {
  const { atEachBeat } = await import('../../src/beat.ts');
  let beats = 0;
  const stop = atEachBeat(() => void (beats += 1));
  await vi.advanceTimersByTimeAsync(1_000);
  stop();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(beats).toBe(2);
});
