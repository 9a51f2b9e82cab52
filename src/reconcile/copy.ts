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
import { patiently } from '../postgres/briefly.ts';
import { inTime } from './chunks.ts';
import { reportRefused } from './quarantine.ts';
import type { ReconcileStore } from './store.ts';

/** Rows in a chunk: the first one, and what the following ones may have. */
const CHUNK = { first: 2_000, least: 500, most: 50_000 };
const PROGRESS_MS = 10_000;
const WAITING_MS = 60_000;
const SECOND_LOOK =
  'reconcile looks a second time once the transactions that were open when it began have ended; the oldest is named here';

export interface Reconcile {
  readonly store: ReconcileStore;
  readonly source: Source;
  readonly term: bigint;
  readonly reason: string;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'reconcileRows' | 'reconcileLooked' | 'reconcileProgress' | 'errors'>;
  /** told when every row that could be seen is in the log; a second look may follow */
  readonly copied?: () => void;
  /** between two lines of the log that say how far it is; milliseconds */
  readonly progressMs?: number;
}

/** Runs or resumes the reconcile that is due, and tells which; returns early when `signal` aborts. Throws stepped_down where the term is no longer ours. */
export async function reconcile(
  { store, source, term, reason, log, metrics, copied, progressMs = PROGRESS_MS }: Reconcile,
  signal: AbortSignal,
): Promise<{ readonly resumed: boolean }> {
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
    const ends = await patiently(signal, () => store.sourceEnds(source));
    const start = { share: shareOf(after, ends), at: said };
    while (!signal.aborted) {
      const { result: chunk, next } = await patiently(signal, () =>
        inTime(size, CHUNK, (rows, limited) => store.reconcileChunk(source, after, rows, { limited, term })),
      );
      const now = performance.now();
      size = next;
      sum.looked += chunk.looked;
      sum.inserted += chunk.inserted;
      sum.completed += chunk.completed;
      for (const id of chunk.refused) reportRefused(log, metrics, id);
      metrics.reconcileLooked.inc(chunk.looked);
      metrics.reconcileRows.inc(chunk.inserted + chunk.completed);
      if (chunk.last === undefined) return;
      after = chunk.last;
      await store.keepReconcile(after, xid, term);
      const share = shareOf(after, ends);
      metrics.reconcileProgress.set(share);
      if (now - said > progressMs) {
        said = now;
        const left = ((now - start.at) * (1 - share)) / Math.max(share - start.share, 1e-6);
        log.info(
          {
            reason,
            ...sum,
            share: round(share, 3),
            seconds: round((now - began) / 1000),
            secondsLeft: round(left / 1000),
          },
          'reconcile goes on',
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
      for (let said = -Infinity; !signal.aborted && !(await store.allEndedBefore(xid)); await pause(500, signal)) {
        if (performance.now() - said < WAITING_MS) continue;
        said = performance.now();
        log.info({ reason, ...(await store.oldestTransaction()) }, SECOND_LOOK);
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

/** Where an id lies between the first and the last one, 0 to 1: ids are spread evenly, by chance or by time. */
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
