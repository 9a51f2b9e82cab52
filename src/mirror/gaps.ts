/** Fills gaps: a light audit finds source rows that the log lacks, and copies them. */
import { retryWhileLocked } from '../postgres/briefly.ts';
import { lightAudit } from '../reconcile/audit.ts';
import { fillGatewayIds } from '../reconcile/gateway-ids.ts';
import { warn, type MirrorContext } from './context.ts';
import { reportRefused } from '../reconcile/quarantine.ts';

/** Several audit intervals: a row that was only late at one audit is checked again. */
const SINCE_SECONDS = 900;

export interface FillOptions {
  /** how long to wait for the stream to deliver missing rows; milliseconds. undefined: there is no stream */
  readonly mirrorTimeoutMs: number | undefined;
  /** the fraction of the time that may be spent reading */
  readonly share: number;
}

/** One light audit, which copies what the log lacks. While streaming there should be no gap, so one is logged. */
export async function fillGaps(
  { deps, store, source, term }: MirrorContext,
  { mirrorTimeoutMs, share }: FillOptions,
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
      mirrorTimeoutMs,
      share,
      missing: async (ids) => {
        const { inserted, refused } = await retryWhileLocked(signal, () => store.copyRows(source, ids, term));
        filled += inserted;
        for (const id of refused) reportRefused(log, metrics, id);
        metrics.reconcileRows.inc(inserted);
      },
      incomplete: async (ids) => {
        for (const id of await fillGatewayIds({ store, source, term }, ids, signal)) reportRefused(log, metrics, id);
      },
    },
    signal,
  );
  // the mirror is behind, and the stream still has to deliver the rows
  if (signal.aborted || auditedXid === undefined) return;
  if (mirrorTimeoutMs !== undefined) {
    metrics.reconcileMissing.set(missing);
    if (missing > 0)
      warn({ log, metrics }, 'rows_missing', 'the audit found source rows missing from the log', { missing, filled });
  }
  await store.saveAuditedXid(auditedXid, term);
}
