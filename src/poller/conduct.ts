/** How the poller behaves to the gateway: the concurrency limit, the rate and the breaker together, with their gauges and what they say. */
import { SmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { createBreaker } from './breaker.ts';
import { createLimit } from './limit.ts';
import type { Outcome } from './outcome.ts';
import { createRate } from './rate.ts';

export interface Conduct {
  readonly inFlight: number;
  /** requests that may be under way at once now; 0 while the gateway is left alone */
  size(): number;
  /** requests that may begin now */
  free(): number;
  /** true where there are places and only the rate says wait: that is a matter of milliseconds */
  waitsForRate(): boolean;
  /**
   * True where so many may begin that a claim is worth its statement, which costs about the same for one row as for many: a quarter of the
   * places, or half of what the rate ever allows at once where that is less.
   */
  worthAClaim(): boolean;
  /** milliseconds until the gateway may be asked again; 0 while it may */
  closedFor(): number;
  began(count: number): void;
  /** of what began, so many were no requests after all */
  unused(count: number): void;
  /**
   * `startedAt` by performance.now(); `outcome` undefined: it was no request. `wanting`: more wait than their share of the places lets in, so
   * the limit is in use although most places are free.
   */
  ended(outcome: Outcome | undefined, startedAt: number, wanting?: boolean): void;
}

export function createConduct(
  { metrics, log }: { metrics: Metrics; log: Log },
  options: { ceiling: number; perSecond: number },
  now: () => number = () => performance.now(),
): Conduct {
  const limit = createLimit(options.ceiling);
  const rate = createRate(options.perSecond, now());
  const breaker = createBreaker();
  let inFlight = 0;
  const size = () => {
    const state = breaker.state(now());
    return state === 'open' ? 0 : state === 'trying' ? 1 : limit.current;
  };
  const show = () => {
    metrics.pollLimit.set(limit.current);
    metrics.pollInFlight.set(inFlight);
    metrics.pollBreaker.set(breaker.state(now()) === 'closed' ? 0 : 1);
  };
  const free = () => Math.max(0, Math.min(size() - inFlight, rate.available(now())));
  show();
  return {
    get inFlight() {
      return inFlight;
    },
    size,
    free,
    waitsForRate: () => size() > inFlight && rate.available(now()) < 1,
    worthAClaim: () => free() >= Math.max(1, Math.min(size() / 4, rate.room / 2)),
    closedFor: () => breaker.remaining(now()),
    began(count) {
      inFlight += count;
      rate.take(count);
      metrics.pollInFlight.set(inFlight);
    },
    unused(count) {
      inFlight -= count;
      rate.take(-count);
      show();
    },
    ended(outcome, startedAt, wanting = false) {
      const at = now();
      if (outcome?.breaker !== undefined) {
        if (outcome.breaker !== 'unauthorized')
          limit.ended(outcome.overload ? 'overload' : 'ok', startedAt, at, wanting || inFlight * 2 >= limit.current);
        if (breaker.note(outcome.breaker, startedAt, at, outcome.retryAfterMs)) {
          say(outcome, breaker.state(at) === 'closed', breaker.remaining(at));
        }
      }
      inFlight -= 1;
      show();
    },
  };

  function say(outcome: Outcome, closed: boolean, remainingMs: number): void {
    if (closed) {
      log.info('the gateway answers again');
      return;
    }
    const unauthorized = outcome.breaker === 'unauthorized';
    const problem = unauthorized
      ? new SmslogdError('gateway_unauthorized', 'the gateway refuses the login')
      : new SmslogdError('gateway_unreachable', `the gateway does not answer (${outcome.result ?? 'network'})`);
    metrics.errors.inc({ code: problem.code });
    logProblem(log, unauthorized ? 'error' : 'warn', problem, { seconds: Math.ceil(remainingMs / 1000) });
  }
}
