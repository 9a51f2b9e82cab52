import { expect, test } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { runExpiry, type ExpiryDeps } from '../../src/poller/expiry.ts';
import { createTally } from '../../src/poller/tally.ts';

test('where somebody holds all SMS that are to be given up, they are looked for again after a pause alone', async () => {
  const stop = new AbortController();
  let looks = 0;
  const store = {
    claimWithoutGatewayId: async () => [],
    overdue: async () => {
      looks += 1;
      if (looks === 3) stop.abort();
      return Array.from({ length: 500 }, (_, i) => String(i));
    },
    markTerminated: async () => [],
  };
  const tally = createTally({ metrics: createMetrics('test'), log: silentLog });
  const deps = { store, tally, asks: () => true, withoutGatewayId: [] };
  const done = runExpiry(deps as unknown as ExpiryDeps, stop.signal);
  await new Promise(setImmediate);
  stop.abort();
  await done;
  expect(looks).toBe(1);
});
