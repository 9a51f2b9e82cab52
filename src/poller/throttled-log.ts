/**
 * What is said of the gateway in the log: each trouble when it begins, and while it lasts or comes and goes at most once a minute, with how often it
 * was met since it was last said. All are counted.
 */
import type { ErrorCode, SmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

const EVERY_MS = 60_000;

export interface Said {
  trouble(level: 'warn' | 'error', problem: SmslogdError, context?: object): void;
  /** that it is over, where the trouble was said and nothing was said to be over since */
  over(sentence: string): void;
}

export function createSaid(
  { metrics, log }: { metrics: Pick<Metrics, 'errors'>; log: Log },
  now: () => number = () => performance.now(),
): Said {
  const said = new Map<ErrorCode, { at: number; times: number }>();
  let troubled = false;
  return {
    trouble(level, problem, context = {}) {
      metrics.errors.inc({ code: problem.code });
      const last = said.get(problem.code) ?? { at: -Infinity, times: 0 };
      const times = last.times + 1;
      if (now() - last.at < EVERY_MS) {
        said.set(problem.code, { at: last.at, times });
        return;
      }
      said.set(problem.code, { at: now(), times: 0 });
      troubled = true;
      logProblem(log, level, problem, times > 1 ? { ...context, times } : context);
    },
    over(sentence) {
      if (troubled) log.info(sentence);
      troubled = false;
    },
  };
}
