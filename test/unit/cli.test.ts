import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.ts';
import { nearest } from '../../src/nearest.ts';
import { VERSION } from '../../src/version.ts';

async function run(words: string[], env: NodeJS.ProcessEnv = {}) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await commandLine(words, {
    env,
    print: (line) => out.push(line),
    complain: (line) => err.push(line),
    stdoutIsTerminal: false,
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

test('an unknown command names the nearest one and exits 2', async () => {
  const { code, err } = await run(['migrat']);
  expect(code).toBe(2);
  expect(err).toContain('the nearest is migrate');
  expect(err).toContain('Try: ');
});

test('an unknown flag names the nearest one and exits 2', async () => {
  const { code, err, out } = await run(['config', '--markdwon']);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toContain('the nearest is --markdown');
});

test('a flag without its value, a value for a switch and a stray word are refused without repeating them', async () => {
  expect((await run(['migrate', '--role'])).err).toContain('--role needs a value');
  expect((await run(['migrate', '--role', '--dry-run'])).err).toContain('--role needs a value');
  expect((await run(['config', '--markdown=yes'])).err).toContain('--markdown takes no value');
  const stray = await run(['config', '+380000000001']);
  expect(stray.code).toBe(2);
  expect(stray.err).not.toContain('+380000000001');
});

test('--version is there on the program and on a command', async () => {
  expect(await run(['--version'])).toEqual({ code: 0, out: VERSION, err: '' });
  expect(await run(['config', '--version'])).toEqual({ code: 0, out: VERSION, err: '' });
});

test('a command tells its flags by --help and does nothing', async () => {
  const { code, out } = await run(['migrate', '--dry-run', '--help']);
  expect(code).toBe(0);
  expect(out).toContain('--role NAME');
});

test('a failure is a sentence and a hint, and exits 1', async () => {
  const { code, err } = await run(['migrate']);
  expect(code).toBe(1);
  expect(err).toMatch(/^smslogd: wrong settings:\n {2}DATABASE_URL: is required\nTry: /);
});

test('the nearest word is the one with the fewest edits', () => {
  expect(nearest('simulator', ['send', 'simulate', 'demo'])).toBe('simulate');
  expect(nearest('', ['run', 'migrate'])).toBe('run');
});

test('the process exits with the code of the command, and a reader that goes away is no crash', async () => {
  const unknown = start(['nothing-like-it']);
  expect(await once(unknown, 'exit')).toEqual([2, null]);
  const piped = start(['config', '--markdown']);
  let complaints = '';
  piped.stderr.on('data', (chunk) => (complaints += String(chunk)));
  piped.stdout.destroy();
  expect(await once(piped, 'close')).toEqual([0, null]);
  expect(complaints).toBe('');
}, 30_000);

function start(words: string[]) {
  return spawn(process.execPath, ['--import', 'tsx', 'src/cli.ts', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
}
