/**
 * The hot path of the mirror. Messages are gathered as they arrive; while one batch is being written the next one grows, so that many source
 * transactions share a commit under load and a single one is written at once when idle. When the next one is full and another one behind it, the
 * socket is paused: memory stays bounded whatever the backlog or the size of one transaction.
 */
import type { Config } from '../settings.ts';
import { SmslogdError } from '../errors.ts';
import type { Health } from '../health.ts';
import { logProblem, type Log } from '../log.ts';
import type { Connections } from '../postgres/connections.ts';
import type { Lsn } from '../postgres/lsn.ts';
import type { Metrics } from '../metrics.ts';
import { MIRRORED_COLUMNS, type Source } from '../source.ts';
import { createWakeup } from './wakeup.ts';
import { allDurable, FULL, gather, type Batch } from './batch.ts';
import type { ReconcileDue } from './checkpoint.ts';
import { createDecoder } from '../replication/pgoutput.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { atEachBeat } from '../beat.ts';
import { pause } from '../supervise.ts';
import { tellOfWord } from '../unknown-words.ts';
import { openStream, type Stream } from '../replication/connection.ts';
import { nowMicros } from '../replication/frames.ts';
import type { Server } from '../replication/server.ts';
import { reportRefused } from '../reconcile/quarantine.ts';
import type { Form, Written } from './apply.ts';
import type { Store } from './store.ts';

/** Rows; a batch of this size or more is written while much else waits. */
const LARGE = 500;

/** Durable steps where a test can stop the world. */
export interface Failpoints {
  /** all is looked at, the stream is not open yet */
  beforeStream?(): void | Promise<void>;
  /** rows and checkpoint are committed, nothing is acknowledged yet */
  afterCommit?(batch: Batch): void | Promise<void>;
  /** a batch is taken but not yet written */
  beforeWrite?(batch: Batch): void | Promise<void>;
  /** false: keepalives stay unanswered */
  readonly answerKeepalives?: boolean;
}

export interface ApplyLoop {
  readonly config: Config;
  readonly store: Store;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly health: Pick<Health, 'beat' | 'waits'>;
  readonly replication: Connections['replication'];
  /** told once the server streams, when nobody else can move the slot any more; before it resolves nothing is written, and nothing new acknowledged */
  readonly opened: () => Promise<void>;
  /** told when all that the server has sent is in the log */
  readonly caughtUp: () => void;
  /** told when the stream is over, though what it began may still wait */
  readonly ended: () => void;
  /** waits for what is to end: the write in hand may wait for somebody's lock, and comes again anyway */
  readonly settled: (tasks: readonly Promise<unknown>[]) => Promise<void>;
  readonly raiseTerm: () => Promise<bigint>;
  readonly failpoints?: Failpoints | undefined;
}

/** Rows that one statement reads by key, and how often and after what time one that is not seen is looked for again: a commit is sent before it can be seen. */
const BY_KEY = { rows: 500, tries: 8, againMs: 250 };
/** After a write that failed the first one waits so long for more rows. */
const GATHER_MS = 250;

export interface Start {
  readonly server: Server;
  readonly source: Source;
  readonly form: Form;
  /** under which it writes */
  readonly term: bigint;
  /** what may be acknowledged from the start */
  readonly durable: Lsn;
  /** end_lsn of the last transaction in the log */
  readonly resumeAt: Lsn;
  readonly senderTimeoutMs: number;
}

const COLUMN_GONE: ReconcileDue = { reason: 'a needed column was gone', fresh: false, horizon: false };

/**
 * Streams until `outer` aborts or something fails. What `beside` starts runs beside it once the server streams; it must end when its signal aborts.
 * On abort the write in hand is finished and acknowledged, unless it waits for somebody's lock.
 */
