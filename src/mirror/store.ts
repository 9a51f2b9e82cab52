/** The mirror's SQL together: the sink, the checkpoint, the quarantine, and the reconcile. */
import { openDirect, type Direct } from '../postgres/direct.ts';
import type { Sql } from '../postgres/pools.ts';
import { createQuarantine } from '../reconcile/quarantine.ts';
import { createReconcileStore } from '../reconcile/store.ts';
import type { Config } from '../settings.ts';
import type { Telling } from '../unknown-words.ts';
import { createApply } from './apply.ts';
import { createCheckpointStore, type Checkpoint } from './checkpoint.ts';

export type Store = ReturnType<typeof createStore>;

/** `sink` is for the stream's writes, `sql` for the rest, so that neither waits for the other; `telling`: of status words that are not known. */
export function createStore(
  sql: Sql,
  config: Config,
  sink: Pick<Direct, 'row'> = openDirect(config, { name: 'apply' }),
  telling?: Telling,
) {
  const quarantine = createQuarantine(sql, config.SLOT_NAME);
  const apply = createApply(sink, config, quarantine);
  const checkpoint = createCheckpointStore(sql, config);
  const reconcile = createReconcileStore(sql, config, quarantine, telling);
  let writes = 0;
  /** Counts it when it has ended, whatever came of it. */
  const counted = async <Result>(write: Promise<Result>): Promise<Result> => {
    try {
      return await write;
    } finally {
      writes += 1;
    }
  };
  return {
    ...checkpoint,
    ...apply,
    ...reconcile,
    ...quarantine,
    write: (...words: Parameters<typeof apply.write>) => counted(apply.write(...words)),
    reconcileChunk: (...words: Parameters<typeof reconcile.reconcileChunk>) =>
      counted(reconcile.reconcileChunk(...words)),
    copyRows: (...words: Parameters<typeof reconcile.copyRows>) => counted(reconcile.copyRows(...words)),

    /** How often rows were written into the log, by the stream or a reconcile. */
    writes: () => writes,

    /** As in checkpoint.ts; the sink starts with the row's ctid. */
    async acquire(term: bigint): Promise<Checkpoint> {
      const { ctid, ...acquired } = await checkpoint.acquire(term);
      apply.begin(ctid);
      return acquired;
    },
  };
}
