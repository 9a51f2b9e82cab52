import { expect, test, vi } from 'vitest';
import { createCompletions } from '../../src/poller/completions.ts';
import type { Completed, Completion } from '../../src/poller/final-status.ts';

const answer = (id: number): Completion => ({
  id: String(id),
  attempt: 1,
  gatewayId: '1',
  result: 'ok',
  status: 'Delivered',
  date: null,
  gapMs: 0,
});

const NOTHING: Completed = { changes: [], locked: new Set() };

test('what comes while a batch is written is gathered for a batch of its own, a full one does not wait, and a third one does', async () => {
  vi.useFakeTimers();
  try {
    const sizes: number[] = [];
    const writing: (() => void)[] = [];
    const written = () => writing.shift()?.();
    const completions = createCompletions({
      write: async (rows) => {
        sizes.push(rows.length);
        await new Promise<void>((resolve) => writing.push(resolve));
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
    for (let id = 201; id <= 400; id += 1) completions.add(answer(id));
    expect(sizes).toEqual([1, 200, 200]);
    for (let id = 401; id <= 601; id += 1) completions.add(answer(id));
    expect(sizes).toEqual([1, 200, 200]);
    written();
    await vi.advanceTimersByTimeAsync(0);
    expect(sizes).toEqual([1, 200, 200, 200]);
    written();
    const flushed = completions.flush();
    written();
    await vi.advanceTimersByTimeAsync(0);
    expect(sizes).toEqual([1, 200, 200, 200, 1]);
    written();
    await flushed;
    expect(completions.waiting).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

/** Completions whose `held` rows somebody holds; all others are written at once. */
function holding(held: (id: number) => boolean) {
  const tries = new Map<number, number>();
  const written: number[] = [];
  const completions = createCompletions({
    write: async (rows) => {
      for (const { id } of rows) tries.set(Number(id), (tries.get(Number(id)) ?? 0) + 1);
      return { changes: [], locked: new Set(rows.map(({ id }) => id).filter((id) => held(Number(id)))) };
    },
    onWritten: (rows) => void written.push(...rows.map(({ id }) => Number(id))),
    onRefused: async () => {},
    onFailure: () => {},
  });
  return { completions, tries, written };
}

test('rows that somebody holds are tried again each tenth of a second, however many they are, and left to their lease after eight seconds', async () => {
  vi.useFakeTimers();
  try {
    let free = false;
    const { completions, tries, written } = holding((id) => id > 0 && !(free && id === 450));
    for (let id = 1; id <= 450; id += 1) completions.add(answer(id));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tries.size).toBe(450);
    expect(Math.min(...tries.values())).toBeGreaterThanOrEqual(5);
    expect(Math.max(...tries.values())).toBeLessThanOrEqual(11);
    expect(completions.waiting).toBe(450);
    // who comes later is written all the same, and who is free again
    completions.add(answer(0));
    free = true;
    await vi.advanceTimersByTimeAsync(300);
    expect(written.toSorted((a, b) => a - b)).toEqual([0, 450]);
    await vi.advanceTimersByTimeAsync(7_000);
    expect(completions.waiting).toBe(0);
    expect(written).toHaveLength(451);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test('at a stop a row that somebody holds is tried for a second more, and then left to its lease', async () => {
  vi.useFakeTimers();
  try {
    const { completions, tries, written } = holding((id) => id === 1);
    for (const id of [1, 2]) completions.add(answer(id));
    let flushed = false;
    const flush = completions.flush().then(() => (flushed = true));
    await vi.advanceTimersByTimeAsync(900);
    expect({ flushed, written }).toEqual({ flushed: false, written: [2] });
    await vi.advanceTimersByTimeAsync(300);
    await flush;
    expect(tries.get(1)).toBeGreaterThan(5);
    expect(written).toEqual([2, 1]);
  } finally {
    vi.useRealTimers();
  }
});

test('once the database is unusable nothing more is written', async () => {
  vi.useFakeTimers();
  try {
    let tries = 0;
    const failures: unknown[] = [];
    const gone = Object.assign(new Error('gone'), { code: 'CONNECTION_CLOSED' });
    const completions = createCompletions({
      write: async () => {
        tries += 1;
        throw gone;
      },
      onWritten: () => {},
      onRefused: async () => {},
      onFailure: (error) => void failures.push(error),
    });
    for (let id = 1; id <= 250; id += 1) completions.add(answer(id));
    await vi.advanceTimersByTimeAsync(1_000);
    completions.add(answer(0));
    await vi.advanceTimersByTimeAsync(1_000);
    expect({ tries, failures }).toEqual({ tries: 1, failures: [gone] });
    await expect(completions.flush()).rejects.toBe(gone);
  } finally {
    vi.useRealTimers();
  }
});
