import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { gapAt, LONGEST_GAP_MS, rejectedGapAt } from '../../src/poller/schedule.ts';
import { DISTRIBUTIONS, drawMoments, oneMinutePoll, optimum, smslogd } from '../support/schedule.ts';

const MINUTE = 60_000;
const ages = fc.integer({ min: -MINUTE, max: 72 * 60 * MINUTE });
const randoms = fc.double({ min: 0, max: 1, noNaN: true });

/** Mean delay as a share of the one-minute poll's and of the optimum's. In an outage they lie evenly, as such a poll asks. */
const TARGETS: Readonly<Record<string, { ofOneMinute: number; ofOptimum: number }>> = {
  'fast one-time codes': { ofOneMinute: 0.12, ofOptimum: 1.25 },
  'congested evening': { ofOneMinute: 0.25, ofOptimum: 1.3 },
  "an operator's outage": { ofOneMinute: 1 / 3, ofOptimum: 1.4 },
};

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

test('SMS of one moment do not stay together', () => {
  fc.assert(fc.property(ages, (age) => gapAt(age, 0) * 1.2 <= gapAt(age, 1)));
});

test('an older SMS is never asked for more often', () => {
  fc.assert(
    fc.property(ages, ages, randoms, (a, b, random) => {
      expect(gapAt(Math.min(a, b), random)).toBeLessThanOrEqual(gapAt(Math.max(a, b), random));
    }),
  );
});

test.for(DISTRIBUTIONS.map((distribution) => [distribution.name, distribution] as const))(
  'over %s it asks at most three times as often as a one-minute poll and is near the optimum',
  ([name, distribution]) => {
    const target = TARGETS[name]!;
    const moments = drawMoments(distribution, 20_000);
    const ours = smslogd(moments);
    const fixed = oneMinutePoll(moments);
    expect(ours.requests / fixed.requests).toBeLessThan(3);
    expect(ours.mean / fixed.mean).toBeLessThan(target.ofOneMinute);
    expect(ours.mean / optimum(distribution, moments, ours.requests).mean).toBeLessThan(target.ofOptimum);
  },
);

test('an SMS that never ends costs at most twice the requests of a one-minute poll', () => {
  expect(smslogd([Infinity]).requests).toBeLessThanOrEqual(2 * oneMinutePoll([Infinity]).requests);
});

test('the optimum for the requests of a one-minute poll learns three times as early', () => {
  const [distribution] = DISTRIBUTIONS;
  const moments = drawMoments(distribution!, 20_000);
  const fixed = oneMinutePoll(moments);
  const best = optimum(distribution!, moments, fixed.requests);
  expect(best.requests).toBeCloseTo(fixed.requests, 2);
  expect(best.mean).toBeLessThan(fixed.mean / 3);
});

test('an SMS that the gateway refuses is asked for again in ten seconds, then when it is twice as old, at last each quarter of an hour', () => {
  const seconds = [3, 60, 600, 86_400].map((age) => rejectedGapAt(age * 1_000, 0.5) / 1_000);
  expect(seconds).toEqual([10, 60, 600, 900]);
});
