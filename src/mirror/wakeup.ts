/** One waiter, any number of rings; a ring before the wait is not lost, since the waiter looks first. */
export interface Bell {
  ring(): void;
  wait(signal: AbortSignal): Promise<void>;
}

export function createBell(): Bell {
  let waiting: (() => void) | undefined;
  return {
    ring: () => waiting?.(),
    wait: (signal) =>
      new Promise((resolve) => {
        const done = () => {
          waiting = undefined;
          signal.removeEventListener('abort', done);
          resolve();
        };
        waiting = done;
        signal.addEventListener('abort', done);
        if (signal.aborted) done();
      }),
  };
}
