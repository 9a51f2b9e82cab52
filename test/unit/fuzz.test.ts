/** A short run of the fuzzing; `npm run fuzz` is the long one. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path/posix';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { PARSERS } from '../fuzz/parsers.ts';

const CASES = 400;

test.each(PARSERS)(
  '$name: nothing but what the parser says itself comes of anything',
  async ({ property, costs = 1 }) => {
    await fc.assert(property, { numRuns: Math.ceil(CASES / costs), seed: 1 });
  },
);

test('every file that reads foreign bytes is fuzzed', () => {
  const sources = readdirSync('src', { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const reading = sources.filter((path) =>
    /\bparseXml\(|\bread(?:Big)?U?Int(?:8|16|32|64)|new TextDecoder|decodeURIComponent|\.exec\((?:text|value|serverFirst|rest)/.test(
      readFileSync(path, 'utf8'),
    ),
  );
  const fuzzed = new Set(PARSERS.flatMap(({ files }) => files));
  expect([...fuzzed].filter((path) => !sources.includes(path))).toEqual([]);
  expect(reading.filter((path) => !fuzzed.has(path) && !NOT_FOREIGN.includes(path))).toEqual([]);
});

/** What reads is ours, or is read by a parser that is fuzzed. */
const NOT_FOREIGN: readonly string[] = [];
