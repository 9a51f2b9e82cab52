import { pino, type Logger } from 'pino';
import { toSmslogdError, type SmslogdError } from './errors.ts';

export type Log = Logger;

/** JSON lines on stdout. A line about one SMS carries its `id` and nothing else of it. */
export function createLog(level: string): Log {
  return pino({
    level,
    base: { name: 'smslogd', pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  });
}

export const silentLog: Log = pino({ level: 'silent' });

/**
 * Logs a failure once, where it is handled: sentence, code, hint and runbook heading. Of the original only the kind and, for a fault of
 * ours, the stack are shown: server messages and request texts can hold personal data.
 */
export function logProblem(
  log: Log,
  level: 'warn' | 'error' | 'fatal',
  error: unknown,
  context: object = {},
): SmslogdError {
  const problem = toSmslogdError(error);
  const stack = problem.code === 'unexpected' ? framesOf(problem.cause) : undefined;
  log[level](
    {
      ...context,
      code: problem.code,
      hint: problem.hint,
      runbook: problem.runbook,
      ...(stack === undefined ? {} : { stack }),
    },
    problem.message,
  );
  return problem;
}

/** The stack without its first lines, which repeat the message. */
export function framesOf(error: unknown): string[] | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  return error.stack
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .map((line) => line.trim());
}
