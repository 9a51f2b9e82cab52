/**
 * The poller: claims SMS that are due, asks the gateway for each, and writes what it says, until each has its final status.
 *
 *   claim as many as there are free places (store) -> ask (gateway) -> understand (outcome) -> gather and write (completions)
 *
 * A request that fails changes nothing but when it is tried again. The loop ends by `signal`, or by a database that cannot be used.
 */
import type { Config } from '../settings.ts';
import type { Connections } from '../postgres/connections.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Health } from '../health.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { pause } from '../supervise.ts';
import { createCompletions } from './completions.ts';
import { createConduct, type Conduct } from './throttle.ts';
import { currentCredentials, recentCredentials } from '../gateway/credentials.ts';
import { createGateway } from '../gateway/client.ts';
import { createLanes } from './lanes.ts';
import { outcomeOf, type Outcome } from './outcome.ts';
import { createRest } from './interruptible-sleep.ts';
import { gapAt, LONGEST_GAP_MS, refusedGapAt } from './schedule.ts';
import type { Claimed } from './queue.ts';
import type { Completion } from './verdicts.ts';
import { createPollerStore } from './store.ts';
import { createTally, type Tally } from './tally.ts';
import { judgeWithoutGatewayId, REFUSED_MS, upkeep } from './expiry.ts';

export interface PollerDeps {
  readonly config: Config;
  readonly connections: Pick<Connections, 'claim' | 'complete' | 'verdict' | 'refresh'>;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: Pick<Health, 'beat' | 'waits'>;
}

export type Poller = (signal: AbortSignal) => Promise<void>;

const IDLE_MS = 250;
/** Where nothing was due for QUIET_MS: an SMS that is queued then is first due after more than that. */
const QUIET_IDLE_MS = 1_000;
const QUIET_MS = 30_000;
/** Under load: a claim waits so long for more free places, unless half of them are. */
const GATHER_MS = 10;
/** For what surrounds a request within its lease: the claim's way back, the immediate second try, the wait for the batch, its writing. */
const LEASE_MARGIN_MS = 10_000;
/** Of the daemon's time for a stop; the rest is for writing what came and giving the others back. */
const LONGEST_DRAIN_MS = 6_500;
/** Answers that the database has not taken: with more of them nothing is claimed. */
const MAX_UNWRITTEN = 2_000;
/** SMS that wait for a verdict without an answer; while somebody locks the source others are claimed again when their lease is over. */
const MAX_UNJUDGED = 2_000;

/**
 * A poller that may be run again after a failure. What was learned of the gateway outlives a run: a database that comes and goes must not make
 * us ask a gateway again that refuses the login.
 */
export function createPoller(deps: PollerDeps): Poller {
  const { config, connections, metrics, log, health } = deps;
  const conduct = createConduct(
    { metrics, log },
    { ceiling: config.IP2SMS_MAX_CONCURRENCY, perSecond: config.IP2SMS_MAX_RPS },
  );
  const tally = createTally({ metrics, log });
  return async (signal) => {
    try {
      await runPoller({ ...deps, conduct, tally }, signal);
    } catch (error) {
      connections.refresh(error);
      throw error;
    } finally {
      health.waits('poller');
    }
  };
}

interface RunDeps extends PollerDeps {
  readonly conduct: Conduct;
  readonly tally: Tally;
}

