/** Milliseconds for which what was made serves all who ask. */
const SHARED_MS = 1_000;

/** `make`, done once for all who ask while it runs and for a second after it; `now`: a monotonic clock in milliseconds. */
export function shared<T>(make: () => Promise<T>, now: () => number): () => Promise<T> {
  let made: Promise<T> | undefined;
  let until = Infinity;
  return () => {
    if (made !== undefined && now() < until) return made;
    until = Infinity;
    made = make().finally(() => {
      until = now() + SHARED_MS;
    });
    return made;
  };
}
