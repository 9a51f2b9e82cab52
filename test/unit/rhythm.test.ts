import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { rhythmOf } from '../../src/replication/keepalive.ts';

test("the status is told three times within the server's time limit, and each ten seconds at least", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2_147_483_647 }), (limit) => {
      const { interval } = rhythmOf(limit);
      expect(interval).toBeGreaterThan(0);
      expect(interval).toBeLessThanOrEqual(Math.min(10_000, limit / 3));
    }),
  );
  expect(rhythmOf(0).interval).toBe(10_000);
});

test('a connection is dead after three silent periods and ten seconds, but not while the server may be deep in a big transaction', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2_147_483_647 }), (limit) => {
      const { interval, silence } = rhythmOf(limit);
      expect(silence).toBeGreaterThanOrEqual(Math.max(10_000, 3 * interval));
      // there it answers after half of its time limit
      expect(silence).toBeGreaterThanOrEqual(limit / 2 + interval);
    }),
  );
  expect(rhythmOf(5_000).silence).toBe(10_000);
  expect(rhythmOf(60_000).silence).toBe(40_000);
});
