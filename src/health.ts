/** What the process knows of itself: which loops turn, and what the mirror is doing. Read by /healthz, /readyz and the status page. */
import type { ErrorCode } from './errors.ts';
import { MIRROR_STATES, type Metrics, type MirrorState } from './metrics.ts';

export type LoopName = 'mirror' | 'poller';
/** Does this daemon lead? */
export type Standing = 'leading' | 'standby' | 'unknown';

/** A loop that neither turned for this long nor waits is taken for dead: each of its own steps takes milliseconds. */
const SILENCE_MS = 60_000;

export interface Health {
  readonly loops: readonly LoopName[];
  readonly mirrorState: MirrorState;
  /** unknown: as while the database cannot be reached */
  readonly standing: Standing;
  /** the loop turned: its own step begins */
  beat(loop: LoopName): void;
  /** the loop waits for the database, for a lock, or for its turn: no restart would help it */
  waits(loop: LoopName): void;
  /** why the control connection got no answer the last time; undefined: it got one */
  databaseProblem: ErrorCode | undefined;
  /** why the mirror is stopped */
  readonly mirrorProblem: ErrorCode | undefined;
  /** told by the leadership: also sets the state of a mirror that waits for its turn */
  stand(standing: Standing): void;
  /** also sets smslogd_mirror_state */
  setMirrorState(state: MirrorState, problem?: ErrorCode): void;
  /** loops that neither turned in time nor wait; none: the process is alive */
  silentLoops(): LoopName[];
}

/** What a mirror that does not run is doing. */
const MIRROR_OF = { leading: 'starting', standby: 'standby', unknown: 'stopped' } as const;

/** `now` is a monotonic clock in milliseconds. */
export function createHealth(
  metrics: Pick<Metrics, 'mirrorState'>,
  loops: readonly LoopName[],
  now: () => number = () => performance.now(),
): Health {
  /** undefined: it waits, as before its first turn */
  const beats = new Map<LoopName, number | undefined>();
  let mirrorState: MirrorState = 'starting';
  let mirrorProblem: ErrorCode | undefined;
  const show = (state: MirrorState, problem?: ErrorCode) => {
    mirrorState = state;
    mirrorProblem = problem;
    for (const each of MIRROR_STATES) metrics.mirrorState.set({ state: each }, each === state ? 1 : 0);
  };
  show(loops.includes('mirror') ? 'starting' : 'stopped');
  let standing: Standing = 'unknown';
  return {
    loops,
    get mirrorState() {
      return mirrorState;
    },
    beat: (loop) => void beats.set(loop, now()),
    waits: (loop) => void beats.set(loop, undefined),
    databaseProblem: undefined,
    get mirrorProblem() {
      return mirrorProblem;
    },
    get standing() {
      return standing;
    },
    stand(now) {
      standing = now;
      if (loops.includes('mirror')) show(MIRROR_OF[now]);
    },
    // a life that ends because another daemon leads has nothing to say any more
    setMirrorState: (state, problem) => {
      if (standing !== 'standby') show(state, problem);
    },
    silentLoops: () => loops.filter((loop) => now() - (beats.get(loop) ?? Infinity) > SILENCE_MS),
  };
}
