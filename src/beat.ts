/**
 * The process's one slow timer. What happens each second or less often happens at its beats, so that a process at rest wakes seldom: to wake costs more than
 * most of what is then done.
 */
const BEAT_MS = 500;
/** What is asked for a moment after a beat is meant from that beat on. */
const LATE_MS = 100;

/** Those who wait, with when they want to be woken by performance.now(). */
const waiting = new Map<() => void, number>();
const works = new Set<() => void>();

const timer = setInterval(() => {
  for (const work of works) work();
  // the last beat before the time, or the first one after it
  const until = performance.now() + BEAT_MS - LATE_MS;
  for (const [wake, at] of waiting) if (at < until) wake();
}, BEAT_MS).unref();

/** Calls `work`, which takes next to no time, at each beat, until the returned function is called. */
export function atEachBeat(work: () => void): () => void {
  works.add(work);
  return () => works.delete(work);
}

/** Waits until a beat, `ms` milliseconds from now or less than half a second before, or until `signal` aborts; never rejects. */
export async function beatBefore(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const wake = () => {
      waiting.delete(wake);
      // who waits keeps the process alive
      if (waiting.size === 0) timer.unref();
      signal.removeEventListener('abort', wake);
      resolve();
    };
    waiting.set(wake, performance.now() + ms);
    timer.ref();
    signal.addEventListener('abort', wake);
  });
}
