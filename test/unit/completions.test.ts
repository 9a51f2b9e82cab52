import { expect, test, vi } from 'vitest';
import { createCompletions } from '../../src/poller/completions.ts';
import type { Completed, Completion } from '../../src/poller/store.ts';

const answer = (id: number): Completion => ({
  id: String(id),
  attempt: 1,
  gatewayId: '1',
  result: 'ok',
  status: 'Delivered',
  date: null,
  gapMs: 0,
});

const NOTHING: Completed = { changes: [], held: new Set() };

test('what comes while a batch is written is gathered for a batch of its own, and a full one does not wait', async () => {
  vi.useFakeTimers();
  try {
    const sizes: number[] = [];
    let written!: () => void;
    const completions = createCompletions({
      write: async (rows) => {
        sizes.push(rows.length);
        await new Promise<void>((resolve) => (written = resolve));
        return NOTHING;
      },
      onWritten: () => {},
      onRefused: async () => {},
      onFailure: () => {},
    });
    completions.add(answer(0));
    expect(sizes).toEqual([]);
    await vi.advanceTimersByTimeAsync(100);
    expect(sizes).toEqual([1]);
    for (let id = 1; id <= 5; id += 1) completions.add(answer(id));
    written();
    await vi.advanceTimersByTimeAsync(99);
    expect(sizes).toEqual([1]);
    for (let id = 6; id <= 200; id += 1) completions.add(answer(id));
    expect(sizes).toEqual([1, 200]);
    completions.add(answer(201));
    written();
    const flushed = completions.flush();
    await vi.advanceTimersByTimeAsync(0);
    expect(sizes).toEqual([1, 200, 1]);
    written();
    await flushed;
    expect(completions.waiting).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test('a row that somebody holds is written with a later batch, and left to its lease after eighty tries', async () => {
  const batches: string[][] = [];
  const written: string[] = [];
  const completions = createCompletions({
    write: async (rows) => {
      batches.push(rows.map(({ id }) => id));
      return { changes: [], held: new Set(batches.length === 1 ? ['1', '2'] : ['2']) };
    },
    onWritten: (rows) => void written.push(...rows.map(({ id }) => id)),
    onRefused: async () => {},
    onFailure: () => {},
  });
  for (const id of [1, 2, 3]) completions.add(answer(id));
  await completions.flush();
  expect(batches.slice(0, 3)).toEqual([['1', '2', '3'], ['1', '2'], ['2']]);
  expect(batches).toHaveLength(80);
  expect(written).toEqual(['3', '1', '2']);
  expect(completions.waiting).toBe(0);
});
