/**
 * A life of the mirror as in src/mirror, one statement or message at a time, so that a fault or another daemon can come between any two. What the mirror
 * decides, the code itself decides: `nextStep` (mode.ts), `gather`, `startOf` and `allDurable` (batch.ts).
 */
import { ZERO_LSN, type Lsn } from '../../src/postgres/lsn.ts';
import { allDurable, FULL, gather, startOf } from '../../src/mirror/batch.ts';
import type { ReconcileDue as Due } from '../../src/mirror/checkpoint.ts';
import { nextStep, type Observed, type Step } from '../../src/mirror/mode.ts';
import { ID, type Tuple } from '../../src/replication/pgoutput.ts';
import {
  ABSENT,
  begun,
  changed,
  ended,
  insert,
  inWal,
  mark,
  oldestOpen,
  readCheckpoint,
  transactionOf,
  write,
  type Bounds,
  type Emit,
  type State,
  type Trap,
} from './world.ts';

type Message = readonly ['begin' | 'row' | 'commit', number];

/** src/reconcile/copy.ts: a chunk has one row; reading and writing it is one statement, but others may write between the two. */
interface Reconciling {
  readonly at: 'first' | 'write' | 'wait' | 'clear';
  readonly after: number;
  readonly xid: number;
  readonly row: number;
}

/** src/reconcile/audit.ts */
interface Auditing {
  readonly at: 'passing' | 'keep';
  readonly rows: readonly number[];
  readonly position: number;
  readonly xid: number;
}

/** src/mirror/streaming.ts and apply-loop.ts */
interface Streaming {
  readonly resumeAt: number;
  readonly durable: number;
  /** up to where the server has sent, what it is sending, and how many of its rows */
  readonly sent: number;
  readonly sending: number;
  readonly pieces: number;
  /** what was heard and not taken */
  readonly heard: readonly Message[];
  readonly hand: { readonly rows: readonly number[]; readonly end: number } | null;
  readonly written: boolean;
}

export interface Life {
  readonly term: number;
  readonly at: 'acquire' | 'look' | 'step' | 'open' | 'on' | 'keep';
  readonly step: Step | null;
  /** what comes before the step is done */
  readonly prepared: boolean;
  readonly marked: Due | null;
  readonly failed: readonly Step['step'][];
  readonly taken: readonly Step['step'][];
  /** what was seen when the mode was entered */
  readonly due: string;
  /** an audit comes before the regular ones: the slot, or the publication, may have passed something over */
  readonly gap: boolean;
  readonly lsn: number;
  readonly confirmed: number;
  readonly publishedSince: number;
  readonly streaming: Streaming | null;
  readonly reconciling: Reconciling | null;
  readonly auditing: Auditing | null;
}

const lsn = (value: number): Lsn => BigInt(value + 1) as Lsn;
/** A row of which nothing but the id counts. */
function tupleOf(id: number): Tuple {
  const bytes = Buffer.from(String(id));
  const begins = new Int32Array(6).fill(-1);
  const ends = new Int32Array(6);
  begins[ID] = 0;
  ends[ID] = bytes.length;
  return { bytes, begins, ends, widths: new Int8Array(6) };
}

interface Gathered {
  readonly ready: boolean;
  readonly inTransaction: boolean;
  /** what is taken of it now */
  readonly rows: readonly number[];
  readonly end: number;
}

const known = new WeakMap<Streaming, Gathered>();

/** What the mirror's own gathering makes of what was heard. */
function gathered(streaming: Streaming, bounds: Bounds, trap: Trap | undefined): Gathered {
  const before = known.get(streaming);
  if (before !== undefined) return before;
  const skips = trap === 'skips a commit that begins at the checkpoint' && streaming.resumeAt !== ABSENT ? 1 : 0;
  const gathering = gather(streaming.resumeAt === ABSENT ? ZERO_LSN : lsn(streaming.resumeAt + skips));
  for (const [kind, value] of streaming.heard) {
    if (kind === 'begin') gathering.begin(lsn(value), 0n);
    else if (kind === 'commit') gathering.commit(lsn(value), 0n);
    else {
      gathering.insert(tupleOf(value));
      // others that fill the batch
      if (bounds.rows[transactionOf(bounds, value)]!.length > 1)
        for (let size = 1; size < FULL; size += 1) gathering.partial('');
    }
  }
  const { ready, inTransaction } = gathering;
  const { rows, end } = gathering.take();
  const result = {
    ready,
    inTransaction,
    rows: rows.ids().map(Number),
    end: end === undefined ? ABSENT : Number(end) - 1,
  };
  known.set(streaming, result);
  return result;
}

