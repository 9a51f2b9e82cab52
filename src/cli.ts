#!/usr/bin/env node
/** The program. The only place that sets the exit code; what to run and how it failed is decided in command-line.ts. */
import { isatty } from 'node:tty';

// without a listener Node.js opens its inspector, through which who may connect to its port reads all memory and runs what they like
process.on('SIGUSR1', () => {});

// as Node.js 21 and later have it: without one `pg` looks for what loads a whole HTTP client
if (!('navigator' in globalThis)) Object.assign(globalThis, { navigator: { userAgent: 'Node.js' } });

// the daemon takes a moment to load: a stop before it listens has nothing to finish
const early = ['SIGTERM', 'SIGINT'] as const;
const leave = () => process.exit(0);
const signalsTaken = () => {
  for (const signal of early) process.removeListener(signal, leave);
};
if (process.argv[2] === 'run') {
  for (const signal of early) process.on(signal, leave);
  // what asks a daemon to read its files again must not end one that has not read them yet
  for (const signal of ['SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => {});
}

const { commandLine } = await import('./command-line.ts');
const { outputOf } = await import('./output.ts');

/** How long the daemon's last words are waited for. */
const LAST_WORDS_MS = 500;

// failures are told to whoever writes
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
const stdout = outputOf(process.stdout);
const stderr = outputOf(process.stderr);
let failure: NodeJS.ErrnoException | undefined;
// where stderr cannot be written there is nobody to tell
const complain = (line: string) => stderr(Buffer.from(`${line}\n`), () => {});

let code = await commandLine(process.argv.slice(2), {
  env: process.env,
  print: (line) => stdout(Buffer.from(`${line}\n`), (_, error) => (failure ??= error)),
  complain,
  stdoutIsTerminal: isatty(1),
  ...(process.stdout.isTTY ? { size: () => process.stdout } : {}),
  signalsTaken,
});

const end = () => {
  // a reader that has gone (`| head`) is no failure: the command went on to its end and tidied up
  if (failure !== undefined && failure.code !== 'EPIPE') {
    complain(`smslogd: stdout could not be written (${failure.code})`);
    code ||= 1;
  }
  stderr(Buffer.alloc(0), () => process.exit(code));
};
// leave when all is out, even if a handle is still open; a command's reader may take its time, the daemon's may have stopped for good
if (process.argv[2] === 'run') setTimeout(() => process.exit(code), LAST_WORDS_MS);
stdout(Buffer.alloc(0), end);
