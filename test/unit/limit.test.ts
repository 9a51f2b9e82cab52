import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLanes } from '../../src/poller/lanes.ts';
import { createLimit } from '../../src/poller/limit.ts';
import { createRate } from '../../src/poller/rate.ts';
import { createThrottle } from '../../src/poller/throttle.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { Credentials } from '../../src/gateway/credentials.ts';
import type { Outcome } from '../../src/poller/outcome.ts';
import type { Claimed } from '../../src/poller/queue.ts';

/** A round trip in which every place is used; returns the time after it. */
function roundTrip(limit: ReturnType<typeof createLimit>, now: number, outcome: 'ok' | 'overload'): number {
  const size = limit.current;
  for (let i = 0; i < size; i += 1) limit.ended(outcome, now, now + 100, true);
  return now + 101;
}

test('the limit reaches its ceiling within a few round trips while it is used, and no further', () => {
  const limit = createLimit(64);
  let now = 0;
  for (let i = 0; i < 8; i += 1) now = roundTrip(limit, now, 'ok');
  expect(limit.current).toBe(64);
});

test('overload halves it once for all that was under way, and down to one', () => {
  const limit = createLimit(64);
  let now = 0;
  for (let i = 0; i < 8; i += 1) now = roundTrip(limit, now, 'ok');
  now = roundTrip(limit, now, 'overload');
  expect(limit.current).toBe(32);
  for (let i = 0; i < 10; i += 1) now = roundTrip(limit, now, 'overload');
  expect(limit.current).toBe(1);
  let trips = 0;
  while (limit.current < 64 && trips < 100) {
    now = roundTrip(limit, now, 'ok');
    trips += 1;
  }
  expect(trips).toBeLessThan(25);
});

test('after an overload it grows by a step a round trip, and not by what was under way before', () => {
  const limit = createLimit(64);
  let now = 0;
  for (let i = 0; i < 8; i += 1) now = roundTrip(limit, now, 'ok');
  limit.ended('overload', now, now + 50, true);
  for (let i = 0; i < 63; i += 1) limit.ended('ok', now, now + 100, true);
  expect(limit.current).toBe(32);
  now = roundTrip(limit, now + 101, 'ok');
  expect(limit.current).toBeGreaterThan(32);
  expect(limit.current).toBeLessThanOrEqual(34);
});

test('it does not grow while it is not used', () => {
  const limit = createLimit(64);
  for (let now = 0; now < 100_000; now += 100) limit.ended('ok', now, now + 50, false);
  expect(limit.current).toBe(8);
});

test('whatever happens, it stays between one and the ceiling', () => {
  const events = fc.array(fc.record({ ok: fc.boolean(), used: fc.boolean() }));
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 64 }), events, (ceiling, list) => {
      const limit = createLimit(ceiling);
      for (const [now, { ok, used }] of list.entries()) {
        limit.ended(ok ? 'ok' : 'overload', now, now + 1, used);
        expect(limit.current).toBeGreaterThanOrEqual(1);
        expect(limit.current).toBeLessThanOrEqual(ceiling);
      }
    }),
  );
});

test('the rate is kept over any stretch, whatever is asked', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1 }),
      (rps, gaps) => {
        const rate = createRate(rps, 0);
        let now = 0;
        let taken = 0;
        for (const gap of gaps) {
          now += gap;
          const count = rate.available(now);
          rate.take(count);
          taken += count;
          expect(count).toBeLessThanOrEqual(Math.max(1, rps / 10));
          expect(taken).toBeLessThanOrEqual(Math.max(1, rps / 10) + (now / 1000) * rps + 1e-6);
        }
      },
    ),
  );
  expect(createRate(0, 0).available(0)).toBe(Infinity);
});

test('old SMS get a quarter of the places over time, even when one place is free at a time', () => {
  const lanes = createLanes();
  let old = 0;
  for (let i = 0; i < 1000; i += 1) old += lanes.share(1, 64, (i * 0.618) % 1).old;
  expect(old).toBeGreaterThan(240);
  expect(old).toBeLessThan(260);
  expect(lanes.share(64, 64, 0)).toMatchObject({ total: 64, old: 16 });
});

test('SMS that came past their life hold at most a tenth of the limit, at least one place', () => {
  const lanes = createLanes();
  const past = { lane: 2, dueMs: 0 } as Claimed;
  expect(lanes.share(64, 64, 0).past).toBe(6);
  lanes.claimed([past, past], { total: 2, old: 0, past: 6 }, 0);
  expect(lanes.share(62, 64, 0).past).toBe(4);
  lanes.ended(2);
  expect(lanes.share(62, 64, 0).past).toBe(5);
  expect(lanes.share(4, 4, 0).past).toBe(0);
  expect(lanes.pastIsFull(4)).toBe(true);
});