/** The same state without what has no meaning any more; a life whose stream has ended finishes the statement that is under way. */
export function tidy(state: State): State {
  const { slot, wal } = state;
  const lives = state.lives.map((life, i) => {
    if (life?.streaming == null) return life;
    const { streaming, reconciling } = life;
    if (slot?.reader !== i) {
      const copies = reconciling?.at === 'write' || reconciling?.at === 'clear';
      const writes = streaming.hand !== null && !streaming.written;
      if (!copies && !writes) return null;
      const still = { ...GONE, hand: writes ? streaming.hand : null };
      return { ...life, auditing: null, reconciling: copies ? reconciling : null, streaming: still };
    }
    const durable = streaming.durable > slot.confirmed ? streaming.durable : ABSENT;
    const sent = streaming.sending === ABSENT ? (nextSent(state, streaming.sent)?.at ?? wal) : streaming.sent;
    return durable === streaming.durable && sent === streaming.sent
      ? life
      : { ...life, streaming: { ...streaming, durable, sent } };
  });
  return lives.every((life, i) => life === state.lives[i]) ? state : { ...state, lives };
}

const GONE: Streaming = {
  resumeAt: ABSENT,
  durable: ABSENT,
  sent: ABSENT,
  sending: ABSENT,
  pieces: 0,
  heard: [],
  hand: null,
  written: false,
};

/** The transaction that the server sends next. */
function nextSent(
  state: State,
  sent: number,
): { readonly at: number; readonly i: number; readonly published: boolean } | undefined {
  let next: { at: number; i: number; published: boolean } | undefined;
  for (const [i, each] of state.transactions.entries())
    if (inWal(each) && each.at >= sent && (next === undefined || each.at < next.at))
      next = { at: each.at, i, published: each.published };
  return next;
}

/** It has a session in which it makes the slot, and has marked what that makes necessary. */
const makes = (life: Life | null): boolean => life?.step?.step === 'create slot' && life.prepared;

function sightOf(state: State, life: Life, bounds: Bounds, trap: Trap | undefined): { state: State; sight: Observed } {
  const read = readCheckpoint(state);
  const { checkpoint } = read;
  const { slot } = state;
  const sight: Observed = {
    config: { SNAPSHOT: bounds.SNAPSHOT },
    server: { systemId: '1', version: 160_000, database: 'db' },
    checkpoint: {
      term: BigInt(checkpoint.term),
      lsn: checkpoint.lsn === ABSENT ? undefined : lsn(checkpoint.lsn),
      inFuture: checkpoint.lsn > state.wal,
      systemId: checkpoint.identified ? '1' : undefined,
      sourceTimezone: 'UTC',
      removed: false,
      reconcileDue: checkpoint.due === '' ? undefined : checkpoint.due,
      auditDue: checkpoint.auditDue,
    },
    hasMirroredRows: !checkpoint.identified && state.log.some((row) => row > 0),
    publication: state.published ? 'correct' : 'incomplete',
    slot:
      slot === null
        ? undefined
        : {
            reader: slot.reader === ABSENT ? undefined : { pid: slot.reader, ours: true },
            walStatus: slot.lost ? 'lost' : 'reserved',
            confirmed: lsn(slot.confirmed),
            inFuture: slot.confirmed > state.wal,
            database: 'db',
            plugin: 'pgoutput',
            type: 'logical',
            invalidationReason: undefined,
            behindBytes: 0,
            retained: undefined,
            twoPhase: false,
            failover: true,
          },
    makers:
      trap === 'lets a former leader make the slot'
        ? []
        : [...state.lives.keys()].filter((i) => makes(state.lives[i]!)),
    unreadable: undefined,
    marked: life.marked ?? undefined,
    failed: new Set(life.failed),
    streamFailure: undefined,
  };
  return { state: read.state, sight };
}

const holds = (state: State, life: Life): boolean => state.checkpoint?.term === life.term;

const foreign = ({ checkpoint }: Observed, { term }: Life, trap: Trap | undefined): boolean =>
  checkpoint.term !== BigInt(term) && trap !== 'goes on under a checkpoint of another term';

