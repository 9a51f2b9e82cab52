/** What the poller does beside asking, each on its own clock: verdicts that need no gateway. */
import type { Config } from '../settings.ts';
import { codeOf } from '../errors.ts';
import { patiently } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Log } from '../log.ts';
import { describeSource } from '../source.ts';
import { pause, restAfter } from '../supervise.ts';
import type { Claimed } from './queue.ts';
import type { PollerStore } from './store.ts';
import type { Tally } from './tally.ts';

export interface UpkeepDeps {
  readonly config: Config;
  readonly sql: Sql;
  readonly store: PollerStore;
  readonly tally: Tally;
  readonly log: Log;
  /** claimed beside those that are asked for, to be judged: one statement at a time may wait for somebody's lock on the source, not a row of them */
  readonly withoutGatewayId: Claimed[];
}

const VERDICT_EVERY_MS = 1_000;
const GIVE_UP_EVERY_MS = 5_000;
const ROWS = 500;
const POSTPONED_MS = 60_000;
/** So long a lock on the source is tried for, and then left alone: well within a lease, and within a stop. */
const LOCKED_MS = 2_000;
/** Until a status or a verdict is tried again that the database refuses: somebody must mend what refuses it. */
export const REFUSED_MS = 900_000;

/**
 * Judges claimed rows whose gateway id is still unknown at the end of their life, after a last look at the source. Where the source cannot
 * be read there is no verdict: they are looked at again in a minute, or soon where somebody has locked it. A row that the database refuses (a
 * constraint, somebody's trigger) stands alone and keeps nobody else from the verdict.
 */
export async function judgeWithoutGatewayId(deps: UpkeepDeps, rows: readonly Claimed[]): Promise<void> {
  const { config, sql, store, tally } = deps;
  try {
    const source = await describeSource(sql, config);
    const judge = async (some: readonly Claimed[]) => {
      const ids = some.map(({ id }) => id);
      if (source.tracksGateway) tally.changed(await withRetry(() => store.fillFromSource(source, ids)));
      tally.changed(await withRetry(() => store.judgeWithoutGatewayId(some, source)));
    };
    const refused = async (row: Claimed, error: unknown) => {
      tally.refused(row.id, error);
      await withRetry(() => store.postpone([row], REFUSED_MS));
    };
    await patiently(AbortSignal.timeout(LOCKED_MS), () => writeAccepted(rows, judge, refused));
  } catch (error) {
    tally.postponed(rows.length, error);
    await withRetry(() => store.postpone(rows, codeOf(error) === '55P03' ? LOCKED_MS : POSTPONED_MS));
  }
}

/** Terminates what waited too long for an answer; true where there is more that can be. */
async function giveUp(deps: UpkeepDeps): Promise<boolean> {
  const { store, tally } = deps;
  const ids = await store.overdue(ROWS);
  if (ids.length === 0) return false;
  let ended = 0;
  const end = async (some: readonly string[]) => {
    const changes = await withRetry(() => store.giveUp(some));
    ended += changes.length;
    tally.changed(changes);
  };
  await writeAccepted(ids, end, async (id, error) => {
    tally.refused(id, error);
    await withRetry(() => store.giveUpLater(id, REFUSED_MS));
  });
  return ids.length === ROWS && ended > 0;
}

/** Runs until `signal` aborts; throws what the database throws. */
export async function upkeep(deps: UpkeepDeps, signal: AbortSignal): Promise<void> {
  await Promise.all([
    every(VERDICT_EVERY_MS, signal, async () => {
      const rows = await withRetry(() => deps.store.claimWithoutGatewayId(ROWS));
      const all = rows.concat(deps.withoutGatewayId.splice(0, ROWS - rows.length));
      if (all.length > 0) await judgeWithoutGatewayId(deps, all);
      return all.length === ROWS;
    }),
    every(GIVE_UP_EVERY_MS, signal, () => giveUp(deps)),
  ]);
}

/** Does `work` each `ms` milliseconds, less often where it takes long, and at once again while it says that there is more. */
async function every(ms: number, signal: AbortSignal, work: () => Promise<boolean>): Promise<void> {
  while (!signal.aborted) {
    const startedAt = performance.now();
    const more = await work();
    if (!more) await pause(restAfter(ms, performance.now() - startedAt), signal);
  }
}
