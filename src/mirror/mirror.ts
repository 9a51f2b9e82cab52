/**
 * The mirror: slot → stream → batch → store (rows and checkpoint in one commit) → acknowledge.
 *
 *   starting ── slot in use ──────────────> standby (the supervisor tries again)
 *            ├─ first start ──────────────> snapshot: streams, and copies what was there before
 *            ├─ slot or publication mended > repairing: streams, and reconciles
 *            └─ else ─────────────────────> streaming
 *
 * One call of the returned function is one life: whatever fails ends it, everything it opened is closed, and the supervisor begins the next
 * with new connections. Nothing is acknowledged that is not durable; what was not acknowledged comes again and the log's key sorts it out.
 */
import type { Config } from '../config.ts';
import { dropConnections, dropReadOnly, type Sql } from '../postgres/pools.ts';
import { codeOf, SmslogdError, type ErrorCode } from '../errors.ts';
import type { Health } from '../health.ts';
import { logProblem, type Log } from '../log.ts';
import { maxLsn, ZERO_LSN, type Lsn } from '../lsn.ts';
import type { Metrics } from '../metrics.ts';
import { describePublication, publicationStatements, type PublicationState } from '../publication.ts';
import { describeSource, type Source } from '../source.ts';
import { pause } from '../supervise.ts';
import { lightAudit } from './audit.ts';
import { complete, completeLate } from './late.ts';
import { watchWaits } from './locks.ts';
import { patiently } from '../postgres/briefly.ts';
import { pump, reportRefused, type Failpoints } from './pump.ts';
import { reconcile } from './reconcile.ts';
import { createSlot, describeServer, describeSlot, dropSlot, endReader, type Server, type Slot } from './slot.ts';
import { createStore, type Checkpoint, type Store } from './store.ts';

export interface MirrorDeps {
  readonly config: Config;
  readonly sql: Sql;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: Pick<Health, 'beat' | 'setMirrorState'>;
  readonly failpoints?: Failpoints;
  /** how often publication and checkpoint are looked at; milliseconds */
  readonly watchMs?: number;
  /** between two light audits; milliseconds */
  readonly auditMs?: number;
  /** how often the server may fail to decode at one place before the slot is given up */
  readonly decodeTries?: number;
}

const WATCH_MS = 10_000;
/** What is waiting when a stream begins fails sooner, if it fails. */
const LASTED_MS = 5_000;
/** The few small queries of a beginning take longer only where the path to the database died in silence. */
const STALL_MS = 15_000;
const AUDIT_MS = 180_000;
/** Twice the interval and more, and rows that were there at the last look and on their way. */
const AUDIT = { sinceSeconds: 900, patienceMs: 60_000 };
/** They take about half a minute. */
const DECODE_TRIES = 10;
const FIRST_START = 'first start';
const UNDECODABLE = 'WAL not decodable';
const REMOVED = 'smslogd was removed from this database';

