import { pino, type DestinationStream, type Logger } from 'pino';
import { SmslogdError, toSmslogdError } from './errors.ts';
import { createLines, outputOf } from './output.ts';

export type Log = Logger;

/** Time for the last lines at the end of the process. */
const FLUSH_MS = 500;

/**
 * JSON lines on stdout; a line about one SMS carries its `id` and nothing else of it. Where stdout cannot be written the daemon goes on without: `lost`
 * is told of each line that is lost, and the log says how many these were once it can be written again. `flush` before the process ends.
 */
export function createLog(level: string, lost: () => void): { readonly log: Log; readonly flush: () => Promise<void> } {
  const lines = createLines(outputOf(process.stdout), { lost, notice: (count) => lostNotice(level, count) });
  return { log: logTo(level, lines), flush: () => lines.flush(FLUSH_MS) };
}

function logTo(level: string, destination: DestinationStream): Log {
  return pino(
    {
      level,
      base: { name: 'smslogd', pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
}

/** The line in the place of those that were lost. */
function lostNotice(level: string, lines: number): string {
  let notice = '';
  const log = logTo(level, { write: (line) => (notice += line) });
  logProblem(log, 'warn', new SmslogdError('log_lost', `${lines} lines of this log were lost`), { lines });
  return notice;
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
