import { pino } from 'pino';
import { expect, test } from 'vitest';
import { SmslogdError } from '../../src/errors.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createThrottle } from '../../src/poller/throttle.ts';
import type { Outcome } from '../../src/poller/outcome.ts';
import { createThrottledLog, tellOfRow } from '../../src/throttled-log.ts';
import { until } from '../support/database.ts';

function linesOf(level: string) {
  const lines: Record<string, unknown>[] = [];
  return { lines, log: pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line) as never) }) };
}

function start() {
  const { lines, log } = linesOf('info');
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

test('what is not followed by another one is told a minute later, with how many there were, and nothing after it', async () => {
  const { lines, log } = linesOf('info');
  let now = 0;
  const throttled = createThrottledLog({ log }, () => now);
  const tell = (id: string) => throttled.problem('warn', new SmslogdError('row_refused', 'no'), { id });
  for (const id of ['a', 'b', 'c']) tell(id);
  expect(lines).toMatchObject([{ id: 'a' }]);
  now = 60_000;
  await until('the others', () => lines.length > 1);
  expect(lines[1]).toMatchObject({ id: 'c', times: 2 });
  now = 180_000;
  tell('d');
  expect(lines).toHaveLength(3);
  expect(lines[2]).toMatchObject({ id: 'd' });
  expect(lines[2]).not.toHaveProperty('times');
});

test('once the problems are over those that were not told are told with the next one, and not before', async () => {
  let now = 0;
  const [over, goesOn] = ['over', 'goes on'].map(() => {
    const { lines, log } = linesOf('info');
    return { lines, throttled: createThrottledLog({ log }, () => now) };
  });
  const tell = ({ throttled }: NonNullable<typeof over>, id: string) =>
    throttled.problem('warn', new SmslogdError('row_refused', 'no'), { id });
  for (const each of [over!, goesOn!]) for (const id of ['a', 'b']) tell(each, id);
  over!.throttled.resolved('over');
  now = 60_000;
  await until('what is not over', () => goesOn!.lines.length > 1);
  expect(over!.lines).toMatchObject([{ id: 'a' }, { msg: 'over' }]);
  tell(over!, 'c');
  expect(over!.lines).toMatchObject([{ id: 'a' }, { msg: 'over' }, { id: 'c', times: 2 }]);
});

test('rows with a problem are told once each at the level debug, and by one line of each kind at the others; each is counted once', async () => {
  const metrics = createMetrics('test');
  for (const [level, told] of [
    ['debug', 600],
    ['warn', 3],
  ] as const) {
    const { lines, log } = linesOf(level);
    for (let i = 0; i < 400; i += 1) {
      tellOfRow({ log, metrics }, String(i % 200), new SmslogdError('row_refused', 'a source row cannot be logged'));
      tellOfRow({ log, metrics }, String(i % 200), new SmslogdError('unknown_status_word', 'not known'), { word: 'w' });
      const later = { hint: 'It stays in the log.' };
      tellOfRow({ log, metrics }, `old ${i % 200}`, new SmslogdError('row_refused', 'not removed', later));
    }
    expect(lines).toHaveLength(told);
    expect(new Set(lines.map(({ code, id }) => `${code as string} ${id as string}`)).size).toBe(told);
  }
  expect(await value(metrics.errors, 'row_refused')).toBe(800);
  expect(await value(metrics.errors, 'unknown_status_word')).toBe(400);
});

test('of ten thousand rows it is remembered that they were told, and no more', async () => {
  const metrics = createMetrics('test');
  const tell = (id: number) => tellOfRow({ log, metrics }, String(id), new SmslogdError('row_refused', 'no'));
  const { log } = linesOf('error');
  for (let id = 0; id <= 10_000; id += 1) for (let times = 0; times < 2; times += 1) tell(id);
  expect(await value(metrics.errors, 'row_refused')).toBe(10_001);
  tell(0);
  expect(await value(metrics.errors, 'row_refused')).toBe(10_002);
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
    throttle.ended({ again: 'when allowed', overload: false, ...outcome }, now);
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
