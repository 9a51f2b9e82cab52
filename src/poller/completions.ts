/**
 * Collects the results of requests and writes them in batches: one statement for 100 ms, or for 200 rows. At most two batches are on their way at a
 * time, over one connection, the second only if it is full: a slow database delays batches.
 */
import { writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Change, Completed, Completion } from './final-status.ts';

const BATCH = 200;
const WRITERS = 2;
const WAIT_MS = 100;
/** How long a locked row is retried; then its lease ends, and it is claimed again. */
const LOCKED_MS = 8_000;
const LOCKED_AT_STOP_MS = 1_000;

export interface Completions {
  add(row: Completion): void;
  /** rows that are not written yet */
  readonly waiting: number;
  /** resolves once everything that was added is written, or rejects with what stopped the writing */
  flush(): Promise<void>;
}

export interface CompletionsDeps {
  readonly write: (rows: readonly Completion[]) => Promise<Completed>;
  readonly onWritten: (rows: readonly Completion[], changes: readonly Change[]) => void;
  /** the database rejects this row */
  readonly onRefused: (row: Completion, error: unknown) => Promise<void>;
  /** the database is unusable: nothing more is written */
  readonly onFailure: (error: unknown) => void;
}

export function createCompletions(deps: CompletionsDeps): Completions {
  let rows: Completion[] = [];
  let timer: NodeJS.Timeout | undefined;
  const writing = new Set<Promise<void>>();
  /** locked rows, which are retried together */
  let locked: Completion[] = [];
  let lockedTimer: NodeJS.Timeout | undefined;
  const lockedSince = new WeakMap<Completion, number>();
  let retryMs = LOCKED_MS;
  let failure: { error: unknown } | undefined;
  const works = () => failure === undefined;

  const mayRetry = (row: Completion) => {
    const now = performance.now();
    const since = lockedSince.get(row) ?? now;
    lockedSince.set(row, since);
    return now - since < retryMs;
  };
  const retryLater = (some: readonly Completion[]) => {
    locked.push(...some);
    if (locked.length > 0) lockedTimer ??= setTimeout(retryLocked, WAIT_MS);
  };
  const retryLocked = () => {
    lockedTimer = undefined;
    rows.push(...locked);
    locked = [];
    if (works() && writing.size < WRITERS) start();
  };
  const write = async () => {
    do {
      const batch = rows.slice(0, BATCH);
      rows = rows.slice(BATCH);
      try {
        retryLater(await writeBatch(deps, batch, mayRetry));
      } catch (error) {
        failure = { error };
        deps.onFailure(error);
      }
    } while (rows.length >= BATCH && works());
  };
  const start = () => {
    clearTimeout(timer);
    timer = undefined;
    const writer = write().finally(() => {
      writing.delete(writer);
      schedule();
    });
    writing.add(writer);
  };
  const schedule = () => {
    if (rows.length === 0 || !works()) return;
    if (rows.length >= BATCH && writing.size < WRITERS) start();
    else if (writing.size === 0) timer ??= setTimeout(start, WAIT_MS);
  };
  return {
    get waiting() {
      return rows.length + locked.length;
    },
    add(row) {
      rows.push(row);
      schedule();
    },
    async flush() {
      retryMs = LOCKED_AT_STOP_MS;
      while (rows.length + locked.length + writing.size > 0 && works()) {
        if (rows.length > 0 && writing.size === 0) start();
        if (writing.size > 0) await Promise.all(writing);
        else await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
      clearTimeout(timer);
      clearTimeout(lockedTimer);
      if (failure !== undefined) throw failure.error;
    },
  };
}

/** Retries deadlocks; a rejected row does not block the others. Returns the locked rows that `mayRetry` allows. */
async function writeBatch(
  deps: CompletionsDeps,
  batch: readonly Completion[],
  mayRetry: (row: Completion) => boolean,
): Promise<Completion[]> {
  const retried: Completion[] = [];
  const write = async (rows: readonly Completion[]) => {
    const { changes, locked } = await withRetry(() => deps.write(rows));
    const later = new Set(rows.filter((row) => locked.has(row.id) && mayRetry(row)));
    retried.push(...later);
    deps.onWritten(
      rows.filter((row) => !later.has(row)),
      changes,
    );
  };
  await writeAccepted(batch, write, deps.onRefused);
  return retried;
}