/** Returns the loop for the supervisor: `works` is called once it has streamed for a while and all that the server has sent is in the log. */
export function createMirror(deps: MirrorDeps): (signal: AbortSignal, works: () => void) => Promise<void> {
  const { config, sql, metrics, log, health } = deps;
  const store = createStore(sql, config);
  let lives = 0;
  let ownReader: number | undefined;
  const reads = (pid: number | undefined) => {
    ownReader = pid;
  };
  const undecodable = { at: ZERO_LSN, times: 0 };
  let caughtUpAt = performance.now();
  const caughtUp = () => {
    caughtUpAt = performance.now();
  };

  return async (signal, works) => {
    health.beat('mirror');
    const heartbeat = setInterval(() => health.beat('mirror'), 1_000);
    const stalled = setTimeout(() => dropConnections(sql), STALL_MS);
    const over = new AbortController();
    void watchWaits({ store, log, metrics }, AbortSignal.any([signal, over.signal]));
    try {
      const server = await describeServer(sql);
      if (server.walLevel !== 'logical')
        throw new SmslogdError('wal_level', `wal_level is ${server.walLevel}, it must be logical`);
      const source = await describeSource(sql, config);
      const checkpoint = await store.read();
      requireOurs(checkpoint, config);
      const found = await freeSlot(deps, server, ownReader);
      const mayStream = await mendPublication(deps, store, source);
      await store.noteSource(source);
      clearTimeout(stalled);
      if (mayStream) {
        const slot = await readySlot(deps, { store, server, checkpoint, found }, signal);
        await store.identify(server.systemId);
        if (lives > 0) metrics.mirrorReconnects.inc();
        lives += 1;
        await stream(deps, { store, server, source, slot, works, caughtUp, reads }, signal);
      } else {
        await withoutPublication(deps, store, source, signal);
      }
    } catch (error) {
      if (!signal.aborted) {
        health.setMirrorState(isStandby(error) ? 'standby' : 'stopped');
        if (!isStandby(error)) metrics.mirrorLagSeconds.set((performance.now() - caughtUpAt) / 1_000);
      }
      dropReadOnly(sql, error);
      const reason = whyUnreadable(error);
      if (reason !== undefined) await giveUpSlot(deps, store, reason, undecodable);
      throw error;
    } finally {
      clearInterval(heartbeat);
      clearTimeout(stalled);
      over.abort();
      log.debug('mirror connection closed');
    }
  };
}

interface Life {
  readonly store: Store;
  readonly server: Server;
  readonly source: Source;
  readonly slot: Slot;
  readonly works: () => void;
  /** told when all that the server has sent is in the log */
  readonly caughtUp: () => void;
  readonly reads: (pid: number | undefined) => void;
}

/** Streams until something ends it, with the reconcile that is due and the look at the publication beside it. */
async function stream(
  deps: MirrorDeps,
  { store, server, source, slot, works, caughtUp, reads }: Life,
  outer: AbortSignal,
): Promise<void> {
  const { config, metrics, log, health, failpoints } = deps;
  const before = await store.read();
  const resumeAt = before.lsn ?? ZERO_LSN;
  let repaired = false;
  const began = performance.now();
  // a stream can begin again and again though no write succeeds, as on a full disk: it works once it has lasted and all is written
  const whole = () => {
    caughtUp();
    if (repaired && performance.now() - began > LASTED_MS) works();
  };
  await pump(
    {
      config,
      store,
      log,
      metrics,
      caughtUp: whole,
      reads,
      dropConnections: () => dropConnections(deps.sql),
      failpoints,
    },
    { source, durable: maxLsn(slot.confirmed, resumeAt), resumeAt, senderTimeoutMs: server.senderTimeoutMs },
    outer,
    (checkpoint, signal) => {
      const { epoch, reconcileDue } = checkpoint;
      log.info(
        { slot: config.SLOT_NAME, epoch: String(epoch), reconcile: reconcileDue ?? 'none' },
        'the mirror streams',
      );
      const repair = async () => {
        // a slot ahead of the checkpoint is normal after an idle time, and looks just like one that somebody made again further on
        let gap = slot.confirmed > resumeAt || (await store.republished(source));
        if (reconcileDue !== undefined) {
          health.setMirrorState(reconcileDue === FIRST_START ? 'snapshot' : 'repairing');
          const copied = () => health.setMirrorState('streaming');
          const { resumed } = await reconcile(
            { store, source, epoch, reason: reconcileDue, log, metrics, copied },
            signal,
          );
          // what it had passed before it was interrupted it has not looked at again
          gap &&= resumed;
        }
        if (signal.aborted) return;
        health.setMirrorState('streaming');
        repaired = true;
        await auditAgain(deps, { store, source, epoch, gap }, signal);
      };
      // a reconcile can wait long for an old transaction: the publication is watched meanwhile
      const late = source.tracksGateway ? [completeLate({ store, source, epoch, log, metrics }, signal)] : [];
      return [watchDatabase(deps, { store, source }, signal), repair(), ...late];
    },
  );
}

