/**
 * One run of the leader's mirror: it observes, takes the steps that mode.ts decides, and then streams or reconciles until something ends that.
 *
 * Any failure ends the run and closes what it opened. The supervisor starts the next run with new connections and a new term, so that statements of an
 * earlier run that are still active on the server write nothing. Only durable changes are acknowledged; the others are sent again, and the log's primary key
 * ignores duplicates.
 */
import type { Config } from '../settings.ts';
import { codeOf, SmslogdError, toSmslogdError, type ErrorCode } from '../errors.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { ZERO_LSN } from '../postgres/lsn.ts';
import { OtherType } from '../replication/pgoutput.ts';
import { describeServer } from '../replication/server.ts';
import { describePublication } from '../schema/publication.ts';
import { describeSource, describeUnchanged, SourceChanged } from '../source.ts';
import { AS_TEXT, formOf } from './apply.ts';
import type { Checkpoint, ReconcileDue } from './checkpoint.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { nextStep, type Observed, type Step } from './mode.ts';
import { repairPublication, stateOf } from './publication.ts';
import { warn, type MirrorContext, type MirrorDeps } from './context.ts';
import { logProblem } from '../log.ts';
import { FIRST_START } from '../schema/steps.ts';
import { backoff } from '../supervise.ts';
import { filledWith } from '../timezones.ts';
import { runReconciling, createSlotWhileReconciling } from './reconciling.ts';
import { describeSlot, dropSlot, enableFailover, makersOf, terminate } from './slot.ts';
import { createStore } from './store.ts';
import { runStreaming } from './streaming.ts';

/** About half a minute, with the supervisor's backoff. */
const DECODE_TRIES = 10;
/** Transient failures to start the stream before the mirror reconciles between the attempts. */
const STREAM_TRIES = 3;
/** What another daemon's settings or roles may have right. */
const OWN: ReadonlySet<ErrorCode> = new Set([
  'source_missing',
  'source_column',
  'privilege_missing',
  'row_security',
  'database_auth',
]);
/** Where it can still keep the log the lease is not offered more often: the stream may be refused to every daemon. */
const GIVE_UP_MS = 300_000;
const REMOVED = 'smslogd was removed from this database';

