/**
 * What may go wrong with the gateway. At most one fault befalls a request: one number is drawn and falls into the share of one fault or of none, so
 * shares add up and a seed gives the same faults for the same order of requests. Their names are those of the flags and of /faults.
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

/** How the gateway is, always. */
export interface Manner {
  /** milliseconds before each answer, and how many more at the most */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  /** one of a hundred answers takes longer: the latencies are log-normal then, with `latencyMs` as their median */
  readonly latencyP99Ms?: number;
  /** milliseconds by which the gateway's clock is ahead: in its dates and in the HTTP Date */
  readonly skewMs?: number;
}

export interface Faults extends Manner, Readonly<Partial<Record<FaultKind, number>>> {
  /** seconds in the Retry-After of `busy` (default 1) and, where it is given, of `error` */
  readonly retryAfter?: number;
  /** how the numbers begin, without a plus, to which nothing is delivered for now */
  readonly operators?: readonly string[];
  /** epoch milliseconds between which the faults are there; the manner always is. Default: always */
  readonly from?: number;
  readonly until?: number;
}

/** True while the faults are there at all. */
export function inForce({ from = -Infinity, until = Infinity }: Faults, now: number): boolean {
  return from <= now && now < until;
}

/** The fault of the next request, if any. Nothing is drawn where there are no faults. */
export function drawFault(faults: Faults, random: () => number, now: number): FaultKind | undefined {
  if (!inForce(faults, now) || shareOf(faults) === 0) return undefined;
  const point = random();
  let sum = 0;
  return FAULT_KINDS.find((kind) => point < (sum += faults[kind] ?? 0));
}

/** All shares together; more than 1 cannot be. */
export function shareOf(faults: Faults): number {
  return FAULT_KINDS.reduce((sum, kind) => sum + (faults[kind] ?? 0), 0);
}

/** Milliseconds before the next answer. Draws only what it needs. */
export function drawLatency({ latencyMs = 0, jitterMs = 0, latencyP99Ms = 0 }: Manner, random: () => number): number {
  const more = jitterMs === 0 ? 0 : jitterMs * random();
  if (latencyP99Ms <= latencyMs || latencyMs === 0) return latencyMs + more;
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return latencyMs * (latencyP99Ms / latencyMs) ** (normal / NORMAL_P99) + more;
}

/** 99 of 100 values of the standard normal distribution are below it. */
const NORMAL_P99 = 2.326;
