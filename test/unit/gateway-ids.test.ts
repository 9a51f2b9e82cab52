import { afterEach, expect, test, vi } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { backfillGatewayIds, type BackfillDeps } from '../../src/reconcile/gateway-ids.ts';
import { until } from '../support/database.ts';

afterEach(() => void vi.restoreAllMocks());

/** Runs beside a queue in which `waiting` are; `scanned` is told of the first page of each scan. Nothing is written into the log. */
function backfilling(waiting: readonly string[], scanned: (seconds: number | undefined) => void) {
  const looked = new Set<string>();
  const stop = new AbortController();
  const store = {
    writes: () => 0,
    waitingForGatewayId: async (seconds: number | undefined, after: string | undefined, size: number) => {
      if (after === undefined) scanned(seconds);
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
  return { looked, stop, done: backfillGatewayIds(deps, stop.signal) };
}

test('of very many SMS that wait for their gateway ids each is looked up, whatever became of those before it', async () => {
  const waiting = Array.from({ length: 1_200 }, (_, n) => String(n).padStart(4, '0'));
  let scans = 0;
  const { looked, stop, done } = backfilling(waiting, (seconds) => {
    // the second of the scans that come most often: all others have ended their first one
    if (seconds === 60 && (scans += 1) === 2) stop.abort();
  });
  await done;
  expect(looked.size).toBe(waiting.length);
});

test('an SMS that came into the queue without this daemon is looked up within half a minute', async () => {
  const now = performance.now.bind(performance);
  let later = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now() + later);
  const waiting: string[] = [];
  let scans = 0;
  const { looked, stop, done } = backfilling(waiting, () => (scans += 1));
  await until('the first scans', () => scans === 3);
  waiting.push('1');
  later = 30_000;
  await until('the SMS', () => looked.has('1'));
  stop.abort();
  await done;
});