test('a claim is worth its statement at once from half of the places, or from half of what a rate allows at once', () => {
  const deps = { metrics: createMetrics('test'), log: silentLog };
  let now = 0;
  const slow = createThrottle(deps, { ceiling: 64, perSecond: 20 }, () => now);
  // the rate allows two at once, the places would be eight: a request that hangs must not hold the others back
  slow.began(2);
  expect(slow.worthClaiming()).toBe(false);
  slow.unused(1);
  expect(slow.free()).toBe(1);
  slow.began(1);
  expect(slow.worthClaiming()).toBe(false);
  now += 50;
  expect(slow.worthClaiming()).toBe(true);
  const free = createThrottle(deps, { ceiling: 8, perSecond: 0 }, () => now);
  free.began(7);
  expect(free.worthClaiming()).toBe(false);
  free.unused(3);
  expect(free.worthClaiming()).toBe(true);
});

/** The limit after one request that ended so. */
async function limitAfter(outcome: Outcome): Promise<number | undefined> {
  const metrics = createMetrics('test');
  const throttle = createThrottle({ metrics, log: silentLog }, { ceiling: 64, perSecond: 0 }, () => 1);
  throttle.began(8);
  throttle.ended(outcome, 0);
  throttle.updateGauges();
  return (await metrics.pollLimit.get()).values[0]?.value;
}

test('a refused login says nothing of how much the gateway can take, an overload does', async () => {
  const nothing = { again: 'when allowed', overload: false } as const;
  expect(await limitAfter({ ...nothing, result: 'ok', breaker: 'answer' })).toBe(9);
  expect(await limitAfter({ ...nothing, result: 'unauthorized', breaker: 'unauthorized' })).toBe(8);
  expect(await limitAfter({ ...nothing, result: 'http_5xx', breaker: 'fault', overload: true })).toBe(4);
});

test('another login is tried at once where the last one was refused, and where the gateway fails it changes nothing', () => {
  const first = { login: 'login', password: 'first' };
  const next = { login: 'login', password: 'next' };
  const sizeAfter = (outcome: Outcome, ...logins: Credentials[]) => {
    const deps = { metrics: createMetrics('test'), log: silentLog };
    const throttle = createThrottle(deps, { ceiling: 64, perSecond: 0 }, () => 1);
    throttle.began(1);
    throttle.ended(outcome, 1, false, first);
    for (const login of logins) throttle.login(login);
    return throttle.size();
  };
  const refusal = { again: 'when allowed', overload: false, result: 'unauthorized', breaker: 'unauthorized' } as const;
  const pause = {
    again: 'schedule',
    overload: true,
    result: 'http_5xx',
    breaker: 'fault',
    retryAfterMs: 9_000,
  } as const;
  expect([sizeAfter(refusal, first), sizeAfter(refusal, next)]).toEqual([0, 1]);
  expect(sizeAfter(pause, first, next)).toBe(0);
});

test('the gateway counts as one that can be asked until it has been left alone for ten minutes in which the daemon ran', () => {
  let now = 0;
  let ran = 0;
  const deps = { metrics: createMetrics('test'), log: silentLog };
  const throttle = createThrottle(
    deps,
    { ceiling: 64, perSecond: 0 },
    () => now,
    () => ran,
  );
  const ended = (outcome: Outcome) => {
    throttle.began(1);
    throttle.ended(outcome, now);
  };
  const failed = {
    again: 'schedule',
    overload: true,
    result: 'http_5xx',
    breaker: 'fault',
    retryAfterMs: 300_000,
  } as const;
  const answered = { again: 'schedule', overload: false, result: 'ok', breaker: 'answer' } as const;
  // nothing was due for long
  now = ran = 3_600_000;
  ended(failed);
  expect(throttle.asks()).toBe(true);
  // suspended for days
  now += 259_200_000;
  ended(failed);
  // only requests prove that the gateway still fails
  ran += 259_200_000;
  expect(throttle.asks()).toBe(true);
  now += 300_000;
  ended(answered);
  ended(failed);
  now += 300_000;
  ran += 119_999;
  ended(failed);
  expect(throttle.asks()).toBe(true);
  now += 300_000;
  ran += 1;
  ended(failed);
  expect(throttle.asks()).toBe(false);
  now += 300_000;
  ended(answered);
  expect(throttle.asks()).toBe(true);
  // a gateway that asks for a pause can be asked after it, but not for days
  ended({ ...failed, busy: true });
  now += 300_000;
  ran += 3_599_999;
  ended({ ...failed, busy: true });
  expect(throttle.asks()).toBe(true);
  now += 300_000;
  ran += 1;
  ended({ ...failed, busy: true });
  expect(throttle.asks()).toBe(false);
});
