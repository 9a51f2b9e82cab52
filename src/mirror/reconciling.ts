/**
 * The mirror's second mode, where it cannot stream: the publication lacks the source and our role may not repair it, somebody else reads the slot, or the
 * replication connection fails. The log is kept by reconciling alone: every few seconds what was written since the last time, and beside it the reconcile that is due.
 */
import type { ErrorCode } from '../errors.ts';
import { pause } from '../supervise.ts';
import { fillGaps } from './gaps.ts';
import { completeLate } from '../reconcile/gateway-ids.ts';
import { warn, type Life } from './life.ts';
import { nextStep } from './mode.ts';
import { reconcile } from '../reconcile/copy.ts';
import { createSlot } from './slot.ts';

const RECONCILE_MS = 10_000;
/** What nobody has said before. */
const WHY: Partial<Record<ErrorCode, string>> = {
  slot_foreign: 'the slot belongs to another database or has another plugin',
  slot_busy: 'the slot is read by another program',
};
/** What is seen without an attempt to stream. */
const SEEN: ReadonlySet<ErrorCode> = new Set(['publication_missing', 'slot_foreign']);
/** What setTimeout can wait. */
const LONGEST_MS = 2 ** 31 - 1;
/** Of the time: more than an audit's, for nothing else brings new SMS into the log. */
const SHARE = 0.25;

/**
 * Makes the slot; `before` is done once the replication connection stands. The server waits for every transaction that is open, which can be hours: the log is
 * kept meanwhile.
 */
export async function makeSlot(life: Life, outer: AbortSignal, before: () => Promise<void>): Promise<void> {
  const { config, connections, log, reconcileMs = RECONCILE_MS } = life.deps;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const keep = async () => {
    for (;;) {
      await pause(reconcileMs, signal);
      if (signal.aborted) return;
      await fillGaps(life, { patienceMs: undefined, share: SHARE }, signal);
    }
  };
  const tasks = [createSlot(connections.control, config, life.server, { log, before }, signal), keep()];
  try {
    await Promise.race(tasks);
  } finally {
    stop.abort();
    await Promise.allSettled(tasks);
  }
}

/** Keeps the log until the mirror may do something else than reconcile for `why`, or `outer` aborts. */
export async function keepByReconciling(life: Life, why: ErrorCode, outer: AbortSignal): Promise<void> {
  const { deps, store, source, term, checkpoint, look } = life;
  const { config, metrics, log, health, reconcileMs = RECONCILE_MS } = deps;
  health.setMirrorState('repairing');
  const said = WHY[why];
  if (said !== undefined) warn({ log, metrics }, why, said, { slot: config.SLOT_NAME });
  // of an attempt that failed it is told already
  if (said !== undefined || SEEN.has(why))
    log.info({ why }, 'the mirror cannot stream: it keeps the log by reconciling');
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const late = { store, source, term, log, metrics };
  const { reconcileDue } = checkpoint;
  let reconciled = reconcileDue === undefined;
  let kept = false;
  /** Beside the look for new rows: it reads the whole source, and may wait long for an old transaction. */
  const repair = async () => {
    if (reconcileDue !== undefined) await reconcile({ ...late, reason: reconcileDue }, signal);
    reconciled = true;
    await pause(LONGEST_MS, signal);
  };
  const keep = async () => {
    while (!signal.aborted) {
      await fillGaps(life, { patienceMs: undefined, share: SHARE }, signal);
      metrics.mirrorLagSeconds.set(0);
      metrics.mirrorLagBytes.set(0);
      kept = reconciled;
      if (kept) life.caughtUp();
      await pause(reconcileMs, signal);
    }
  };
  const watch = async () => {
    for (;;) {
      await pause(reconcileMs, signal);
      if (signal.aborted) return;
      // a teardown is found by this, too
      const next = nextStep(await look());
      // an attempt to stream that fails again would begin all this again
      if (!kept && !SEEN.has(why)) continue;
      if (next.step !== 'reconcile' || next.why !== why) return;
    }
  };
  const tasks = [repair(), keep(), watch(), ...(source.tracksGateway ? [completeLate(late, signal)] : [])];
  try {
    await Promise.race(tasks);
  } finally {
    stop.abort();
    await Promise.allSettled(tasks);
  }
}
