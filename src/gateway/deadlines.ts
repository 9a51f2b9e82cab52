/**
 * Ends what takes too long. All have the same time, so what began first ends first: one queue and one timer do for all requests, where an
 * AbortSignal.timeout for each is a good part of what a request costs.
 */
export interface Deadlines {
  /** `over` is called once, when the time is over */
  begin(over: () => void): Deadline;
}

export interface Deadline {
  /** by performance.now(). `over` may come later: a process that was frozen may see what its sockets have before its timers */
  readonly endsAt: number;
  /** to be called where it ended before */
  end(): void;
}

interface Running extends Deadline {
  readonly over: () => void;
}

/** `ms`: the time of each. */
export function createDeadlines(ms: number): Deadlines {
  const running = new Set<Running>();
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    const [first] = running;
    timer = first === undefined ? undefined : setTimeout(end, Math.max(1, first.endsAt - performance.now()));
  };
  const end = () => {
    const now = performance.now();
    for (const one of running) {
      if (one.endsAt > now) break;
      running.delete(one);
      one.over();
    }
    // also where the first ones ended by themselves: the timer was theirs
    arm();
  };
  return {
    begin(over) {
      const one = {
        endsAt: performance.now() + ms,
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
