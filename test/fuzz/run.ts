/**
 * `npm run fuzz [-- --cases N --seed S --only NAME]`: N cases for all parsers together, or those whose name has NAME in it; two million by default. What fails is
 * printed with what repeats it. A parser that hangs or takes too much memory fails, too.
 */
import * as fc from 'fast-check';
import { refuseWords, wordsOf } from '../support/words.ts';
import { limited } from './limit.ts';
import { PARSERS } from './parsers.ts';

/** Mebibytes; half of it is usual, as garbage is collected late. */
const MOST_MEMORY = 1_024;

const { values } = wordsOf(
  import.meta.filename,
  { cases: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' } },
  { numbers: ['cases', 'seed'] },
);
const cases = Number(values.cases ?? 2_000_000);
const seed = Number(values.seed ?? Date.now() % 2 ** 31);
const chosen = PARSERS.filter(({ name }) => name.includes(values.only ?? ''));
if (chosen.length === 0)
  refuseWords(`no parser has '${values.only}' in its name; there are ${PARSERS.map(({ name }) => name).join(', ')}`);
const shares = chosen.reduce((sum, { costs = 1 }) => sum + 1 / costs, 0);
const say = (line: string) => process.stdout.write(`${line}\n`);

say(`seed ${seed}`);
let all = 0;
for (const { name, property, costs = 1 } of chosen) {
  const numRuns = Math.ceil(cases / costs / shares);
  const began = performance.now();
  const before = process.cpuUsage();
  const details = await limited(name, numRuns * costs, () =>
    fc.check(property, { numRuns, seed, endOnFailure: false }),
  );
  const used = process.cpuUsage(before);
  const memory = Math.round(process.resourceUsage().maxRSS / 2 ** 10);
  const took = `${((performance.now() - began) / 1000).toFixed(1)} s, ${(used.user / 1e6).toFixed(1)} s of processor time, ${memory} MiB`;
  all += details.numRuns;
  say(`${name}: ${details.numRuns} cases, ${took}`);
  if (memory > MOST_MEMORY) say(`  more than ${MOST_MEMORY} MiB`);
  if (details.failed || memory > MOST_MEMORY) process.exitCode = 1;
  if (!details.failed) continue;
  say(fc.defaultReportMessage(details as fc.RunDetails<unknown>) ?? '');
}
say(`${all} cases`);
