/**
 * Whether a row of the log is correct, compared with the simulator's fate of its SMS. Pure.
 *
 * A status from the gateway must be a state that the SMS had before the row was written, with the second at which it started. An earlier state is correct while
 * the row is open. The daemon's own statuses require the deadline: Unaccepted if there was never a gateway id, Terminated if the gateway had no final status. No
 * row may be open past its deadline.
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

/** The fate of the SMS. */
export interface TrueCourse {
  readonly insertedAt: number;
  /** undefined: it never had a gateway id */
  readonly fate: Fate | undefined;
}

export interface Clock {
  /** epoch ms of the comparison */
  readonly now: number;
  readonly lifeMs: number;
}

export interface RowCheck {
  readonly flaw: Flaw | undefined;
  /** how long the gateway has known a newer status than the log; 0: the log is up to date */
  readonly behindMs: number;
}

/** The most between an answer of the gateway and its row: the request's timeout and a flush. */
const VERDICT_MS = 10_000;
/** How long after its deadline a row may be open: a daemon that was killed during the request claims it again this late. */
const GRACE_MS = 5 * 60_000;

/** The status that a log without delay would have at `now`; null if there is none yet. */
export function trueStatus({ insertedAt, fate }: TrueCourse, { now, lifeMs }: Clock): Status | null {
  const over = now >= insertedAt + lifeMs;
  if (fate === undefined) return over ? 'Unaccepted' : null;
  const status = statusNamed(stateAt(fate, now)?.status);
  if (status !== null && isFinal(status)) return status;
  return over ? 'Terminated' : status;
}

export function checkRow(logged: LoggedState, course: TrueCourse, clock: Clock): RowCheck {
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
  // as its service wrote it, before the first request
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