/** All that daemon `i` may do next. */
export function daemon(state: State, i: number, bounds: Bounds, trap: Trap | undefined, emit: Emit): void {
  const life = state.lives[i]!;
  const { lease } = state;
  if (life === null) return lead(state, i, emit);
  const set = (from: State, over: Partial<Life>): State => ({
    ...from,
    lives: changed(from.lives, i, { ...life, ...over }),
  });
  const over = (from: State): State => ({
    ...from,
    lives: changed(from.lives, i, null),
    slot: from.slot?.reader === i ? { ...from.slot, reader: ABSENT } : from.slot,
  });
  const go = (name: string, next: State | undefined) => emit(`${i} ${name}`, next ?? over(state), true);
  if (lease.holder !== i) go('notices that another one leads', over(state));

  switch (life.at) {
    case 'acquire': {
      const { state: read, checkpoint } = readCheckpoint(state);
      if (checkpoint.term > life.term) return go('steps down', undefined);
      return go('acquires', set({ ...read, checkpoint: { ...checkpoint, term: life.term } }, { at: 'look' }));
    }
    case 'look': {
      const { state: read, sight } = sightOf(state, life, bounds, trap);
      if (foreign(sight, life, trap)) return go('steps down', over(read));
      const step = nextStep(sight);
      if (step.step !== 'stream' && step.step !== 'reconcile')
        return go(`looks: ${step.step}`, set(read, { at: 'step', step: withTrap(step, trap), prepared: false }));
      const { checkpoint } = readCheckpoint(read);
      const seen = {
        at: step.step === 'stream' ? ('open' as const) : ('keep' as const),
        step: null,
        marked: null,
        taken: [],
        failed: step.step === 'stream' ? [] : life.failed,
        due: checkpoint.due,
        lsn: checkpoint.lsn,
        confirmed: read.slot?.confirmed ?? ABSENT,
        publishedSince: read.publishedSince,
      };
      return go(
        `looks: ${step.step}`,
        set(read, { ...seen, reconciling: step.step === 'reconcile' ? starts(seen.due) : null }),
      );
    }
    case 'step':
      return take(state, life, { bounds, trap, set, over, go });
    case 'open': {
      const { slot } = state;
      if (slot === null || slot.lost || slot.reader !== ABSENT) return go('cannot stream', undefined);
      const checkpoint = { lsn: life.lsn === ABSENT ? undefined : lsn(life.lsn) };
      const { durable, resumeAt } = startOf({ confirmed: lsn(life.confirmed) }, checkpoint);
      const held = resumeAt === ZERO_LSN ? ABSENT : Number(resumeAt) - 1;
      const streaming: Streaming = {
        resumeAt: trap === 'resumes from the slot' ? slot.confirmed : held,
        durable: Number(durable) - 1,
        sent: slot.confirmed,
        sending: ABSENT,
        pieces: 0,
        heard: [],
        hand: null,
        written: false,
      };
      const begins = { at: 'on', streaming, reconciling: starts(life.due), due: '' } as const;
      const { checkpoint: now } = state;
      const open = { ...state, slot: { ...slot, reader: i } };
      if (bounds.audits !== 'due' || now === null) return go('streams', set(open, begins));
      // looked at once it streams, when nobody else can make it again
      const ahead = slot.confirmed > held;
      // a reconcile that is resumed does not read again what it has passed
      const compared = life.due !== '' && now.after === ABSENT;
      const gap = !compared && (ahead || now.auditDue || state.publishedSince >= now.audited);
      const marks = ahead && holds(state, life) && trap !== 'forgets that an audit is due';
      return go('streams', set(marks ? { ...open, checkpoint: { ...now, auditDue: true } } : open, { ...begins, gap }));
    }
    case 'on':
      stream(state, i, life, { bounds, trap, set, over, go });
      break;
    case 'keep': {
      const { state: read, sight } = sightOf(state, life, bounds, trap);
      if (foreign(sight, life, trap) || nextStep(sight).step !== 'reconcile')
        go('may do something else than reconcile', over(read));
    }
  }
  if (life.at === 'on' && state.slot?.reader !== i) go('ends', over(state));
  if (life.reconciling !== null) reconcile(state, life.reconciling, life, { bounds, trap, set, over, go });
  else if (
    life.gap ||
    (life.at === 'on' && bounds.audits === 'regular') ||
    (life.at === 'keep' && bounds.audits !== 'none')
  )
    audit(state, life, { bounds, trap, set, over, go });
}

interface Doing {
  readonly bounds: Bounds;
  readonly trap: Trap | undefined;
  readonly set: (from: State, over: Partial<Life>) => State;
  readonly over: (from: State) => State;
  /** undefined: the life is over */
  readonly go: (name: string, next: State | undefined) => void;
}

