/**
 * `npm run chaos -- --minutes M --seed S [--postgres 15|18] [--daemons N] [--rounds FROM-TO] [--only NAME,NAME] [--replay]`: a random campaign of faults that its
 * seed repeats. `--replay` prints the plan and does it again; `--postgres 15` takes Debian's programs.
 */
import { compile } from '../support/program.ts';
import { debianBinaries } from '../support/debian.ts';
import { refuseWords, wordsOf } from '../support/words.ts';
import { runCampaign } from './campaign.ts';
import { describePlan, FAULTS, planOf, type FaultName } from './plan.ts';
import { describeReport } from './report.ts';

const { values } = wordsOf(
  import.meta.filename,
  {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string', default: '1' },
    postgres: { type: 'string', default: '18' },
    daemons: { type: 'string', default: '2' },
    rounds: { type: 'string' },
    only: { type: 'string' },
    replay: { type: 'boolean', default: false },
  },
  { numbers: ['minutes', 'seed', 'daemons'] },
);
if (!['15', '18'].includes(values.postgres)) refuseWords('--postgres takes 15 or 18');
if (!/^\d+(-\d+)?$/.test(values.rounds ?? '1')) refuseWords('--rounds takes a number, or two as in 3-5');
const say = (line: string) => process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);
const [from, to] = (values.rounds ?? '1-1000000').split('-').map(Number);
const only = values.only?.split(',').map((name) => (name in FAULTS ? (name as FaultName) : noFault(name)));
const seed = Number(values.seed);
const rounds = planOf({ seed, minutes: Number(values.minutes), ...(only === undefined ? {} : { only }) }).filter(
  ({ n }) => n >= from! && n <= (to ?? from!),
);
if (values.replay) process.stdout.write(`${describePlan(rounds)}\n`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const report = await runCampaign({
  rounds,
  seed,
  daemons: Number(values.daemons),
  ...(values.postgres === '15' ? { binaries: debianBinaries() } : {}),
  program: compile(),
  say,
});
process.stdout.write(`${describeReport(report)}\n`);
if (report.breaches.length > 0) {
  const flags = ['minutes', 'seed', 'postgres', 'daemons'].map(
    (name) => `--${name} ${String(values[name as keyof typeof values])}`,
  );
  process.stdout.write(
    `again: npm run chaos -- ${flags.join(' ')}${values.only === undefined ? '' : ` --only '${values.only}'`} --replay\n`,
  );
}
process.exit(report.breaches.length > 0 ? 1 : 0);

function noFault(name: string): never {
  return refuseWords(`no fault '${name}'; there are ${Object.keys(FAULTS).join(', ')}`);
}
