/**
 * The poller: claims SMS that are due, asks the gateway for each status, and writes the answers, until each SMS has its final status.
 *
 *   claim (queue) -> request (gateway) -> interpret (outcome) -> batch and write (completions, final-status)
 *
 * A failed request only changes when the SMS is tried again. The loop ends when `signal` aborts, or when the database is unusable.
 */
import type { Config } from '../settings.ts';
import { toSmslogdError } from '../errors.ts';
import type { Connections } from '../postgres/connections.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Health } from '../health.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { pause } from '../supervise.ts';
import { createCompletions } from './completions.ts';
import { createThrottle, type Throttle } from './throttle.ts';
import { gatewayTls, type GatewayTls } from '../gateway/certificates.ts';
import { currentCredentials, recentCredentials } from '../gateway/credentials.ts';
import { createGateway, type Exchange } from '../gateway/client.ts';
import { createLanes } from './lanes.ts';
import { outcomeOf, type Outcome } from './outcome.ts';
import { createInterruptibleSleep } from './interruptible-sleep.ts';
import { gapAt, LONGEST_GAP_MS, rejectedGapAt } from './schedule.ts';
import type { Claim, Claimed } from './queue.ts';
import type { Completion } from './final-status.ts';
import { createPollerStore } from './store.ts';
import { createTally, type Tally } from './tally.ts';
import { expireWithoutGatewayId, REFUSED_MS, runExpiry } from './expiry.ts';

export interface PollerDeps {
  readonly config: Config;
  readonly connections: Pick<Connections, 'claim' | 'complete' | 'refresh'>;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: Pick<Health, 'beat' | 'waits' | 'pollerProblem'>;
  /** given what lets a gateway that is left alone be tried at once */
  readonly onReload?: (tryNow: () => void) => void;
  /** for tests */
  readonly longestIdleMs?: number;
}

export type Poller = (signal: AbortSignal) => Promise<void>;

/**
 * Where nothing else is due, the pause until the next SMS is: at least IDLE_MS, so that claims gather rows, and at most LONGEST_IDLE_MS, since SMS are queued
 * meanwhile: what was sent just now is due for the first time later than that (FIRST_REQUEST_MS).
 */
const IDLE_MS = 250;
const LONGEST_IDLE_MS = 2_000;
/** Under load a claim waits this long for more free slots, unless half of them are free. */
const GATHER_MS = 10;
/** The part of a lease beside the request: the claim's reply, an immediate retry, the wait for the batch, its write. */
const LEASE_MARGIN_MS = 10_000;
/** How long a stop waits for requests in flight; the rest of its time is for writing answers and releasing claims. */
const LONGEST_DRAIN_MS = 6_500;
/** Nothing is claimed while more answers than this wait to be written. */
const MAX_UNWRITTEN = 2_000;
/** Claimed SMS without a gateway id that wait in memory; further ones are claimed again when their lease ends. */
const MAX_WITHOUT_GATEWAY_ID = 2_000;

/**
 * A poller that may run again after a failure. The throttle outlives a run, so that a database that reconnects does not reset the breaker of a gateway that
 * refuses the login; so do the certificates, whose files may be gone by then.
 */
export function createPoller(deps: PollerDeps): Poller {
  const { config, connections, metrics, log, health } = deps;
  const throttle = createThrottle(
    { metrics, log },
    { ceiling: config.IP2SMS_MAX_CONCURRENCY, perSecond: config.IP2SMS_MAX_RPS },
  );
  const tally = createTally({ metrics, log });
  const tls = gatewayTls(config);
  const refused = { due: true };
  deps.onReload?.(() => {
    throttle.tryNow();
    refused.due = true;
  });
  return async (signal) => {
    try {
      await runPoller({ ...deps, throttle, tally, tls, refused }, signal);
    } catch (error) {
      connections.refresh(error);
      if (!signal.aborted) health.pollerProblem = toSmslogdError(error).code;
      throw error;
    } finally {
      health.waits('poller');
    }
  };
}

