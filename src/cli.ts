#!/usr/bin/env node
/** The program. The only place that sets the exit code; what to run and how it failed is decided in command-line.ts. */
import { isatty } from 'node:tty';

// the daemon takes a moment to load: a stop before it listens has nothing to finish
const early = ['SIGTERM', 'SIGINT'] as const;
const leave = () => process.exit(0);
const signalsTaken = () => {
  for (const signal of early) process.removeListener(signal, leave);
};
if (process.argv[2] === 'run') for (const signal of early) process.on(signal, leave);

const { commandLine } = await import('./command-line.ts');

// a reader that has gone (`| head`) is no failure: the command goes on to its end and tidies up
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const code = await commandLine(process.argv.slice(2), {
  env: process.env,
  print: (line) => void process.stdout.write(`${line}\n`),
  complain: (line) => void process.stderr.write(`${line}\n`),
  stdoutIsTerminal: isatty(1),
  signalsTaken,
});

// pipes are written asynchronously: leave when all is out, even if a handle is still open
process.stdout.write('', () => process.exit(code));
