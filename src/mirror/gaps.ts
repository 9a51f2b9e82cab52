/** Fills gaps: a light audit finds source rows that the log lacks, and copies them. Rows that are set aside are tried again beside it. */
import { codeOf } from '../errors.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { LOCK_NOT_AVAILABLE } from '../postgres/refusal.ts';
import { lightAudit } from '../reconcile/audit.ts';
import { fillGatewayIds } from '../reconcile/gateway-ids.ts';
import { pause } from '../supervise.ts';
import { warn, type MirrorContext } from './context.ts';
import { reportRefused } from '../reconcile/quarantine.ts';

/** Several audit intervals: a row that was only late at one audit is checked again. */
const SINCE_SECONDS = 900;
export const AUDIT_MS = 180_000;
/** The fraction of the time that an audit may spend reading the source, where rows are not known to be missing. */
export const AUDIT_SHARE = 0.01;
/** Set-aside rows in one statement: few, as each one that is refused again puts two errors into the server's log at most. */
const RETRY = 16;
/** Ids of set-aside rows that are read at once. */
const RETRY_READ = 1_000;

export interface FillOptions {
  /** how long to wait for the stream to deliver missing rows; milliseconds. undefined: there is no stream */
  readonly mirrorTimeoutMs: number | undefined;
  /** the fraction of the time that may be spent reading */
  readonly share: number;
  /** rows that are younger are compared whenever they were written; 0: only what was written since the last light audit */
  readonly sinceSeconds?: number;
}

/** One light audit, which copies what the log lacks. While streaming there should be no gap, so one is logged. */
export async function fillGaps(
  { deps, store, source, term }: MirrorContext,
  { mirrorTimeoutMs, share, sinceSeconds = SINCE_SECONDS }: FillOptions,
  signal: AbortSignal,
): Promise<void> {
  const { config, connections, metrics, log } = deps;
  let filled = 0;
  const { missing, auditedXid } = await lightAudit(
    connections.copy,
    config,
    source,
    {
      sinceSeconds,
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
  if (auditedXid === undefined) return;
  const gap = mirrorTimeoutMs === undefined ? 0 : missing;
  metrics.reconcileMissing.set(gap);
  if (gap > 0)
    warn({ log, metrics }, 'rows_missing', 'the audit found source rows missing from the log', { missing, filled });
  await store.saveAuditedXid(auditedXid, term);
}

/** Tries set-aside rows again every few minutes, in both modes; but not after an audit: that takes long where the source is large, or waits for others. */
export async function retryRefusedRepeatedly(
  context: MirrorContext,
  signal: AbortSignal,
  busy: () => boolean = () => false,
): Promise<void> {
  while (!signal.aborted) {
    await pause(context.deps.auditMs ?? AUDIT_MS, signal);
    if (!signal.aborted && !busy()) await retryRefused(context, signal);
  }
}

/**
 * Tries set-aside rows again, a few at a time, until some of them are refused again: of rows that are bad for good only these few burden the server's log,
 * and once the cause is gone all come back at full speed. They were told of when they were set aside. Where a lock is not to be had, the next time tries.
 */
async function retryRefused({ deps, store, source, term }: MirrorContext, signal: AbortSignal): Promise<void> {
  const { metrics, log } = deps;
  let back = 0;
  let ids: string[] = [];
  try {
    while (!signal.aborted) {
      if (ids.length === 0) ids = await store.refusedLongest(RETRY_READ);
      if (ids.length === 0) break;
      const some = ids.splice(0, RETRY);
      const { inserted, refused } = await store.copyRows(source, some, term, true);
      // in the log by now, or nothing that it must have
      const settled = some.filter((id) => !refused.includes(id));
      await store.forget(settled, term);
      metrics.reconcileRows.inc(inserted);
      back += inserted;
      if (refused.length > 0) break;
    }
  } catch (error) {
    if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error;
  }
  if (back > 0) log.info({ rows: back }, 'rows that had been set aside are in the log now');
}
