import { expect, test } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { Outcome } from '../../src/poller/outcome.ts';
import { createTally } from '../../src/poller/tally.ts';

const answer = (date: number | undefined): Outcome => ({
  result: 'ok',
  answer: { status: 'Enroute', date },
  again: 'schedule',
  breaker: 'answer',
  overload: false,
});

test('a date that is yet to come by more than half a minute is counted, a broken one as that', async () => {
  const metrics = createMetrics('test');
  const tally = createTally({ metrics, log: silentLog });
  const now = Date.now();
  for (const date of [now - 3_600_000, now, now + 20_000, now + 3_600_000, undefined])
    tally.asked('', answer(date), 0.1);
  expect((await metrics.futureDates.get()).values[0]?.value).toBe(1);
  expect((await metrics.badDates.get()).values[0]?.value).toBe(1);
});

/** The labels and values of a counter. */
const counted = async (counter: { get(): Promise<{ values: { labels: object; value: number }[] }> }) =>
  (await counter.get()).values.filter(({ value }) => value > 0).map(({ labels, value }) => ({ ...labels, value }));

test('a request whose answer is written is counted once, by what it brought', async () => {
  const metrics = createMetrics('test');
  const tally = createTally({ metrics, log: silentLog });
  const rows = ['new', 'same'].map((id) => ({
    id,
    attempt: 1,
    gatewayId: '1',
    result: 'ok' as const,
    status: 'Enroute' as const,
    date: null,
    gapMs: 0,
  }));
  for (const { id } of rows) tally.asked(id, answer(Date.now()), 0.1);
  expect(await counted(metrics.pollRequests)).toEqual([]);
  const change = { id: 'new', type: 'text', from: 'Accepted', to: 'Enroute', seconds: null, history: false } as const;
  tally.written(rows, [change]);
  expect(await counted(metrics.pollRequests)).toEqual([
    { result: 'ok', value: 1 },
    { result: 'unchanged', value: 1 },
  ]);
});

test('a delivery that seems to come before its SMS counts as one without delay, what is history not at all', async () => {
  const metrics = createMetrics('test');
  const tally = createTally({ metrics, log: silentLog });
  const delivered = { id: 'a', type: 'text', from: 'Accepted', to: 'Delivered', seconds: -3, history: false } as const;
  tally.changed([delivered, { ...delivered, history: true }]);
  const { values } = await metrics.delivery.get();
  const sums = values.filter(
    ({ metricName, labels }) => metricName?.endsWith('_sum') === true && labels.type === 'text',
  );
  expect(sums.map(({ value }) => value)).toEqual([0]);
  expect(await counted(metrics.negativeLatency)).toEqual([{ value: 1 }]);
  expect(await counted(metrics.final)).toEqual([{ type: 'text', status: 'Delivered', value: 1 }]);
});
