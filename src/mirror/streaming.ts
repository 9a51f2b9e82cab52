/**
 * The mirror's first mode: streaming. Beside the stream run the reconcile that is due, then repeated audits; the tries with rows that are set aside; the backfill of
 * gateway ids; and the watch over the publication.
 */
import { SmslogdError } from '../errors.ts';
import { describePublication } from '../schema/publication.ts';
import { pause, untilAborted } from '../supervise.ts';
import { backfillGatewayIds } from '../reconcile/gateway-ids.ts';
import { startOf } from './batch.ts';
import { AUDIT_MS, AUDIT_SHARE, fillGaps, retryRefusedRepeatedly } from './gaps.ts';
import type { MirrorContext } from './context.ts';
import { repairPublication, stateOf } from './publication.ts';
import { runApplyLoop } from './apply-loop.ts';
import { reconcile } from '../reconcile/copy.ts';
import { FIRST_START } from '../schema/steps.ts';
import { describeSlot, type Slot } from './slot.ts';

/**
 * wal_sender_timeout of the replication connection: the server drops a frozen daemon or a dead network path after this time. While it decodes a transaction
 * of which it has nothing to send, it reads our messages only after half of it.
 */
const SENDER_TIMEOUT_MS = 15_000;
const WATCH_MS = 10_000;
/** A stream that lasts this long works: a failing first write fails sooner. */
const STABLE_MS = 5_000;
/** The same as AUDIT_SHARE, if rows may be missing. */
const GAP_SHARE = 0.25;
/** Between two looks whether transactions have ended. */
const OPEN_MS = 500;
/** How long an audit waits for the stream to deliver missing rows. */
const MIRROR_TIMEOUT_MS = 60_000;

export interface StreamEvents {
  /** the server streams */
  readonly opened: () => void;
  /** the stream has ended */
  readonly ended: () => void;
}

/** Streams until something ends it or `outer` aborts. */
export async function runStreaming(
  context: MirrorContext,
  slot: Slot,
  outer: AbortSignal,
  events: StreamEvents,
): Promise<void> {
  const { deps, store, server, source, form, term, checkpoint, works } = context;
  const {
    config,
    connections,
    metrics,
    log,
    health,
    failpoints,
    senderTimeoutMs = SENDER_TIMEOUT_MS,
    auditMs = AUDIT_MS,
  } = deps;
  const { durable, resumeAt } = startOf(slot, checkpoint);
  const { reconcileDue } = checkpoint;
  // normal after an idle time, but also what a slot looks like that somebody advanced, or dropped and created again
  let ahead = false;
  const began = performance.now();
  let repaired = false;
  let caughtUp!: () => void;
  const firstCaughtUp = new Promise<void>((resolve) => {
    caughtUp = resolve;
  });

  /** The reconcile that is due, then repeated audits. */
  const repair = async (signal: AbortSignal): Promise<void> => {
    let gap = ahead || checkpoint.auditDue || (await store.republished(source));
    if (reconcileDue !== undefined) {
      health.setMirrorState(reconcileDue === FIRST_START ? 'snapshot' : 'repairing');
      const copied = () => health.setMirrorState('streaming');
      const { resumed } = await reconcile({ store, source, term, reason: reconcileDue, log, metrics, copied }, signal);
      // a resumed reconcile has not read again what it had passed before
      gap &&= resumed;
    }
    if (signal.aborted) return;
    health.setMirrorState('streaming');
    repaired = true;
    // the backlog comes first: an audit before would only find rows that the stream still has to deliver
    await Promise.race([firstCaughtUp, untilAborted(signal)]);
    const audit = async (share: number) => {
      if (!signal.aborted) await fillGaps(context, { mirrorTimeoutMs: MIRROR_TIMEOUT_MS, share }, signal);
    };
    // what was passed over may be of a transaction that nobody sees yet: once more when all that are open now have ended
    const now = gap ? await store.currentTransaction() : '';
    for (let first = true; gap && !signal.aborted; first = false) {
      gap = !(await store.allEndedBefore(now));
      await audit(first || !gap ? GAP_SHARE : AUDIT_SHARE);
      const next = gap ? performance.now() + auditMs : 0;
      while (!signal.aborted && performance.now() < next && !(await store.allEndedBefore(now)))
        await pause(OPEN_MS, signal);
    }
    while (!signal.aborted) {
      await pause(auditMs, signal);
      await audit(AUDIT_SHARE);
    }
  };

  await runApplyLoop(
    {
      config,
      store,
      log,
      metrics,
      health,
      // not as it was seen before: somebody may have moved it until it was read
      opened: async () => {
        const now = await describeSlot(connections.control, config.SLOT_NAME);
        ahead = now === undefined || now.confirmed > resumeAt;
        if (ahead) await store.markAudit(term);
      },
      // a stream can start repeatedly though no write succeeds, as on a full disk: it works once it is stable and everything is written
      caughtUp: () => {
        context.caughtUp();
        caughtUp();
        if (repaired && performance.now() - began > STABLE_MS) works();
      },
      ended: events.ended,
      settled: connections.settled,
      replication: connections.replication,
      failpoints,
      raiseTerm: deps.lead.raiseTerm,
    },
    { server, source, form, term, durable, resumeAt, senderTimeoutMs },
    outer,
    (signal) => {
      events.opened();
      // a reconcile can wait long for an old transaction: the publication is watched meanwhile
      const backfill = source.tracksGateway ? [backfillGatewayIds({ store, source, term, log, metrics }, signal)] : [];
      // the stream's own rows come first: they are set aside over the same connection
      const retries = retryRefusedRepeatedly(context, signal, store.lastFailed);
      return [watchPublication(context, signal), repair(signal), retries, ...backfill];
    },
  );
}

/**
 * Polls the publication: it can lose the table without an error (in PostgreSQL 18 and later even be dropped), and while the source is idle no write would
 * notice a teardown. Returns if the mirror must restart.
 */
async function watchPublication(
  { deps, readCheckpoint, readSource, source: known }: MirrorContext,
  signal: AbortSignal,
): Promise<void> {
  const { config, connections, log, watchMs = WATCH_MS } = deps;
  const { control } = connections;
  let { version } = await describePublication(control, config, known);
  for (let repaired = false; ;) {
    await pause(watchMs, signal);
    if (signal.aborted) return;
    await readCheckpoint();
    const source = await readSource();
    const publication = await describePublication(control, config, source);
    const state = stateOf(config, source, publication);
    if (state === 'incomplete') {
      throw new SmslogdError('publication_missing', `the publication ${config.PUBLICATION_NAME} has been changed`, {
        hint: 'smslogd repairs it and reconciles, or says what to run.',
      });
    }
    if (publication.version !== version) {
      log.info(
        { publication: config.PUBLICATION_NAME },
        'the publication was changed and is correct again: the mirror restarts',
      );
      return;
    }
    if (!repaired && state === 'excess') {
      repaired = true;
      await repairPublication({ ...deps, source });
      ({ version } = await describePublication(control, config, source));
    }
  }
}
