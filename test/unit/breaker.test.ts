import { expect, test } from 'vitest';
import { createBreaker } from '../../src/poller/breaker.ts';

const MINUTE = 60_000;

function faults(breaker: ReturnType<typeof createBreaker>, from: number, count: number): void {
  for (let i = 0; i < count; i += 1) breaker.note('fault', from, from + i);
}

test('faults in a row open it; an answer between them does not let it come to that', () => {
  const breaker = createBreaker();
  for (let i = 0; i < 50; i += 1) {
    faults(breaker, i * 10, 7);
    breaker.note('answer', i * 10, i * 10 + 8);
  }
  expect(breaker.state(1000)).toBe('closed');
  faults(breaker, 1000, 8);
  expect(breaker.state(1008)).toBe('open');
});

test('after a while one request is tried: an answer closes it, a fault opens it for longer, up to five seconds', () => {
  const breaker = createBreaker();
  faults(breaker, 0, 8);
  expect(breaker.remaining(7)).toBe(500);
  let now = 507;
  const waits: number[] = [];
  for (let i = 0; i < 6; i += 1) {
    expect(breaker.state(now)).toBe('half-open');
    breaker.note('fault', now, now);
    waits.push(breaker.remaining(now));
    now += breaker.remaining(now);
  }
  expect(waits).toEqual([1000, 2000, 4000, 5000, 5000, 5000]);
  expect(breaker.note('answer', now, now + 1)).toBe(true);
  expect(breaker.state(now + 1)).toBe('closed');
  // what was is forgotten
  faults(breaker, now + 2, 8);
  expect(breaker.remaining(now + 9)).toBe(500);
});

test('what was under way when it opened says nothing any more', () => {
  const breaker = createBreaker();
  faults(breaker, 100, 8);
  breaker.note('answer', 50, 120);
  expect(breaker.state(120)).toBe('open');
  faults(breaker, 100, 50);
  expect(breaker.remaining(107)).toBe(500);
});

test('a refused login opens it for a minute, doubling to a quarter of an hour, once for all requests under way', () => {
  const breaker = createBreaker();
  breaker.note('unauthorized', 0, 10);
  breaker.note('unauthorized', 0, 11);
  expect(breaker.remaining(10)).toBe(MINUTE);
  let now = 10 + MINUTE;
  const waits: number[] = [];
  for (let i = 0; i < 5; i += 1) {
    breaker.note('unauthorized', now, now);
    waits.push(breaker.remaining(now) / MINUTE);
    now += breaker.remaining(now);
  }
  expect(waits).toEqual([2, 4, 8, 15, 15]);
  breaker.note('answer', now, now);
  breaker.note('unauthorized', now, now);
  expect(breaker.remaining(now)).toBe(MINUTE);
});

test('Retry-After is obeyed from the first time, at most five minutes', () => {
  const breaker = createBreaker();
  breaker.note('fault', 0, 10, 7_000);
  expect(breaker.state(11)).toBe('open');
  expect(breaker.remaining(10)).toBe(7_000);
  breaker.note('fault', 0, 12, 3_600_000);
  expect(breaker.remaining(12)).toBe(300_000);
  breaker.note('fault', 0, 13, 1_000);
  expect(breaker.remaining(12)).toBe(300_000);
});

test('a refusal opens it for its Retry-After where that is longer, which another login keeps', () => {
  const breaker = createBreaker();
  breaker.note('unauthorized', 0, 10, 1_000);
  expect(breaker.remaining(10)).toBe(MINUTE);
  breaker.note('unauthorized', 10 + MINUTE, 10 + MINUTE, 200_000);
  expect(breaker.remaining(10 + MINUTE)).toBe(200_000);
  breaker.retry(11 + MINUTE);
  expect(breaker.remaining(11 + MINUTE)).toBe(199_999);
});

test('another login is tried at once, and is given the pauses of a first refusal; a pause that was asked for is kept', () => {
  const breaker = createBreaker();
  breaker.note('unauthorized', 0, 10);
  breaker.note('unauthorized', 10 + MINUTE, 10 + MINUTE);
  expect(breaker.state(20 + MINUTE)).toBe('open');
  breaker.retry(20 + MINUTE);
  expect(breaker.state(20 + MINUTE)).toBe('half-open');
  // what was under way with the former login
  breaker.note('unauthorized', 15 + MINUTE, 21 + MINUTE);
  expect(breaker.state(21 + MINUTE)).toBe('half-open');
  breaker.note('unauthorized', 21 + MINUTE, 22 + MINUTE);
  expect(breaker.remaining(22 + MINUTE)).toBe(MINUTE);

  breaker.note('fault', 22 + MINUTE, 23 + MINUTE, 7_000);
  breaker.note('fault', 22 + MINUTE, 23 + MINUTE, 1_000);
  expect(breaker.remaining(23 + MINUTE)).toBe(MINUTE - 1);
  breaker.retry(24 + MINUTE);
  expect(breaker.remaining(24 + MINUTE)).toBe(6_999);
});

test('an operator may have it tried at once, whatever it was opened for', () => {
  for (const open of ['unauthorized', 'fault'] as const) {
    const breaker = createBreaker();
    breaker.note(open, 0, 0, open === 'fault' ? 300_000 : undefined);
    expect(breaker.state(1)).toBe('open');
    breaker.tryNow(1);
    expect(breaker.state(1)).toBe('half-open');
    breaker.note('answer', 2, 3);
    expect(breaker.state(3)).toBe('closed');
    breaker.tryNow(4);
    expect(breaker.state(4)).toBe('closed');
  }
});
