import type { ParseArgsConfig } from 'node:util';

/** What a command is to the command line: cli.ts parses the flags, prints the help and sets the exit code. */
export interface Command {
  /** one line, for `smslogd --help` */
  readonly summary: string;
  /** more for `smslogd NAME --help`; plain text */
  readonly details?: string;
  readonly flags?: Readonly<Record<string, Flag>>;
  /** the one word that it takes beside its flags, and must have; given to `run` among the flags, under its name */
  readonly choice?: { readonly name: string; readonly of: readonly string[] };
  /** Returns the exit code. Throws SmslogdError for a failure: cli.ts prints its sentence and hint and exits 1. */
  run(flags: Flags, io: Io): Promise<number>;
}

export interface Flag {
  readonly type: 'string' | 'boolean';
  /** the value's name in the help, for a string */
  readonly value?: string;
  readonly about: string;
}

export type Flags = Readonly<Record<string, string | boolean | undefined>>;

export interface Io {
  readonly env: NodeJS.ProcessEnv;
  /** a line on stdout */
  readonly print: (line: string) => void;
  /** a line on stderr, where stdout is for other programs */
  readonly complain?: (line: string) => void;
  readonly stdoutIsTerminal: boolean;
  /** of the terminal, if stdout is one */
  readonly size?: () => { readonly columns: number; readonly rows: number };
  /** told when the command handles SIGTERM and SIGINT itself */
  readonly signalsTaken?: () => void;
}

/** The flags as node:util's parseArgs takes them. */
export function parseOptions(command: Command): NonNullable<ParseArgsConfig['options']> {
  return Object.fromEntries(Object.entries(command.flags ?? {}).map(([name, { type }]) => [name, { type }]));
}
