/**
 * What the mirror works on, as small as it can be: the source's transactions, the WAL, the slot, the publication, the lease, the checkpoint and the log; what
 * happens to them without the mirror, faults too; and the statements of src/mirror/apply.ts and checkpoint.ts, each of which is atomic.
 *
 * - A commit takes one place of the WAL: its commit_lsn is the place, its end_lsn the next one, so two commits can be back to back.
 * - A transaction begins, commits in the WAL (the server may send it from then on), and is seen by others only later.
 * - Transactions begin in the order of their numbers: a number is a transaction id, and stands for the time of its rows.
 */
import type { ReconcileDue as Due } from '../../src/mirror/checkpoint.ts';
import { FIRST_START } from '../../src/schema/steps.ts';
import type { Life } from './life.ts';

export const ABSENT = -1;

export type Fault =
  | 'the stream is cut'
  | 'the server crashes'
  | 'the slot is lost'
  | 'the slot is dropped'
  | 'somebody makes the slot'
  | 'the checkpoint is deleted'
  | 'the publication loses the table';

/** A mistake that the exploration must find. */
export type Trap =
  | 'acknowledges one byte more'
  | 'acknowledges before the write'
  | 'acknowledges before the flush'
  | 'acknowledges keepalives while rows wait'
  | 'acknowledges keepalives in a transaction'
  | 'skips a commit that begins at the checkpoint'
  | 'resumes from the slot'
  | 'moves the checkpoint with a part of a transaction'
  | 'writes without the term'
  | 'keeps the position of a reconcile without the term'
  | 'reconciles without a second look'
  | 'marks a reconcile after the slot is made'
  | 'lets a former leader make the slot'
  | 'repairs the publication without a mark'
  | 'resumes a reconcile that is marked anew'
  | 'sets no horizon where the checkpoint is missing'
  | 'sets the horizon anew'
  | 'streams what a slot has from before the first start'
  | 'forgets that an audit is due'
  | 'counts as audited what began before the end of the audit'
  | 'goes on under a checkpoint of another term'
  | 'has no primary key';

/** How large a world is, and what may go wrong in it. */
export interface Bounds {
  /** the rows of each transaction; ids are numbers in the order of ids. Rows of a transaction of several are so large that each fills a batch. */
  readonly rows: readonly (readonly number[])[];
  readonly SNAPSHOT: 'initial' | 'never';
  /** begins where all was in place before, with SNAPSHOT=never also the first transaction; else at the first start */
  readonly settled: boolean;
  readonly faults: readonly Fault[];
  /** how many faults there may be, and how often a lease may change hands though its holder lives */
  readonly mostFaults: number;
  readonly mostTakeovers: number;
  /** WAL of others */
  readonly mostOther: number;
  /** the daemon's role may repair the publication; else the owner gives it back */
  readonly repairs: boolean;
  /** `due`: those alone that a life has to make at once, as if no regular one ever came */
  readonly audits: 'none' | 'regular' | 'due';
}

type Stage = 'none' | 'open' | 'committed' | 'visible' | 'aborted';

export interface Transaction {
  readonly stage: Stage;
  /** commit_lsn */
  readonly at: number;
  /** the publication had the table at the commit */
  readonly published: boolean;
}

export interface Checkpoint {
  readonly term: number;
  readonly lsn: number;
  readonly identified: boolean;
  readonly due: string;
  readonly after: number;
  readonly xid: number;
  readonly audited: number;
  readonly auditDue: boolean;
  /** rows of transactions before this one are not the mirror's */
  readonly horizon: number;
}

export interface State {
  readonly transactions: readonly Transaction[];
  readonly wal: number;
  readonly other: number;
  readonly published: boolean;
  /** the transaction before which the publication was changed last */
  readonly publishedSince: number;
  readonly slot: {
    readonly start: number;
    readonly confirmed: number;
    readonly lost: boolean;
    readonly reader: number;
  } | null;
  readonly checkpoint: Checkpoint | null;
  readonly lease: { readonly holder: number; readonly term: number };
  /** for each row how often it is there, doubled, and 1 more where positions tell that it is */
  readonly log: readonly number[];
  /** what a crash of the server takes back, where a commit was not durable */
  readonly undo: { readonly log: readonly number[]; readonly lsn: number } | null;
  readonly lives: readonly (Life | null)[];
  readonly faults: number;
  readonly takeovers: number;
  /** SNAPSHOT=never: transactions before `first` had begun at the first start, `history` is a mask of those that had committed or were over */
  readonly first: number;
  readonly history: number;
  readonly deleted: boolean;
  /** a property that does not hold */
  readonly wrong: string;
}

/** Told of each next state; `free`: it comes by itself in a calm world. */
export type Emit = (name: string, next: State, free: boolean) => void;

