import { expect, test } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { backfillGatewayIds, type BackfillDeps } from '../../src/reconcile/gateway-ids.ts';

test('of very many SMS that wait for their gateway ids each is looked up, whatever became of those before it', async () => {
  const waiting = Array.from({ length: 1_200 }, (_, n) => String(n).padStart(4, '0'));
  const looked = new Set<string>();
  const stop = new AbortController();
  let scans = 0;
  const store = {
    writes: () => 0,
    waitingForGatewayId: async (seconds: number | undefined, after: string | undefined, size: number) => {
      // the second of the scans that come most often: all others have ended their first one
      if (seconds === 60 && after === undefined && (scans += 1) === 2) stop.abort();
      return waiting.filter((id) => after === undefined || id > after).slice(0, size);
    },
    fillGatewayIds: async (_: unknown, ids: readonly string[]) => {
      for (const id of ids) looked.add(id);
      return { completed: 0, refused: [] };
    },
  };
  const deps = {
    store,
    source: {},
    term: 1n,
    log: silentLog,
    metrics: createMetrics('test'),
  } as unknown as BackfillDeps;
  await backfillGatewayIds(deps, stop.signal);
  expect(looked.size).toBe(waiting.length);
});