/** src/leader/lease.ts: a standby takes the lease where it is free; that of a daemon that lives counts as a fault, since it must freeze for that. */
function lead(state: State, i: number, emit: Emit): void {
  const { holder, term } = state.lease;
  if (holder === i) {
    const raised = 1 + Math.max(term, state.checkpoint?.term ?? 0);
    const life: Life = {
      term: raised,
      at: 'acquire',
      step: null,
      prepared: false,
      marked: null,
      failed: [],
      taken: [],
      due: '',
      gap: false,
      lsn: ABSENT,
      confirmed: ABSENT,
      publishedSince: 0,
      streaming: null,
      reconciling: null,
      auditing: null,
    };
    emit(
      `${i} begins a life`,
      { ...state, lease: { holder, term: raised }, lives: changed(state.lives, i, life) },
      true,
    );
  } else if (holder === ABSENT) emit(`${i} leads`, { ...state, lease: { holder: i, term: term + 1 } }, true);
  else if (state.takeovers > 0)
    emit(
      `${i} takes the lease`,
      { ...state, takeovers: state.takeovers - 1, lease: { holder: i, term: term + 1 } },
      false,
    );
}

function withTrap(step: Step, trap: Trap | undefined): Step {
  if (trap !== 'sets no horizon where the checkpoint is missing' || step.step !== 'identify') return step;
  return step.code === 'checkpoint_missing' ? { ...step, due: { ...step.due, horizon: false } } : step;
}

function starts(due: string): Reconciling | null {
  return due === '' ? null : { at: 'first', after: ABSENT, xid: ABSENT, row: ABSENT };
}

/** The steps of src/mirror/mirror.ts, each with its mark before it. */
function take(state: State, life: Life, { bounds, trap, set, go }: Doing): void {
  const step = life.step!;
  const name = step.step;
  const looks = { at: 'look' as const, step: null, prepared: false };
  const taken = [...new Set([...life.taken, name])].sort();
  const again = life.taken.includes(name);
  const due = 'due' in step ? step.due : undefined;
  const marked = due ?? life.marked;
  switch (name) {
    case 'identify': {
      if (!life.prepared) {
        const done = mark(state, life.term, due!, trap);
        return go('marks a reconcile', done && set(done, { prepared: true, marked }));
      }
      const { checkpoint } = state;
      const mine = checkpoint !== null && holds(state, life);
      return go(
        'notes the cluster',
        set(mine ? { ...state, checkpoint: { ...checkpoint, identified: true } } : state, looks),
      );
    }
    case 'repair publication': {
      const failed = bounds.repairs ? life.failed : [...life.failed, name];
      if (!bounds.repairs) return go('may not repair the publication', set(state, { ...looks, failed }));
      const before =
        trap === 'repairs the publication without a mark' || due === undefined
          ? state
          : mark(state, life.term, due, trap);
      if (before === undefined) return go('steps down', undefined);
      const repaired = { ...before, published: true, publishedSince: begun(state) - 0.5 };
      return go(
        'repairs the publication',
        set(repaired, { ...looks, taken, failed: again ? [...failed, name] : failed, marked }),
      );
    }
    case 'terminate maker':
      return go(
        'ends the maker',
        set({ ...state, lives: changed(state.lives, (step as { pid: number }).pid, null) }, looks),
      );
    case 'terminate reader': {
      const { slot } = state;
      const reads = step.step === 'terminate reader' && slot?.reader === step.pid;
      return go('ends the reader', set(reads ? { ...state, slot: { ...slot, reader: ABSENT } } : state, looks));
    }
    case 'drop slot':
    case 'create slot': {
      if (again) return go('gives up', undefined);
      const late = trap === 'marks a reconcile after the slot is made';
      if (life.prepared === late) {
        const mine = name === 'drop slot' || holds(state, life) ? state : undefined;
        const done = due === undefined ? mine : mark(state, life.term, due, trap);
        return go(
          'marks a reconcile',
          done && set(done, late ? { ...looks, taken, marked } : { prepared: true, marked }),
        );
      }
      const { slot, wal } = state;
      if (name === 'drop slot' && slot !== null && slot.reader !== ABSENT) return go('cannot drop the slot', undefined);
      const made = name === 'drop slot' ? null : (slot ?? { start: wal, confirmed: wal, lost: false, reader: ABSENT });
      return go(
        name === 'drop slot' ? 'drops the slot' : 'makes the slot',
        set({ ...state, slot: made }, late ? { prepared: true } : { ...looks, taken }),
      );
    }
    case 'enable failover':
    case 'stream':
    case 'reconcile':
      throw new Error(`no such step here: ${name}`);
  }
}

