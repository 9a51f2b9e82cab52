import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { FIRST_REQUEST_MS, gapAt, LONGEST_GAP_MS } from '../../src/poller/schedule.ts';

const LIFE_MS = 35 * 60_000;
const MINUTE = 60_000;
const ages = fc.integer({ min: -MINUTE, max: 72 * 60 * MINUTE });
const randoms = fc.double({ min: 0, max: 1, noNaN: true });

test('the gap is never shorter than a second, never longer than the longest, and spreads by a tenth', () => {
  fc.assert(
    fc.property(ages, randoms, (age, random) => {
      const gap = gapAt(age, random);
      expect(gap).toBeGreaterThanOrEqual(1_000);
      expect(gap).toBeLessThanOrEqual(LONGEST_GAP_MS * 1.1);
      expect(gap / gapAt(age, 0.5)).toBeGreaterThanOrEqual(0.899);
      expect(gap / gapAt(age, 0.5)).toBeLessThanOrEqual(1.101);
    }),
  );
});

test('an older SMS is never asked for more often', () => {
  fc.assert(
    fc.property(ages, ages, randoms, (a, b, random) => {
      expect(gapAt(Math.min(a, b), random)).toBeLessThanOrEqual(gapAt(Math.max(a, b), random));
    }),
  );
});

/** Requests until the SMS that is delivered at `deliveredMs` is known to be, or until its life is over. */
function live(deliveredMs: number, random: () => number): { requests: number; delay: number } {
  let at = FIRST_REQUEST_MS;
  for (let requests = 1; ; requests += 1) {
    if (at >= deliveredMs || at >= LIFE_MS) return { requests, delay: at - deliveredMs };
    const next = at + gapAt(at, random());
    at = at < LIFE_MS ? Math.min(next, LIFE_MS) : next;
  }
}

test('an SMS that is never delivered costs about the requests of a one-minute poll', () => {
  fc.assert(
    fc.property(randoms, (random) => {
      expect(live(Infinity, () => random).requests).toBeLessThanOrEqual((LIFE_MS / MINUTE) * 1.1);
    }),
  );
});

test('over fast one-time codes, at most three times the requests of a one-minute poll and a quarter of its delay', () => {
  // deterministic draws: quantiles of a log-normal, median 5 s, with a tail in minutes and 2 % that never arrive
  const n = 2_000;
  const sum = { requests: 0, delay: 0, fixedRequests: 0, fixedDelay: 0, delivered: 0 };
  for (let i = 0; i < n; i += 1) {
    const share = (i + 0.5) / n;
    const z = quantile(share < 0.93 ? share / 0.93 : (share - 0.93) / 0.05);
    const deliveredMs = share < 0.93 ? 5_000 * Math.exp(0.8 * z) : share < 0.98 ? 120_000 * Math.exp(z) : Infinity;
    const jitter = (i * 0.618) % 1;
    const { requests, delay } = live(deliveredMs, () => jitter);
    const phase = jitter * MINUTE;
    const end = Math.min(deliveredMs, LIFE_MS);
    const fixed = phase + Math.ceil(Math.max(0, end - phase) / MINUTE) * MINUTE;
    sum.requests += requests;
    sum.fixedRequests += (fixed - phase) / MINUTE + 1;
    if (deliveredMs >= LIFE_MS) continue;
    sum.delivered += 1;
    sum.delay += delay;
    sum.fixedDelay += fixed - deliveredMs;
  }
  expect(sum.requests / sum.fixedRequests).toBeLessThan(3);
  expect(sum.delay / sum.fixedDelay).toBeLessThan(0.25);
});

/** The standard normal's quantile, by bisection of the logistic approximation; exact enough for a shape. */
function quantile(share: number): number {
  const p = Math.min(0.9995, Math.max(0.0005, share));
  return Math.log(p / (1 - p)) / 1.702;
}
