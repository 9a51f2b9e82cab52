import { expect, test } from 'vitest';
import { quoteInBody, quoteTable, splitTable } from '../../src/postgres/quoting.ts';

test.each([
  ['verification.verifications', '"verification"."verifications"'],
  ['verifications', '"public"."verifications"'],
  ['"otp.v2".verifications', '"otp.v2"."verifications"'],
  ['"otp.v2"."veri.fications"', '"otp.v2"."veri.fications"'],
  ['Otp."a""b"', '"Otp"."a""b"'],
  ['схема.таблиця', '"схема"."таблиця"'],
])('%s is the table %s', (text, quoted) => {
  const name = splitTable(text);
  expect(name).toBeDefined();
  expect(quoteTable(name!)).toBe(quoted);
});

test.each(['database.schema.table', '"a"b.c', 'a."b', '.b', 'a.', '', '""."b"', 'a"b.c'])('%s is no table', (text) => {
  expect(splitTable(text)).toBeUndefined();
});

test('a text within the body of a function ends no body', () => {
  expect(quoteInBody(String.raw`a$$b\c'd`)).toBe(`'a' || chr(36) || '' || chr(36) || 'b' || chr(92) || 'c''d'`);
});