const EMPTY: Checkpoint = {
  term: 0,
  lsn: ABSENT,
  identified: false,
  due: '',
  after: ABSENT,
  xid: ABSENT,
  audited: ABSENT,
  auditDue: false,
  horizon: ABSENT,
};

export function firstState({ rows, settled, SNAPSHOT, mostFaults, mostTakeovers, mostOther }: Bounds): State {
  const before = settled && SNAPSHOT === 'never';
  const none: Transaction = { stage: 'none', at: ABSENT, published: false };
  return {
    transactions: rows.map((_, i) => (before && i === 0 ? { ...none, stage: 'visible' } : none)),
    wal: 0,
    other: mostOther,
    published: settled,
    publishedSince: -0.5,
    slot: settled ? { start: 0, confirmed: 0, lost: false, reader: ABSENT } : null,
    checkpoint: settled ? { ...EMPTY, identified: true, audited: 0, horizon: before ? 1 : ABSENT } : null,
    lease: { holder: ABSENT, term: 0 },
    log: rows.flat().map(() => 0),
    undo: null,
    lives: [null, null],
    faults: mostFaults,
    takeovers: mostTakeovers,
    first: before ? 1 : ABSENT,
    history: before ? 1 : 0,
    deleted: false,
    wrong: '',
  };
}

export const ended = ({ stage }: Transaction): boolean => stage === 'visible' || stage === 'aborted';
export const inWal = ({ stage }: Transaction): boolean => stage === 'committed' || stage === 'visible';
export const begun = (state: State): number => state.transactions.filter(({ stage }) => stage !== 'none').length;
export const transactionOf = ({ rows }: Bounds, row: number): number => rows.findIndex((ids) => ids.includes(row));

/** pg_snapshot_xmin: every transaction before it has ended. */
export function oldestOpen(state: State): number {
  const open = state.transactions.findIndex(({ stage }) => stage === 'open' || stage === 'committed');
  return open === -1 ? begun(state) : open;
}

export function changed<T>(list: readonly T[], at: number, value: T): readonly T[] {
  return list.map((each, i) => (i === at ? value : each));
}

/** What happens without the mirror. */
export function environment(state: State, bounds: Bounds, emit: Emit): void {
  const { transactions, slot, wal } = state;
  const set = (i: number, over: Partial<Transaction>): State => ({
    ...state,
    transactions: changed(transactions, i, { ...transactions[i]!, ...over }),
  });
  const next = begun(state);
  if (next < transactions.length) emit(`${next} begins`, set(next, { stage: 'open' }), true);
  for (const [i, { stage }] of transactions.entries()) {
    if (stage === 'open')
      emit(
        `${i} commits`,
        { ...set(i, { stage: 'committed', at: wal, published: state.published }), wal: wal + 1 },
        true,
      );
    if (stage === 'committed') emit(`${i} is seen`, set(i, { stage: 'visible' }), true);
  }
  if (state.other > 0) emit('others write', { ...state, wal: wal + 1, other: state.other - 1 }, true);
  if (state.undo !== null) emit('the server flushes', { ...state, undo: null }, true);
  if (!state.published && !bounds.repairs && state.checkpoint?.identified === true)
    emit('the owner gives the publication back', { ...state, published: true, publishedSince: next - 0.5 }, true);
  if (!state.published && !bounds.settled && state.checkpoint === null)
    emit('the publication is made beforehand', { ...state, published: true, publishedSince: next - 0.5 }, true);
  if (state.faults === 0) return;
  const faulty: State = { ...state, faults: state.faults - 1 };
  for (const fault of bounds.faults) {
    switch (fault) {
      case 'the stream is cut':
        for (const [i, life] of state.lives.entries())
          if (life !== null) emit(`${fault} of ${i}`, cut(faulty, i), false);
        break;
      case 'the server crashes': {
        const crashed = crash(faulty);
        emit(fault, crashed, false);
        if (crashed.slot !== null && crashed.slot.confirmed > crashed.slot.start)
          emit(
            `${fault}, the slot forgets`,
            { ...crashed, slot: { ...crashed.slot, confirmed: crashed.slot.start } },
            false,
          );
        break;
      }
      case 'the slot is lost':
        if (slot !== null && !slot.lost)
          emit(fault, { ...faulty, slot: { ...slot, lost: true, reader: ABSENT } }, false);
        break;
      case 'the slot is dropped':
        if (slot !== null) emit(fault, { ...faulty, slot: null }, false);
        break;
      case 'somebody makes the slot':
        emit(fault, { ...faulty, slot: { start: wal, confirmed: wal, lost: false, reader: ABSENT } }, false);
        break;
      case 'the checkpoint is deleted':
        if (state.checkpoint !== null) {
          // without a row in the log the next start is a first one
          const again = state.log.every((there) => there === 0) ? { first: ABSENT, history: 0 } : {};
          const deleted = bounds.SNAPSHOT === 'never' && !('first' in again);
          emit(fault, forgetPositions({ ...faulty, ...again, checkpoint: null, deleted }), false);
        }
        break;
      case 'the publication loses the table':
        if (state.published) emit(fault, { ...faulty, published: false, publishedSince: next - 0.5 }, false);
    }
  }
}

