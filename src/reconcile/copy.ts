/**
 * Copies source rows that the log lacks, in keyset chunks: the initial copy, and the repair after a slot or publication was recreated. Source and log are
 * in one database and the log has a primary key, so no exported snapshot is needed: it runs beside the stream once the slot exists, and can be repeated
 * and resumed.
 *
 * A transaction that committed before the slot's start can still be invisible to the first pass (it may wait for a synchronous standby). If older
 * transactions are open when the first pass starts, a second pass follows once they have ended.
 */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Source } from '../source.ts';
import { pause } from '../supervise.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { withAdaptiveSize } from './chunks.ts';
import { reportRefused } from './quarantine.ts';
import type { ReconcileStore } from './store.ts';

/** Rows in the first chunk, and the bounds of the next ones. */
const CHUNK = { first: 2_000, min: 500, max: 50_000 };
const PROGRESS_MS = 10_000;
const WAITING_MS = 60_000;
const WAITING_FOR_TRANSACTIONS =
  'reconcile waits with its second pass for transactions that were open when it started; this is the oldest';

export interface Reconcile {
  readonly store: ReconcileStore;
  readonly source: Source;
  readonly term: bigint;
  readonly reason: string;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'reconcileRows' | 'reconcileLooked' | 'reconcileProgress' | 'errors'>;
  /** called when the first pass is done; a second pass may follow */
  readonly copied?: () => void;
  /** between two progress lines in the log; milliseconds */
  readonly progressMs?: number;
}

/** Runs or resumes the reconcile that is due, and returns which; returns early when `signal` aborts. Throws stepped_down if the term is no longer ours. */
export async function reconcile(
  { store, source, term, reason, log, metrics, copied, progressMs = PROGRESS_MS }: Reconcile,
  signal: AbortSignal,
): Promise<{ readonly resumed: boolean }> {
  let { after, xid } = await store.reconcilePosition();
  const resumed = after !== undefined;
  const began = performance.now();
  const sum = { scanned: 0, inserted: 0, completed: 0 };
  log.info(
    { reason, resumed },
    resumed ? 'reconcile resumed' : 'reconcile started: copying source rows that the log lacks',
  );

  const pass = async () => {
    let loggedAt = performance.now();
    let size = CHUNK.first;
    const ends = await retryWhileLocked(signal, () => store.sourceEnds(source));
    const start = { share: shareOf(after, ends), at: loggedAt };
    while (!signal.aborted) {
      const { result: chunk, next } = await retryWhileLocked(signal, () =>
        withAdaptiveSize(size, CHUNK, (rows, limited) => store.reconcileChunk(source, after, rows, { limited, term })),
      );
      const now = performance.now();
      size = next;
      sum.scanned += chunk.scanned;
      sum.inserted += chunk.inserted;
      sum.completed += chunk.completed;
      for (const id of chunk.refused) reportRefused(log, metrics, id);
      metrics.reconcileLooked.inc(chunk.scanned);
      metrics.reconcileRows.inc(chunk.inserted + chunk.completed);
      if (chunk.last === undefined) return;
      after = chunk.last;
      await store.saveReconcilePosition(after, xid, term);
      const share = shareOf(after, ends);
      metrics.reconcileProgress.set(share);
      if (now - loggedAt > progressMs) {
        loggedAt = now;
        const left = ((now - start.at) * (1 - share)) / Math.max(share - start.share, 1e-6);
        log.info(
          {
            reason,
            ...sum,
            share: round(share, 3),
            seconds: round((now - began) / 1000),
            secondsLeft: round(left / 1000),
          },
          'reconcile in progress',
        );
      }
    }
  };

  metrics.reconcileProgress.set(0);
  try {
    if (!resumed) {
      const now = await store.currentTransaction();
      xid = (await store.allEndedBefore(now)) ? undefined : now;
    }
    await pass();
    if (!signal.aborted) copied?.();
    if (xid !== undefined) {
      for (let loggedAt = -Infinity; !signal.aborted && !(await store.allEndedBefore(xid)); await pause(500, signal)) {
        if (performance.now() - loggedAt < WAITING_MS) continue;
        loggedAt = performance.now();
        log.info({ reason, ...(await store.oldestTransaction()) }, WAITING_FOR_TRANSACTIONS);
      }
      xid = undefined;
      after = undefined;
      await pass();
    }
    if (signal.aborted) return { resumed };
    await store.clearReconcile(term);
  } finally {
    metrics.reconcileProgress.set(1);
  }
  log.info({ reason, ...sum, seconds: round((performance.now() - began) / 1000, 1) }, 'reconcile done');
  return { resumed };
}

/** The position of an id between the first and the last one, 0 to 1: ids are random or ordered by time. */
function shareOf(id: string | undefined, ends: readonly [string, string] | undefined): number {
  if (id === undefined || ends === undefined) return 0;
  const [first, last] = [leading(ends[0]), leading(ends[1])];
  return last === first ? 1 : Math.min(1, Math.max(0, (leading(id) - first) / (last - first)));
}

/** The first 48 bits of a UUID. */
function leading(uuid: string): number {
  return Number.parseInt(uuid.replaceAll('-', '').slice(0, 12), 16);
}

function round(value: number, digits = 0): number {
  return Number(value.toFixed(digits));
}
