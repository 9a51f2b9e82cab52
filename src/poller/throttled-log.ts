/**
 * The log lines about the gateway: each problem when it starts, then at most once a minute with the number of occurrences since. All are counted.
 */
import type { ErrorCode, SmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

const EVERY_MS = 60_000;

export interface ThrottledLog {
  problem(level: 'warn' | 'error', problem: SmslogdError, context?: object): void;
  /** logs that the problems are over, if any was logged since the last call */
  resolved(message: string): void;
}

export function createThrottledLog(
  { metrics, log }: { metrics: Pick<Metrics, 'errors'>; log: Log },
  now: () => number = () => performance.now(),
): ThrottledLog {
  const logged = new Map<ErrorCode, { at: number; times: number }>();
  let unresolved = false;
  return {
    problem(level, problem, context = {}) {
      metrics.errors.inc({ code: problem.code });
      const last = logged.get(problem.code) ?? { at: -Infinity, times: 0 };
      const times = last.times + 1;
      if (now() - last.at < EVERY_MS) {
        logged.set(problem.code, { at: last.at, times });
        return;
      }
      logged.set(problem.code, { at: now(), times: 0 });
      unresolved = true;
      logProblem(log, level, problem, times > 1 ? { ...context, times } : context);
    },
    resolved(message) {
      if (unresolved) log.info(message);
      unresolved = false;
    },
  };
}
