import { SmslogdError, toSmslogdError } from '../errors.ts';
import { HISTORY, runDemo } from '../demo/demo.ts';
import { createScreen } from '../demo/progress.ts';
import type { Command } from './command.ts';

/** Ctrl-C in a terminal reaches this process more than once: directly, and passed on by npm. That is one wish. */
const SAME_PRESS_MS = 300;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export const command: Command = {
  summary: 'runs everything on an embedded PostgreSQL and checks the result',
  details:
    'Makes a PostgreSQL of its own in a temporary directory, two days of SMS, a simulator of the gateway, live services, and a daemon that\n' +
    'it kills once. At the end it compares the log with what was sent: exit code 0 only if nothing is missing, doubled or wrong. Ctrl-C ends\n' +
    'it in order, a second one at once; either way it removes what it made.',
  flags: {
    seconds: { type: 'string', value: 'N', about: 'ends by itself after N seconds of running; default: at Ctrl-C' },
    history: { type: 'string', value: 'N', about: `SMS of the past two days to begin with; default ${HISTORY}` },
  },
  run: async ({ seconds, history }, { env, stdoutIsTerminal }) => {
    const options = {
      seconds: seconds === undefined ? undefined : wholeNumber('--seconds', seconds, 1, 86_400),
      history: history === undefined ? HISTORY : wholeNumber('--history', history, 100, 1_000_000),
    };
    const screen = createScreen({
      write: (text) => void process.stdout.write(text),
      isTerminal: stdoutIsTerminal,
      columns: () => process.stdout.columns ?? 100,
    });
    const interruption = new AbortController();
    let first: number | undefined;
    const onSignal = () => {
      first ??= performance.now();
      // the second time: leave at once; what was made is removed on the way out
      if (performance.now() - first > SAME_PRESS_MS) process.exit(130);
      interruption.abort();
    };
    for (const name of SIGNALS) process.on(name, onSignal);
    try {
      const right = await runDemo({ ...options, screen, env, interrupt: interruption.signal });
      if (right === undefined) {
        screen.line('Interrupted before the daemon was started: there is nothing to compare.');
        return 130;
      }
      return right ? 0 : 1;
    } catch (error) {
      throw toSmslogdError(error);
    } finally {
      for (const name of SIGNALS) process.off(name, onSignal);
    }
  },
};

function wholeNumber(flag: string, text: string | boolean, low: number, high: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < low || value > high)
    throw new SmslogdError('usage', `${flag} must be a whole number from ${low} to ${high}`);
  return value;
}
