/** Limits the requests to the gateway: concurrency limit, rate limit and circuit breaker together, with their gauges and log lines. */
import { SmslogdError } from '../errors.ts';
import type { Log } from '../log.ts';
import { GATEWAY_TROUBLES, type GatewayTrouble, type Metrics } from '../metrics.ts';
import { createBreaker } from './breaker.ts';
import { tlsMeaning } from '../gateway/certificates.ts';
import type { Credentials } from '../gateway/credentials.ts';
import { createLimit } from './limit.ts';
import type { Outcome } from './outcome.ts';
import { createRate } from './rate.ts';
import { runningMs } from '../running-time.ts';
import { createThrottledLog } from '../throttled-log.ts';

export interface Throttle {
  readonly inFlight: number;
  /** requests that may be in flight now; 0 while the breaker is open */
  size(): number;
  /** what is due can be asked for, now or after a pause: the breaker is closed, or the gateway failed for less than SILENCE_MS */
  asks(): boolean;
  /** milliseconds until the breaker lets one through; 0 while it does */
  remaining(): number;
  /** requests that may start now */
  free(): number;
  /**
   * True if enough requests may start for a claim: half of the concurrency limit, or half of the rate limit's bucket if that is less. Before that a claim
   * waits, because its statement costs about the same for one row as for many.
   */
  worthClaiming(): boolean;
  updateGauges(): void;
  began(count: number): void;
  /** so many of those that began were not sent */
  unused(count: number): void;
  /**
   * `startedAt` by performance.now(); `outcome` undefined: nothing was sent. `saturated`: a lane has used up its share, so the limit is in use although slots
   * are free. `login`: the credentials of the request.
   */
  ended(outcome: Outcome | undefined, startedAt: number, saturated?: boolean, login?: Credentials): void;
  /** the current credentials: if they differ from the refused ones they are tried at once; true if so */
  login(now: Credentials): boolean;
  /** an open breaker becomes half-open */
  tryNow(): void;
}

/** A gateway that fails for so long, while the process runs, counts as one that cannot be asked; one that asks for pauses, many of them long. */
const SILENCE_MS = { failing: 120_000, busy: 3_600_000 };

export function createThrottle(
  { metrics, log }: { metrics: Metrics; log: Log },
  options: { ceiling: number; perSecond: number },
  now: () => number = () => performance.now(),
  running: () => number = runningMs,
): Throttle {
  const limit = createLimit(options.ceiling);
  const rate = createRate(options.perSecond, now());
  const breaker = createBreaker();
  let inFlight = 0;
  let refused: Credentials | undefined;
  /** of a breaker that is not closed, by `running`: the first and the newest fault, and how long such ones may last */
  let failing: { readonly since: number; readonly at: number; readonly most: number } | undefined;
  const showTrouble = (trouble?: GatewayTrouble) => {
    for (const code of GATEWAY_TROUBLES) metrics.gatewayTrouble.set({ code }, code === trouble ? 1 : 0);
  };
  const size = () => {
    const state = breaker.state(now());
    return state === 'open' ? 0 : state === 'half-open' ? 1 : limit.current;
  };
  const throttledLog = createThrottledLog({ metrics, log }, now);
  const updateGauges = () => {
    metrics.pollLimit.set(limit.current);
    metrics.pollInFlight.set(inFlight);
    // half-open without a request: nothing is due, so nothing is blocked
    const state = breaker.state(now());
    metrics.pollBreaker.set(state === 'open' || (state === 'half-open' && inFlight > 0) ? 1 : 0);
  };
  const free = () => Math.max(0, Math.min(size() - inFlight, rate.available(now())));
  updateGauges();
  return {
    get inFlight() {
      return inFlight;
    },
    size,
    asks: () => failing === undefined || failing.at - failing.since < failing.most,
    remaining: () => breaker.remaining(now()),
    free,
    worthClaiming: () => free() >= Math.max(1, Math.min(size() / 2, rate.room / 2)),
    updateGauges,
    began(count) {
      inFlight += count;
      rate.take(count);
    },
    unused(count) {
      inFlight -= count;
      rate.take(-count);
    },
    login({ login, password }) {
      if (refused === undefined || (refused.login === login && refused.password === password)) return false;
      refused = undefined;
      breaker.retry(now());
      return true;
    },
    tryNow() {
      refused = undefined;
      breaker.tryNow(now());
    },
    ended(outcome, startedAt, saturated = false, login) {
      const at = now();
      if (outcome?.breaker !== undefined) {
        if (outcome.breaker !== 'unauthorized')
          limit.ended(outcome.overload ? 'overload' : 'ok', startedAt, at, saturated || inFlight * 2 >= limit.current);
        if (breaker.note(outcome.breaker, startedAt, at, outcome.retryAfterMs)) {
          if (breaker.state(at) === 'closed') {
            throttledLog.resolved('the gateway answers again');
            showTrouble();
          } else {
            const [level, code, sentence, hint] = troubleOf(outcome);
            const seconds = Math.ceil(breaker.remaining(at) / 1000);
            throttledLog.problem(level, new SmslogdError(code, sentence, hint === undefined ? {} : { hint }), {
              seconds,
            });
            showTrouble(code);
          }
          refused = outcome.breaker === 'unauthorized' ? login : undefined;
        }
        if (breaker.state(at) === 'closed') failing = undefined;
        else if (outcome.breaker !== 'answer') {
          const most = outcome.busy === true ? SILENCE_MS.busy : SILENCE_MS.failing;
          failing = { since: failing?.since ?? running(), at: running(), most };
        }
      }
      inFlight -= 1;
    },
  };
}

/** Why the breaker opened. */
function troubleOf({
  breaker,
  result = 'network',
  cause,
  busy,
}: Outcome): ['warn' | 'error', GatewayTrouble, string, string?] {
  if (breaker === 'unauthorized') return ['error', 'gateway_unauthorized', 'the gateway refuses the login'];
  if (busy === true) return ['warn', 'gateway_busy', `the gateway is rate limiting (${result})`];
  const tls = tlsMeaning(cause);
  if (tls !== undefined) return ['warn', 'gateway_unreachable', `the gateway cannot be reached: ${tls.says}`, tls.hint];
  const fails = result === 'http_5xx' ? 'answers with errors' : 'does not answer';
  return ['warn', 'gateway_unreachable', `the gateway ${fails} (${cause ?? result})`];
}