/** The light audit, again and again, and at once where there may be a `gap`: what it finds should not be possible, is shown as a metric, and is filled. */
async function auditAgain(
  { sql, config, metrics, log, health, auditMs = AUDIT_MS }: MirrorDeps,
  { store, source, epoch, gap }: { store: Store; source: Source; epoch: bigint; gap: boolean },
  signal: AbortSignal,
): Promise<void> {
  const incomplete = async (ids: readonly string[]) => {
    for (const id of await complete({ store, source, epoch }, ids, signal)) reportRefused(log, metrics, id);
  };
  for (let first = true; ; first = false) {
    if (!first || !gap) await pause(auditMs, signal);
    if (signal.aborted) return;
    const { missing, auditedXid } = await lightAudit(sql, config, source, { ...AUDIT, incomplete }, signal);
    if (signal.aborted) return;
    // the mirror is behind: what it lacks is on its way
    if (auditedXid === undefined) continue;
    metrics.reconcileMissing.set(missing);
    if (missing > 0) {
      const reason = 'audit';
      warn({ log, metrics }, 'rows_missing', 'the audit found rows that the log lacks', { missing });
      health.setMirrorState('repairing');
      await store.markReconcile(reason, { epoch });
      await reconcile({ store, source, epoch, reason, log, metrics }, signal);
      if (signal.aborted) return;
      health.setMirrorState('streaming');
    } else await store.keepAudited(auditedXid, epoch);
  }
}

/**
 * Looked at again and again: the publication can lose the table without an error (from PostgreSQL 18 on it can even vanish), and a teardown by a
 * role that may not end us is found by no write while the source is idle.
 */
async function watchDatabase(
  deps: MirrorDeps,
  { store, source: known }: { store: Store; source: Source },
  signal: AbortSignal,
): Promise<void> {
  const { sql, config, log, watchMs = WATCH_MS } = deps;
  let { version } = await describePublication(sql, config, known);
  for (let mended = false; ;) {
    await pause(watchMs, signal);
    if (signal.aborted) return;
    const checkpoint = await store.read();
    requireOurs(checkpoint, config);
    if (checkpoint.systemId === undefined) throw new SmslogdError('stepped_down', 'the checkpoint row is gone');
    const source = await describeSource(sql, config);
    if (source.tracksGateway !== known.tracksGateway) {
      log.info(
        { tracks: source.tracksGateway },
        'the column gateway_id of the source came or went: the mirror begins again',
      );
      return;
    }
    const publication = await describePublication(sql, config, source);
    if (lacking(config, source, publication).length > 0) {
      throw new SmslogdError('publication_missing', `the publication ${config.PUBLICATION_NAME} has been changed`, {
        hint: 'smslogd mends it and reconciles, or says what to run.',
      });
    }
    if (publication.version !== version) {
      log.info(
        { publication: config.PUBLICATION_NAME },
        'the publication was changed and is right again: the mirror begins again',
      );
      return;
    }
    if (!mended && publicationStatements(config, source, publication).length > 0) {
      mended = true;
      await patiently(signal, () => mendPublication(deps, store, source));
      ({ version } = await describePublication(sql, config, source));
    }
  }
}

/**
 * Makes the publication what it must be. What passed while it was not is reconciled. Returns false where our role may not and the stream would lack
 * something: then nothing is streamed and the log is kept by reconciling alone.
 */
async function mendPublication(
  { sql, config, log, metrics }: MirrorDeps,
  store: Store,
  source: Source,
): Promise<boolean> {
  const now = await describePublication(sql, config, source);
  const statements = publicationStatements(config, source, now);
  if (statements.length === 0) return true;
  const whole = lacking(config, source, now).length === 0;
  if (!whole) await store.markReconcile('publication mended');
  try {
    await sql.unsafe(['set local lock_timeout = 400', ...statements].join(';\n')).simple();
    warn({ log, metrics }, 'publication_missing', 'the publication was not as it must be; it is mended', {
      publication: config.PUBLICATION_NAME,
    });
    return true;
  } catch (error) {
    if (codeOf(error) !== '42501') throw error;
    const problem = new SmslogdError(
      'publication_missing',
      `the publication ${config.PUBLICATION_NAME} is not as it must be`,
      {
        cause: error,
        hint: `Run as the owner of the source table: ${statements.join('; ')};`,
      },
    );
    logProblem(log, 'warn', problem);
    return whole;
  }
}

