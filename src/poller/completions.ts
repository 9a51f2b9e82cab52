/**
 * Gathers what the requests brought and writes it in batches: one statement for what came within a tenth of a second, or for 200 rows. Two
 * batches at most are written at a time, the second one only when it is full: a slow database makes batches wait, not connections run out.
 */
import { writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Change, Completed, Completion } from './verdicts.ts';

const BATCH = 200;
const WRITERS = 2;
const WAIT_MS = 100;
/** So long a row that somebody holds is tried again and again; then its lease ends, and it is asked for again. At a stop it is left earlier. */
const HELD_MS = 8_000;
const HELD_AT_STOP_MS = 1_000;

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
  /** a row that the database does not take, whatever is tried */
  readonly onRefused: (row: Completion, error: unknown) => Promise<void>;
  /** the database cannot be used now: nothing more is written */
  readonly onFailure: (error: unknown) => void;
}

export function createCompletions(deps: CompletionsDeps): Completions {
  let rows: Completion[] = [];
  let timer: NodeJS.Timeout | undefined;
  const writing = new Set<Promise<void>>();
  /** rows that somebody held: they wait as a batch does, however many they are */
  let held: Completion[] = [];
  let heldTimer: NodeJS.Timeout | undefined;
  const heldSince = new WeakMap<Completion, number>();
  let patienceMs = HELD_MS;
  let failure: { error: unknown } | undefined;
  const works = () => failure === undefined;

  const mayTry = (row: Completion) => {
    const now = performance.now();
    const since = heldSince.get(row) ?? now;
    heldSince.set(row, since);
    return now - since < patienceMs;
  };
  const hold = (some: readonly Completion[]) => {
    held.push(...some);
    if (held.length > 0) heldTimer ??= setTimeout(tryHeld, WAIT_MS);
  };
  const tryHeld = () => {
    heldTimer = undefined;
    rows.push(...held);
    held = [];
    if (works() && writing.size < WRITERS) start();
  };
  const write = async () => {
    do {
      const batch = rows.slice(0, BATCH);
      rows = rows.slice(BATCH);
      try {
        hold(await writeBatch(deps, batch, mayTry));
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
      return rows.length + held.length;
    },
    add(row) {
      rows.push(row);
      schedule();
    },
    async flush() {
      patienceMs = HELD_AT_STOP_MS;
      while (rows.length + held.length + writing.size > 0 && works()) {
        if (rows.length > 0 && writing.size === 0) start();
        if (writing.size > 0) await Promise.all(writing);
        else await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
      clearTimeout(timer);
      clearTimeout(heldTimer);
      if (failure !== undefined) throw failure.error;
    },
  };
}

/** Deadlocks are tried again; a row that the database refuses stands alone. Returns those that somebody holds and that `mayTry` once more. */
async function writeBatch(
  deps: CompletionsDeps,
  batch: readonly Completion[],
  mayTry: (row: Completion) => boolean,
): Promise<Completion[]> {
  const again: Completion[] = [];
  const write = async (rows: readonly Completion[]) => {
    const { changes, held } = await withRetry(() => deps.write(rows));
    const later = new Set(rows.filter((row) => held.has(row.id) && mayTry(row)));
    again.push(...later);
    deps.onWritten(
      rows.filter((row) => !later.has(row)),
      changes,
    );
  };
  await writeAccepted(batch, write, deps.onRefused);
  return again;
}
