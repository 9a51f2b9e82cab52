/** What the poller's loops work with: the queue and the verdicts, each over the connections for its purpose. */
import type { Sql } from '../postgres/pools.ts';
import { createQueue } from './queue.ts';
import { createVerdicts } from './verdicts.ts';

export type PollerStore = ReturnType<typeof createPollerStore>;

/**
 * `leaseMs`: longer than a request with everything that belongs to it. `sql` is for claims; completions and verdicts have connections of their own, so that
 * a lock on the log or on the source keeps nothing else waiting.
 */
export function createPollerStore(
  sql: Sql,
  leaseMs: number,
  { complete, verdict }: { complete: Sql; verdict: Sql } = { complete: sql, verdict: sql },
) {
  return { ...createQueue(sql, leaseMs, verdict), ...createVerdicts(sql, complete, verdict) };
}
