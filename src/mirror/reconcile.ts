/**
 * Brings the log up to the source, in keyset chunks: the first copy, and what a rebuilt slot or a mended publication may have passed over.
 * Source and log are in one database and the log has a unique key, so no exported snapshot is needed; it runs beside the stream, after the
 * slot exists, and can be repeated and resumed.
 *
 * A commit from before the slot's start can still be invisible to the first look (one that waits for a synchronous stand-by). So the
 * transactions of the moment are noted; if not all had ended when the pass began, a second pass follows once they have.
 */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Source } from '../source.ts';
import { pause } from '../supervise.ts';
import { reportRefused } from './pump.ts';
import type { Store } from './store.ts';

/** Rows in a chunk: the first one, and what the following ones may have. A chunk is to take about half a second, whatever the server. */
const CHUNK = { first: 2_000, least: 1_000, most: 50_000, ms: 500 };
const PROGRESS_MS = 10_000;

export interface Reconcile {
  readonly store: Store;
  readonly source: Source;
  readonly epoch: bigint;
  readonly reason: string;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'reconcileRows' | 'errors'>;
  /** told when every row that could be seen is in the log; a second look may follow */
  readonly copied?: () => void;
}

/** Runs or resumes the reconcile that is due; returns early when `signal` aborts. Throws stepped_down where the epoch is no longer ours. */
export async function reconcile(
  { store, source, epoch, reason, log, metrics, copied }: Reconcile,
  signal: AbortSignal,
): Promise<void> {
  let { after, xid } = await store.reconcilePosition();
  const resumed = after !== undefined;
  const began = performance.now();
  const sum = { looked: 0, inserted: 0, completed: 0 };
  log.info(
    { reason, resumed },
    resumed ? 'reconcile resumes where it stopped' : 'reconcile begins: source rows that the log lacks are copied',
  );

  const pass = async () => {
    let said = performance.now();
    let size = CHUNK.first;
    while (!signal.aborted) {
      const asked = performance.now();
      const chunk = await store.reconcileChunk(source, after, size);
      size = nextSize(size, performance.now() - asked);
      sum.looked += chunk.looked;
      sum.inserted += chunk.inserted;
      sum.completed += chunk.completed;
      for (const id of chunk.refused) reportRefused(log, metrics, id);
      metrics.reconcileRows.inc(chunk.inserted + chunk.completed);
      if (chunk.last === undefined) return;
      after = chunk.last;
      await store.keepReconcile(after, xid, epoch);
      if (performance.now() - said > PROGRESS_MS) {
        said = performance.now();
        log.info({ reason, ...sum, seconds: Math.round((said - began) / 1000) }, 'reconcile goes on');
      }
    }
  };

  if (!resumed) {
    const now = await store.currentTransaction();
    xid = (await store.allEndedBefore(now)) ? undefined : now;
  }
  await pass();
  if (!signal.aborted) copied?.();
  if (xid !== undefined) {
    while (!signal.aborted && !(await store.allEndedBefore(xid))) await pause(500, signal);
    xid = undefined;
    after = undefined;
    await pass();
  }
  if (signal.aborted) return;
  await store.clearReconcile(epoch);
  log.info({ reason, ...sum, seconds: Math.round((performance.now() - began) / 100) / 10 }, 'reconcile done');
}

/** Rows for the next chunk, from what the last one took: at most twice as many. */
function nextSize(size: number, ms: number): number {
  const wanted = size * Math.min(2, CHUNK.ms / ms);
  return Math.round(Math.min(CHUNK.most, Math.max(CHUNK.least, wanted)));
}
