/**
 * The poller's schedule against others, without a gateway and without a clock: what each knows how late, and for how many requests.
 *
 * An SMS is sent at 0 and gets its final status at a moment drawn from a stated distribution, or never. A request is answered by what is true
 * in its middle; the answer is in the log when the batch is written. Each policy asks a last time at the end of the SMS's life, where it is
 * Terminated. The lease plays no part: the completion of a request brings the due time back to the schedule.
 */
import { FIRST_REQUEST_MS, gapAt } from '../../src/poller/schedule.ts';
import { drawFate } from '../../src/simulator/fate.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { isFinal, type Status } from '../../src/status.ts';

const SECOND = 1_000;
const MINUTE = 60_000;
const LIFE_MS = 35 * MINUTE;

/** What surrounds a request of the real poller. */
const ANSWER_MS = 100;
/** claims are a quarter of a second apart (IDLE_MS) */
const CLAIM_WAIT_MS = 250;
/** a batch of completions is gathered for a tenth of a second (WAIT_MS) */
const WRITE_WAIT_MS = 100;

/** Draws after how many milliseconds the final status comes; Infinity: never, or after its life. */
export interface Distribution {
  readonly name: string;
  readonly stated: string;
  readonly draw: (random: () => number) => number;
}

export const DISTRIBUTIONS: readonly Distribution[] = [
  {
    name: 'fast one-time codes',
    stated: "the simulator's: 87 % log-normal, median 4 s; 8 % from 30 s to 33 min; 3 % other ends; 2 % never",
    draw: (random) => {
      const last = drawFate(0, random).at(-1)!;
      return isFinal(last.status as Status) ? last.at : Infinity;
    },
  },
  {
    name: 'congested evening',
    stated: '90 % log-normal, median 45 s, sigma 1.2; 6 % evenly from 5 to 35 min; 4 % never',
    draw: (random) => {
      const part = random();
      if (part < 0.9) return logNormal(45 * SECOND, 1.2, random);
      return part < 0.96 ? (5 + 30 * random()) * MINUTE : Infinity;
    },
  },
  {
    name: "an operator's outage",
    stated:
      '40 % log-normal, median 4 s; 55 % wait for the end, evenly within 20 min, and half a minute more; 5 % never',
    draw: (random) => {
      const part = random();
      if (part < 0.4) return logNormal(4 * SECOND, 0.8, random);
      return part < 0.95 ? 20 * MINUTE * random() + logNormal(30 * SECOND, 0.8, random) : Infinity;
    },
  },
];

