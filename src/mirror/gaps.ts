/** What a light audit finds missing in the log, filled in. */
import { lightAudit } from '../reconcile/audit.ts';
import { complete } from '../reconcile/gateway-ids.ts';
import { warn, type Life } from './life.ts';
import { reportRefused } from '../reconcile/quarantine.ts';

/** Rows that were there at the last audit and on their way, and twice its interval and more. */
const SINCE_SECONDS = 900;

export interface Filling {
  /** how long to wait for the stream to bring what is missing; milliseconds. undefined: nothing streams */
  readonly patienceMs: number | undefined;
  /** of the time that the reading may take */
  readonly share: number;
}

/** One light audit: what the log lacks is written, row by row found by key; while streaming that should not happen, and is told. */
export async function fillGaps(
  { deps, store, source, term }: Life,
  { patienceMs, share }: Filling,
  signal: AbortSignal,
): Promise<void> {
  const { config, connections, metrics, log } = deps;
  let filled = 0;
  const { missing, auditedXid } = await lightAudit(
    connections.copy,
    config,
    source,
    {
      sinceSeconds: SINCE_SECONDS,
      patienceMs,
      share,
      missing: async (ids) => {
        const { inserted, refused } = await store.copyRows(source, ids, term);
        filled += inserted;
        for (const id of refused) reportRefused(log, metrics, id);
        metrics.reconcileRows.inc(inserted);
      },
      incomplete: async (ids) => {
        for (const id of await complete({ store, source, term }, ids, signal)) reportRefused(log, metrics, id);
      },
    },
    signal,
  );
  // the mirror is behind: what it lacks is on its way
  if (signal.aborted || auditedXid === undefined) return;
  if (patienceMs !== undefined) {
    metrics.reconcileMissing.set(missing);
    if (missing > 0)
      warn({ log, metrics }, 'rows_missing', 'the audit found rows that the log lacks', { missing, filled });
  }
  await store.keepAudited(auditedXid, term);
}
