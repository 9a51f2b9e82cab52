import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatLsn, maxLsn, parseLsn, ZERO_LSN, type Lsn } from '../../src/postgres/lsn.ts';

const lsn = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => value as Lsn);

test('what is written is read back, over the whole range', () => {
  fc.assert(fc.property(lsn, (value) => parseLsn(formatLsn(value)) === value));
});

test("PostgreSQL's forms are read, in either case", () => {
  expect(parseLsn('16/B374D848')).toBe(0x16_b374_d848n);
  expect(parseLsn('0/0')).toBe(ZERO_LSN);
  expect(parseLsn('ff/a')).toBe(parseLsn('FF/A'));
  expect(formatLsn(parseLsn('16/0B374D84'))).toBe('16/B374D84');
});

test('anything else is refused', () => {
  for (const text of ['', '0', '/', '0/', '/0', '0/123456789', 'x/0', '0/0/0', ' 0/0', '-1/0']) {
    expect(() => parseLsn(text)).toThrow(RangeError);
  }
});

test('order is that of numbers, not of texts', () => {
  expect(maxLsn(parseLsn('A/0'), parseLsn('9/FFFFFFFF'))).toBe(parseLsn('A/0'));
  expect(maxLsn(parseLsn('10/0'), parseLsn('9/0'))).toBe(parseLsn('10/0'));
});
