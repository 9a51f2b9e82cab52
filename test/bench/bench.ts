/**
 * `npm run bench -- [NAMES] [--full] [--json] [--against REV]`: smslogd beside what it is compared with, in one run on one machine.
 *
 * --debian   on Debian's PostgreSQL, which compiles plans, instead of the one of npm
 * --tls      every connection by verified TLS, those of the references too
 * --full     the sizes of the targets instead of the short ones
 * --json     the result as JSON on stdout, progress on stderr
 * --against  measures only smslogd, of this tree and of the commit REV in turns (a checkout of REV with this tree's benches), and shows the ratio
 *
 * Nothing is installed: PostgreSQL, the peers and the references come with `npm install`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCluster } from '../../src/demo/cluster.ts';
import { debianBinaries } from '../support/debian.ts';
import { serverTls } from '../support/postgres.ts';
import { compile } from '../support/program.ts';
import { refuseWords, wordsOf } from '../support/words.ts';
import { bench as bigTransaction } from './big-transaction.ts';
import { bench as catchUp } from './catch-up.ts';
import { bench as decode } from './decode.ts';
import { bench as figures } from './figures.ts';
import { bench as latency } from './latency.ts';
import { bench as load } from './load.ts';
import { bench as memory } from './memory.ts';
import { bench as peer } from './peer.ts';
import { bench as poll } from './poll.ts';
import { bench as reconcile } from './reconcile.ts';
import { bench as growth } from './growth.ts';
import { bench as held } from './held.ts';
import { bench as queue } from './queue.ts';
import { bench as rest } from './rest.ts';
import { createStage, SETTINGS, type Bench, type Scale } from './stage.ts';
import { bench as start } from './start.ts';
import { summarize, table, versus, type Sample, type Summary } from './table.ts';
import { bench as wal } from './wal.ts';

/** Every bench, in the order of the table. */
export const BENCHES: readonly Bench[] = [
  catchUp,
  decode,
  bigTransaction,
  peer,
  latency,
  load,
  memory,
  poll,
  start,
  queue,
  growth,
  figures,
  held,
  wal,
  reconcile,
  rest,
];

const ROOT = join(import.meta.dirname, '..', '..');
const AGAINST_ROUNDS = 3;

export interface Report {
  readonly machine: string;
  readonly node: string;
  readonly date: string;
  readonly scale: Scale;
  readonly samples: readonly Sample[];
  readonly lines: readonly Summary[];
}

async function main(): Promise<number> {
  const { values, positionals } = wordsOf(
    import.meta.filename,
    {
      full: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      against: { type: 'string' },
      own: { type: 'boolean', default: false },
      debian: { type: 'boolean', default: false },
      tls: { type: 'boolean', default: false },
    },
    { others: Infinity },
  );
  const unknown = positionals.filter((name) => BENCHES.every((bench) => bench.name !== name));
  if (unknown.length > 0)
    refuseWords(`no bench ${unknown.join(', ')}; there are ${BENCHES.map(({ name }) => name).join(', ')}`);
  const scale = values.full ? 'full' : 'short';
  const chosen = BENCHES.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  const samples =
    values.against === undefined
      ? await runBenches(chosen, scale, values)
      : againstRevision(values.against, positionals, values.full);
  const report: Report = {
    machine: `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown processor'}`,
    node: process.version,
    date: new Date().toISOString().slice(0, 10),
    scale,
    samples,
    lines: values.against === undefined ? summarize(chosen, samples) : versus(chosen, samples, values.against),
  };
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : `\n${table(report.lines)}\n`);
  if (!values.json) process.stdout.write(`\n${report.machine}, Node.js ${report.node}, ${report.date}, ${scale}\n`);
  return 0;
}

async function runBenches(
  benches: readonly Bench[],
  scale: Scale,
  { own: ownOnly, debian, tls }: { own: boolean; debian: boolean; tls: boolean },
): Promise<Sample[]> {
  const program = compile();
  const samples: Sample[] = [];
  const cluster = await createCluster({
    settings: SETTINGS,
    ...(debian ? { binaries: debianBinaries() } : {}),
    ...(tls ? { tls: serverTls() } : {}),
  });
  let running = '';
  const stage = createStage({
    scale,
    cluster,
    ownOnly,
    program,
    say: (line) => process.stderr.write(`${running.padEnd(12)} ${line}\n`),
    measured: (side, figures) => samples.push({ bench: running, side, figures }),
  });
  try {
    for (const bench of benches) {
      running = bench.name;
      stage.say(bench.measures);
      await bench.run(stage);
    }
  } finally {
    await stage.close();
    await cluster.remove();
  }
  return samples;
}

function git(...words: string[]): void {
  execFileSync('git', words, { cwd: ROOT, stdio: 'ignore' });
}

/** Samples of this tree (side smslogd) and of a checkout of `revision` (side other), in turns. */
function againstRevision(revision: string, names: readonly string[], full: boolean): Sample[] {
  const scratch = mkdtempSync(join(tmpdir(), 'smslogd-bench-'));
  const other = join(scratch, 'checkout');
  try {
    git('worktree', 'add', '--detach', other, revision);
    symlinkSync(join(ROOT, 'node_modules'), join(other, 'node_modules'));
    for (const folder of ['test/bench', 'test/support']) {
      rmSync(join(other, folder), { recursive: true, force: true });
      cpSync(join(ROOT, folder), join(other, folder), { recursive: true });
    }
    const run = (tree: string, side: string) => samplesOf(tree, [...names, ...(full ? ['--full'] : [])], side);
    const samples: Sample[] = [];
    for (let round = 0; round < AGAINST_ROUNDS; round += 1) {
      const sides = ['smslogd', 'other'];
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        samples.push(...run(side === 'other' ? other : ROOT, side));
      }
    }
    return samples;
  } finally {
    git('worktree', 'remove', '--force', other);
    rmSync(scratch, { recursive: true, force: true });
  }
}

function samplesOf(tree: string, words: readonly string[], side: string): Sample[] {
  process.stderr.write(`== ${side === 'other' ? 'the other commit' : 'this tree'}\n`);
  const run = spawnSync(process.execPath, ['--import', 'tsx', 'test/bench/bench.ts', ...words, '--json', '--own'], {
    cwd: tree,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (run.status !== 0) throw new Error(`the bench failed in ${tree}`);
  return (JSON.parse(run.stdout) as Report).samples.map((sample) => ({ ...sample, side }));
}

if (process.argv[1] === import.meta.filename) {
  // the server goes with the process
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1));
  process.exitCode = await main();
}
