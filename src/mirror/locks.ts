/**
 * Says when what we write waits for somebody's lock or for a synchronous stand-by: nothing fails then, the lag alone grows. Looked at from outside,
 * in the server's view of our sessions, so that no write pays for it.
 */
import { SmslogdError, type ErrorCode } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { pause } from '../supervise.ts';
import type { Store } from './store.ts';

const LOOK_MS = 2_000;
/** Statements that give up soon by themselves, and try again, are not meant. */
const PATIENCE_SECONDS = 2;

interface Wait {
  readonly code: ErrorCode;
  readonly look: () => Promise<{ readonly waitedSeconds: number } | undefined>;
  readonly says: string;
  readonly over: string;
}

/** What may keep us waiting; each look finds it only where it lasts. */
function waitsOf(store: Store): readonly Wait[] {
  let stood: string | undefined;
  return [
    {
      code: 'log_locked',
      look: () => store.lockHolder(PATIENCE_SECONDS),
      says: 'a write waits for a lock that another session holds',
      over: 'the lock is free: writes go on',
    },
    {
      code: 'standby_missing',
      look: () => store.standbyWait(PATIENCE_SECONDS),
      says: 'a commit waits for a synchronous stand-by',
      over: 'commits no longer wait for a stand-by: writes go on',
    },
    {
      code: 'standby_missing',
      // one that is there is waited for, too, again and again, but for a moment
      look: async () => {
        const wait = await store.senderWait();
        const stands = wait?.at === stood;
        stood = wait?.at;
        return wait !== undefined && stands
          ? { waitedSeconds: LOOK_MS / 1_000, standbySlots: wait.standbySlots }
          : undefined;
      },
      says: 'the server sends nothing before a stand-by has it',
      over: 'the server no longer waits for a stand-by: it sends again',
    },
  ];
}

/**
 * Says it once when something keeps us waiting, with the session that holds a lock, and once when that is over; until `signal` aborts. A look that
 * fails says nothing: the writes fail then, too.
 */
export async function watchWaits(
  { store, log, metrics }: { store: Store; log: Log; metrics: Pick<Metrics, 'errors'> },
  signal: AbortSignal,
): Promise<void> {
  const waits = waitsOf(store);
  const since = new Map<Wait, number>();
  for (;;) {
    await pause(LOOK_MS, signal);
    if (signal.aborted) return;
    for (const wait of waits) {
      const { code, look, says, over } = wait;
      const found = await look().catch(() => undefined);
      if (signal.aborted) return;
      const began = since.get(wait);
      if (found !== undefined && began === undefined) {
        since.set(wait, performance.now() - found.waitedSeconds * 1_000);
        metrics.errors.inc({ code });
        logProblem(log, 'warn', new SmslogdError(code, says), found);
      }
      if (found === undefined && began !== undefined) {
        log.info({ waitedSeconds: Math.round((performance.now() - began) / 1_000) }, over);
        since.delete(wait);
      }
    }
  }
}
