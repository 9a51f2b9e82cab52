/** Wakes one waiter. A notification before the wait is not lost, because the waiter checks for work first. */
export interface Wakeup {
  notify(): void;
  wait(signal: AbortSignal): Promise<void>;
}

export function createWakeup(): Wakeup {
  let waiting: (() => void) | undefined;
  return {
    notify: () => waiting?.(),
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
