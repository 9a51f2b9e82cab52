/** The poller's SQL together: the queue and the final status, each over the connections for its purpose. */
import type { Sql } from '../postgres/pools.ts';
import { createQueue } from './queue.ts';
import { createFinalStatus } from './final-status.ts';

export type PollerStore = ReturnType<typeof createPollerStore>;

/**
 * `leaseMs` is longer than a request and the write of its result. `sql` is for claims; completions and verdicts have a connection of their own, so that a wait
 * for a lock on the log or on the source does not block claims.
 */
export function createPollerStore(sql: Sql, leaseMs: number, complete: Sql = sql) {
  return { ...createQueue(sql, leaseMs, complete), ...createFinalStatus(complete) };
}
