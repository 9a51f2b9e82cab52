/**
 * How the poller's requests of the last minutes ended, and what the dates in the answers say of the gateway's clock: the counters run since the
 * start, and a failure of now would drown in them.
 */
import { POLL_RESULTS, type Metrics, type PollResult } from '../metrics.ts';

export type Requests = Readonly<Record<PollResult, number>>;

/** Answers, those of them with a date yet to come; SMS that became Delivered, those of them delivered before they were sent. */
export interface Dates {
  readonly answers: number;
  readonly future: number;
  readonly delivered: number;
  readonly negative: number;
}

export interface Recent {
  readonly requests: Requests;
  readonly dates: Dates;
}

export interface RecentRequests {
  /** over the last 20 minutes, or since the start where that is less */
  read(): Promise<Recent>;
  stop(): void;
}

const EVERY_MS = 10_000;
const KEPT = 120;

type Counted = Requests & Omit<Dates, 'answers'>;

export function watchRequests(
  metrics: Pick<Metrics, 'pollRequests' | 'futureDates' | 'delivery' | 'negativeLatency'>,
): RecentRequests {
  const samples: Counted[] = [];
  const now = async (): Promise<Counted> => {
    const { values } = await metrics.pollRequests.get();
    const requests = POLL_RESULTS.map((result) => [
      result,
      values.find(({ labels }) => labels.result === result)?.value ?? 0,
    ]);
    const delivered = (await metrics.delivery.get()).values.filter(({ metricName }) => metricName?.endsWith('_count'));
    return {
      ...(Object.fromEntries(requests) as Requests),
      delivered: sum(delivered),
      negative: sum((await metrics.negativeLatency.get()).values),
      future: sum((await metrics.futureDates.get()).values),
    };
  };
  const sample = async () => {
    samples.push(await now());
    if (samples.length > KEPT) samples.shift();
  };
  const timer = setInterval(() => void sample(), EVERY_MS);
  timer.unref();
  return {
    async read() {
      const total = await now();
      // younger than the oldest sample that is kept, all since the start counts
      const before = samples.length < KEPT ? undefined : samples[0];
      const of = (name: keyof Counted) => total[name] - (before?.[name] ?? 0);
      const requests = Object.fromEntries(POLL_RESULTS.map((result) => [result, of(result)])) as Requests;
      const { ok, unchanged } = requests;
      const dates = {
        answers: ok + unchanged,
        future: of('future'),
        delivered: of('delivered'),
        negative: of('negative'),
      };
      return { requests, dates };
    },
    stop: () => clearInterval(timer),
  };
}

const sum = (values: readonly { readonly value: number }[]) => values.reduce((total, { value }) => total + value, 0);
