/** The poller's SQL together: the queue and the final status, each over the connections for its purpose. */
import type { Sql } from '../postgres/pools.ts';
import { createQueue } from './queue.ts';
import { createFinalStatus } from './final-status.ts';

export type PollerStore = ReturnType<typeof createPollerStore>;

/**
 * `leaseMs` is longer than a request and the write of its result. `sql` is for claims; completions and expiry have connections of their own, so that a wait
 * for a lock on the log or on the source does not block claims.
 */
export function createPollerStore(
  sql: Sql,
  leaseMs: number,
  { complete, upkeep }: { complete: Sql; upkeep: Sql } = { complete: sql, upkeep: sql },
) {
  return { ...createQueue(sql, leaseMs, upkeep), ...createFinalStatus(sql, complete, upkeep) };
}
