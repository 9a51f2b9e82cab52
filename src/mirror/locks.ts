/**
 * Says when what we write waits for somebody's lock: nothing fails then, the lag alone grows. Looked at from outside, in the server's view of our
 * sessions, so that no write pays for it.
 */
import { SmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { pause } from '../supervise.ts';
import type { Store } from './store.ts';

const LOOK_MS = 2_000;
/** Statements that give up soon by themselves, and try again, are not meant. */
const PATIENCE_SECONDS = 2;

/** Says it once when a lock keeps us waiting, with the session that holds it, and once when that is over; until `signal` aborts. */
export async function watchLocks(
  { store, log, metrics }: { store: Store; log: Log; metrics: Pick<Metrics, 'errors'> },
  signal: AbortSignal,
): Promise<void> {
  let since: number | undefined;
  for (;;) {
    await pause(LOOK_MS, signal);
    if (signal.aborted) return;
    const holder = await store.lockHolder(PATIENCE_SECONDS);
    if (holder !== undefined && since === undefined) {
      since = performance.now() - holder.waitedSeconds * 1_000;
      metrics.errors.inc({ code: 'log_locked' });
      logProblem(
        log,
        'warn',
        new SmslogdError('log_locked', 'a write waits for a lock that another session holds'),
        holder,
      );
    }
    if (holder === undefined && since !== undefined) {
      log.info({ waitedSeconds: Math.round((performance.now() - since) / 1_000) }, 'the lock is free: writes go on');
      since = undefined;
    }
  }
}
