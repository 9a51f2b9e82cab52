/**
 * One life of the leader's mirror: it looks, takes the steps that src/mirror/mode.ts decides, and then streams or reconciles until something ends that.
 *
 * Whatever fails ends the life, everything it opened is closed, and the supervisor begins the next one with new connections and under a new term: what an
 * earlier life still has under way on the server writes nothing. Nothing is acknowledged that is not durable; what was not acknowledged comes again, and the
 * log's key sorts it out.
 */
import type { Config } from '../settings.ts';
import { codeOf, SmslogdError, toSmslogdError, type ErrorCode } from '../errors.ts';
import { ZERO_LSN, type Lsn } from '../postgres/lsn.ts';
import { describeSource } from '../source.ts';
import type { Checkpoint, Due } from './checkpoint.ts';
import { nextStep, type Sight, type Step } from './mode.ts';
import { publicationState, repairPublication } from './publication.ts';
import { warn, type Life, type MirrorDeps } from './life.ts';
import { logProblem } from '../log.ts';
import { FIRST_START } from '../schema/steps.ts';
import { backoff } from '../supervise.ts';
import { keepByReconciling, makeSlot } from './reconciling.ts';
import { describeServer, describeSlot, dropSlot, enableFailover, endReader } from './slot.ts';
import { createStore } from './store.ts';
import { stream } from './streaming.ts';

/** They take about half a minute. */
const DECODE_TRIES = 10;
/** So often the stream may fail to begin, where it fails for nothing that lasts, before the log is kept by reconciling in between. */
const STREAM_TRIES = 3;
const REMOVED = 'smslogd was removed from this database';

