/**
 * The state machine of the leader's mirror: a pure function from what the mirror observes to its next step. Each run of the mirror takes one step at a time
 * and observes again, so no start, repair or mode skips a step.
 *
 *   identify            the log was filled from another cluster, or the checkpoint is unusable: mark a reconcile as due (SNAPSHOT=never sets the
 *                       horizon) and record the cluster
 *   repair publication  it lacks something that the stream needs: mark a reconcile as due and repair it; where that fails, as behind a lock, the log is kept by
 *                       reconciling until the next try
 *   terminate maker     a former leader has a session that may still create the slot, under a mark that is no longer the last one: terminate it
 *   terminate reader    a dead or frozen daemon of ours still reads the slot: terminate its session
 *   drop slot           it is unusable (slot-health.ts): mark a reconcile as due and drop it
 *   create slot         it is missing: mark a reconcile as due and create it
 *   enable failover     the slot was created without failover, and the server supports it
 *
 * A run ends in one of two modes:
 *
 *   stream      everything is in place
 *   reconcile   streaming is not possible: reconcile every few seconds until it is
 *
 * A reconcile is marked as due before the step that makes it necessary, and committed, so that a crash leaves no gap.
 */
import type { Config } from '../settings.ts';
import type { ErrorCode } from '../errors.ts';
import type { Lsn } from '../postgres/lsn.ts';
import { FIRST_START } from '../schema/steps.ts';
import type { Server } from '../replication/server.ts';
import type { Slot } from './slot.ts';
import { slotHealth, UNUSABLE } from './slot-health.ts';
import type { Checkpoint, ReconcileDue } from './checkpoint.ts';

export interface Observed {
  readonly config: Pick<Config, 'SNAPSHOT'>;
  readonly server: Pick<Server, 'systemId' | 'version' | 'database'>;
  readonly checkpoint: Checkpoint;
  /** the log has rows that a mirror wrote; read only if the checkpoint names no cluster */
  readonly hasMirroredRows: boolean;
  /** incomplete: the stream would miss something; excess: it publishes more than needed, which can make the owner's statements fail */
  readonly publication: 'correct' | 'excess' | 'incomplete';
  readonly slot: Slot | undefined;
  /** sessions that may create the slot; none is this run's */
  readonly makers: readonly number[];
  /** why the server could not read from a slot that looks intact, and where that one stood: one that was made since stands further on */
  readonly unreadable: { readonly reason: string; readonly at: Lsn } | undefined;
  /** the reconcile that this run marked as due */
  readonly marked: ReconcileDue | undefined;
  /** steps of this run that our role may not take, or that changed nothing */
  readonly failed: ReadonlySet<Step['step']>;
  /** why the last attempt to stream failed to start; the next run reconciles, and the one after it tries to stream again */
  readonly streamFailure: ErrorCode | undefined;
}

export type Step =
  | { readonly step: 'identify'; readonly due: ReconcileDue; readonly code: ErrorCode | undefined }
  | { readonly step: 'repair publication'; readonly due: ReconcileDue | undefined }
  | { readonly step: 'terminate maker' | 'terminate reader'; readonly pid: number }
  | {
      readonly step: 'drop slot' | 'create slot';
      readonly due: ReconcileDue | undefined;
      readonly code: ErrorCode | undefined;
    }
  | { readonly step: 'enable failover' }
  | { readonly step: 'stream' }
  | { readonly step: 'reconcile'; readonly why: ErrorCode };

/** server_version_num of the first version with failover slots. */
export const FAILOVER_SLOTS = 170_000;

export function nextStep(observed: Observed): Step {
  const { server, checkpoint, slot, makers, publication, marked, failed, streamFailure, unreadable } = observed;
  const identification = identifyDue(observed);
  if (identification !== undefined) return { step: 'identify', ...identification };
  if (publication !== 'correct' && !failed.has('repair publication') && streamFailure === undefined) {
    // a first start remains one
    const why = checkpoint.reconcileDue === FIRST_START ? FIRST_START : 'publication repaired';
    return {
      step: 'repair publication',
      due: publication === 'incomplete' ? due(why, { fresh: false }) : undefined,
    };
  }
  if (publication === 'incomplete') return { step: 'reconcile', why: 'publication_missing' };
  if (streamFailure !== undefined) return { step: 'reconcile', why: streamFailure };
  const [maker] = makers;
  if (maker !== undefined) {
    return failed.has('terminate maker')
      ? { step: 'reconcile', why: 'slot_busy' }
      : { step: 'terminate maker', pid: maker };
  }
  /** a new slot has no changes from before its creation */
  const newSlotDue = (why: string, code: ErrorCode) => {
    if (marked?.fresh === true) return { due: undefined, code: undefined };
    // the first start was interrupted
    return checkpoint.reconcileDue === FIRST_START
      ? { due: due(FIRST_START), code: undefined }
      : { due: due(why), code };
  };
  const health = slotHealth(slot, server);
  if (slot === undefined) return { step: 'create slot', ...newSlotDue('slot missing', 'slot_missing') };
  if (health === 'foreign') return { step: 'reconcile', why: 'slot_foreign' };
  if (slot.reader !== undefined) {
    return slot.reader.ours && !failed.has('terminate reader')
      ? { step: 'terminate reader', pid: slot.reader.pid }
      : { step: 'reconcile', why: 'slot_busy' };
  }
  const unusable =
    unreadable?.at === slot.confirmed ? unreadable.reason : UNUSABLE.has(health) ? `slot ${health}` : undefined;
  if (unusable !== undefined) return { step: 'drop slot', ...newSlotDue(unusable, 'slot_lost') };
  if (server.version >= FAILOVER_SLOTS && !slot.failover && !failed.has('enable failover'))
    return { step: 'enable failover' };
  return { step: 'stream' };
}

function identifyDue({
  config,
  server,
  checkpoint,
  hasMirroredRows,
}: Observed): { due: ReconcileDue; code: ErrorCode | undefined } | undefined {
  const { systemId, inFuture } = checkpoint;
  if (systemId === undefined) {
    const horizon = config.SNAPSHOT === 'never';
    return hasMirroredRows && checkpoint.reconcileDue !== FIRST_START
      ? { due: due('checkpoint missing', { horizon }), code: 'checkpoint_missing' }
      : { due: due(FIRST_START, { horizon }), code: undefined };
  }
  if (inFuture) return { due: due('checkpoint in the future'), code: 'checkpoint_future' };
  return systemId === server.systemId ? undefined : { due: due('another database'), code: 'database_changed' };
}

function due(
  reason: string,
  { fresh = true, horizon = false }: { fresh?: boolean; horizon?: boolean } = {},
): ReconcileDue {
  return { reason, fresh, horizon };
}
