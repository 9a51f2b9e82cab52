/**
 * When to ask for an SMS again, by its age alone. Most are delivered in seconds, some in minutes, a few never. If the hazard rate of a change is h, the best
 * gap for a given number of requests is proportional to 1 / √h; for observed delivery times that is half the age at first and the cube root of the age later:
 * 2.5 s up to 5 s of age, 8 s at 12 s, 14 s at 1 minute, 24 s at 5 minutes, 35 s at 15 minutes.
 *
 * `npm run bench:schedule` simulates it against a poll of all open SMS each minute and against the optimum for as many requests. Measured: over fast
 * one-time codes 0.10 of the one-minute poll's mean delay with 2.3 × its requests, 1.15 × the optimum's delay; on a congested evening 0.25 with
 * 2.9 ×, 1.24 × the optimum; in an operator's outage 0.31 with 2.6 ×, 1.33 × the optimum. An SMS that never becomes final is asked for 70 times in 35
 * minutes, where the one-minute poll asks 36 times.
 */

/** The age at the first request, and the shortest gap; stored in smslogd.settings.first_poll for the queue's triggers. */
export const FIRST_REQUEST_MS = 2_500;

/** The longest gap; also the gap of an SMS whose gateway id is invalid. */
export const LONGEST_GAP_MS = 900_000;

/** The shortest gap of an SMS that the gateway rejects (400, 404). */
const REJECTED_GAP_MS = 10_000;

const EARLY_SHARE = 0.5;
/** Seconds; multiplied by the cube root of the age in seconds. */
const ROOT_FACTOR = 3.5;
/** The gap of very old SMS as a fraction of their age; the lease of a claim is no shorter, so that a crash causes no burst of old SMS. */
export const LATE_SHARE = 0.03;

/**
 * Milliseconds until the next request for an SMS that is `ageMs` old (negative: the shortest). `random`, from 0 to 1, adds a jitter of ±10 %, so that SMS of
 * one moment spread out.
 */
export function gapAt(ageMs: number, random: number): number {
  const root = 1_000 * ROOT_FACTOR * Math.cbrt(ageMs / 1_000);
  const gap = Math.max(FIRST_REQUEST_MS, Math.min(ageMs * EARLY_SHARE, root), ageMs * LATE_SHARE);
  return jitter(gap, random);
}

/**
 * The same for an SMS that the gateway rejects (400, 404): the gap is its age. If the gateway wrongly rejects all SMS for a while, none waits much longer than
 * that lasts.
 */
export function rejectedGapAt(ageMs: number, random: number): number {
  return jitter(Math.max(REJECTED_GAP_MS, ageMs), random);
}

/** At most the longest gap, with a jitter of ±10 %. */
function jitter(gapMs: number, random: number): number {
  return Math.round(Math.min(gapMs, LONGEST_GAP_MS) * (0.9 + 0.2 * random));
}
