/**
 * From the words of the command line to a command and an exit code: 0 done, 1 failed with a sentence and a hint, 2 not understood.
 */
import { parseArgs } from 'node:util';
import { parseOptions, type Command, type Flags, type Io } from './commands/command.ts';
import { allCommands, COMMANDS } from './commands/list.ts';
import { SmslogdError, toSmslogdError } from './errors.ts';
import { framesOf } from './log.ts';
import { near } from './nearest.ts';
import { VERSION } from './package.ts';
import { flow } from './wrap.ts';

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
    io.complain(flow(await programHelp(), io.size?.().columns ?? Infinity));
    return 2;
  }
  if (name === 'help' && rest.length > 0) return await dispatch([...rest, '--help'], io);
  if (HELP.includes(name)) return say(io, await programHelp());
  if (VERSIONS.includes(name)) return say(io, VERSION);
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) {
    const [what, known] = name.startsWith('-') ? ['flag', FLAGS] : ['command', Object.keys(COMMANDS)];
    throw usage(`unknown ${what} ${JSON.stringify(name)}${meant(name, known)}`, '`smslogd --help` lists the commands.');
  }
  const { command } = await load();
  const flags = readFlags(name, command, rest);
  if (flags['help'] === true) return say(io, commandHelp(name, command));
  if (flags['version'] === true) return say(io, VERSION);
  try {
    return await command.run(flags, io);
  } catch (error) {
    if (error instanceof SmslogdError && error.hint === NO_HINT) throw usage(error.message, helpOf(name));
    throw error;
  }
}

const HELP = ['--help', '-h', 'help'];
const VERSIONS = ['--version', '-V', '-v'];
const FLAGS = ['--help', '--version'];
/** what a command says that knows nothing better */
const NO_HINT = new SmslogdError('usage', '').hint;

const helpOf = (name: string) => `\`smslogd ${name} --help\` tells what it takes.`;

/** The end of a sentence about a word that is not known. */
function meant(word: string, known: readonly string[]): string {
  const best = near(word, known);
  return best === undefined ? '' : `; did you mean ${best}?`;
}

function say(io: Io, text: string): number {
  io.print(io.size === undefined ? text : flow(text, io.size().columns));
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
  const hint = helpOf(name);
  const args = words.map((word) => (word === '-V' ? '--version' : word));
  const { tokens } = parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true });
  const flags: Record<string, string | boolean> = {};
  for (const token of tokens) {
    if (token.kind === 'positional') {
      if (command.choice === undefined) throw usage(`${name} takes flags only, no other words`, hint);
      const { name: choice, of } = command.choice;
      if (flags[choice] !== undefined || !of.includes(token.value))
        throw usage(`${name} takes one of ${of.join(', ')}`, hint);
      flags[choice] = token.value;
      continue;
    }
    if (token.kind === 'option-terminator') continue;
    const option = Object.hasOwn(options, token.name) ? options[token.name as keyof typeof options] : undefined;
    if (option === undefined) {
      const known = Object.keys(options).map((each) => `--${each}`);
      throw usage(`${name} has no flag ${token.rawName}${meant(token.rawName, known)}`, hint);
    }
    if (option.type === 'boolean' && token.value !== undefined) throw usage(`${token.rawName} takes no value`, hint);
    const value = option.type === 'boolean' ? true : token.value;
    if (value === undefined || (typeof value === 'string' && value.startsWith('--') && token.inlineValue === false))
      throw usage(`${token.rawName} needs a value`, hint);
    flags[token.name] = value;
  }
  const { choice } = command;
  if (choice !== undefined && flags[choice.name] === undefined && flags['help'] !== true && flags['version'] !== true)
    throw usage(`${name} needs one of ${choice.of.join(', ')}`, hint);
  return flags;
}

async function programHelp(): Promise<string> {
  const lines = (await allCommands()).map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`);
  return [
    'smslogd mirrors every verification SMS into verification.sms_log, exactly once, with its final delivery status.',
    '',
    'Usage: smslogd <command> [flags]',
    '',
    ...lines,
    '',
    '`smslogd <command> --help` shows its flags. Settings come from the environment: `smslogd config` prints them.',
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
    `smslogd ${name}${command.choice === undefined ? '' : ` ${command.choice.of.join('|')}`}: ${command.summary}`,
    ...(command.details === undefined ? [] : ['', command.details]),
    '',
    ...rows.map(([flag, about]) => `  ${flag.padEnd(width)}  ${about}`),
  ].join('\n');
}
