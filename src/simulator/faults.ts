/**
 * What may go wrong with the gateway, by flag. At most one fault befalls a request: one number is drawn and falls into the share of one fault
 * or of none, so shares add up and a seed gives the same faults for the same order of requests.
 */
export const FAULT_KINDS = [
  /** 503 with an HTML page */
  'error',
  /** 429 with Retry-After */
  'busy',
  /** 401, as after a change of the password */
  'unauthorized',
  /** the connection is reset before the first byte of an answer */
  'reset',
  /** never an answer, while the connection stays open */
  'silence',
  /** a reply that ends in its middle */
  'broken',
  /** the plain text that echoes the request */
  'plain',
  /** sending only: refused, with one of the reasons that have nothing to do with the request */
  'reject',
  /** from here on for status requests only: a reply without a date */
  'emptyDate',
  /** a date that is none */
  'brokenDate',
  /** the reply is about another SMS */
  'wrongId',
  /** a status word that nobody knows */
  'unknownWord',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

export interface Faults extends Readonly<Partial<Record<FaultKind, number>>> {
  /** milliseconds before each answer, and how many more at the most */
  readonly latencyMs?: number;
  readonly jitterMs?: number;
  /** seconds in the Retry-After of `busy`; default 1 */
  readonly retryAfter?: number;
  /** milliseconds by which the gateway's clock is ahead: in its dates and in the HTTP Date */
  readonly skewMs?: number;
}

/** The fault of the next request, if any. Nothing is drawn where there are no faults. */
export function drawFault(faults: Faults, random: () => number): FaultKind | undefined {
  if (shareOf(faults) === 0) return undefined;
  const point = random();
  let sum = 0;
  return FAULT_KINDS.find((kind) => point < (sum += faults[kind] ?? 0));
}

/** All shares together; more than 1 cannot be. */
export function shareOf(faults: Faults): number {
  return FAULT_KINDS.reduce((sum, kind) => sum + (faults[kind] ?? 0), 0);
}
