/** A short run of the fuzzing; `npm run fuzz` is the long one. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path/posix';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { limited } from '../fuzz/limit.ts';
import { PARSERS } from '../fuzz/parsers.ts';

const [CASES, LEAST] = [400, 100];

test.each(PARSERS)(
  '$name: nothing but what the parser says itself comes of anything',
  async ({ name, property, costs = 1 }) => {
    const numRuns = Math.max(LEAST, CASES / costs);
    await limited(name, numRuns * costs, () => fc.assert(property, { numRuns, seed: 1 }));
  },
);

/** Files that read bytes and are not fuzzed, each with the reason. */
const NOT_FUZZED: Readonly<Record<string, string>> = {
  'src/commands/verify.ts': 'an argument of the command line',
  'src/masking.ts': 'addresses of our own settings, to be shown',
  'src/mirror/rows.ts': 'what the mirror itself has written there',
  'src/page/documents.ts': 'documents of the package',
  'src/postgres/authentication.ts': 'tested with real and false servers in test/db',
  'src/postgres/clients.ts': 'the start-up message of our own client',
  'src/postgres/direct.ts': 'replies to statements of ours, tested in test/db',
  'src/postgres/login.ts': 'tested with real and false servers in test/db',
  'src/postgres/quoting.ts': 'settings of our own',
  'src/schema/grants.ts': 'grants of the package',
  'src/secret-file.ts': 'a file that the operator names',
};

test('every file that reads foreign bytes is fuzzed, or says why not', () => {
  const sources = readdirSync('src', { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const reads =
    /\bparseXml\(|\bread(?:Big)?U?Int(?:8|16|32|64)|new TextDecoder|decodeURIComponent|\.exec\((?:text|value|serverFirst|rest)/;
  const fuzzed = PARSERS.flatMap(({ files }) => files);
  const listed = [...fuzzed, ...Object.keys(NOT_FUZZED)];
  expect(sources.filter((path) => reads.test(readFileSync(path, 'utf8')) && !listed.includes(path))).toEqual([]);
  expect(listed.filter((path) => !sources.includes(path))).toEqual([]);
});
