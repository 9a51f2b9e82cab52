/** How the poller behaves to the gateway: the concurrency limit, the rate and the breaker together, with their gauges and what they say. */
import { SmslogdError } from '../errors.ts';
import type { Log } from '../log.ts';
import { GATEWAY_TROUBLES, type GatewayTrouble, type Metrics } from '../metrics.ts';
import { createBreaker } from './breaker.ts';
import { tlsMeaning } from '../gateway/certificates.ts';
import type { Credentials } from '../gateway/credentials.ts';
import { createLimit } from './limit.ts';
import type { Outcome } from './outcome.ts';
import { createRate } from './rate.ts';
import { createSaid } from './throttled-log.ts';

export interface Conduct {
  readonly inFlight: number;
  /** requests that may be under way at once now; 0 while the gateway is left alone */
  size(): number;
  /** requests that may begin now */
  free(): number;
  /**
   * True where so many may begin that a claim should not wait for more, since its statement costs about the same for one row as for many: half of
   * the places, or half of what the rate ever allows at once where that is less.
   */
  worthAClaim(): boolean;
  /** brings the gauges up to date */
  show(): void;
  began(count: number): void;
  /** of what began, so many were no requests after all */
  unused(count: number): void;
  /**
   * `startedAt` by performance.now(); `outcome` undefined: it was no request. `wanting`: more wait than their share of the places lets in, so
   * the limit is in use although most places are free. `login`: what it was asked with.
   */
  ended(outcome: Outcome | undefined, startedAt: number, wanting?: boolean, login?: Credentials): void;
  /** the login as it is now: another one than the refused one is tried at once */
  login(now: Credentials): void;
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
  let refused: Credentials | undefined;
  const tell = (trouble?: GatewayTrouble) => {
    for (const code of GATEWAY_TROUBLES) metrics.gatewayTrouble.set({ code }, code === trouble ? 1 : 0);
  };
  const size = () => {
    const state = breaker.state(now());
    return state === 'open' ? 0 : state === 'trying' ? 1 : limit.current;
  };
  const said = createSaid({ metrics, log }, now);
  const show = () => {
    metrics.pollLimit.set(limit.current);
    metrics.pollInFlight.set(inFlight);
    // where nothing is due nobody tries, and nobody is kept waiting
    const state = breaker.state(now());
    metrics.pollBreaker.set(state === 'open' || (state === 'trying' && inFlight > 0) ? 1 : 0);
  };
  const free = () => Math.max(0, Math.min(size() - inFlight, rate.available(now())));
  show();
  return {
    get inFlight() {
      return inFlight;
    },
    size,
    free,
    worthAClaim: () => free() >= Math.max(1, Math.min(size() / 2, rate.room / 2)),
    show,
    began(count) {
      inFlight += count;
      rate.take(count);
    },
    unused(count) {
      inFlight -= count;
      rate.take(-count);
    },
    login({ login, password }) {
      if (refused === undefined || (refused.login === login && refused.password === password)) return;
      refused = undefined;
      breaker.retry(now());
    },
    ended(outcome, startedAt, wanting = false, login) {
      const at = now();
      if (outcome?.breaker !== undefined) {
        if (outcome.breaker !== 'unauthorized')
          limit.ended(outcome.overload ? 'overload' : 'ok', startedAt, at, wanting || inFlight * 2 >= limit.current);
        if (breaker.note(outcome.breaker, startedAt, at, outcome.retryAfterMs)) {
          if (breaker.state(at) === 'closed') {
            said.over('the gateway answers again');
            tell();
          } else {
            const [level, code, sentence, hint] = troubleOf(outcome);
            const seconds = Math.ceil(breaker.remaining(at) / 1000);
            said.trouble(level, new SmslogdError(code, sentence, hint === undefined ? {} : { hint }), { seconds });
            tell(code);
          }
          refused = outcome.breaker === 'unauthorized' ? login : undefined;
        }
      }
      inFlight -= 1;
    },
  };
}

/** Why the gateway is left alone. */
function troubleOf({
  breaker,
  result = 'network',
  cause,
  busy,
}: Outcome): ['warn' | 'error', GatewayTrouble, string, string?] {
  if (breaker === 'unauthorized') return ['error', 'gateway_unauthorized', 'the gateway refuses the login'];
  if (busy === true) return ['warn', 'gateway_busy', `the gateway asks for a pause (${result})`];
  const tls = tlsMeaning(cause);
  if (tls !== undefined) return ['warn', 'gateway_unreachable', `the gateway cannot be asked: ${tls.says}`, tls.hint];
  const fails = result === 'http_5xx' ? 'answers with errors' : 'does not answer';
  return ['warn', 'gateway_unreachable', `the gateway ${fails} (${cause ?? result})`];
}
