import { afterEach, expect, test, vi } from 'vitest';
import { createReading } from '../../src/figures/coalesced.ts';

afterEach(() => void vi.useRealTimers());

test('a reading rests as long as it took, four times over, but no longer than twenty seconds: it may only have waited', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  let reads = 0;
  let takes = 0;
  const refresh = createReading(
    async () => {
      reads += 1;
      vi.advanceTimersByTime(takes);
    },
    { maxAgeMs: 1_000, waitMs: 10_000, onFailure: () => {} },
  );
  const readsAfter = async (ms: number) => {
    vi.advanceTimersByTime(ms);
    const before = reads;
    await refresh();
    return reads - before;
  };
  for (const [took, rests] of [
    [0, 1_000],
    [3_000, 12_000],
    [40_000, 20_000],
  ] as const) {
    takes = took;
    expect(await readsAfter(60_000)).toBe(1);
    expect(await readsAfter(rests - 1)).toBe(0);
    takes = 0;
    expect(await readsAfter(1)).toBe(1);
  }
});
