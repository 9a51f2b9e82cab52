/** The poller's loops that end SMS without an answer of the gateway, by the rules of final-status.ts. */
import type { Config } from '../settings.ts';
import { codeOf } from '../errors.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { LOCK_NOT_AVAILABLE, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Log } from '../log.ts';
import { describeSource, type Source } from '../source.ts';
import { pause, pauseAfter } from '../supervise.ts';
import type { Claimed } from './queue.ts';
import type { PollerStore } from './store.ts';
import type { Tally } from './tally.ts';

export interface ExpiryDeps {
  readonly config: Config;
  readonly sql: Sql;
  readonly store: PollerStore;
  readonly tally: Tally;
  readonly log: Log;
  /** true while the gateway can be asked, as far as is known */
  readonly asks: () => boolean;
  /** claimed rows without a gateway id: only one statement at a time may wait for a lock on the source */
  readonly withoutGatewayId: Claimed[];
}

const UNACCEPTED_EVERY_MS = 1_000;
/** After a claim of its own that found nothing: what the poller claims comes without one. */
const CLAIM_EVERY_MS = 5_000;
const GIVE_UP_EVERY_MS = 5_000;
const ROWS = 500;
const POSTPONED_MS = 60_000;
/** How long a lock on the source is retried: well within a lease, and within a stop. */
const LOCKED_MS = 2_000;
/** Before a write that the database rejects is retried: somebody must fix the constraint or trigger. */
export const REFUSED_MS = 900_000;

/**
 * Ends claimed SMS without a gateway id past their deadline, mirrored ones after a last lookup in the source. If the source cannot be read these are postponed
 * by a minute, or by seconds if it is locked. A row that the database rejects (by a constraint or a user's trigger) does not block the others.
 */
export async function expireWithoutGatewayId(deps: ExpiryDeps, rows: readonly Claimed[]): Promise<void> {
  const { config, sql, store, tally } = deps;
  /** whose verdict is still to come */
  let left = rows;
  const judge = async (source?: Source) => {
    const write = async (some: readonly Claimed[]) => {
      const ids = some.map(({ id }) => id);
      if (source?.tracksGateway === true) tally.changed(await withRetry(() => store.fillFromSource(source, ids)));
      tally.changed(await withRetry(() => store.markUnaccepted(some, source)));
    };
    await writeAccepted(left, write, async (row, error) => {
      tally.refused(row.id, error);
      await withRetry(() => store.postpone([row], REFUSED_MS));
    });
  };
  const locked = AbortSignal.timeout(LOCKED_MS);
  try {
    await retryWhileLocked(locked, () => judge());
    const mirrored = await store.mirrored(rows.map(({ id }) => id));
    left = rows.filter(({ id }) => mirrored.has(id));
    if (left.length === 0) return;
    const source = await describeSource(sql, config);
    await retryWhileLocked(locked, () => judge(source));
  } catch (error) {
    tally.postponed(left.length, error);
    await withRetry(() => store.postpone(left, codeOf(error) === LOCK_NOT_AVAILABLE ? LOCKED_MS : POSTPONED_MS));
  }
}

/** Terminates SMS that waited too long for an answer; true if there may be more. */
async function terminateOverdue(deps: ExpiryDeps): Promise<boolean> {
  const { store, tally, asks } = deps;
  const ids = await store.overdue(ROWS, asks());
  if (ids.length === 0) return false;
  let ended = 0;
  const write = async (some: readonly string[]) => {
    const changes = await withRetry(() => store.markTerminated(some));
    ended += changes.length;
    tally.changed(changes);
  };
  await writeAccepted(ids, write, async (id, error) => {
    tally.refused(id, error);
    await withRetry(() => store.postponeGiveUp(id, REFUSED_MS));
  });
  return ids.length === ROWS && ended > 0;
}

/** Runs until `signal` aborts; throws what the database throws. */
export async function runExpiry(deps: ExpiryDeps, signal: AbortSignal): Promise<void> {
  let claimAt = -Infinity;
  await Promise.all([
    every(UNACCEPTED_EVERY_MS, signal, async () => {
      const now = performance.now();
      const rows = now < claimAt ? [] : await withRetry(() => deps.store.claimWithoutGatewayId(ROWS));
      if (now >= claimAt && rows.length === 0) claimAt = now + CLAIM_EVERY_MS;
      const all = rows.concat(deps.withoutGatewayId.splice(0, ROWS - rows.length));
      if (all.length > 0) await expireWithoutGatewayId(deps, all);
      return all.length === ROWS;
    }),
    every(GIVE_UP_EVERY_MS, signal, () => terminateOverdue(deps)),
  ]);
}

/** Runs `work` every `ms` milliseconds, less often if it takes long, and at once again while it returns true. */
async function every(ms: number, signal: AbortSignal, work: () => Promise<boolean>): Promise<void> {
  while (!signal.aborted) {
    const startedAt = performance.now();
    const more = await work();
    if (!more) await pause(pauseAfter(ms, performance.now() - startedAt), signal);
  }
}
