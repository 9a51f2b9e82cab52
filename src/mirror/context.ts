/** The context of one run of the mirror: its dependencies, and what it found at its start. Both modes use it. */
import type { Config } from '../settings.ts';
import { SmslogdError, type ErrorCode } from '../errors.ts';
import type { Health } from '../health.ts';
import type { Leadership } from '../leader/lease.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Connections } from '../postgres/connections.ts';
import type { Server } from '../replication/server.ts';
import type { Source } from '../source.ts';
import type { Observed } from './mode.ts';
import type { Form } from './apply.ts';
import type { Failpoints } from './apply-loop.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { Store } from './store.ts';

export interface MirrorDeps {
  readonly config: Config;
  readonly connections: Pick<
    Connections,
    'control' | 'apply' | 'copy' | 'replication' | 'asReplication' | 'settled' | 'refresh'
  >;
  readonly lead: Pick<Leadership, 'raiseTerm' | 'streams' | 'giveUp' | 'works' | 'since'>;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: Pick<Health, 'beat' | 'waits' | 'setMirrorState'>;
  readonly failpoints?: Failpoints;
  /** called when everything that the server has sent is in the log */
  readonly onCaughtUp?: () => void;
  /** wal_sender_timeout of the replication connection; milliseconds */
  readonly senderTimeoutMs?: number;
  /** between two checks of publication and checkpoint; milliseconds */
  readonly watchMs?: number;
  /** between two light audits; milliseconds */
  readonly auditMs?: number;
  /** between two reconciles while streaming is not possible; milliseconds */
  readonly reconcileMs?: number;
  /** how often the leadership may be given up while streaming is not possible; milliseconds */
  readonly giveUpMs?: number;
  /** how often decoding may fail at one WAL position before the slot is dropped */
  readonly decodeTries?: number;
}

export interface MirrorContext {
  readonly deps: MirrorDeps;
  readonly store: Store;
  readonly server: Server;
  readonly source: Source;
  /** of the values that it streams */
  readonly form: Form;
  readonly term: bigint;
  readonly checkpoint: Checkpoint;
  /** reads the checkpoint again; throws where it is not this run's any more */
  readonly readCheckpoint: () => Promise<Checkpoint>;
  /** reads the source's shape again; throws SourceChanged where it is not this run's any more */
  readonly readSource: () => Promise<Source>;
  /** observes again, as at the start of the run */
  readonly observe: () => Promise<Observed>;
  /** resets the supervisor's backoff */
  readonly works: () => void;
  /** called when everything that the source had a moment ago is in the log */
  readonly caughtUp: () => void;
}

/** Logs and counts what the mirror repairs by itself. */
export function warn(
  { log, metrics }: Pick<MirrorDeps, 'log' | 'metrics'>,
  code: ErrorCode,
  message: string,
  context: object = {},
): void {
  metrics.errors.inc({ code });
  logProblem(log, 'warn', new SmslogdError(code, message), context);
}
