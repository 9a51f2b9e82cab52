import { expect, test } from 'vitest';
import { planHistory } from '../../src/demo/history.ts';
import { drawMoments, hourIn } from '../../src/demo/daily-load.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { isFinal, STATUSES, type Status } from '../../src/status.ts';

const HOUR = 3_600_000;
const NOW = Date.parse('2026-03-03T01:10:00Z');

test('moments lie in the span, in order, many by day and few by night', () => {
  const hourOf = hourIn('Europe/Kyiv');
  const moments = drawMoments(10_000, { from: NOW - 48 * HOUR, to: NOW }, hourOf, seededRandom(1));
  expect(moments).toHaveLength(10_000);
  expect(moments.toSorted((a, b) => a - b)).toEqual(moments);
  expect(moments[0]).toBeGreaterThanOrEqual(NOW - 48 * HOUR);
  expect(moments.at(-1)).toBeLessThan(NOW);
  const inHour = (hour: number) => moments.filter((at) => hourOf(at) === hour).length;
  expect(inHour(10)).toBeGreaterThan(10 * inHour(3));
});

test('hours are those of the time zone, summer and winter', () => {
  const hourOf = hourIn('Europe/Kyiv');
  expect(hourOf(Date.parse('2026-01-15T22:30:00Z'))).toBe(0);
  expect(hourOf(Date.parse('2026-07-15T21:30:00Z'))).toBe(0);
});

const plan = planHistory({
  count: 2_000,
  now: NOW,
  random: seededRandom(7),
  timezone: 'Europe/Kyiv',
  codeText: 'code: ',
});

test('the history has every status that the gateway knows, SMS that never end, and some without a gateway id, of both types', () => {
  for (const type of ['verification', 'medication_request'] as const) {
    const ends = new Set(plan.filter((sms) => sms.type === type).map(({ fate }) => fate?.at(-1)?.status));
    expect([...ends]).toEqual(expect.arrayContaining(STATUSES.filter((status) => status !== 'Terminated')));
    expect(plan.some((sms) => sms.type === type && sms.gatewayId === null && sms.fate === undefined)).toBe(true);
    const neverEnd = plan.filter(
      (sms) => sms.type === type && sms.sentAt < NOW - HOUR && open(sms.fate?.at(-1)?.status),
    );
    expect(neverEnd.length).toBeGreaterThan(0);
  }
});

test('each open status is also among the SMS that still live', () => {
  const living = plan.filter(({ sentAt }) => sentAt > NOW - 25 * 60_000);
  for (const type of ['verification', 'medication_request'] as const) {
    for (const status of ['Accepted', 'Enroute', 'Pending', 'Unknown'])
      expect(living.some((sms) => sms.type === type && sms.fate?.at(-1)?.status === status)).toBe(true);
  }
});

test('gateway ids are all different, texts and codes belong together, phones are nobody’s', () => {
  const ids = plan.flatMap(({ gatewayId }) => gatewayId ?? []);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { type, body, code, phone, insertedAt } of plan) {
    expect(phone).toMatch(/^\+38000\d{7}$/);
    expect(insertedAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
    expect(body.endsWith(`code: ${code}`)).toBe(type === 'verification');
    expect(code).toBeGreaterThanOrEqual(1000);
    expect(code).toBeLessThanOrEqual(9999);
  }
});

test('a few verifications are about to turn 30 days old, all others are of the last two days', () => {
  const old = plan.filter(({ sentAt }) => sentAt < NOW - 3 * 24 * HOUR);
  expect(old.length).toBeGreaterThan(0);
  for (const { type, sentAt } of old) {
    expect(type).toBe('verification');
    expect(sentAt).toBeGreaterThanOrEqual(NOW - 30 * 24 * HOUR);
    expect(sentAt).toBeLessThan(NOW - 30 * 24 * HOUR + 60_000);
  }
  expect(plan.length - old.length).toBe(2_000);
});

function open(status: string | undefined): boolean {
  return status !== undefined && !isFinal(status as Status);
}
