/**
 * From the words of the command line to a command and an exit code: 0 done, 1 failed with a sentence and a hint, 2 not understood.
 * Commands are imported when they are asked for, so that `config` does not load what the daemon needs.
 */
import { parseArgs } from 'node:util';
import { parseOptions, type Command, type Flags, type Io } from './commands/command.ts';
import { SmslogdError, toSmslogdError } from './errors.ts';
import { framesOf } from './log.ts';
import { nearest } from './nearest.ts';
import { VERSION } from './version.ts';

const COMMANDS: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  run: () => import('./commands/run.ts'),
  migrate: () => import('./commands/migrate.ts'),
  doctor: () => import('./commands/doctor.ts'),
  verify: () => import('./commands/verify.ts'),
  status: () => import('./commands/status.ts'),
  send: () => import('./commands/send.ts'),
  simulate: () => import('./commands/simulate.ts'),
  demo: () => import('./commands/demo.ts'),
  teardown: () => import('./commands/teardown.ts'),
  config: () => import('./commands/config.ts'),
};

export interface Terminal extends Io {
  /** a line on stderr */
  readonly complain: (line: string) => void;
}

/** Runs what `words` (without node and the script) ask for and returns the exit code; never rejects. */
export async function commandLine(words: readonly string[], io: Terminal): Promise<number> {
  try {
    return await dispatch(words, io);
  } catch (error) {
    const problem = toSmslogdError(error);
    io.complain(`smslogd: ${problem.message}`);
    // of a fault of ours the frames only: the message could hold personal data
    if (problem.code === 'unexpected') for (const frame of framesOf(problem.cause) ?? []) io.complain(`  ${frame}`);
    io.complain(`Try: ${problem.hint}`);
    return problem.code === 'usage' ? 2 : 1;
  }
}

async function dispatch(words: readonly string[], io: Terminal): Promise<number> {
  const [name, ...rest] = words;
  if (name === undefined) {
    io.complain(await programHelp());
    return 2;
  }
  if (HELP.includes(name)) return say(io, await programHelp());
  if (VERSIONS.includes(name)) return say(io, VERSION);
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) {
    const what = name.startsWith('-') ? 'flag' : 'command';
    throw usage(
      `unknown ${what} ${JSON.stringify(name)}; the nearest is ${nearest(name, what === 'flag' ? ['--help', '--version'] : Object.keys(COMMANDS))}`,
      '`smslogd --help` lists the commands.',
    );
  }
  const { command } = await load();
  const flags = readFlags(name, command, rest);
  if (flags['help'] === true) return say(io, commandHelp(name, command));
  if (flags['version'] === true) return say(io, VERSION);
  return command.run(flags, io);
}

const HELP = ['--help', '-h', 'help'];
const VERSIONS = ['--version', '-v'];

function say(io: Io, text: string): number {
  io.print(text);
  return 0;
}

function usage(sentence: string, hint: string): SmslogdError {
  return new SmslogdError('usage', sentence, { hint });
}

/** The flags of a command. Throws usage for what it does not know; a value is never repeated in the sentence, it may be a phone number. */
function readFlags(name: string, command: Command, words: readonly string[]): Flags {
  const options = {
    ...parseOptions(command),
    help: { type: 'boolean', short: 'h' },
    version: { type: 'boolean', short: 'v' },
  } as const;
  const hint = `\`smslogd ${name} --help\` lists its flags.`;
  const { tokens } = parseArgs({ args: [...words], options, strict: false, allowPositionals: true, tokens: true });
  const flags: Record<string, string | boolean> = {};
  for (const token of tokens) {
    if (token.kind === 'positional') throw usage(`${name} takes flags only, no other words`, hint);
    if (token.kind === 'option-terminator') continue;
    const option = Object.hasOwn(options, token.name) ? options[token.name as keyof typeof options] : undefined;
    if (option === undefined) {
      const known = Object.keys(options).map((each) => `--${each}`);
      throw usage(`${name} has no flag ${token.rawName}; the nearest is ${nearest(token.rawName, known)}`, hint);
    }
    if (option.type === 'boolean' && token.value !== undefined) throw usage(`${token.rawName} takes no value`, hint);
    const value = option.type === 'boolean' ? true : token.value;
    if (value === undefined || (typeof value === 'string' && value.startsWith('--') && token.inlineValue === false))
      throw usage(`${token.rawName} needs a value`, hint);
    flags[token.name] = value;
  }
  return flags;
}

async function programHelp(): Promise<string> {
  const lines = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => `  ${name.padEnd(10)} ${(await load()).command.summary}`),
  );
  return [
    'smslogd mirrors every verification SMS into verification.sms_log, exactly once, and learns its true fate.',
    '',
    'Usage: smslogd <command> [flags]',
    '',
    ...lines,
    '',
    '`smslogd <command> --help` tells more. Settings come from the environment: `smslogd config` prints them.',
  ].join('\n');
}

function commandHelp(name: string, command: Command): string {
  const rows: [string, string][] = [
    ...Object.entries(command.flags ?? {}).map(([flag, { type, value, about }]): [string, string] => [
      type === 'boolean' ? `--${flag}` : `--${flag} ${value ?? 'VALUE'}`,
      about,
    ]),
    ['--help', 'this text'],
    ['--version', 'the version of smslogd'],
  ];
  const width = Math.max(...rows.map(([flag]) => flag.length));
  return [
    `smslogd ${name}: ${command.summary}`,
    ...(command.details === undefined ? [] : ['', command.details]),
    '',
    ...rows.map(([flag, about]) => `  ${flag.padEnd(width)}  ${about}`),
  ].join('\n');
}
