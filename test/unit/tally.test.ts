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