function stream(state: State, i: number, life: Life, { bounds, trap, set, go }: Doing): void {
  const streaming = life.streaming!;
  const { slot } = state;
  const on = (from: State, over: Partial<Streaming>, more: Partial<Life> = {}) =>
    set(from, { ...more, streaming: { ...streaming, ...over } });
  const gathering = gathered(streaming, bounds, trap);
  const { hand, written } = streaming;
  const quiet = quietOf(gathering, hand !== null, trap);

  if (hand === null && gathering.ready) {
    const open = streaming.heard[0]![1];
    const { rows, end } = gathering;
    const early = trap === 'moves the checkpoint with a part of a transaction' && end === ABSENT ? open + 1 : end;
    const heard: readonly Message[] = gathering.inTransaction ? [['begin', open]] : [];
    go('takes a batch', on(state, { heard, hand: { rows, end: early } }));
  }
  if (hand !== null && !written) {
    const done = write(state, bounds, life.term, hand, trap);
    go('writes', done && on(done, { written: true }));
  }
  if (slot?.reader !== i) return;
  const acknowledge = (position: number): State => ({
    ...state,
    slot: { ...slot, confirmed: Math.max(slot.confirmed, position) },
  });
  const early = trap === 'acknowledges before the write';
  if (hand !== null && (written || early)) {
    const more = trap === 'acknowledges one byte more' ? 1 : 0;
    const durable = hand.end === ABSENT ? streaming.durable : Math.max(streaming.durable, hand.end + more);
    const over = written ? { hand: null, written: false } : {};
    if (written || durable > streaming.durable) go('acknowledges', on(acknowledge(durable), { durable, ...over }));
  }
  if (slot.confirmed < streaming.durable) go('repeats the status', acknowledge(streaming.durable));
  receive(state, streaming, { bounds, go, on, acknowledge, quiet, trap });

  const { checkpoint } = state;
  const kept = trap === 'goes on under a checkpoint of another term' ? checkpoint?.identified : holds(state, life);
  if (kept !== true || !state.published || state.publishedSince !== life.publishedSince)
    go('ends: checkpoint or publication were changed', undefined);
}

function quietOf({ ready, inTransaction }: Gathered, unwritten: boolean, trap: Trap | undefined): boolean {
  if (trap === 'acknowledges keepalives while rows wait') return !inTransaction;
  return allDurable(
    { ready, inTransaction: inTransaction && trap !== 'acknowledges keepalives in a transaction' },
    unwritten,
  );
}

interface Receiving extends Pick<Doing, 'bounds' | 'go' | 'trap'> {
  readonly on: (from: State, over: Partial<Streaming>) => State;
  readonly acknowledge: (position: number) => State;
  /** a keepalive may be acknowledged */
  readonly quiet: boolean;
}

/** What the server sends: transactions in the order of their commits, and keepalives. In a transaction their position may be that of its end. */
function receive(state: State, streaming: Streaming, { bounds, go, on, acknowledge, quiet, trap }: Receiving): void {
  const { sending, sent, pieces, heard } = streaming;
  const hear = (over: Partial<Streaming>, ...messages: Message[]) => {
    const next = { ...streaming, ...over, heard: [...heard, ...messages] };
    const { ready, inTransaction } = gathered(next, bounds, trap);
    // a transaction that was skipped leaves nothing
    go('hears', on(state, { ...over, heard: ready || inTransaction ? next.heard : [] }));
  };
  const after = nextSent(state, sent);
  const confirmed = state.slot!.confirmed;
  if (sending === ABSENT) {
    const position = after?.at ?? state.wal;
    if (quiet && position > confirmed)
      go('acknowledges a keepalive', on(acknowledge(position), { sent: position, durable: position }));
    if (after === undefined) return;
    if (after.published) hear({ sending: after.i, pieces: 1 }, ['begin', after.at], ['row', bounds.rows[after.i]![0]!]);
    else go('is sent nothing of a transaction', on(state, { sent: after.at + 1 }));
    return;
  }
  const { at } = state.transactions[sending]!;
  if (quiet && at + 1 > confirmed) go('acknowledges a keepalive', on(acknowledge(at + 1), { durable: at + 1 }));
  const row = bounds.rows[sending]![pieces];
  if (row === undefined) hear({ sending: ABSENT, pieces: 0, sent: at + 1 }, ['commit', at + 1]);
  else hear({ pieces: pieces + 1 }, ['row', row]);
}

