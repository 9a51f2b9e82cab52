/** A sleep that can be interrupted. */
export interface InterruptibleSleep {
  /** ends after `ms` milliseconds, by `wake`, or when the signal aborts */
  readonly sleep: (ms: number) => Promise<void>;
  readonly wake: () => void;
}

export function createInterruptibleSleep(signal: AbortSignal): InterruptibleSleep {
  let end: (() => void) | undefined;
  const wake = () => end?.();
  signal.addEventListener('abort', wake);
  const sleep = async (ms: number) => {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    end = undefined;
  };
  return { sleep, wake };
}