/** What the stream needs and the publication has not; what it has in excess is the owner's trouble, not the stream's. */
function lacking(config: Config, source: Source, now: PublicationState): string[] {
  return publicationStatements(config, source, { ...now, update: false, delete: false });
}

async function withoutPublication(deps: MirrorDeps, store: Store, source: Source, signal: AbortSignal): Promise<void> {
  const { metrics, log, health, watchMs = WATCH_MS } = deps;
  health.setMirrorState('repairing');
  const { epoch } = await store.acquire();
  await reconcile({ store, source, epoch, reason: 'no publication', log, metrics }, signal);
  await pause(watchMs, signal);
}

/**
 * Why the slot can never be read again, though it looks whole; undefined: it may. Up to PostgreSQL 17 a slot from before the publication's
 * re-creation never finds it: it reads the catalogue of its time. A slot whose WAL files were taken away by hand is not called lost.
 */
function whyUnreadable(error: unknown): string | undefined {
  if (!(error instanceof SmslogdError)) return undefined;
  const cause = codeOf(error.cause);
  if (error.code === 'publication_missing' && cause === '42704') return 'publication recreated';
  if (error.code === 'decoding_failed') return UNDECODABLE;
  return error.code === 'slot_lost' && cause === '58P01' ? 'WAL missing' : undefined;
}

/** What the server could not decode once, it may the next time: `undecodable` counts how often it could not at the same place. */
async function giveUpSlot(
  { sql, config, decodeTries = DECODE_TRIES }: MirrorDeps,
  store: Store,
  reason: string,
  undecodable: { at: Lsn; times: number },
): Promise<void> {
  const slot = await describeSlot(sql, config.SLOT_NAME);
  if (slot === undefined || slot.reader !== undefined) return;
  if (reason === UNDECODABLE) {
    if (slot.confirmed !== undecodable.at) Object.assign(undecodable, { at: slot.confirmed, times: 0 });
    undecodable.times += 1;
    if (undecodable.times < decodeTries) return;
  }
  await store.markReconcile(reason, { fresh: true });
  await dropSlot(sql, config.SLOT_NAME);
}

function requireOurs(checkpoint: Checkpoint, config: Config): void {
  if (checkpoint.removed) throw new SmslogdError('removed', REMOVED);
  if (checkpoint.sourceTimezone !== undefined && checkpoint.sourceTimezone !== config.SOURCE_TIMEZONE) {
    throw new SmslogdError(
      'source_timezone',
      `SOURCE_TIMEZONE is ${config.SOURCE_TIMEZONE}, but the log was filled with ${checkpoint.sourceTimezone}`,
    );
  }
}

/** The slot as it is; whoever reads it has the last word on it and on the publication. Throws slot_busy, or slot_foreign. */
async function freeSlot(
  { sql, config }: MirrorDeps,
  server: Server,
  ownReader: number | undefined,
): Promise<Slot | undefined> {
  const found = await describeSlot(sql, config.SLOT_NAME);
  if (found === undefined) return undefined;
  if (found.database !== server.database || found.plugin !== 'pgoutput') {
    throw new SmslogdError(
      'slot_foreign',
      `the slot ${config.SLOT_NAME} is not ours: database ${found.database || 'none'}, plugin ${found.plugin || 'none'}`,
    );
  }
  if (found.reader !== undefined) {
    // with wal_sender_timeout = 0 the server would keep the reader of a connection that died in silence for hours
    if (found.reader === ownReader) await endReader(sql, ownReader).catch(() => {});
    throw new SmslogdError('slot_busy', `the slot ${config.SLOT_NAME} is in use by another consumer`);
  }
  return found;
}