/** The connection of a stream ends; a statement may still be under way. Any other life is over. */
function cut(state: State, i: number): State {
  const { slot } = state;
  const free: State = slot?.reader === i ? { ...state, slot: { ...slot, reader: ABSENT } } : state;
  return state.lives[i]?.at === 'on' ? free : { ...free, lives: changed(free.lives, i, null) };
}

function crash(state: State): State {
  const { slot, undo, checkpoint } = state;
  return {
    ...state,
    transactions: state.transactions.map((each) =>
      each.stage === 'open'
        ? { ...each, stage: 'aborted' }
        : each.stage === 'committed'
          ? { ...each, stage: 'visible' }
          : each,
    ),
    slot: slot === null ? null : { ...slot, reader: ABSENT },
    lives: state.lives.map(() => null),
    log: undo?.log ?? state.log,
    checkpoint: undo === null || checkpoint === null ? checkpoint : { ...checkpoint, lsn: undo.lsn },
    undo: null,
  };
}

/** Store.read: makes the row where there is none. */
export function readCheckpoint(state: State): { state: State; checkpoint: Checkpoint } {
  const checkpoint = state.checkpoint ?? EMPTY;
  return { state: state.checkpoint === null ? { ...state, checkpoint } : state, checkpoint };
}

function forgetPositions(state: State): State {
  return { ...state, log: state.log.map((row) => row & ~1) };
}

/** Store.markReconcile; undefined: stepped down. */
export function mark(
  state: State,
  term: number,
  { reason, fresh, horizon }: Due,
  trap: Trap | undefined,
): State | undefined {
  const { checkpoint } = state;
  if (checkpoint === null || checkpoint.term > term) return undefined;
  const anew = trap === 'sets the horizon anew' && (horizon || checkpoint.horizon !== ABSENT);
  const start =
    horizon && reason === FIRST_START && trap !== 'streams what a slot has from before the first start'
      ? checkpoint.lsn === ABSENT
        ? state.wal
        : Math.min(checkpoint.lsn, state.wal)
      : ABSENT;
  const keeps = trap === 'resumes a reconcile that is marked anew';
  const marked: State = {
    ...state,
    checkpoint: {
      ...checkpoint,
      term,
      due: reason,
      after: keeps ? checkpoint.after : ABSENT,
      xid: keeps ? checkpoint.xid : ABSENT,
      audited: oldestOpen(state),
      lsn: fresh ? start : checkpoint.lsn,
      horizon: anew || (horizon && checkpoint.horizon === ABSENT) ? begun(state) : checkpoint.horizon,
    },
  };
  if (horizon && state.first === ABSENT) {
    const over = state.transactions.reduce((mask, each, i) => (ended(each) || inWal(each) ? mask | (1 << i) : mask), 0);
    return forgetPositions({ ...marked, first: begun(state), history: over });
  }
  return fresh ? forgetPositions(marked) : marked;
}

/** Inserts a row; the primary key keeps what is there. */
export function insert(log: readonly number[], row: number, trap: Trap | undefined): readonly number[] {
  const there = log[row]!;
  return there === 0 ? changed(log, row, 2) : trap === 'has no primary key' ? changed(log, row, there + 2) : log;
}

/** Store.write: rows and checkpoint in one commit; undefined: stepped down. */
export function write(
  state: State,
  bounds: Bounds,
  term: number,
  batch: { readonly rows: readonly number[]; readonly end: number },
  trap: Trap | undefined,
): State | undefined {
  const { checkpoint } = state;
  if (checkpoint === null || (checkpoint.term !== term && trap !== 'writes without the term')) return undefined;
  let { log, wrong } = state;
  for (const row of batch.rows) {
    if ((log[row]! & 1) === 1) wrong = 'the position did not tell that a row is in the log';
    log = insert(log, row, trap);
  }
  const lsn = batch.end === ABSENT ? checkpoint.lsn : batch.end;
  if (batch.end !== ABSENT)
    log = log.map((there, row) => {
      const { at } = state.transactions[transactionOf(bounds, row)]!;
      return there > 0 && at !== ABSENT && at < batch.end ? there | 1 : there;
    });
  const undo =
    trap === 'acknowledges before the flush' ? (state.undo ?? { log: state.log, lsn: checkpoint.lsn }) : state.undo;
  return { ...state, log, wrong, undo, checkpoint: { ...checkpoint, lsn } };
}
