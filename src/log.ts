import { pino, type DestinationStream, type Logger } from 'pino';
import { SmslogdError, toSmslogdError } from './errors.ts';
import { readableLine } from './log-line.ts';
import { createLines, outputOf } from './output.ts';

export type Log = Logger;

/** How long the end of the process waits for the last lines. */
const FLUSH_MS = 500;

/**
 * JSON lines on stdout, readable lines on a terminal; a line about one SMS has its `id` and nothing else of it. If stdout cannot be written the daemon goes on: `lost` is called for each
 * lost line, and the log states their number once it can be written again. Call `flush` before the process ends.
 */
export function createLog(
  level: string,
  lost: () => void,
  terminal?: { readonly colour: boolean },
): { readonly log: Log; readonly flush: () => Promise<void> } {
  const shown = (line: string) => (terminal === undefined ? line : readableLine(line, terminal.colour));
  const lines = createLines(outputOf(process.stdout), { lost, notice: (count) => shown(lostNotice(level, count)) });
  return { log: logTo(level, { write: (line) => lines.write(shown(line)) }), flush: () => lines.flush(FLUSH_MS) };
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

/** The line that replaces lost lines. */
function lostNotice(level: string, lines: number): string {
  let notice = '';
  const log = logTo(level, { write: (line) => (notice += line) });
  logProblem(log, 'warn', new SmslogdError('log_lost', `${lines} lines of this log were lost`), { lines });
  return notice;
}

export const silentLog: Log = pino({ level: 'silent' });

/**
 * Logs a failure once, where it is handled: message, code, hint and runbook heading. Of the original error only the stack is logged, and only for a bug in
 * smslogd: messages of servers and request texts can contain personal data.
 */
export function logProblem(
  log: Log,
  level: 'debug' | 'warn' | 'error' | 'fatal',
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

/** The stack without its first lines, which contain the message. */
export function framesOf(error: unknown): string[] | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  return error.stack
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .map((line) => line.trim());
}