/** What is the mirror's of the source, and seen now. */
function seen(state: State, bounds: Bounds, row: number): boolean {
  return state.transactions[transactionOf(bounds, row)]!.stage === 'visible';
}

function keep(state: State, after: number, xid: number): State {
  return { ...state, checkpoint: { ...state.checkpoint!, after, xid } };
}

function reconcile(state: State, now: Reconciling, life: Life, { bounds, trap, set, over, go }: Doing): void {
  const to = (from: State, over: Partial<Reconciling>) => set(from, { reconciling: { ...now, ...over } });
  const { checkpoint } = state;
  const mine =
    holds(state, life) || (trap === 'keeps the position of a reconcile without the term' && checkpoint !== null);
  /** Reads on from `at.after`; what the log has already is passed. */
  const read = (from: State, at: Reconciling): State | undefined => {
    if (!holds(from, life)) return undefined;
    const row = from.log.findIndex((_, id) => id > at.after && seen(from, bounds, id));
    if (row === -1) return to(from, { ...at, at: at.xid === ABSENT ? 'clear' : 'wait' });
    if (from.log[row] === 0 && transactionOf(bounds, row) >= from.checkpoint!.horizon)
      return to(from, { ...at, at: 'write', row });
    return read(keep(from, row, at.xid), { ...at, after: row });
  };
  switch (now.at) {
    case 'first': {
      const after = checkpoint?.after ?? ABSENT;
      const fresh = oldestOpen(state) === begun(state) ? ABSENT : begun(state);
      const xid = after === ABSENT ? fresh : (checkpoint?.xid ?? ABSENT);
      const looks = trap === 'reconciles without a second look' ? ABSENT : xid;
      return go('begins to reconcile', read(state, { ...now, after, xid: looks }));
    }
    case 'write': {
      const wrote = { ...state, log: insert(state.log, now.row, trap) };
      const kept = mine ? keep(wrote, now.row, now.xid) : wrote;
      const on = holds(state, life) ? read(kept, { ...now, after: now.row, row: ABSENT }) : over(kept);
      return go(`copies ${now.row}`, on);
    }
    case 'wait':
      if (state.transactions.slice(0, now.xid).every(ended))
        go('looks a second time', read(state, { ...now, after: ABSENT, xid: ABSENT }));
      return;
    case 'clear': {
      if (!mine) return go('steps down', undefined);
      const cleared = { ...state, checkpoint: { ...checkpoint!, due: '', after: ABSENT, xid: ABSENT } };
      return go('is done reconciling', set(cleared, { reconciling: null, due: '' }));
    }
  }
}

function audit(state: State, life: Life, { bounds, trap, set, go }: Doing): void {
  const { auditing } = life;
  const { checkpoint, slot } = state;
  const until = oldestOpen(state);
  if (auditing === null) {
    if (checkpoint === null) return;
    const scope = Math.max(checkpoint.audited, checkpoint.horizon);
    const rows = [...state.log.keys()].filter(
      (row) => state.log[row] === 0 && seen(state, bounds, row) && transactionOf(bounds, row) >= scope,
    );
    // a transaction that is not seen yet is left to the next regular audit: without any the gap's own one comes when there is none
    if (bounds.audits === 'due' && until < begun(state)) return;
    if (rows.length > 0 || begun(state) > checkpoint.audited || life.gap)
      go(
        'audits',
        set(state, { auditing: { at: rows.length > 0 ? 'passing' : 'keep', rows, position: state.wal, xid: until } }),
      );
    return;
  }
  if (auditing.at === 'passing') {
    if (life.at === 'on' && slot !== null && slot.confirmed < auditing.position) return;
    if (!holds(state, life)) return go('steps down', undefined);
    const log = auditing.rows.reduce((all, row) => (all[row] === 0 ? insert(all, row, trap) : all), state.log);
    return go('fills what is missing', set({ ...state, log }, { auditing: { ...auditing, at: 'keep', rows: [] } }));
  }
  const late = trap === 'counts as audited what began before the end of the audit';
  const keeps = checkpoint !== null && holds(state, life) && checkpoint.due === '';
  const audited = late ? begun(state) : auditing.xid;
  const kept = keeps ? { ...state, checkpoint: { ...checkpoint, audited, auditDue: false } } : state;
  go('keeps what it audited', set(kept, { auditing: null, gap: false }));
}