/** Returns the loop for the supervisor: `works` is called once it has streamed for a while and all that the server has sent is in the log. */
export function createMirror(deps: MirrorDeps): (signal: AbortSignal, works: () => void) => Promise<void> {
  const { config, connections, lead, metrics, log, health, decodeTries = DECODE_TRIES } = deps;
  const { control } = connections;
  const store = createStore(connections.apply, config, connections.copy);
  const undecodable = { at: ZERO_LSN, times: 0 };
  let streams = 0;
  let failures = 0;
  /** why the stream did not begin, and until when no other attempt is made; and what was told of it */
  let refusal: { readonly code: ErrorCode; readonly until: number } | undefined;
  let told: ErrorCode | undefined;
  let unreadable: string | undefined;
  let caughtUpAt = performance.now();

  const caughtUp = () => {
    caughtUpAt = performance.now();
    deps.onCaughtUp?.();
  };

  /** Takes the steps up to a mode, and returns it. */
  const begin = async (
    signal: AbortSignal,
    works: () => void,
    opening: () => void,
  ): Promise<{ step: Step; sight: Sight; life: Life }> => {
    const server = await describeServer(control);
    if (server.walLevel !== 'logical')
      throw new SmslogdError('wal_level', `wal_level is ${server.walLevel}, it must be logical`);
    const source = await describeSource(control, config);
    // the row, at the very first start
    requireOurs(await store.read(), config);
    const term = await lead.raiseTerm();
    requireOurs(await store.acquire(term), config);
    await store.noteSource(source);
    const failed = new Set<Step['step']>();
    let marked: Due | undefined;
    const taken = new Map<Step['step'], number>();
    const mark = async (due: Due | undefined, code?: ErrorCode) => {
      if (due === undefined) return;
      if (code !== undefined) warn(deps, code, MADE_GOOD[code] ?? 'the mirror reconciles', { reason: due.reason });
      health.setMirrorState(due.reason === FIRST_START ? 'snapshot' : 'repairing');
      await store.markReconcile(term, due);
      marked = due;
    };
    const look = async (): Promise<Sight> => {
      const checkpoint = await store.read();
      requireOurs(checkpoint, config);
      return {
        config,
        server,
        checkpoint,
        hasMirrored: checkpoint.systemId === undefined && (await store.hasMirrored()),
        publication: await publicationState(control, config, source),
        slot: await describeSlot(control, config.SLOT_NAME),
        unreadable,
        marked,
        failed,
        streamFailure: refusal !== undefined && performance.now() < refusal.until ? refusal.code : undefined,
      };
    };
    for (;;) {
      signal.throwIfAborted();
      const sight = await look();
      const step = nextStep(sight);
      log.debug({ step: step.step }, 'the next step of the mirror');
      taken.set(step.step, (taken.get(step.step) ?? 0) + 1);
      const again = taken.get(step.step)! > 1;
      const life = { deps, store, server, source, term, checkpoint: sight.checkpoint, look, works, caughtUp };
      switch (step.step) {
        case 'begin':
          await mark(step.due, step.code);
          await store.identify(server.systemId, term);
          break;
        case 'repair':
          // in one transaction with its mark: where our role may not repair it, nothing is marked
          if (await repairPublication({ ...deps, source, before: step.due && store.markStatements(term, step.due) })) {
            marked = step.due ?? marked;
            // somebody reverts it at once
            if (again) failed.add('repair');
          } else failed.add('repair');
          break;
        case 'end reader':
          if (!(await endReader(control, config, step.pid).catch(() => false)) || again) failed.add('end reader');
          break;
        case 'drop':
          if (again) throw new SmslogdError('slot_lost', 'the slot that was made cannot be read either');
          opening();
          await dropSlot(config, () => mark(step.due, step.code));
          unreadable = undefined;
          break;
        case 'make':
          if (again) throw new SmslogdError('slot_missing', `the slot ${config.SLOT_NAME} is gone again`);
          opening();
          await makeSlot(life, signal, async () => {
            await mark(step.due, step.code);
            log.info({ slot: config.SLOT_NAME, reason: marked?.reason }, 'a replication slot is made');
          });
          // a teardown marks the checkpoint before it looks for the slot: it found this one, or we find its mark
          if ((await store.read()).removed) await dropSlot(config);
          break;
        case 'failover':
          failed.add('failover');
          await enableFailover(config).catch((error: unknown) => {
            log.info(
              { slot: config.SLOT_NAME, code: codeOf(error) },
              'the slot has no copy on standbys: see `smslogd doctor`',
            );
          });
          break;
        case 'stream':
        case 'reconcile':
          return { step, sight, life };
      }
    }
  };

  return async (signal, works) => {
    let phase: 'looking' | 'opening' | 'on' = 'looking';
    health.waits('mirror');
    try {
      const { step, sight, life } = await begin(signal, works, () => (phase = 'opening'));
      if (step.step === 'reconcile') {
        await keepByReconciling(life, step.why, signal);
        return;
      }
      phase = 'opening';
      await stream(life, sight.slot!, signal, {
        opened: () => {
          phase = 'on';
          failures = 0;
          refusal = told = undefined;
          if (streams > 0) metrics.mirrorReconnects.inc();
          streams += 1;
          lead.streams(true);
        },
        ended: () => lead.streams(false),
      });
    } catch (error) {
      if (!signal.aborted) {
        health.setMirrorState('stopped', toSmslogdError(error).code);
        metrics.mirrorLagSeconds.set((performance.now() - caughtUpAt) / 1_000);
      }
      const problem = toSmslogdError(error);
      const { code, reaction } = problem;
      connections.refresh(error);
      const reason = whyUnreadable(error);
      if (reason !== undefined) unreadable = await triedInVain(reason);
      if (phase === 'opening' && !signal.aborted && (reaction === 'slow' || reaction === 'retry')) {
        failures += 1;
        if (reaction === 'slow' || failures >= STREAM_TRIES) {
          refusal = { code, until: performance.now() + backoff('slow', failures) };
          metrics.errors.inc({ code });
          if (told !== code || failures % 10 === 0) logProblem(log, 'warn', problem, { loop: 'mirror', failures });
          told = code;
          // the next life keeps the log meanwhile, at once
          return;
        }
      }
      throw error;
    } finally {
      health.waits('mirror');
      // what is unread is another one's now, and so is how far that one is behind
      if (signal.aborted) for (const lag of [metrics.mirrorLagSeconds, metrics.mirrorLagBytes]) lag.set(0);
      log.debug('mirror connection closed');
    }
  };

  /** What the server could not decode once, it may the next time: counts how often it could not at the same place. */
  async function triedInVain(reason: string): Promise<string | undefined> {
    if (reason !== UNDECODABLE) return reason;
    const at: Lsn | undefined = (await describeSlot(control, config.SLOT_NAME).catch(() => undefined))?.confirmed;
    if (at !== undefined && at !== undecodable.at) Object.assign(undecodable, { at, times: 0 });
    undecodable.times += 1;
    return undecodable.times < decodeTries ? undefined : reason;
  }
}

const UNDECODABLE = 'WAL not decodable';

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

/** What is said of what the mirror makes good by itself. */
const MADE_GOOD: Partial<Record<ErrorCode, string>> = {
  checkpoint_missing: 'the checkpoint is gone: it is made again',
  checkpoint_future: 'the checkpoint is ahead of the server: it is forgotten',
  database_changed: 'the database is another one than the log was filled from',
  slot_missing: 'the replication slot is made again',
  slot_lost: 'the replication slot is made again',
};

function requireOurs(checkpoint: Checkpoint, config: Config): void {
  if (checkpoint.removed) throw new SmslogdError('removed', REMOVED);
  if (checkpoint.sourceTimezone !== undefined && checkpoint.sourceTimezone !== config.SOURCE_TIMEZONE) {
    throw new SmslogdError(
      'source_timezone',
      `SOURCE_TIMEZONE is ${config.SOURCE_TIMEZONE}, but the log was filled with ${checkpoint.sourceTimezone}`,
    );
  }
}
