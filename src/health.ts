/** The state of this process: which loops run, and what the mirror is doing. Read by /healthz, /readyz and the status page. */
import type { ErrorCode } from './errors.ts';
import { runningMs } from './running-time.ts';
import { MIRROR_STATES, type Metrics, type MirrorState } from './metrics.ts';

export type LoopName = 'mirror' | 'poller';
/** Does this daemon lead? */
export type Standing = 'leading' | 'standby' | 'unknown';

/** A loop without a beat for this long that does not wait is stuck: each of its own steps takes milliseconds. */
const SILENCE_MS = 60_000;

export interface Health {
  readonly loops: readonly LoopName[];
  readonly mirrorState: MirrorState;
  /** unknown: for example while the database cannot be reached */
  readonly standing: Standing;
  /** the loop starts a step of its own */
  beat(loop: LoopName): void;
  /** the loop waits for the database, for a lock, or for the leadership: a restart would not help */
  waits(loop: LoopName): void;
  /** the daemon has not seen yet that the database is fit for it */
  starting: boolean;
  /** why the last statement of the control connection failed; undefined: it succeeded */
  databaseProblem: ErrorCode | undefined;
  /** why the mirror is stopped */
  readonly mirrorProblem: ErrorCode | undefined;
  /** how the poller's last run failed; undefined: it turns again, or does not run */
  pollerProblem: ErrorCode | undefined;
  /** called by the leadership; also sets the state of a mirror that does not run */
  stand(standing: Standing): void;
  /** called by the mirror; also sets smslogd_mirror_state */
  setMirrorState(state: RunState, problem?: ErrorCode): void;
  /** loops that neither beat in time nor wait; none: the process is alive */
  silentLoops(): LoopName[];
}

/** The states that the mirror sets itself; only the leadership sets `starting` and `standby`. */
type RunState = Exclude<MirrorState, 'starting' | 'standby'>;

const BY_LEADERSHIP = { leading: 'starting', standby: 'standby', unknown: 'stopped' } as const;

/**
 * The mirror's next state after the leadership's or the mirror's own event; undefined: the event is ignored.
 *
 *   leading ──> starting      standby ──> standby      unknown ──> stopped        (from each state)
 *   starting | snapshot | repairing | streaming | stopped ──> snapshot | repairing | streaming | stopped
 *   standby ──> none: a run of the mirror that ends because another daemon leads changes nothing
 */
export function nextMirrorState(state: MirrorState, event: Standing | RunState): MirrorState | undefined {
  if (event === 'leading' || event === 'standby' || event === 'unknown') return BY_LEADERSHIP[event];
  return state === 'standby' ? undefined : event;
}

/** `now`: milliseconds in which the process ran. */
export function createHealth(
  metrics: Pick<Metrics, 'mirrorState' | 'mirrorLagSeconds' | 'mirrorLagBytes' | 'reconcileMissing'>,
  loops: readonly LoopName[],
  now: () => number = runningMs,
): Health {
  /** undefined: it waits, as before its first step */
  const beats = new Map<LoopName, number | undefined>();
  let mirrorState: MirrorState = 'starting';
  let mirrorProblem: ErrorCode | undefined;
  const enter = (state: MirrorState | undefined, problem?: ErrorCode) => {
    if (state === undefined) return;
    mirrorState = state;
    mirrorProblem = problem;
    // another daemon finds what there is, or will; also where this one is cut off while it leads
    if (state === 'standby' || state === 'stopped') metrics.reconcileMissing.set(0);
    for (const each of MIRROR_STATES) metrics.mirrorState.set({ state: each }, each === state ? 1 : 0);
  };
  enter(loops.includes('mirror') ? 'starting' : 'stopped');
  let standing: Standing = 'unknown';
  return {
    loops,
    get mirrorState() {
      return mirrorState;
    },
    beat: (loop) => void beats.set(loop, now()),
    waits: (loop) => void beats.set(loop, undefined),
    starting: false,
    databaseProblem: undefined,
    pollerProblem: undefined,
    get mirrorProblem() {
      return mirrorProblem;
    },
    get standing() {
      return standing;
    },
    stand(now) {
      standing = now;
      // another daemon leads, and reports its own lag
      if (now === 'standby') for (const lag of [metrics.mirrorLagSeconds, metrics.mirrorLagBytes]) lag.set(0);
      if (loops.includes('mirror')) enter(nextMirrorState(mirrorState, now));
    },
    setMirrorState: (state, problem) => enter(nextMirrorState(mirrorState, state), problem),
    silentLoops: () => loops.filter((loop) => now() - (beats.get(loop) ?? Infinity) > SILENCE_MS),
  };
}
