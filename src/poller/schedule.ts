/**
 * When to ask for an SMS again. Most are delivered in seconds, some in minutes, a few never, so the gap grows with the age of the SMS:
 * half of it at first, a minute from two minutes of age, a tenth of it from ten minutes, never more than a quarter of an hour.
 * A gap in proportion to the age keeps the delay of what we learn in proportion too, for a number of requests that grows with its logarithm.
 */

/** Age at the first request; smslogd.settings.first_poll, which the queue's triggers read. */
export const FIRST_REQUEST_MS = 2_000;

/** The longest gap; also the gap of a row that the gateway refuses by itself (400, 404). */
export const LONGEST_GAP_MS = 900_000;

const SHORTEST_GAP_MS = 1_500;
const EARLY_SHARE = 0.5;
const EARLY_LONGEST_MS = 60_000;
/** What the gap tends to for an old SMS; the claim's lease is no shorter (a crash must not make old SMS come in a burst). */
export const LATE_SHARE = 0.1;

/**
 * Milliseconds until the next request of an SMS that is `ageMs` old (negative: 0). `random`, from 0 to 1, spreads the gap by a tenth to both
 * sides, so that SMS of one moment do not stay together.
 */
export function gapAt(ageMs: number, random: number): number {
  const age = Math.max(0, ageMs);
  const early = Math.min(Math.max(age * EARLY_SHARE, SHORTEST_GAP_MS), EARLY_LONGEST_MS);
  const gap = Math.min(Math.max(early, age * LATE_SHARE), LONGEST_GAP_MS);
  return Math.round(gap * (0.9 + 0.2 * random));
}
