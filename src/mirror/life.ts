/** What one life of the mirror has: what it was given, and what it found at its beginning. Both modes work with it. */
import type { Config } from '../settings.ts';
import { SmslogdError, type ErrorCode } from '../errors.ts';
import type { Health } from '../health.ts';
import type { Leadership } from '../leader/lease.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Connections } from '../postgres/connections.ts';
import type { Source } from '../source.ts';
import type { Sight } from './mode.ts';
import type { Failpoints } from './apply-loop.ts';
import type { Server } from './slot.ts';
import type { Checkpoint } from './checkpoint.ts';
import type { Store } from './store.ts';

export interface MirrorDeps {
  readonly config: Config;
  readonly connections: Pick<Connections, 'control' | 'apply' | 'copy' | 'cancel' | 'refresh'>;
  readonly lead: Pick<Leadership, 'raiseTerm' | 'streams'>;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: Pick<Health, 'beat' | 'waits' | 'setMirrorState'>;
  readonly failpoints?: Failpoints;
  /** told when all that the server has sent is in the log */
  readonly onCaughtUp?: () => void;
  /** wal_sender_timeout of the replication connection; milliseconds */
  readonly senderTimeoutMs?: number;
  /** how often publication and checkpoint are looked at; milliseconds */
  readonly watchMs?: number;
  /** between two light audits; milliseconds */
  readonly auditMs?: number;
  /** between two reconciles where nothing can be streamed; milliseconds */
  readonly reconcileMs?: number;
  /** how often the server may fail to decode at one place before the slot is given up */
  readonly decodeTries?: number;
}

/** What a mode works with. */
export interface Life {
  readonly deps: MirrorDeps;
  readonly store: Store;
  readonly server: Server;
  readonly source: Source;
  readonly term: bigint;
  readonly checkpoint: Checkpoint;
  /** what the life sees now, as at its beginning */
  readonly look: () => Promise<Sight>;
  readonly works: () => void;
  /** all that the source had a moment ago is in the log */
  readonly caughtUp: () => void;
}

/** Says what was repaired by itself, and counts it. */
export function warn(
  { log, metrics }: Pick<MirrorDeps, 'log' | 'metrics'>,
  code: ErrorCode,
  message: string,
  context: object = {},
): void {
  metrics.errors.inc({ code });
  logProblem(log, 'warn', new SmslogdError(code, message), context);
}