export async function runApplyLoop(
  deps: ApplyLoop,
  start: Start,
  outer: AbortSignal,
  beside: (signal: AbortSignal) => Promise<void>[],
): Promise<void> {
  const { config, store, log, metrics, health, failpoints } = deps;
  const { source, term, form } = start;
  const { binary } = form;
  const stop = new AbortController();
  const signal = AbortSignal.any([outer, stop.signal]);
  const unknownWord = (id: string, word: string) => tellOfWord(deps, { by: 'source', id, word });
  const gathering = gather(start.resumeAt, { binary, unknownWord });
  // in masked mode the code is not published
  const needed = MIRRORED_COLUMNS.filter(
    (column) => source.columns.has(column) && (column !== 'code' || config.SMS_BODY !== 'masked'),
  );
  const decode = createDecoder({ ...source, needed, binary: binary ? source.types : undefined }, gathering);
  store.takes(form);
  const wakeup = createWakeup();
  let stream: Stream | undefined;
  let paused = false;
  /** what is being written */
  let inHand: Batch | undefined;
  /** what is written after it, made ready meanwhile: the database then waits for nothing */
  let next: Batch | undefined;
  /** rows of a transaction that is still coming, perhaps, must be reconciled: that is marked with its end, before which a new life would only meet them again */
  let unreadable = false;

  /** Keeps no more than a full batch gathered beside the one in hand and the next one. */
  const makeRoom = () => {
    if (inHand !== undefined && gathering.size >= FULL) next ??= gathering.take();
    const full = gathering.size >= FULL;
    if (full === paused) return;
    paused = full;
    if (full) stream?.pause();
    else stream?.resume();
  };

  /** the position of a keepalive that came too early */
  let early: Lsn | undefined;
  let begun = false;
  const keepalive = (position: Lsn, asks: boolean) => {
    if (failpoints?.answerKeepalives === false) return;
    if (!begun) early = position;
    if (!begun || !allDurable(gathering, inHand !== undefined || next !== undefined)) {
      if (asks) stream?.repeat();
      return;
    }
    stream?.acknowledge(position);
    metrics.mirrorLagSeconds.set(0);
    deps.caughtUp();
  };

  await failpoints?.beforeStream?.();
  const opened = await openStream(config, deps.replication('mirror'), {
    server: start.server,
    durable: start.durable,
    senderTimeoutMs: start.senderTimeoutMs,
    binary,
    handlers: {
      message(bytes, at, end) {
        decode(bytes, at, end);
        if (gathering.ready) wakeup.notify();
        if (gathering.size >= FULL) makeRoom();
      },
      keepalive,
    },
  });
  stream = opened;
  if (paused) opened.pause();

  const stopLag = atEachBeat(() => {
    metrics.mirrorLagBytes.set(opened.lagBytes);
    const oldest = inHand?.oldestCommit ?? next?.oldestCommit ?? gathering.oldestCommit;
    if (oldest !== undefined) metrics.mirrorLagSeconds.set(secondsSince(oldest, nowMicros()));
  });

  const writeOn = async () => {
    // a row that fails alone may fail for what concerns every row: with others in its batch it is known which
    let gathers = store.lastFailed();
    while (!signal.aborted) {
      health.beat('mirror');
      if (next === undefined && !gathering.ready) {
        health.waits('mirror');
        await wakeup.wait(signal);
        continue;
      }
      if (gathers) await pause(GATHER_MS, signal);
      gathers = false;
      const batch: Batch = next ?? gathering.take();
      next = undefined;
      inHand = batch;
      // behind a large batch there is time; a small one is over at once, and what comes meanwhile is for the very next one
      opened.leisure(batch.rows.length >= LARGE);
      await failpoints?.beforeWrite?.(batch);
      unreadable ||= batch.unreadable.length > 0;
      if (!(await readByKey(batch.partial))) unreadable = true;
      const toReconcile = unreadable && batch.end !== undefined;
      // before the checkpoint passes them, so that no crash forgets it, and under another term, so that a reconcile under way does not take it for done
      const under = toReconcile ? await deps.raiseTerm() : term;
      if (toReconcile) await store.markReconcile(under, COLUMN_GONE);
      const writes = batch.rows.length + batch.large.length > 0 || toReconcile;
      const writing = writes ? store.write(batch, under) : undefined;
      makeRoom();
      if (writing !== undefined) {
        // the database answers, or the write fails: to restart the process would help neither
        health.waits('mirror');
        count(deps, batch, await writing);
        health.beat('mirror');
      }
      metrics.mirrorDuplicates.inc(batch.skipped);
      await failpoints?.afterCommit?.(batch);
      if (batch.end !== undefined) opened.acknowledge(batch.end);
      // such rows come again in no other way: the next life reconciles them at once, or says which column the table lacks
      if (toReconcile) return reportUnreadable(deps);
      inHand = undefined;
      gathering.reuse(batch.rows);
      opened.leisure(false);
      if (next === undefined && !gathering.ready) deps.caughtUp();
      makeRoom();
    }
  };

  /** Writes rows that the stream has not whole as the source has them. False: some are not there to be read, or are not seen yet. Throws on abort. */
  const readByKey = async (rows: readonly string[]): Promise<boolean> => {
    let left = rows;
    for (let tries = 1; left.length > 0; tries += 1) {
      // what a reconcile copies anyway is not waited for
      if (tries > (unreadable ? 1 : BY_KEY.tries)) return false;
      if (tries > 1) await pause(BY_KEY.againMs, signal);
      signal.throwIfAborted();
      health.waits('mirror');
      const absent: string[] = [];
      for (let from = 0; from < left.length; from += BY_KEY.rows) {
        const some = left.slice(from, from + BY_KEY.rows);
        const { inserted, refused } = await retryWhileLocked(signal, () => store.copyRows(source, some, term));
        metrics.reconcileRows.inc(inserted);
        for (const id of refused) reportRefused(log, metrics, id);
        absent.push(...(await retryWhileLocked(signal, () => store.absent(some))));
      }
      health.beat('mirror');
      left = absent;
    }
    return true;
  };

  let tasks: Promise<void>[] = [];
  try {
    await deps.opened();
    begun = true;
    if (early !== undefined) keepalive(early, false);
    tasks = [writeOn(), ...beside(signal)];
    await Promise.race([...tasks, opened.ended]);
    stop.abort();
    await deps.settled(tasks);
  } finally {
    stop.abort();
    stopLag();
    deps.ended();
    // the server may be going down and waiting for this connection: it goes before the queries have ended
    await opened.close();
    await deps.settled(tasks);
    health.waits('mirror');
  }
}

function count({ metrics, log }: ApplyLoop, batch: Batch, written: Written): void {
  for (const id of written.refused) reportRefused(log, metrics, id);
  metrics.mirrorTransactions.inc(batch.commitTimes.length);
  metrics.mirrorDuplicates.inc(written.duplicates);
  for (const time of batch.commitTimes) metrics.mirrorLatency.observe(secondsSince(time, written.at));
  const newest = batch.commitTimes.at(-1);
  if (newest !== undefined) metrics.mirrorLagSeconds.set(secondsSince(newest, written.at));
}

function reportUnreadable({ log, metrics }: ApplyLoop): void {
  metrics.errors.inc({ code: 'source_column' });
  const was =
    'rows could not be read from the stream, which lacks a column, nor from the source: the mirror reconciles';
  logProblem(log, 'warn', new SmslogdError('source_column', was));
}

function secondsSince(time: bigint, now: bigint): number {
  return Math.max(0, Number(now - time) / 1e6);
}
