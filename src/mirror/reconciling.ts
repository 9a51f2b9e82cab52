/**
 * The mirror's second mode, while streaming is not possible: the publication is incomplete and our role may not repair it, another program reads the slot, or
 * the replication connection fails. Every few seconds a light audit copies what was written since the last one; the reconcile that is due runs beside it, and so do, as
 * beside a stream, light audits of all young rows.
 */
import type { ErrorCode } from '../errors.ts';
import { pause, untilAborted } from '../supervise.ts';
import { AUDIT_MS, AUDIT_SHARE, fillGaps, retryRefusedRepeatedly } from './gaps.ts';
import { backfillGatewayIds } from '../reconcile/gateway-ids.ts';
import { warn, type MirrorContext } from './context.ts';
import { nextStep, type Observed } from './mode.ts';
import { reconcile } from '../reconcile/copy.ts';
import { createSlot } from './slot.ts';

const RECONCILE_MS = 10_000;
/** Messages for reasons that were not logged before. */
const MESSAGES: Partial<Record<ErrorCode, string>> = {
  slot_foreign: 'the slot belongs to another database, has another plugin or is physical',
  slot_busy: 'the slot is read by another program',
};
/** Reasons that are known without an attempt to stream. */
const OBSERVABLE: ReadonlySet<ErrorCode> = new Set(['publication_missing', 'slot_foreign']);
/** The fraction of the time spent reading: more than an audit's, because nothing else writes new SMS into the log. */
const SHARE = 0.25;

/**
 * Creates the slot; `before` runs once the replication connection is open. The server waits for all open transactions, which can take hours, so the mirror
 * reconciles meanwhile.
 */
export async function createSlotWhileReconciling(
  context: MirrorContext,
  outer: AbortSignal,
  before: () => Promise<void>,
): Promise<void> {
  const { config, connections, log, reconcileMs = RECONCILE_MS } = context.deps;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const auditLater = async () => {
    // usually the slot is there by then
    await pause(reconcileMs, signal);
    await auditRepeatedly(context, signal);
  };
  const watch = async () => {
    for (;;) {
      await pause(reconcileMs, signal);
      if (signal.aborted) return;
      await context.readSource();
    }
  };
  const tasks = [
    createSlot(connections, config, context.server, { log, before }, signal),
    auditLater(),
    watch(),
    retryRefusedRepeatedly(context, signal),
  ];
  try {
    await Promise.race(tasks);
  } finally {
    stop.abort();
    await connections.settled(tasks);
  }
}

/** Copies what was written since the last time, again and again; `copied` is called after each. */
async function auditRepeatedly(context: MirrorContext, signal: AbortSignal, copied?: () => void): Promise<void> {
  while (!signal.aborted) {
    await fillGaps(context, { mirrorTimeoutMs: undefined, share: SHARE, sinceSeconds: 0 }, signal);
    copied?.();
    await pause(context.deps.reconcileMs ?? RECONCILE_MS, signal);
  }
}

/** For rows that somebody deletes from the log. Where many rows are young this takes long, and new ones must not wait for it. */
async function auditYoungRepeatedly(context: MirrorContext, signal: AbortSignal): Promise<void> {
  for (;;) {
    await pause(context.deps.auditMs ?? AUDIT_MS, signal);
    if (signal.aborted) return;
    await fillGaps(context, { mirrorTimeoutMs: undefined, share: AUDIT_SHARE }, signal);
  }
}

/** Reconciles until the next step is something else than to reconcile for `why`, or `outer` aborts. */
export async function runReconciling(
  context: MirrorContext,
  why: ErrorCode,
  { streamFailure }: Observed,
  outer: AbortSignal,
): Promise<void> {
  const { deps, store, source, term, checkpoint, observe } = context;
  const { config, connections, metrics, log, health, reconcileMs = RECONCILE_MS } = deps;
  health.setMirrorState('repairing');
  // a failed attempt to stream was logged already
  const observable = streamFailure === undefined && OBSERVABLE.has(why);
  const message = streamFailure === undefined ? MESSAGES[why] : undefined;
  if (message !== undefined) warn({ log, metrics }, why, message, { slot: config.SLOT_NAME });
  if (message !== undefined || observable) log.info({ why }, 'the mirror cannot stream: it reconciles instead');
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const backfill = { store, source, term, log, metrics };
  const { reconcileDue } = checkpoint;
  let reconciled = reconcileDue === undefined;
  let complete = false;
  /** Runs beside the audits: it reads the whole source. Its second pass, which may wait long for an old transaction, can also run beside a stream. */
  const repair = async () => {
    const due = { ...backfill, copied: () => void (reconciled = true) };
    if (reconcileDue !== undefined) await reconcile({ ...due, reason: reconcileDue }, signal);
    await untilAborted(signal);
  };
  const copied = () => {
    metrics.mirrorLagSeconds.set(0);
    metrics.mirrorLagBytes.set(0);
    complete = reconciled;
    if (complete) context.caughtUp();
  };
  const watch = async () => {
    for (;;) {
      await pause(reconcileMs, signal);
      if (signal.aborted) return;
      // this notices a teardown and another source, too
      const next = nextStep(await observe());
      // another failed attempt to stream would interrupt the reconcile
      if (!complete && !observable) continue;
      if (next.step !== 'reconcile' || next.why !== why) return;
    }
  };
  const tasks = [
    repair(),
    auditRepeatedly(context, signal, copied),
    auditYoungRepeatedly(context, signal),
    retryRefusedRepeatedly(context, signal),
    watch(),
    ...(source.tracksGateway ? [backfillGatewayIds(backfill, signal)] : []),
  ];
  try {
    await Promise.race(tasks);
  } finally {
    stop.abort();
    await connections.settled(tasks);
  }
}
