import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.ts';
import { allCommands } from '../../src/commands/list.ts';
import { near, nearest } from '../../src/nearest.ts';
import { VERSION } from '../../src/package.ts';

/** Read before the first test, whose time it would take: nearly all files of the program, while every other worker begins, too. */
const COMMANDS = await allCommands();

async function run(words: string[], env: NodeJS.ProcessEnv = {}, size?: { columns: number; rows: number }) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await commandLine(words, {
    env,
    print: (line) => out.push(line),
    complain: (line) => err.push(line),
    stdoutIsTerminal: size !== undefined,
    ...(size === undefined ? {} : { size: () => size }),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

test('an unknown command names the one that may be meant and exits 2', async () => {
  const { code, err } = await run(['migrat']);
  expect(code).toBe(2);
  expect(err).toContain('unknown command "migrat"; did you mean migrate?');
  expect(err).toContain('Try: ');
});

test('an unknown flag names the nearest one and exits 2', async () => {
  const { code, err, out } = await run(['config', '--markdwon']);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toContain('did you mean --markdown?');
});

test('what is near nothing gets no guess', async () => {
  expect((await run(['frobnicate'])).err).toBe(
    'smslogd: unknown command "frobnicate"\nTry: `smslogd --help` lists the commands.',
  );
  expect((await run(['doctor', '--elephant'])).err).toMatch(/^smslogd: doctor has no flag --elephant\nTry: /);
  expect(near('comp', ['config', 'completion'])).toBe('completion');
});

test('what a command does not take leads to the help of that command', async () => {
  expect((await run(['demo', '--seconds', 'soon'])).err).toContain('Try: `smslogd demo --help` tells what it takes.');
  expect((await run(['config', '--nothing-like-it'])).err).toContain(
    'Try: `smslogd config --help` tells what it takes.',
  );
});

test('help with a command is the help of that command', async () => {
  const { out } = await run(['doctor', '--help']);
  expect(await run(['help', 'doctor'])).toEqual({ code: 0, out, err: '' });
  expect(await run(['help', 'help'])).toEqual(await run(['help']));
  expect(await run(['help', 'doctr'])).toMatchObject({ code: 2, err: expect.stringContaining('did you mean doctor?') });
  expect(await run(['help', 'doctor', 'run'])).toMatchObject({ code: 2, out: '' });
});

test('roles prints the SQL that creates them', async () => {
  expect(await run(['roles'])).toEqual({ code: 0, out: readFileSync('sql/roles.sql', 'utf8').trimEnd(), err: '' });
});

test('completion needs a shell that it knows', async () => {
  expect(await run(['completion'])).toMatchObject({ code: 2, out: '' });
  expect((await run(['completion', 'tcsh'])).err).toContain('completion takes one of bash, zsh, fish');
});

test('bash completes commands, and flags of the command', async () => {
  const script = (await run(['completion', 'bash'])).out;
  const complete = (...words: string[]) => {
    const cursor = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}`;
    const { stdout, stderr } = spawnSync('bash', ['-c', `${script}\n${cursor}; _smslogd; echo "\${COMPREPLY[@]}"`], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    return stdout.trim().split(' ');
  };
  expect(complete('smslogd', 'st')).toEqual(['status']);
  expect(complete('smslogd', 'status', '--')).toEqual(['--watch', '--json', '--help']);
  expect(complete('smslogd', 'completion', '')).toEqual(['bash', 'zsh', 'fish', '--help']);
});

const found = (shell: string) => spawnSync(shell, ['--version']).error === undefined;

test.skipIf(!found('zsh'))(
  'zsh completes commands, and flags of the command (skipped where there is no zsh)',
  async () => {
    const script = (await run(['completion', 'zsh'])).out;
    // what _describe would show; compdef comes with compinit, which an interactive zsh needs
    const stage = `compdef() { registered=$* }\n_describe() { print -rl -- "\${(@P)2}" }\n${script}\n[[ $registered == '_smslogd smslogd' ]] || exit 3`;
    const complete = (...words: string[]) => {
      const { status, stdout, stderr } = spawnSync(
        'zsh',
        [
          '-f',
          '-c',
          `${stage}\nwords=(${words.map((word) => `'${word}'`).join(' ')}) CURRENT=${words.length}\n_smslogd`,
        ],
        { encoding: 'utf8' },
      );
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return stdout.trimEnd().split('\n');
    };
    const names = COMMANDS.map(([name, { summary }]) => `${name}:${summary}`);
    expect(complete('smslogd', '')).toEqual([...names, '--help:all commands', '--version:the version']);
    expect(complete('smslogd', 'completion', '')).toEqual(['bash:SHELL', 'zsh:SHELL', 'fish:SHELL', HELP.join(':')]);
    expect(complete('smslogd', 'migrate', '--')).toContain(`--role:${ROLE}`);
  },
);

test.skipIf(!found('fish'))(
  'fish completes commands, and flags of the command (skipped where there is no fish)',
  async () => {
    const script = (await run(['completion', 'fish'])).out;
    const complete = (line: string) => {
      const { status, stdout, stderr } = spawnSync('fish', ['-N', '-c', `${script}\ncomplete -C '${line}'`], {
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      return stdout.trimEnd().split('\n');
    };
    const names = COMMANDS.map(([name, { summary }]) => `${name}\t${summary}`);
    expect(complete('smslogd ').toSorted()).toEqual(names.toSorted());
    expect(complete('smslogd --v')).toEqual(['--version\tthe version']);
    expect(complete('smslogd completion ')).toEqual(['bash\tSHELL', 'fish\tSHELL', 'zsh\tSHELL']);
    expect(complete('smslogd migrate --')).toEqual(expect.arrayContaining([`--role\t${ROLE}`, HELP.join('\t')]));
  },
);

const HELP = ['--help', 'what the command does'];
const ROLE = "grants the daemon's role, which must exist, what it needs";

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
  for (const word of ['--version', '-v', '-V']) {
    expect(await run([word])).toEqual({ code: 0, out: VERSION, err: '' });
    expect(await run(['config', word])).toEqual({ code: 0, out: VERSION, err: '' });
  }
  expect((await run(['config', '-h'])).out).toMatch(/^smslogd config: /);
});

test('on a terminal no line of any help is wider than it', async () => {
  for (const words of [['--help'], ...COMMANDS.map(([name]) => [name, '--help'])]) {
    const { out } = await run(words, {}, { columns: 80, rows: 24 });
    expect(out.split('\n').filter((line) => line.length > 80)).toEqual([]);
  }
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
