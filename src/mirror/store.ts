/** What the mirror writes with: the sink, the checkpoint, and a reconcile's chunks. */
import type { Sql } from '../postgres/pools.ts';
import { createQuarantine } from '../reconcile/quarantine.ts';
import { createReconcileStore } from '../reconcile/store.ts';
import type { Config } from '../settings.ts';
import { createApply } from './apply.ts';
import { createCheckpointStore, type Checkpoint } from './checkpoint.ts';

export type Store = ReturnType<typeof createStore>;

/** `sql`: for the writes of the stream; `copy`: for what reads the source and for the rest, so that neither waits for the other. */
export function createStore(sql: Sql, config: Config, copy: Sql = sql) {
  const quarantine = createQuarantine(sql, config.SLOT_NAME);
  const apply = createApply(sql, config, quarantine);
  const checkpoint = createCheckpointStore(sql, config, copy);
  return {
    ...checkpoint,
    ...apply,
    ...createReconcileStore(copy, config, quarantine),
    ...quarantine,

    /**
     * Makes `term` the one that may write: no statement of an earlier one does from now on. Returns the checkpoint as that one left it. Throws stepped_down
     * where there is a later one.
     */
    async acquire(term: bigint): Promise<Checkpoint> {
      const { place, ...acquired } = await checkpoint.acquire(term);
      apply.begin(place);
      return acquired;
    },
  };
}
