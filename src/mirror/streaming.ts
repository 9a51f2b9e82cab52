/**
 * The mirror's first mode: it streams until something ends that. Beside the stream run the reconcile that is due and the audits after it, the lookups of
 * gateway ids that come late, and the watch over the publication.
 */
import { SmslogdError } from '../errors.ts';
import { maxLsn, ZERO_LSN } from '../postgres/lsn.ts';
import { describePublication } from '../schema/publication.ts';
import { describeSource } from '../source.ts';
import { pause } from '../supervise.ts';
import { completeLate } from '../reconcile/gateway-ids.ts';
import { fillGaps } from './gaps.ts';
import type { Life } from './life.ts';
import { patiently } from '../postgres/briefly.ts';
import { lacks, publicationState, repairPublication } from './publication.ts';
import { pump } from './apply-loop.ts';
import { reconcile } from '../reconcile/copy.ts';
import { FIRST_START } from '../schema/steps.ts';
import type { Slot } from './slot.ts';

/**
 * The server ends a connection that is silent for so long: a frozen daemon must not keep the slot for a minute, nor a dead path for ever. And while it works
 * through a transaction of which it has nothing to send, it looks for our messages only after half of it.
 */
const SENDER_TIMEOUT_MS = 15_000;
const WATCH_MS = 10_000;
const AUDIT_MS = 180_000;
/** What is waiting when a stream begins fails sooner, if it fails. */
const LASTED_MS = 5_000;
/** Of the time: an audit reads the whole source, and the larger it is the longer one takes. Where rows may be missing it may take more. */
const AUDIT_SHARE = 0.01;
const GAP_SHARE = 0.25;
/** What setTimeout can wait. */
const LONGEST_MS = 2 ** 31 - 1;
/** How long an audit waits for the stream to bring what it found missing. */
const PATIENCE_MS = 60_000;

export interface StreamEvents {
  /** the server streams */
  readonly opened: () => void;
  /** it streams no more */
  readonly ended: () => void;
}

/** Streams until something ends it or `outer` aborts. */
export async function stream(life: Life, slot: Slot, outer: AbortSignal, events: StreamEvents): Promise<void> {
  const { deps, store, source, term, checkpoint, works } = life;
  const { config, connections, metrics, log, health, failpoints, senderTimeoutMs = SENDER_TIMEOUT_MS } = deps;
  const resumeAt = checkpoint.lsn ?? ZERO_LSN;
  const { reconcileDue } = checkpoint;
  const began = performance.now();
  let repaired = false;
  let caughtUp!: () => void;
  const once = new Promise<void>((resolve) => {
    caughtUp = resolve;
  });

  /** The reconcile that is due, then one audit after the other. */
  const repair = async (signal: AbortSignal): Promise<void> => {
    // a slot ahead of the checkpoint is normal after an idle time, and looks just like one that somebody made again further on
    let gap = slot.confirmed > resumeAt || (await store.republished(source));
    if (reconcileDue !== undefined) {
      health.setMirrorState(reconcileDue === FIRST_START ? 'snapshot' : 'repairing');
      const copied = () => health.setMirrorState('streaming');
      const { resumed } = await reconcile({ store, source, term, reason: reconcileDue, log, metrics, copied }, signal);
      // what it had passed before it was interrupted it has not looked at again
      gap &&= resumed;
    }
    if (signal.aborted) return;
    health.setMirrorState('streaming');
    repaired = true;
    // the backlog comes first: what is missing is on its way, and the source's cache is the owner's
    await Promise.race([once, pause(LONGEST_MS, signal)]);
    for (let first = true; ; first = false) {
      if (!first || !gap) await pause(deps.auditMs ?? AUDIT_MS, signal);
      if (signal.aborted) return;
      const share = first && gap ? GAP_SHARE : AUDIT_SHARE;
      await fillGaps(life, { patienceMs: PATIENCE_MS, share }, signal);
    }
  };

  await pump(
    {
      config,
      store,
      log,
      metrics,
      health,
      // a stream can begin again and again though no write succeeds, as on a full disk: it works once it has lasted and all is written
      caughtUp: () => {
        life.caughtUp();
        caughtUp();
        if (repaired && performance.now() - began > LASTED_MS) works();
      },
      ended: events.ended,
      cancelWrite: () => void connections.cancel('apply').catch(() => {}),
      failpoints,
      raiseTerm: deps.lead.raiseTerm,
    },
    { source, term, durable: maxLsn(slot.confirmed, resumeAt), resumeAt, senderTimeoutMs },
    outer,
    (signal) => {
      events.opened();
      log.info({ slot: config.SLOT_NAME, term: String(term), reconcile: reconcileDue ?? 'none' }, 'the mirror streams');
      // a reconcile can wait long for an old transaction: the publication is watched meanwhile
      const late = source.tracksGateway ? [completeLate({ store, source, term, log, metrics }, signal)] : [];
      return [watchPublication(life, signal), repair(signal), ...late];
    },
  );
}

/**
 * Looked at again and again: the publication can lose the table without an error (from PostgreSQL 18 on it can even vanish), and a teardown by a
 * role that may not end us is found by no write while the source is idle. Returns where the mirror must start over.
 */
async function watchPublication({ deps, look, source: known }: Life, signal: AbortSignal): Promise<void> {
  const { config, connections, log, watchMs = WATCH_MS } = deps;
  const { control } = connections;
  let { version } = await describePublication(control, config, known);
  for (let repaired = false; ;) {
    await pause(watchMs, signal);
    if (signal.aborted) return;
    if ((await look()).checkpoint.systemId === undefined)
      throw new SmslogdError('stepped_down', 'the checkpoint row is gone');
    const source = await describeSource(control, config);
    if (source.tracksGateway !== known.tracksGateway) {
      log.info(
        { tracks: source.tracksGateway },
        'the column gateway_id of the source came or went: the mirror restarts',
      );
      return;
    }
    const publication = await describePublication(control, config, source);
    if (lacks(config, source, publication)) {
      throw new SmslogdError('publication_missing', `the publication ${config.PUBLICATION_NAME} has been changed`, {
        hint: 'smslogd repairs it and reconciles, or says what to run.',
      });
    }
    if (publication.version !== version) {
      log.info(
        { publication: config.PUBLICATION_NAME },
        'the publication was changed and is right again: the mirror restarts',
      );
      return;
    }
    if (!repaired && (await publicationState(control, config, source)) === 'excess') {
      repaired = true;
      await patiently(signal, () => repairPublication({ ...deps, source }));
      ({ version } = await describePublication(control, config, source));
    }
  }
}
