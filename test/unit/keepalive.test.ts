import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { keepaliveTimes } from '../../src/replication/keepalive.ts';

test("the status is told three times within the server's time limit, and each ten seconds at least", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2_147_483_647 }), (limit) => {
      const { interval } = keepaliveTimes(limit);
      expect(interval).toBeGreaterThan(0);
      expect(interval).toBeLessThanOrEqual(Math.min(10_000, limit / 3));
    }),
  );
  expect(keepaliveTimes(0).interval).toBe(10_000);
});

test('a connection is dead after three silent periods and ten seconds, but not while the server may be deep in a big transaction', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2_147_483_647 }), (limit) => {
      const { interval, silence } = keepaliveTimes(limit);
      expect(silence).toBeGreaterThanOrEqual(Math.max(10_000, 3 * interval));
      // there it answers after half of its time limit
      expect(silence).toBeGreaterThanOrEqual(limit / 2 + interval);
    }),
  );
  expect(keepaliveTimes(5_000).silence).toBe(10_000);
  expect(keepaliveTimes(60_000).silence).toBe(40_000);
});
