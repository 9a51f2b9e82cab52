import { afterEach, expect, test, vi } from 'vitest';
import { createReading } from '../../src/figures/coalesced.ts';
import { shared } from '../../src/http/shared.ts';

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

test('a reading that fails is told of, the first of a row as such, and done again as any other; who asks meanwhile waits for it, but not for long', async () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  const told: boolean[] = [];
  let reads = 0;
  let result: Promise<void>;
  const refresh = createReading(
    () => {
      reads += 1;
      return result;
    },
    { maxAgeMs: 1_000, waitMs: 1, onFailure: (_, first) => told.push(first) },
  );
  for (const fails of [true, true, false, true]) {
    result = fails ? Promise.reject(new Error('no')) : Promise.resolve();
    await refresh();
    vi.advanceTimersByTime(1_000);
  }
  expect({ reads, told }).toEqual({ reads: 4, told: [true, false, true] });
  result = new Promise(() => {});
  for (let i = 0; i < 2; i += 1) await refresh();
  expect(reads).toBe(5);
});

test('what is made is shared by all who ask while that takes, and for a second after it, whether it succeeds or fails', async () => {
  let clock = 0;
  let settle!: { resolve: (made: string) => void; reject: (error: Error) => void };
  const ask = shared(
    () => new Promise<string>((resolve, reject) => void (settle = { resolve, reject })),
    () => clock,
  );
  let former: Promise<string> | undefined;
  for (const fails of [false, true, false]) {
    const made = ask();
    expect(made).not.toBe(former);
    clock += 5_000;
    expect(ask()).toBe(made);
    if (fails) settle.reject(new Error('no'));
    else settle.resolve('made');
    await made.catch(() => {});
    clock += 999;
    expect(ask()).toBe(made);
    clock += 1;
    former = made;
  }
});