/** Returns the loop for the supervisor. It calls `works` once it has streamed for a while and everything that the server has sent is in the log. */
export function createMirror(deps: MirrorDeps): (signal: AbortSignal, works: () => void) => Promise<void> {
  const { config, connections, lead, metrics, log, health, decodeTries = DECODE_TRIES } = deps;
  const { control } = connections;
  const store = createStore(connections.copy, config, connections.apply, { log, metrics });
  const undecodable = { at: ZERO_LSN, times: 0 };
  let streams = 0;
  let failures = 0;
  /** why the stream did not start, until when there is no other attempt, and what was logged of it */
  let streamFailure: { readonly code: ErrorCode; readonly until: number } | undefined;
  const logged = new Set<ErrorCode>();
  let unreadable: Observed['unreadable'];
  let caughtUpAt = -Infinity;
  /** the types of the source's columns, and those for which the stream had values of others: they are asked for as text */
  let types = '';
  let mixed: string | undefined;

  const caughtUp = () => {
    caughtUpAt = performance.now();
    deps.onCaughtUp?.();
  };

  /** Takes the steps up to a mode, and returns it. */
  const prepare = async (
    signal: AbortSignal,
    works: () => void,
    opening: () => void,
  ): Promise<{ step: Step; observed: Observed; context: MirrorContext }> => {
    const server = await describeServer(control);
    if (server.walLevel !== 'logical')
      throw new SmslogdError('wal_level', `wal_level is ${server.walLevel}, it must be logical`);
    const source = await describeSource(control, config);
    types = JSON.stringify([...source.types]);
    const form = types === mixed ? AS_TEXT : formOf(source, config);
    // this creates the row at the first start
    requireUsable(await store.read(), config);
    const term = await lead.raiseTerm();
    requireUsable(await store.acquire(term), config);
    await store.noteSource(source, term);
    const failed = new Set<Step['step']>();
    let marked: ReconcileDue | undefined;
    const taken = new Map<Step['step'], number>();
    const readCheckpoint = async (): Promise<Checkpoint> => {
      const checkpoint = await store.read();
      requireUsable(checkpoint, config);
      // the row was recreated: who marked it since knows nothing of this run
      if (checkpoint.term !== term) throw steppedDown();
      return checkpoint;
    };
    const mark = async (due: ReconcileDue | undefined, code?: ErrorCode) => {
      if (due === undefined) {
        // marked before, perhaps, and another daemon leads by now
        await readCheckpoint();
        return;
      }
      if (code !== undefined) warn(deps, code, REPAIRED[code] ?? 'the mirror reconciles', { reason: due.reason });
      health.setMirrorState(due.reason === FIRST_START ? 'snapshot' : 'repairing');
      await store.markReconcile(term, due);
      marked = due;
    };
    const readSource = () => describeUnchanged(control, config, source);
    const observe = async (): Promise<Observed> => {
      const checkpoint = await readCheckpoint();
      const now = await readSource();
      return {
        config,
        server,
        checkpoint,
        hasMirroredRows:
          checkpoint.systemId === undefined && (await retryWhileLocked(signal, () => store.hasMirroredRows())),
        publication: stateOf(config, now, await describePublication(control, config, now)),
        slot: await describeSlot(control, config.SLOT_NAME),
        makers: await makersOf(control, config.SLOT_NAME),
        unreadable,
        marked,
        failed,
        streamFailure:
          streamFailure !== undefined && performance.now() < streamFailure.until ? streamFailure.code : undefined,
      };
    };
    for (;;) {
      signal.throwIfAborted();
      const observed = await observe();
      const step = nextStep(observed);
      log.debug({ step: step.step }, 'mirror step');
      taken.set(step.step, (taken.get(step.step) ?? 0) + 1);
      const repeated = taken.get(step.step)! > 1;
      const { checkpoint } = observed;
      const again = { readCheckpoint, readSource, observe };
      const context = { deps, store, server, source, form, term, checkpoint, ...again, works, caughtUp };
      switch (step.step) {
        case 'identify':
          await mark(step.due, step.code);
          await store.identify(server.systemId, term);
          break;
        case 'repair publication':
          opening();
          // in one transaction with its mark: if our role may not repair it, nothing is marked
          if (await repairPublication({ ...deps, source, before: step.due && store.markStatements(term, step.due) })) {
            marked = step.due ?? marked;
            // somebody reverts the repair at once
            if (repeated) failed.add('repair publication');
          } else failed.add('repair publication');
          break;
        case 'terminate maker':
          if (!(await terminate(connections, step.pid).catch(() => false))) failed.add(step.step);
          break;
        case 'terminate reader':
          if (!(await terminate(connections, step.pid).catch(() => false)) || repeated) failed.add(step.step);
          break;
        case 'drop slot':
          if (repeated) throw new SmslogdError('slot_lost', 'the new replication slot is unusable, too');
          opening();
          await dropSlot(connections, config, () => mark(step.due, step.code));
          break;
        case 'create slot':
          if (repeated)
            throw new SmslogdError('slot_missing', `the new replication slot ${config.SLOT_NAME} was dropped`);
          opening();
          await createSlotWhileReconciling(context, signal, async () => {
            await mark(step.due, step.code);
            log.info({ slot: config.SLOT_NAME, reason: marked?.reason }, 'creating the replication slot');
          });
          // a teardown marks the checkpoint before it drops the slot: either it drops this one, or its mark is seen here
          if ((await store.read()).removed) await dropSlot(connections, config);
          break;
        case 'enable failover':
          failed.add('enable failover');
          await enableFailover(connections, config, server).catch((error: unknown) => {
            log.info(
              { slot: config.SLOT_NAME, code: codeOf(error) },
              'failover cannot be enabled for the replication slot: see `smslogd doctor`',
            );
          });
          break;
        case 'stream':
        case 'reconcile':
          return { step, observed, context };
      }
    }
  };

  return async (signal, works) => {
    /** of the stream: after a failure it can begin again and again though no write succeeds, so only the first one tells it before it works */
    let news: object | undefined;
    const tell = () => {
      if (news !== undefined) log.info(news, 'the mirror streams');
      news = undefined;
    };
    const worked = () => {
      tell();
      lead.works();
      logged.clear();
      works();
    };
    let phase: 'preparing' | 'opening' | 'streaming' = 'preparing';
    health.waits('mirror');
    try {
      const { step, observed, context } = await prepare(signal, worked, () => (phase = 'opening'));
      if (step.step === 'reconcile') {
        await runReconciling(context, step.why, observed, signal);
        return;
      }
      phase = 'opening';
      await runStreaming(context, observed.slot!, signal, {
        opened: () => {
          phase = 'streaming';
          failures = 0;
          streamFailure = undefined;
          const { term, checkpoint } = context;
          news = { slot: config.SLOT_NAME, term: String(term), reconcile: checkpoint.reconcileDue ?? 'none' };
          if (streams > 0) metrics.mirrorReconnects.inc();
          else tell();
          streams += 1;
          lead.streams(true);
        },
        ended: () => lead.streams(false),
      });
    } catch (error) {
      if (error instanceof OtherType || error instanceof SourceChanged) {
        if (error instanceof OtherType) mixed = types;
        log.info({ slot: config.SLOT_NAME }, `${error.message}: the mirror restarts`);
        return;
      }
      if (!signal.aborted) {
        health.setMirrorState('stopped', toSmslogdError(error).code);
        // what was before it led is another daemon's
        metrics.mirrorLagSeconds.set((performance.now() - Math.max(caughtUpAt, lead.since)) / 1_000);
      }
      const problem = toSmslogdError(error);
      const { code, reaction } = problem;
      connections.refresh(error);
      const reason = unreadableReason(error);
      if (reason !== undefined) await noteUnreadable(reason);
      if (phase === 'opening' && !signal.aborted && (reaction === 'slow' || reaction === 'retry')) {
        failures += 1;
        if (reaction === 'slow' || failures >= STREAM_TRIES) {
          streamFailure = { code, until: performance.now() + backoff('slow', failures) };
          metrics.errors.inc({ code });
          if (!logged.has(code) || failures % 10 === 0) logProblem(log, 'warn', problem, { loop: 'mirror', failures });
          logged.add(code);
          lead.giveUp(deps.giveUpMs ?? GIVE_UP_MS);
          // the next run reconciles meanwhile, without a backoff
          return;
        }
      }
      if (OWN.has(code)) lead.giveUp();
      throw error;
    } finally {
      health.waits('mirror');
      // another daemon may lead from now on, and reports its own lag
      if (signal.aborted) for (const lag of [metrics.mirrorLagSeconds, metrics.mirrorLagBytes]) lag.set(0);
      log.debug('mirror connection closed');
    }
  };

  /** Notes that the slot cannot be read where it stands. Decoding may succeed the next time: that only after it failed several times at one position. */
  async function noteUnreadable(reason: string): Promise<void> {
    const at = (await describeSlot(control, config.SLOT_NAME).catch(() => undefined))?.confirmed;
    if (at === undefined) return;
    if (at !== undecodable.at) Object.assign(undecodable, { at, times: 0 });
    undecodable.times += 1;
    if (reason !== UNDECODABLE || undecodable.times >= decodeTries) unreadable = { reason, at };
  }
}

