/**
 * How the poller's requests of the last minutes ended: the counters run since the start, and a failure of now would drown in them. The
 * time is longer than the longest pause after a refused login.
 */
import { POLL_RESULTS, type Metrics, type PollResult } from '../metrics.ts';

export type Requests = Readonly<Record<PollResult, number>>;

export interface RecentRequests {
  /** requests by result over the last 20 minutes, or since the start where that is less */
  read(): Promise<Requests>;
  stop(): void;
}

const EVERY_MS = 10_000;
const KEPT = 120;

export function watchRequests({ pollRequests }: Pick<Metrics, 'pollRequests'>): RecentRequests {
  const samples: Requests[] = [];
  const now = async () => {
    const { values } = await pollRequests.get();
    return Object.fromEntries(
      POLL_RESULTS.map((result) => [result, values.find(({ labels }) => labels.result === result)?.value ?? 0]),
    ) as Requests;
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
      return Object.fromEntries(
        POLL_RESULTS.map((result) => [result, total[result] - (before?.[result] ?? 0)]),
      ) as Requests;
    },
    stop: () => clearInterval(timer),
  };
}
