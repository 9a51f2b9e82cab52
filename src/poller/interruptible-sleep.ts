/** A pause that can be cut short. */
export interface Rest {
  /** ends after `ms` milliseconds, by `wake`, or when the signal aborts */
  readonly rest: (ms: number) => Promise<void>;
  readonly wake: () => void;
}

export function createRest(signal: AbortSignal): Rest {
  let end: (() => void) | undefined;
  const wake = () => end?.();
  signal.addEventListener('abort', wake);
  const rest = async (ms: number) => {
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
  return { rest, wake };
}
