/**
 * The faults of the simulated gateway. A request has at most one: one random number falls into the share of one fault or of none, so shares add up, and a seed
 * gives the same faults for the same order of requests. Their names are those of the flags and of /faults.
 */
export const FAULTS = {
  error: 'answered with 503 and an HTML page',
  busy: 'answered with 429 and Retry-After',
  unauthorized: 'answered with 401',
  'not-found': 'answered with 404',
  redirect: 'answered with 302 to another address',
  reset: 'whose connection is reset',
  'half-closed': 'whose connection is closed without an answer',
  silence: 'never answered, while the connection stays open',
  drip: 'answered a byte a second',
  cut: 'answered until the middle, where the connection is closed',
  huge: 'answered with a gigabyte',
  broken: 'answered with half a reply',
  html: 'answered with 200 and an HTML page',
  plain: 'answered with a plain text that repeats them',
  gzip: 'answered with a reply that is compressed, unasked',
  utf16: 'answered with a reply in UTF-16',
  doctype: 'answered with a reply that has a DOCTYPE with an entity',
  deep: 'answered with a reply that goes a thousand levels deep',
  http10: 'answered in HTTP/1.0, up to the end of the connection',
  pipelined: 'answered, with bytes after it that nobody asked for',
  'gateway-error': 'answered with an error and 200',
  reject: 'refused with a reason, where they send',
  'empty-date': 'of a status answered with an empty date',
  'no-date': 'of a status answered without any date',
  'broken-date': 'of a status answered with a date that is none',
  'wrong-id': 'of a status answered with that of another SMS',
  'two-states': 'of a status answered with two',
  'unknown-word': 'of a status answered with a word that nobody knows',
  'bare-rejection': 'of a Rejected SMS answered in XML without its id, with a reason',
} as const;

export type FaultKind = keyof typeof FAULTS;

export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[];

/** Properties of the gateway that are no faults. */
export interface Manner {
  /** milliseconds before each answer, and the most that is added at random */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  /** the 99th percentile of the latency, which is then log-normal with the median `latencyMs` */
  readonly latencyP99Ms?: number;
  /** milliseconds by which the gateway's clock is ahead: in its dates and in the HTTP Date */
  readonly skewMs?: number;
}

export interface Faults extends Manner, Readonly<Partial<Record<FaultKind, number>>> {
  /** seconds in the Retry-After of `busy` (default 1) and, if set, of `error` */
  readonly retryAfter?: number;
  /** prefixes of numbers, without a plus, to which nothing is delivered for now */
  readonly operators?: readonly string[];
  /** epoch milliseconds between which the faults are active. Default: always */
  readonly from?: number;
  readonly until?: number;
}

/** True while the faults are active. */
export function inForce({ from = -Infinity, until = Infinity }: Faults, now: number): boolean {
  return from <= now && now < until;
}

/** The fault of the next request, if any. Draws nothing if there are no faults. */
export function drawFault(faults: Faults, random: () => number, now: number): FaultKind | undefined {
  if (!inForce(faults, now) || shareOf(faults) === 0) return undefined;
  const point = random();
  let sum = 0;
  return FAULT_KINDS.find((kind) => point < (sum += faults[kind] ?? 0));
}

/** The sum of all shares, at most 1. */
export function shareOf(faults: Faults): number {
  return FAULT_KINDS.reduce((sum, kind) => sum + (faults[kind] ?? 0), 0);
}

/** Milliseconds before the next answer. */
export function drawLatency({ latencyMs = 0, jitterMs = 0, latencyP99Ms = 0 }: Manner, random: () => number): number {
  const more = jitterMs === 0 ? 0 : jitterMs * random();
  if (latencyP99Ms <= latencyMs || latencyMs === 0) return latencyMs + more;
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return latencyMs * (latencyP99Ms / latencyMs) ** (normal / NORMAL_P99) + more;
}

/** 99 of 100 values of the standard normal distribution are below it. */
const NORMAL_P99 = 2.326;
