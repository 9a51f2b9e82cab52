import { pino } from 'pino';
import { expect, test } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createThrottle } from '../../src/poller/throttle.ts';
import type { Outcome } from '../../src/poller/outcome.ts';

function start() {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line) as never) });
  const metrics = createMetrics('test');
  const clock = { now: 0 };
  const throttle = createThrottle({ metrics, log }, { ceiling: 8, perSecond: 0 }, () => clock.now);
  const request = (outcome: Outcome) => {
    throttle.began(1);
    throttle.ended(outcome, clock.now);
  };
  return { lines, metrics, throttle, clock, request };
}

interface Metric {
  get(): Promise<{ values: { value: number; labels: { code?: string | number } }[] }>;
}

async function value(metric: Metric, code?: string): Promise<number | undefined> {
  return (await metric.get()).values.find(({ labels }) => labels.code === code)?.value;
}

const BUSY: Outcome = {
  result: 'http_4xx',
  again: 'schedule',
  breaker: 'fault',
  overload: true,
  retryAfterMs: 1_000,
  busy: true,
};
const ANSWER: Outcome = { result: 'ok', again: 'schedule', breaker: 'answer', overload: false };

test('a gateway that comes and goes is said once a minute, with how often; each time is counted', async () => {
  const { lines, metrics, clock, request } = start();
  for (clock.now = 0; clock.now < 119_000; clock.now += 2_000) {
    request(BUSY);
    clock.now += 1_500;
    request(ANSWER);
    clock.now -= 1_500;
  }
  const said = lines.filter(({ code }) => code === 'gateway_busy');
  expect(said.map(({ times }) => times)).toEqual([undefined, 30]);
  expect(said[0]).toMatchObject({ level: 40, seconds: 1, msg: 'the gateway is rate limiting (http_4xx)' });
  expect(lines.filter(({ msg }) => msg === 'the gateway answers again')).toHaveLength(2);
  expect(await value(metrics.errors, 'gateway_busy')).toBe(60);
});

test('a gateway that is left alone is asked nothing, then by one request; the gauge says so, and not while nothing is due that could be tried', async () => {
  const { metrics, throttle, clock, request } = start();
  request(BUSY);
  throttle.updateGauges();
  expect(await value(metrics.pollBreaker)).toBe(1);
  expect(throttle.free()).toBe(0);
  clock.now = 1_001;
  expect(throttle.free()).toBe(1);
  throttle.updateGauges();
  expect(await value(metrics.pollBreaker)).toBe(0);
  throttle.began(1);
  throttle.updateGauges();
  expect(await value(metrics.pollBreaker)).toBe(1);
  expect(throttle.free()).toBe(0);
  throttle.ended(ANSWER, clock.now);
  expect(throttle.free()).toBeGreaterThan(1);
  throttle.updateGauges();
  expect(await value(metrics.pollBreaker)).toBe(0);
});

test('the metrics tell the newest trouble alone', async () => {
  const metrics = createMetrics('test');
  let now = 0;
  const throttle = createThrottle({ metrics, log: silentLog }, { ceiling: 8, perSecond: 0 }, () => now);
  const trouble = async () =>
    (await metrics.gatewayTrouble.get()).values.filter(({ value }) => value === 1).map(({ labels }) => labels.code);
  const ended = (outcome: Pick<Outcome, 'result' | 'breaker'> & Partial<Outcome>) => {
    now += 900_000;
    throttle.began(1);
    throttle.ended({ again: 'now', overload: false, ...outcome }, now);
  };
  expect((await metrics.gatewayTrouble.get()).values).toHaveLength(3);
  expect(await trouble()).toEqual([]);
  ended({ result: 'unauthorized', breaker: 'unauthorized' });
  expect(await trouble()).toEqual(['gateway_unauthorized']);
  ended({ result: 'network', breaker: 'fault' });
  expect(await trouble()).toEqual(['gateway_unreachable']);
  ended({ result: 'http_5xx', breaker: 'fault', busy: true, retryAfterMs: 1_000 });
  expect(await trouble()).toEqual(['gateway_busy']);
  ended({ result: 'unauthorized', breaker: 'unauthorized' });
  expect(await trouble()).toEqual(['gateway_unauthorized']);
  ended({ result: 'ok', breaker: 'answer' });
  expect(await trouble()).toEqual([]);
});