const UNDECODABLE = 'WAL not decodable';

/**
 * Why a slot that looks intact can never be read again; undefined: it may be. Before PostgreSQL 18 a slot that is older than a recreated publication never
 * finds it, because it reads the catalog as of its own position. A slot whose WAL files were removed by hand is not reported as lost.
 */
function unreadableReason(error: unknown): string | undefined {
  if (!(error instanceof SmslogdError)) return undefined;
  const cause = codeOf(error.cause);
  if (error.code === 'publication_missing' && cause === '42704') return 'publication recreated';
  if (error.code === 'decoding_failed') return UNDECODABLE;
  return error.code === 'slot_lost' && cause === '58P01' ? 'WAL missing' : undefined;
}

/** Messages for what the mirror repairs by itself. */
const REPAIRED: Partial<Record<ErrorCode, string>> = {
  checkpoint_missing: 'there is no checkpoint for this SLOT_NAME, though the log has mirrored rows: it is created',
  checkpoint_future: 'the checkpoint is ahead of the server: it is reset',
  database_changed: 'system identifier changed: the log was filled from another cluster',
  slot_missing: 'the replication slot is missing: it is created again',
  slot_lost: 'the replication slot is unusable: it is created again',
};

function requireUsable(checkpoint: Checkpoint, config: Config): void {
  if (checkpoint.removed) throw new SmslogdError('removed', REMOVED);
  if (checkpoint.sourceTimezone !== undefined && checkpoint.sourceTimezone !== config.SOURCE_TIMEZONE)
    throw filledWith(checkpoint.sourceTimezone, config.SOURCE_TIMEZONE);
}