/** Runs until `signal` aborts; then asks for nothing more, waits for what is under way, writes it, gives the rest back, and returns. */
async function runPoller(deps: RunDeps, signal: AbortSignal): Promise<void> {
  const { config, connections, metrics, log, health, conduct, tally } = deps;
  health.waits('poller');
  const timeout = config.IP2SMS_TIMEOUT_MS;
  const leaseMs = timeout + LEASE_MARGIN_MS;
  const store = createPollerStore(connections.claim, leaseMs, connections);
  await withRetry(() => store.writeSettings(config.SMS_STATUSES_EXPIRATION, config.SMS_STATUSES_GIVE_UP));

  const failed = new AbortController();
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    failed.abort();
  };
  const stop = AbortSignal.any([signal, failed.signal]);

  const credentials = recentCredentials(() => currentCredentials(config, process.env));
  const gateway = createGateway(config, credentials);
  const lanes = createLanes();
  const completions = createCompletions({
    write: (rows) => store.complete(rows),
    onWritten: (rows, changes) => tally.written(rows, changes),
    onRefused: async (row, error) => {
      tally.refused(row.id, error);
      await withRetry(() => store.postpone([row], REFUSED_MS));
    },
    onFailure: fail,
  });
  const withoutGatewayId: Claimed[] = [];
  const upkeepDeps = { config, sql: connections.verdict, store, tally, log, withoutGatewayId };
  const side = upkeep(upkeepDeps, stop).catch(fail);

  const { rest, wake } = createRest(stop);
  let releasing = false;
  const underWay = new Set<Promise<void>>();

  const ask = async (row: Claimed, gatewayId: string): Promise<void> => {
    const startedAt = performance.now();
    const login = credentials();
    let outcome: Outcome | undefined;
    try {
      const exchange = await gateway.askStatus(gatewayId);
      if (releasing && exchange.kind !== 'response') {
        completions.add({ ...nothingLearned(row), gatewayId });
        return;
      }
      outcome = outcomeOf(exchange, gatewayId);
      const took = performance.now() - startedAt;
      tally.asked(row.id, outcome, took / 1000);
      if (exchange.kind === 'response' && exchange.clockOffsetMs !== undefined)
        metrics.clockOffset.set(exchange.clockOffsetMs / 1000);
      completions.add({
        ...nothingLearned(row),
        gatewayId,
        result: outcome.again === 'now' ? null : (outcome.result ?? 'protocol'),
        status: outcome.answer?.status ?? null,
        date: outcome.answer?.date ?? null,
        reason: outcome.answer?.reason,
        gapMs: gapAfter(outcome, row.ageMs + took),
      });
    } finally {
      conduct.ended(outcome, startedAt, lanes.pastIsFull(conduct.size()), login);
      lanes.ended(row.lane);
      if (conduct.worthAClaim()) wake();
    }
  };

  let claimedAt = -Infinity;
  let dueAt = performance.now();
  const claim = async (free: number): Promise<{ rows: number; pastLimited: boolean }> => {
    const size = conduct.size();
    const wanted = lanes.share(free, size, Math.random());
    conduct.began(free);
    let rows: Claimed[] = [];
    claimedAt = performance.now();
    health.waits('poller');
    try {
      rows = await withRetry(() => store.claim(wanted, lanes.floors(claimedAt)));
    } finally {
      health.beat('poller');
      conduct.unused(free - rows.length);
    }
    lanes.claimed(rows, wanted, performance.now());
    if (rows.length > 0) dueAt = claimedAt;
    const late = performance.now() - claimedAt > LEASE_MARGIN_MS / 2;
    for (const row of rows) {
      if (row.gatewayId !== null && !late) {
        track(ask(row, row.gatewayId));
        continue;
      }
      // no request: without an id there is nothing to ask, and of a lease that is half over too little is left for one: it is given back
      if (row.gatewayId !== null) completions.add({ ...nothingLearned(row), gatewayId: row.gatewayId });
      else if (withoutGatewayId.length < MAX_UNJUDGED) withoutGatewayId.push(row);
      lanes.ended(row.lane);
      conduct.ended(undefined, claimedAt);
    }
    return { rows: rows.length, pastLimited: rows.filter((row) => row.lane === 2).length === wanted.past };
  };

  const track = (work: Promise<void>) => {
    const tracked = work.catch(fail).then(() => void underWay.delete(tracked));
    underWay.add(tracked);
  };

  try {
    while (!stop.aborted) {
      health.beat('poller');
      conduct.login(credentials());
      conduct.show();
      const free = completions.waiting < MAX_UNWRITTEN ? conduct.free() : 0;
      const early = performance.now() - claimedAt < GATHER_MS;
      if (free === 0 || (early && conduct.inFlight > 0 && !conduct.worthAClaim())) {
        await rest(conduct.size() > 0 ? GATHER_MS : IDLE_MS);
        continue;
      }
      const claimed = await claim(free);
      if (claimed.rows === free) continue;
      // nothing live is due; where SMS past their life had no more places the next one is worth asking for as soon as it is free
      const quiet = claimedAt - dueAt > QUIET_MS;
      if (!claimed.pastLimited) await pause(quiet ? QUIET_IDLE_MS : IDLE_MS, stop);
      else await rest(lanes.pastIsFull(conduct.size()) ? IDLE_MS : GATHER_MS);
    }
  } catch (error) {
    fail(error);
  }
  health.waits('poller');
  await drain();
  conduct.show();
  await side;
  // what it did not come to any more
  if (failure === undefined && withoutGatewayId.length > 0)
    await judgeWithoutGatewayId(upkeepDeps, withoutGatewayId).catch(fail);
  if (failure !== undefined) throw failure.error;

  async function drain(): Promise<void> {
    const patience = new AbortController();
    const all = Promise.all(underWay);
    if (failure === undefined) await Promise.race([all, pause(Math.min(timeout, LONGEST_DRAIN_MS), patience.signal)]);
    patience.abort();
    releasing = true;
    await gateway.close();
    await Promise.all(underWay);
    if (failure === undefined) await completions.flush().catch(fail);
  }
}

function nothingLearned({ id, attempt }: Claimed): Omit<Completion, 'gatewayId'> {
  return { id, attempt, result: null, status: null, date: null, gapMs: 0 };
}

function gapAfter({ again }: Outcome, ageMs: number): number {
  if (again === 'late') return LONGEST_GAP_MS;
  return again === 'refused' ? refusedGapAt(ageMs, Math.random()) : gapAt(ageMs, Math.random());
}
