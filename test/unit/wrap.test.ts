import { expect, test } from 'vitest';
import { wrap } from '../../src/wrap.ts';

test('a text is broken at blanks, and goes on indented', () => {
  expect(wrap('one two three four', 9)).toEqual(['one two', 'three', 'four']);
  expect(wrap('label    some words of it', 16, 9)).toEqual(['label    some', '         words', '         of it']);
  expect(wrap('  - a b c', 80, 4)).toEqual(['  - a b c']);
  expect(wrap('', 5)).toEqual(['']);
});

test('a word that is longer than a line stands alone', () => {
  expect(wrap('a incomprehensible b', 6, 2)).toEqual(['a', '  incomprehensible', '  b']);
});
