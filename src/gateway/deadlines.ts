/**
 * Request timeouts with one timer. All timeouts are equal, so they expire in the order of their start: one queue and one timer suffice, while an
 * AbortSignal.timeout for each is a large part of the cost of a request.
 */
import { runningMs } from '../running-time.ts';

export interface Deadlines {
  /** calls `over` once, when the timeout expires */
  begin(over: () => void): Deadline;
}

export interface Deadline {
  /** by performance.now(). `over` may be called later: a process that was frozen may handle its sockets before its timers */
  readonly endsAt: number;
  /** cancels the timeout */
  end(): void;
}

interface Running extends Deadline {
  /** by runningMs(): what came while the process stood still is heard first */
  readonly runsUntil: number;
  readonly over: () => void;
}

/** `ms`: the timeout of each. */
export function createDeadlines(ms: number): Deadlines {
  const running = new Set<Running>();
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    const [first] = running;
    timer = first === undefined ? undefined : setTimeout(end, Math.max(1, first.runsUntil - runningMs()));
  };
  const end = () => {
    const now = runningMs();
    for (const one of running) {
      if (one.runsUntil > now) break;
      running.delete(one);
      one.over();
    }
    // also if the first ones were cancelled: the timer was theirs
    arm();
  };
  return {
    begin(over) {
      const one = {
        endsAt: performance.now() + ms,
        runsUntil: runningMs() + ms,
        over,
        end: () => {
          if (running.delete(one) && running.size === 0) {
            clearTimeout(timer);
            timer = undefined;
          }
        },
      };
      running.add(one);
      if (timer === undefined) arm();
      return one;
    },
  };
}
