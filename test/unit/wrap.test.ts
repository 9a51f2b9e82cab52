import { expect, test } from 'vitest';
import { flow, wrap } from '../../src/wrap.ts';

test('a text is broken at blanks, and goes on indented', () => {
  expect(wrap('one two three four', 9)).toEqual(['one two', 'three', 'four']);
  expect(wrap('label    some words of it', 16, 9)).toEqual(['label    some', '         words', '         of it']);
  expect(wrap('  - a b c', 80, 4)).toEqual(['  - a b c']);
  expect(wrap('', 5)).toEqual(['']);
});

test('a word that is longer than a line stands alone', () => {
  expect(wrap('a incomprehensible b', 6, 2)).toEqual(['a', '  incomprehensible', '  b']);
});

test('help flows: paragraphs as a whole, rows of two columns under the second, what is narrow as it is', () => {
  const text = 'a: one\nb: two\n\none two three\nfour five\n\n  --flag VALUE  one two three\n  short  x';
  expect(flow(text, 22)).toBe(
    'a: one\nb: two\n\none two three\nfour five\n\n  --flag VALUE  one\n                two\n                three\n  short  x',
  );
  expect(flow('one two three\nfour five', 12)).toBe('one two\nthree four\nfive');
});
