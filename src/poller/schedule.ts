/**
 * When to ask again for an SMS, by its age alone. Most are delivered in seconds, some in minutes, a few never. Where the chance of a change in
 * the next second is h, the best gap for a given number of requests is in proportion to 1 / √h; over delivery times as they are seen that comes
 * to half the age at first and to the cube root of the age later: 2.5 s up to 5 s of age, 8 s at 12, 14 s at a minute, 24 s at 5, 35 s at 15.
 *
 * `npm run bench:schedule` plays it against a poll of all open SMS each minute and against the optimum for as many requests. Measured: over fast
 * one-time codes 0.10 of the one-minute poll's mean delay with 2.3 × its requests, 1.15 × the optimum's delay; on a congested evening 0.25 with
 * 2.9 ×, 1.24 × the optimum; in an operator's outage 0.31 with 2.6 ×, 1.33 × the optimum. An SMS that never ends is asked for 70 times in 35
 * minutes, where the one-minute poll asks 36 times.
 */

/** Age at the first request, and the shortest gap; smslogd.settings.first_poll, which the queue's triggers read. */
export const FIRST_REQUEST_MS = 2_500;

/** The longest gap; also the gap of a row whose gateway id may not be sent. */
export const LONGEST_GAP_MS = 900_000;

/** The shortest gap of a row that the gateway refuses by itself. */
const REFUSED_GAP_MS = 10_000;

const EARLY_SHARE = 0.5;
/** The gap in seconds of an SMS that is so many seconds old, by its cube root. */
const ROOT_FACTOR = 3.5;
/** What the gap is for an SMS that is older than its usual life; the claim's lease is no shorter (a crash must not make old SMS come in a burst). */
export const LATE_SHARE = 0.03;

/**
 * Milliseconds until the next request of an SMS that is `ageMs` old (negative: 0). `random`, from 0 to 1, spreads the gap by a tenth to both
 * sides, so that SMS of one moment do not stay together.
 */
export function gapAt(ageMs: number, random: number): number {
  const age = Math.max(0, ageMs);
  const root = 1_000 * ROOT_FACTOR * Math.cbrt(age / 1_000);
  const gap = Math.max(FIRST_REQUEST_MS, Math.min(age * EARLY_SHARE, root), age * LATE_SHARE);
  return spread(gap, random);
}

/**
 * The same for an SMS that the gateway refuses by itself (400, 404): as long again as it is old. It may not know this one, or have lost its way and
 * refuse them all: then none waits much longer than that lasts.
 */
export function refusedGapAt(ageMs: number, random: number): number {
  return spread(Math.max(REFUSED_GAP_MS, ageMs), random);
}

/** The gap, the longest at most, a tenth more or less by `random`. */
function spread(gapMs: number, random: number): number {
  return Math.round(Math.min(gapMs, LONGEST_GAP_MS) * (0.9 + 0.2 * random));
}