function logNormal(median: number, sigma: number, random: () => number): number {
  return median * Math.exp(sigma * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
}

/** The final moments of `count` SMS, in order of time. */
export function drawMoments(distribution: Distribution, count: number, seed = 1): readonly number[] {
  const random = seededRandom(seed);
  const moments = Array.from({ length: count }, () => distribution.draw(random));
  return moments.map((at) => (at > LIFE_MS ? Infinity : at)).sort((a, b) => a - b);
}

export interface Result {
  /** for each SMS, over its life */
  readonly requests: number;
  /** milliseconds from the gateway's change to the row in our log, over the SMS that get a final status */
  readonly mean: number;
  readonly p95: number;
}

/** When one SMS is asked for: the moments of its requests, oldest first; the last is not before the end of its life. */
type Policy = (random: () => number) => Iterable<number>;

function* oursFrom(random: () => number): Generator<number> {
  for (let due = FIRST_REQUEST_MS; ;) {
    const asked = due + CLAIM_WAIT_MS * random();
    yield asked;
    const written = asked + ANSWER_MS + WRITE_WAIT_MS * random();
    const next = written + gapAt(asked + ANSWER_MS, random());
    due = written < LIFE_MS ? Math.min(next, LIFE_MS) : next;
  }
}

function* eachMinute(random: () => number): Generator<number> {
  for (let at = MINUTE * random(); ; at += MINUTE) yield at;
}

function play(moments: readonly number[], policy: Policy, seed = 2): Result {
  const random = seededRandom(seed);
  let requests = 0;
  const delays: number[] = [];
  for (const moment of moments) {
    for (const asked of policy(random)) {
      requests += 1;
      const known = moment <= asked + ANSWER_MS / 2;
      if (known) delays.push(asked + ANSWER_MS + WRITE_WAIT_MS * random() - moment);
      if (known || asked >= LIFE_MS) break;
    }
  }
  delays.sort((a, b) => a - b);
  return {
    requests: requests / moments.length,
    mean: delays.reduce((sum, delay) => sum + delay, 0) / delays.length,
    p95: delays[Math.floor(delays.length * 0.95)]!,
  };
}

export const smslogd = (moments: readonly number[]) => play(moments, oursFrom);
export const oneMinutePoll = (moments: readonly number[]) => play(moments, eachMinute);

/**
 * The least mean delay for `requests` requests per SMS, by who knows the distribution and asks at exactly the moment he plans. Dynamic programming
 * over the times of asking (a Lagrangian): a request costs `price` for each SMS that is still open, and each SMS its delay; the price is narrowed
 * down until the number of requests is met. Between the two plans on both sides of it the results are mixed, as a coin could. The plans are
 * made from many other draws than those that they are played over: from these themselves they would fit their accidents.
 */
export function optimum(distribution: Distribution, moments: readonly number[], requests: number): Result {
  const open = tails(drawMoments(distribution, KNOWN_DRAWS, 3));
  let cheap = 1;
  let dear = 1e6;
  const at = (price: number) => {
    const plan = cheapestPlan(open, price);
    return play(moments, () => plan);
  };
  for (let step = 0; step < 25; step += 1) {
    const price = Math.sqrt(cheap * dear);
    if (at(price).requests > requests) cheap = price;
    else dear = price;
  }
  const [more, fewer] = [at(cheap), at(dear)];
  const share = more.requests === fewer.requests ? 0 : (requests - fewer.requests) / (more.requests - fewer.requests);
  const mixed = (of: (result: Result) => number) => of(fewer) + share * (of(more) - of(fewer));
  return { requests: mixed((r) => r.requests), mean: mixed((r) => r.mean), p95: mixed((r) => r.p95) };
}

const KNOWN_DRAWS = 400_000;

/** When a plan may ask: each 50 ms at first, ever coarser with age. */
const TIMES = [...steps(0, 50, 10_000), ...steps(10_000, 100, 30_000), ...steps(30_000, 500, 2 * MINUTE)];
TIMES.push(...steps(2 * MINUTE, 2_000, 10 * MINUTE), ...steps(10 * MINUTE, 5_000, LIFE_MS), LIFE_MS);

function steps(from: number, step: number, to: number): number[] {
  return Array.from({ length: Math.round((to - from) / step) }, (_, n) => from + n * step);
}

interface Tail {
  /** SMS whose final status is not seen by a request at this time */
  readonly count: number;
  /** the sum of the moments of those that are seen */
  readonly sum: number;
}

function tails(moments: readonly number[]): readonly Tail[] {
  let seen = 0;
  let sum = 0;
  return TIMES.map((time) => {
    for (; seen < moments.length && moments[seen]! <= time + ANSWER_MS / 2; seen += 1) sum += moments[seen]!;
    return { count: moments.length - seen, sum };
  });
}

function cheapestPlan(open: readonly Tail[], price: number): number[] {
  const last = TIMES.length - 1;
  // from "asked at time i, still open" to the end: the least cost and the next time
  const cost = new Float64Array(TIMES.length);
  const next = new Int32Array(TIMES.length);
  const all: Tail = { count: open[0]!.count, sum: open[0]!.sum };
  const step = (from: Tail, to: number) =>
    price * from.count + (from.count - open[to]!.count) * TIMES[to]! - (open[to]!.sum - from.sum) + cost[to]!;
  const best = (from: Tail, first: number) => {
    let chosen = first;
    let least = Infinity;
    for (let to = first; to <= last; to += 1) {
      const each = step(from, to);
      if (each < least) [least, chosen] = [each, to];
    }
    return { chosen, least };
  };
  for (let i = last - 1; i >= 0; i -= 1) {
    const { chosen, least } = best(open[i]!, i + 1);
    cost[i] = least;
    next[i] = chosen;
  }
  const plan: number[] = [];
  for (let i = best(all, 1).chosen; ; i = next[i]!) {
    plan.push(TIMES[i]!);
    if (i === last) return plan;
  }
}
