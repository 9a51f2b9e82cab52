/**
 * Whether a row of the log tells the truth about its SMS. Pure; the simulator's fates are the truth.
 *
 * A status that the gateway gave must be a state that the SMS had, with the second at which it entered it, and not one that was still to
 * come when the row was written. An earlier state is true as long as the row is open: it tells what was known. The two verdicts that the
 * daemon gives by itself are bound to the end of the SMS's life: Unaccepted only where no gateway id ever was, Terminated only where the
 * gateway still had no final status. And a life that is over leaves no open row behind.
 */
import type { Fate } from '../simulator/fate.ts';
import { stateAt } from '../simulator/fate.ts';
import { isFinal, STATUSES, type Status } from '../status.ts';

export const FLAWS = ['phone', 'text', 'gateway id', 'inserted_at', 'type', 'status', 'date', 'overdue'] as const;
export type Flaw = (typeof FLAWS)[number];

/** What the log says. Times in epoch ms. */
export interface LoggedState {
  readonly status: Status | null;
  readonly changedAt: number | null;
  readonly updatedAt: number;
}

/** What is known of the SMS. */
export interface TrueCourse {
  readonly insertedAt: number;
  /** undefined: it never had a gateway id */
  readonly fate: Fate | undefined;
}

export interface Clock {
  /** epoch ms of the look */
  readonly now: number;
  readonly lifeMs: number;
}

export interface Judgement {
  readonly flaw: Flaw | undefined;
  /** how long the gateway has known a newer status than the log; 0: the log is up to date */
  readonly behindMs: number;
}

/** Between an answer of the gateway and its row lie at most the request's time limit and a flush: a verdict may be that much older than it looks. */
const VERDICT_MS = 10_000;
/** How long after the end of its life a row may still wait for its last answer: a daemon that is killed while it asks comes back to it so late. */
const GRACE_MS = 5 * 60_000;

/** The status that the log would have if it knew everything at `now`; null where there is nothing to know yet. */
export function trueStatus({ insertedAt, fate }: TrueCourse, { now, lifeMs }: Clock): Status | null {
  const over = now >= insertedAt + lifeMs;
  if (fate === undefined) return over ? 'Unaccepted' : null;
  const status = statusNamed(stateAt(fate, now)?.status);
  if (status !== null && isFinal(status)) return status;
  return over ? 'Terminated' : status;
}

export function judge(logged: LoggedState, course: TrueCourse, clock: Clock): Judgement {
  const { status } = logged;
  const open = status === null || !isFinal(status);
  if (open && clock.now > course.insertedAt + clock.lifeMs + GRACE_MS) return { flaw: 'overdue', behindMs: 0 };
  const flaw = flawOf(logged, course, clock.lifeMs);
  return { flaw, behindMs: flaw === undefined && open ? behind(status, course, clock.now) : 0 };
}

function flawOf(
  { status, changedAt, updatedAt }: LoggedState,
  { insertedAt, fate }: TrueCourse,
  lifeMs: number,
): Flaw | undefined {
  const lifeEnds = insertedAt + lifeMs;
  if (fate === undefined) {
    if (status === null) return changedAt === null ? undefined : 'date';
    if (status !== 'Unaccepted') return 'status';
    return changedAt !== null && changedAt >= lifeEnds ? undefined : 'date';
  }
  if (status === null) return 'status';
  if (status === 'Terminated') {
    if (changedAt === null || changedAt < lifeEnds) return 'date';
    const then = statusNamed(stateAt(fate, changedAt - VERDICT_MS)?.status);
    return then === null || isFinal(then) ? 'status' : undefined;
  }
  // what its service wrote, before the gateway was first asked
  if (status === 'Accepted' && changedAt === null) return undefined;
  const had = fate.filter((state) => statusNamed(state.status) === status && state.at <= updatedAt);
  if (had.length === 0) return 'status';
  return had.some(({ at }) => wholeSecond(at) === changedAt) ? undefined : 'date';
}

function behind(status: Status | null, { fate }: TrueCourse, now: number): number {
  const current = fate === undefined ? undefined : stateAt(fate, now);
  return current === undefined || statusNamed(current.status) === status ? 0 : now - current.at;
}

/** The gateway's dates have the precision of a second. */
function wholeSecond(at: number): number {
  return Math.floor(at / 1000) * 1000;
}

function statusNamed(word: string | undefined): Status | null {
  return STATUSES.find((status) => status === word) ?? null;
}
