/** What the process knows of itself: which loops turn, and what the mirror is doing. Read by /healthz, /readyz and the status page. */
import { MIRROR_STATES, type Metrics, type MirrorState } from './metrics.ts';

export type LoopName = 'mirror' | 'poller';

/** A loop that did not turn for this long is taken for dead; every loop turns at least every few seconds, whatever it waits for. */
const SILENCE_MS = 60_000;

export interface Health {
  readonly loops: readonly LoopName[];
  readonly mirrorState: MirrorState;
  /** the loop turned */
  beat(loop: LoopName): void;
  /** also sets smslogd_mirror_state */
  setMirrorState(state: MirrorState): void;
  /** loops that did not turn in time; none: the process is alive */
  silentLoops(): LoopName[];
}

/** `now` is a monotonic clock in milliseconds. */
export function createHealth(
  metrics: Pick<Metrics, 'mirrorState'>,
  loops: readonly LoopName[],
  now: () => number = () => performance.now(),
): Health {
  const beats = new Map(loops.map((loop) => [loop, now()]));
  let mirrorState: MirrorState = 'starting';
  const setMirrorState = (state: MirrorState) => {
    mirrorState = state;
    for (const each of MIRROR_STATES) metrics.mirrorState.set({ state: each }, each === state ? 1 : 0);
  };
  setMirrorState(loops.includes('mirror') ? 'starting' : 'stopped');
  return {
    loops,
    get mirrorState() {
      return mirrorState;
    },
    beat: (loop) => beats.set(loop, now()),
    setMirrorState,
    silentLoops: () => loops.filter((loop) => now() - (beats.get(loop) ?? 0) > SILENCE_MS),
  };
}