interface RunDeps extends PollerDeps {
  readonly throttle: Throttle;
  readonly tally: Tally;
  readonly tls: GatewayTls;
  /** what was refused is to be asked for once nothing else is due: the daemon began, SIGHUP came, or the login changed */
  readonly refused: { due: boolean };
}

/** Runs until `signal` aborts; then sends no more requests, waits for those in flight, writes their answers, and releases the other claims. */
async function runPoller(deps: RunDeps, signal: AbortSignal): Promise<void> {
  const { config, connections, metrics, log, health, throttle, tally, refused, longestIdleMs = LONGEST_IDLE_MS } = deps;
  health.waits('poller');
  const timeout = config.IP2SMS_TIMEOUT_MS;
  const leaseMs = timeout + LEASE_MARGIN_MS;
  const store = createPollerStore(connections.claim, leaseMs, connections.complete);
  await withRetry(() => store.writeSettings(config.SMS_STATUSES_EXPIRATION, config.SMS_STATUSES_GIVE_UP));

  const failed = new AbortController();
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    failed.abort();
  };
  const stop = AbortSignal.any([signal, failed.signal]);

  const credentials = recentCredentials(() => currentCredentials(config, process.env));
  const gateway = createGateway(config, credentials, deps.tls);
  const lanes = createLanes();
  const completions = createCompletions({
    // what was refused comes behind what is due by the end of the pause, so that an id that alone is refused holds up no other
    write: (rows) =>
      store.completeClaims(
        rows.map((row) => (row.result === 'unauthorized' ? { ...row, gapMs: throttle.remaining() } : row)),
      ),
    onWritten: (rows, changes) => tally.written(rows, changes),
    onRefused: async (row, error) => {
      tally.refused(row.id, error);
      await withRetry(() => store.postpone([row], REFUSED_MS));
    },
    onFailure: fail,
  });
  const withoutGatewayId: Claimed[] = [];
  const expiryDeps = {
    config,
    sql: connections.complete,
    store,
    tally,
    log,
    asks: () => throttle.asks(),
    withoutGatewayId,
  };
  const expiry = runExpiry(expiryDeps, stop).catch(fail);

  const { sleep, wake } = createInterruptibleSleep(stop);
  let releasing = false;
  const inFlight = new Set<Promise<void>>();

  const request = async (row: Claimed, gatewayId: string): Promise<void> => {
    const startedAt = performance.now();
    const login = credentials();
    let outcome: Outcome | undefined;
    let exchange: Exchange;
    try {
      exchange = await gateway.askStatus(gatewayId);
      if (!releasing || exchange.kind === 'response') outcome = outcomeOf(exchange, gatewayId);
    } finally {
      throttle.ended(outcome, startedAt, lanes.pastIsFull(throttle.size()), login);
      lanes.ended(row.lane);
      if (throttle.worthClaiming()) wake();
    }
    if (outcome === undefined) {
      completions.add({ ...unchanged(row), gatewayId });
      return;
    }
    const took = performance.now() - startedAt;
    tally.asked(row.id, outcome, took / 1000);
    if (exchange.kind === 'response' && exchange.clockOffsetMs !== undefined)
      metrics.clockOffset.set(exchange.clockOffsetMs / 1000);
    completions.add({
      ...unchanged(row),
      gatewayId,
      result: outcome.result ?? 'protocol',
      status: outcome.answer?.status ?? null,
      date: outcome.answer?.date ?? null,
      reason: outcome.answer?.reason,
      gapMs: gapAfter(outcome, row.ageMs + took),
      early: row.leftMs > 0,
    });
  };

  let claimedAt = -Infinity;
  const claim = async (free: number): Promise<{ rows: number; pastLimited: boolean; nextMs: number }> => {
    const size = throttle.size();
    const wanted = lanes.share(free, size, Math.random());
    throttle.began(free);
    let claimed: Claim = { rows: [], nextMs: null };
    claimedAt = performance.now();
    health.waits('poller');
    try {
      claimed = await withRetry(() => store.claim(wanted, lanes.floors(claimedAt)));
      health.pollerProblem = undefined;
    } finally {
      health.beat('poller');
      throttle.unused(free - claimed.rows.length);
    }
    const { rows, nextMs } = claimed;
    lanes.claimed(rows, wanted, performance.now());
    const late = performance.now() - claimedAt > LEASE_MARGIN_MS / 2;
    for (const row of rows) {
      if (row.gatewayId !== null && !late) {
        track(request(row, row.gatewayId));
        continue;
      }
      // no request: there is no id, or the lease is half over and the claim is released
      if (row.gatewayId !== null) completions.add({ ...unchanged(row), gatewayId: row.gatewayId });
      else if (withoutGatewayId.length < MAX_WITHOUT_GATEWAY_ID) withoutGatewayId.push(row);
      lanes.ended(row.lane);
      throttle.ended(undefined, claimedAt);
    }
    return {
      rows: rows.length,
      pastLimited: rows.filter((row) => row.lane === 2).length === wanted.past,
      nextMs: nextMs ?? Infinity,
    };
  };

  const track = (work: Promise<void>) => {
    const tracked = work.catch(fail).then(() => void inFlight.delete(tracked));
    inFlight.add(tracked);
  };

  try {
    while (!stop.aborted) {
      health.beat('poller');
      if (throttle.login(credentials())) refused.due = true;
      throttle.updateGauges();
      const free = completions.waiting < MAX_UNWRITTEN ? throttle.free() : 0;
      const early = performance.now() - claimedAt < GATHER_MS;
      if (free === 0 || (early && throttle.inFlight > 0 && !throttle.worthClaiming())) {
        // this run has failed at nothing so far: it may be the gateway alone that is waited for
        health.pollerProblem = undefined;
        await sleep(throttle.size() > 0 ? GATHER_MS : IDLE_MS);
        continue;
      }
      const claimed = await claim(free);
      if (claimed.rows === free) continue;
      if (refused.due) {
        await withRetry(() => store.askRefused());
        refused.due = false;
        continue;
      }
      // nothing else is due; if SMS past their deadline were limited by their share, claim again as soon as a slot is free
      if (!claimed.pastLimited) await pause(Math.min(Math.max(IDLE_MS, claimed.nextMs), longestIdleMs), stop);
      else await sleep(lanes.pastIsFull(throttle.size()) ? IDLE_MS : GATHER_MS);
    }
  } catch (error) {
    fail(error);
  }
  health.waits('poller');
  await drain();
  throttle.updateGauges();
  await expiry;
  // what the expiry loop left
  if (failure === undefined && withoutGatewayId.length > 0)
    await expireWithoutGatewayId(expiryDeps, withoutGatewayId).catch(fail);
  if (failure !== undefined) throw failure.error;

  async function drain(): Promise<void> {
    const drained = new AbortController();
    const all = Promise.all(inFlight);
    if (failure === undefined) await Promise.race([all, pause(Math.min(timeout, LONGEST_DRAIN_MS), drained.signal)]);
    drained.abort();
    releasing = true;
    await gateway.close();
    await Promise.all(inFlight);
    if (failure === undefined) await completions.flush().catch(fail);
  }
}

function unchanged({ id, attempt }: Claimed): Omit<Completion, 'gatewayId'> {
  return { id, attempt, result: null, status: null, date: null, gapMs: 0 };
}

function gapAfter({ again }: Outcome, ageMs: number): number {
  if (again === 'when allowed') return 0;
  if (again === 'longest gap') return LONGEST_GAP_MS;
  return again === 'rejected' ? rejectedGapAt(ageMs, Math.random()) : gapAt(ageMs, Math.random());
}
