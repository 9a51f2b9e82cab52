/**
 * The mirror's second mode, where it cannot stream: the publication lacks the source and our role may not repair it, somebody else reads the slot, or the
 * replication connection fails. The log is kept by reconciling alone: the reconcile that is due, then every few seconds what was written since.
 */
import type { ErrorCode } from '../errors.ts';
import { pause } from '../supervise.ts';
import { fillGaps } from './gaps.ts';
import { completeLate } from './late.ts';
import { warn, type Life } from './life.ts';
import { nextStep } from './mode.ts';
import { reconcile } from './reconcile.ts';

const RECONCILE_MS = 10_000;
/** What nobody has said before. */
const WHY: Partial<Record<ErrorCode, string>> = {
  slot_foreign: 'the slot belongs to another database or has another plugin',
  slot_busy: 'the slot is read by another program',
};
/** Of the time: more than an audit's, for nothing else brings new SMS into the log. */
const SHARE = 0.25;

/** Keeps the log until the mirror may do something else than reconcile for `why`, or `outer` aborts. */
export async function keepByReconciling(life: Life, why: ErrorCode, outer: AbortSignal): Promise<void> {
  const { deps, store, source, term, checkpoint, look } = life;
  const { config, metrics, log, health, reconcileMs = RECONCILE_MS } = deps;
  health.setMirrorState('repairing');
  const said = WHY[why];
  if (said !== undefined) warn({ log, metrics }, why, said, { slot: config.SLOT_NAME });
  log.info({ why }, 'the mirror cannot stream: it keeps the log by reconciling');
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const work = async () => {
    if (checkpoint.reconcileDue !== undefined)
      await reconcile({ store, source, term, reason: checkpoint.reconcileDue, log, metrics }, signal);
    while (!signal.aborted) {
      await fillGaps(life, { patienceMs: undefined, share: SHARE }, signal);
      metrics.mirrorLagSeconds.set(0);
      deps.onCaughtUp?.();
      await pause(reconcileMs, signal);
      if (signal.aborted) return;
      const next = nextStep(await look());
      if (next.step !== 'reconcile' || next.why !== why) return;
    }
  };
  const late = source.tracksGateway ? [completeLate({ store, source, term, log, metrics }, signal)] : [];
  try {
    await Promise.race([work(), ...late]);
  } finally {
    stop.abort();
    await Promise.allSettled(late);
  }
}