/** The slot, made or made again where it must be. That a reconcile is due is committed before the slot exists, so that no crash leaves a gap. */
async function readySlot(
  { sql, config, log, metrics, health }: MirrorDeps,
  {
    store,
    server,
    checkpoint,
    found,
  }: { store: Store; server: Server; checkpoint: Checkpoint; found: Slot | undefined },
  signal: AbortSignal,
): Promise<Slot> {
  const reason = whyRebuild(found, checkpoint);
  if (reason === undefined && found !== undefined) {
    if (checkpoint.systemId === undefined) {
      const deleted = await store.hasMirrored();
      if (deleted) warn({ log, metrics }, 'checkpoint_missing', 'the checkpoint is gone: it is made again');
      // else somebody made the slot beforehand, as Patroni does with its permanent slots
      health.setMirrorState(deleted ? 'repairing' : 'snapshot');
      await markFirstStart(store, config, deleted ? 'checkpoint missing' : FIRST_START);
    } else if (checkpoint.inFuture) {
      warn({ log, metrics }, 'checkpoint_future', 'the checkpoint is ahead of the server: it is forgotten');
      await store.markReconcile('checkpoint in the future', { fresh: true });
    } else if (checkpoint.systemId !== server.systemId) {
      warn({ log, metrics }, 'database_changed', 'the database is another one than the log was filled from');
      await store.markReconcile('another database', { fresh: true });
    }
    return found;
  }
  if (reason === FIRST_START) {
    health.setMirrorState('snapshot');
    await markFirstStart(store, config, FIRST_START);
    log.info({ slot: config.SLOT_NAME }, 'a replication slot is made');
  } else {
    health.setMirrorState('repairing');
    await store.markReconcile(reason ?? 'slot missing', { fresh: true });
    const code = found === undefined ? 'slot_missing' : 'slot_lost';
    warn({ log, metrics }, code, 'the replication slot is made again', { slot: config.SLOT_NAME, reason });
  }
  if (found !== undefined) await dropSlot(sql, config.SLOT_NAME);
  await createSlot(sql, config, server, log, signal);
  const made = await describeSlot(sql, config.SLOT_NAME);
  if (made === undefined) throw new SmslogdError('slot_missing', `the slot ${config.SLOT_NAME} is gone again`);
  // a teardown marks the checkpoint before it looks for the slot: it found this one, or we find its mark
  if ((await store.read()).removed) {
    await dropSlot(sql, config.SLOT_NAME);
    throw new SmslogdError('removed', REMOVED);
  }
  return made;
}

/** What was there before is to be copied, or with SNAPSHOT=never is not the mirror's. */
async function markFirstStart(store: Store, config: Config, reason: string): Promise<void> {
  await store.markReconcile(reason, { fresh: true, horizon: config.SNAPSHOT === 'never' });
}

/** Why the slot must be made (again); undefined: it need not. */
function whyRebuild(found: Slot | undefined, checkpoint: Checkpoint): string | undefined {
  const reason = found === undefined ? 'slot missing' : whyUseless(found);
  return reason !== undefined && checkpoint.systemId === undefined ? FIRST_START : reason;
}

function whyUseless({ walStatus, inFuture, twoPhase }: Slot): string | undefined {
  if (walStatus === 'lost') return 'slot lost';
  if (inFuture) return 'slot in the future';
  return twoPhase ? 'slot of two phases' : undefined;
}

/** Says what was mended by itself, and counts it. */
function warn(
  { log, metrics }: Pick<MirrorDeps, 'log' | 'metrics'>,
  code: ErrorCode,
  message: string,
  context: object = {},
): void {
  metrics.errors.inc({ code });
  logProblem(log, 'warn', new SmslogdError(code, message), context);
}

function isStandby(error: unknown): boolean {
  return error instanceof SmslogdError && error.reaction === 'standby' && error.code !== 'removed';
}
