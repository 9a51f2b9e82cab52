/** smslogd compiled, as users run it: a test run does it once, and each process of it starts in half the time that the source takes by tsx. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..', '..');
const COMPILED = 'SMSLOGD_TEST_COMPILED';

/** Compiles into dist/, unless SMSLOGD_TEST_COMPILED names what is compiled already; returns what node runs. */
export function compile(): readonly string[] {
  const { [COMPILED]: given } = process.env;
  if (given !== undefined) return [given];
  execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT });
  return [join(ROOT, 'dist', 'cli.js')];
}

/** What node runs for smslogd: what this run has compiled, else the source. */
export const PROGRAM: readonly string[] =
  process.env[COMPILED] === undefined ? ['--import', 'tsx', join(ROOT, 'src', 'cli.ts')] : [process.env[COMPILED]];

/** Before the first test; the workers inherit it. */
export default function setup(): void {
  [process.env[COMPILED]] = compile();
}
