/**
 * What the leader's mirror does next, decided over what it sees and nothing else. Every life of the mirror takes these steps, one at a time, and looks again
 * after each; so no beginning, repair or mode skips what another one does.
 *
 *   begin       the log is not this cluster's yet, or the checkpoint is worthless: a reconcile is marked as due (with SNAPSHOT=never the horizon is set), and
 *               the cluster is noted
 *   repair      the publication lacks something that the stream needs: a reconcile is marked as due, then the publication is repaired
 *   end reader  a dead or frozen daemon of ours still holds the slot: its session is terminated
 *   drop, make  the slot is useless, or missing: a reconcile is marked as due, then the slot is dropped and made
 *   failover    the slot was made without failover, and the server knows it
 *
 * and ends in one of two modes:
 *
 *   stream      everything is in place
 *   reconcile   it cannot stream: the log is kept by reconciling alone, every few seconds, until it can
 *
 * That a reconcile is due is committed before the step that makes it necessary, so that no crash leaves a gap.
 */
import type { Config } from '../settings.ts';
import type { ErrorCode } from '../errors.ts';
import { FIRST_START } from '../schema/steps.ts';
import type { Server, Slot } from './slot.ts';
import type { Checkpoint, Due } from './checkpoint.ts';

export interface Sight {
  readonly config: Pick<Config, 'SNAPSHOT'>;
  readonly server: Pick<Server, 'systemId' | 'version' | 'database'>;
  readonly checkpoint: Checkpoint;
  /** the log has rows that a mirror wrote; asked for only where the checkpoint knows no cluster */
  readonly hasMirrored: boolean;
  /** lacking: the stream would miss something; excess: it publishes more than is needed, which can make the owner's statements fail */
  readonly publication: 'right' | 'excess' | 'lacking';
  readonly slot: Slot | undefined;
  /** why the server could send nothing from a slot that looks whole */
  readonly unreadable: string | undefined;
  /** the reconcile that was marked as due in this life */
  readonly marked: Due | undefined;
  /** steps of this life that our role may not take, or that changed nothing */
  readonly failed: ReadonlySet<Step['step']>;
  /** why the last attempt to stream did not begin; the next life reconciles, and the one after it tries again */
  readonly streamFailure: ErrorCode | undefined;
}

export type Step =
  | { readonly step: 'begin'; readonly due: Due; readonly code: ErrorCode | undefined }
  | { readonly step: 'repair'; readonly due: Due | undefined }
  | { readonly step: 'end reader'; readonly pid: number }
  | { readonly step: 'drop' | 'make'; readonly due: Due | undefined; readonly code: ErrorCode | undefined }
  | { readonly step: 'failover' }
  | { readonly step: 'stream' }
  | { readonly step: 'reconcile'; readonly why: ErrorCode };

/** From here on a slot can have a copy on the standbys. */
const FAILOVER_SLOTS = 170_000;

export function nextStep(sight: Sight): Step {
  const { server, checkpoint, slot, publication, marked, failed, streamFailure, unreadable } = sight;
  const reason = whyBegin(sight);
  if (reason !== undefined) return { step: 'begin', ...reason };
  if (publication !== 'right' && !failed.has('repair'))
    return {
      step: 'repair',
      due: publication === 'lacking' ? due('publication repaired', { fresh: false }) : undefined,
    };
  if (publication === 'lacking') return { step: 'reconcile', why: 'publication_missing' };
  if (streamFailure !== undefined) return { step: 'reconcile', why: streamFailure };
  /** a slot that is made anew knows nothing of what was before it */
  const anew = (why: string, code: ErrorCode) => {
    if (marked?.fresh === true) return { due: undefined, code: undefined };
    // a first start that was interrupted
    return checkpoint.reconcileDue === FIRST_START
      ? { due: due(FIRST_START), code: undefined }
      : { due: due(why), code };
  };
  if (slot === undefined) return { step: 'make', ...anew('slot missing', 'slot_missing') };
  if (slot.database !== server.database || slot.plugin !== 'pgoutput')
    return { step: 'reconcile', why: 'slot_foreign' };
  if (slot.reader !== undefined) {
    return slot.reader.ours && !failed.has('end reader')
      ? { step: 'end reader', pid: slot.reader.pid }
      : { step: 'reconcile', why: 'slot_busy' };
  }
  const useless = unreadable ?? whyUseless(slot);
  if (useless !== undefined) return { step: 'drop', ...anew(useless, 'slot_lost') };
  if (server.version >= FAILOVER_SLOTS && !slot.failover && !failed.has('failover')) return { step: 'failover' };
  return { step: 'stream' };
}

function whyBegin({
  config,
  server,
  checkpoint,
  hasMirrored,
}: Sight): { due: Due; code: ErrorCode | undefined } | undefined {
  const { systemId, inFuture } = checkpoint;
  if (systemId === undefined) {
    const horizon = config.SNAPSHOT === 'never';
    return hasMirrored && checkpoint.reconcileDue !== FIRST_START
      ? { due: due('checkpoint missing', { horizon }), code: 'checkpoint_missing' }
      : { due: due(FIRST_START, { horizon }), code: undefined };
  }
  if (inFuture) return { due: due('checkpoint in the future'), code: 'checkpoint_future' };
  return systemId === server.systemId ? undefined : { due: due('another database'), code: 'database_changed' };
}

function whyUseless({ walStatus, inFuture, twoPhase }: Slot): string | undefined {
  if (walStatus === 'lost') return 'slot lost';
  if (inFuture) return 'slot in the future';
  return twoPhase ? 'slot of two phases' : undefined;
}

function due(reason: string, { fresh = true, horizon = false }: { fresh?: boolean; horizon?: boolean } = {}): Due {
  return { reason, fresh, horizon };
}
