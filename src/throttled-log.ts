/**
 * Log lines about what can happen many times a second: each problem when it starts, then at most once a minute with the number of occurrences since. All are
 * counted, and the others logged at the level debug.
 */
import { atEachBeat } from './beat.ts';
import type { SmslogdError } from './errors.ts';
import { logProblem, type Log } from './log.ts';
import type { Metrics } from './metrics.ts';

const EVERY_MS = 60_000;
/** Rows of which it is remembered that they were told. */
const REMEMBERED = 10_000;

type Level = 'warn' | 'error';

interface Told {
  /** when it was logged last */
  readonly at: number;
  /** occurrences since */
  readonly times: number;
  readonly level: Level;
  readonly problem: SmslogdError;
  readonly context: object;
}

export interface ThrottledLog {
  problem(level: Level, problem: SmslogdError, context?: object): void;
  /** logs that the problems are over, if any was logged since the last call; what was not logged is told with the next one */
  resolved(message: string): void;
}

interface Telling {
  readonly log: Log;
  readonly metrics?: Pick<Metrics, 'errors'> | undefined;
}

export function createThrottledLog(
  { metrics, log }: Telling,
  now: () => number = () => performance.now(),
): ThrottledLog {
  /** by what is to be done about it */
  const all = new Map<string, Told>();
  let unresolved = false;
  let unwatch: (() => void) | undefined;
  const watch = (pending: boolean) => {
    if (pending) unwatch ??= atEachBeat(tellDue);
    else {
      unwatch?.();
      unwatch = undefined;
    }
  };
  const tellDue = () => {
    for (const [key, told] of all) {
      const { at, times, level, problem, context } = told;
      if (times === 0 || now() - at < EVERY_MS) continue;
      all.set(key, { ...told, at: now(), times: 0 });
      unresolved = true;
      logProblem(log, level, problem, { ...context, times });
    }
    watch([...all.values()].some(({ times }) => times > 0));
  };
  return {
    problem(level, problem, context = {}) {
      metrics?.errors.inc({ code: problem.code });
      const { at, times } = all.get(problem.hint) ?? { at: -Infinity, times: 0 };
      const starts = times === 0 && now() - at >= EVERY_MS;
      all.set(problem.hint, { ...(starts ? { at: now(), times } : { at, times: times + 1 }), level, problem, context });
      unresolved ||= starts;
      logProblem(log, starts ? level : 'debug', problem, context);
      tellDue();
    },
    resolved(message) {
      if (unresolved) log.info(message);
      unresolved = false;
      watch(false);
    },
  };
}

const ofRows = new WeakMap<Log, { readonly ids: Set<string>; readonly throttled: ThrottledLog }>();

/** Tells of a problem with one row, and counts it, once: it is met again by each retry, each second pass and each new life. */
export function tellOfRow({ log, metrics }: Telling, id: string | null, problem: SmslogdError, context = {}): void {
  const { ids, throttled } = ofRows.get(log) ?? { ids: new Set<string>(), throttled: createThrottledLog({ log }) };
  const key = `${problem.code} ${id}`;
  if (ids.has(key)) return;
  if (ids.size >= REMEMBERED) ids.clear();
  ofRows.set(log, { ids: ids.add(key), throttled });
  metrics?.errors.inc({ code: problem.code });
  throttled.problem('warn', problem, { id, ...context });
}
