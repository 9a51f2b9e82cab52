/** Every state that a world can come to, breadth first, and the shortest way to one where a property does not hold. */
import { daemon, tidy, type Life } from './life.ts';
import {
  ABSENT,
  begun,
  environment,
  ended,
  firstState,
  inWal,
  transactionOf,
  type Bounds,
  type State,
  type Trap,
} from './world.ts';

export interface Explored {
  readonly states: number;
  /** states in which all is written and nobody has anything left to do */
  readonly calm: number;
  /** what does not hold, and the steps that lead there; undefined: all holds */
  readonly wrong: { readonly what: string; readonly steps: readonly string[] } | undefined;
}

/** More states than this fail, too. */
const MOST = 5_000_000;

export function explore(bounds: Bounds, trap?: Trap): Explored {
  const first = firstState(bounds);
  const number = numbered();
  const known = new Map<string, number>([[keyOf(first, number), 0]]);
  const from: number[] = [ABSENT];
  const names: string[] = [''];
  /** states that a calm world leads to by itself, for each state */
  const leads: number[][] = [];
  const settled: number[] = [];
  const way = (to: number) => {
    const steps: string[] = [];
    for (let at = to; at > 0; at = from[at]!) steps.unshift(names[at]!);
    return steps;
  };
  let level: State[] = [first];
  let done = 0;
  while (level.length > 0) {
    const next: State[] = [];
    for (const state of level) {
      const at = done;
      done += 1;
      const what = wrongIn(state, bounds);
      if (what !== '') return { states: known.size, calm: settled.length, wrong: { what, steps: way(at) } };
      if (isCalm(state, bounds)) settled.push(at);
      const free: number[] = [];
      const emit = (name: string, raw: State, isFree: boolean) => {
        const to = ranked(tidy(raw));
        const key = keyOf(to, number);
        let id = known.get(key);
        if (id === undefined) {
          id = known.size;
          known.set(key, id);
          from.push(at);
          names.push(name);
          next.push(to);
        }
        if (isFree) free.push(id);
      };
      environment(state, bounds, emit);
      for (const i of state.lives.keys()) daemon(state, i, bounds, trap, emit);
      leads.push(free);
      if (known.size > MOST)
        return { states: known.size, calm: settled.length, wrong: { what: 'too many states', steps: [] } };
    }
    level = next;
  }
  const stuck = neverCalm(leads, settled);
  const wrong = stuck === undefined ? undefined : { what: 'it never becomes calm', steps: way(stuck) };
  return { states: known.size, calm: settled.length, wrong };
}

/** A state from which none of `settled` can be reached; undefined: there is none. */
function neverCalm(leads: readonly (readonly number[])[], settled: readonly number[]): number | undefined {
  const back: number[][] = leads.map(() => []);
  for (const [at, to] of leads.entries()) for (const each of to) back[each]!.push(at);
  const reaches = new Uint8Array(leads.length);
  const open = [...settled];
  for (const each of open) reaches[each] = 1;
  for (let at = open.pop(); at !== undefined; at = open.pop())
    for (const each of back[at]!) {
      if (reaches[each] === 1) continue;
      reaches[each] = 1;
      open.push(each);
    }
  const stuck = reaches.indexOf(0);
  return stuck === -1 ? undefined : stuck;
}

/** Terms count by their order only. */
function ranked(state: State): State {
  const { lease, checkpoint, lives } = state;
  let ranked = 1 | (1 << lease.term) | (1 << (checkpoint?.term ?? 0));
  for (const life of lives) ranked |= 1 << (life?.term ?? 0);
  // they follow one another
  if ((ranked & (ranked + 1)) === 0) return state;
  const terms = [0, lease.term, checkpoint?.term ?? 0, ...lives.map((life) => life?.term ?? 0)];
  const ranks = [...new Set(terms)].sort((a, b) => a - b);
  const rank = <T extends { readonly term: number }>(each: T): T => ({ ...each, term: ranks.indexOf(each.term) });
  return {
    ...state,
    lease: rank(lease),
    checkpoint: checkpoint && rank(checkpoint),
    lives: lives.map((life) => life && rank(life)),
  };
}

/** States share most of their parts: each part is a number. */
function numbered(): (part: object | null) => number {
  const numbers = new WeakMap<object, number>();
  const byText = new Map<string, number>();
  return (part) => {
    if (part === null) return 0;
    const before = numbers.get(part);
    if (before !== undefined) return before;
    const text = JSON.stringify(part);
    let number = byText.get(text);
    if (number === undefined) byText.set(text, (number = byText.size + 1));
    numbers.set(part, number);
    return number;
  };
}

function keyOf(state: State, number: (part: object | null) => number): string {
  const { transactions, slot, checkpoint, lease, log, undo, wal, other, published, publishedSince } = state;
  const world = `${number(transactions)} ${number(slot)} ${number(checkpoint)} ${number(lease)} ${number(log)} ${number(undo)}`;
  const left = `${state.faults} ${state.takeovers} ${state.first} ${state.history} ${state.deleted} ${state.wrong}`;
  return `${world} ${keyOfLife(state.lives[0]!, number)} ${keyOfLife(state.lives[1]!, number)} ${wal} ${other} ${published} ${publishedSince} ${left}`;
}

function keyOfLife(life: Life | null, number: (part: object | null) => number): string {
  if (life === null) return '-';
  const { term, at, step, prepared, marked, failed, taken, due, gap, lsn, confirmed, publishedSince } = life;
  const parts = `${number(life.streaming)} ${number(life.reconciling)} ${number(life.auditing)} ${number(step)} ${number(marked)}`;
  return `${parts} ${term} ${at} ${prepared} ${failed.join()} ${taken.join()} ${due} ${gap} ${lsn} ${confirmed} ${publishedSince}`;
}

/** Everything is written, acknowledged, reconciled and audited. */
function isCalm(state: State, bounds: Bounds): boolean {
  const { checkpoint, slot, lives, transactions, lease, wal, published, undo } = state;
  const life = lives[lease.holder];
  if (checkpoint === null || slot === null || !published || life?.streaming == null || undo !== null) return false;
  const { streaming } = life;
  return (
    begun(state) === transactions.length &&
    transactions.every(ended) &&
    slot.reader === lease.holder &&
    slot.confirmed >= wal &&
    streaming.hand === null &&
    streaming.heard.length === 0 &&
    streaming.sending === ABSENT &&
    life.reconciling === null &&
    checkpoint.due === '' &&
    checkpoint.term === life.term &&
    life.publishedSince === state.publishedSince &&
    life.auditing === null &&
    !life.gap &&
    (bounds.audits !== 'regular' || checkpoint.audited === transactions.length)
  );
}

/** The properties. */
function wrongIn(state: State, bounds: Bounds): string {
  const { checkpoint, slot, log, undo } = state;
  if (state.wrong !== '') return state.wrong;
  const durable = undo?.log ?? log;
  const calm = isCalm(state, bounds);
  const known = checkpoint !== null && checkpoint.identified && checkpoint.due === '';
  for (const [row, there] of log.entries()) {
    const i = transactionOf(bounds, row);
    const transaction = state.transactions[i]!;
    if (there >> 1 > 1) return 'a row is doubled';
    if (there > 0 && !inWal(transaction)) return 'a row is in the log that the source does not have';
    const history = ((state.history >> i) & 1) === 1;
    if (there > 0 && history) return 'a row is copied that SNAPSHOT=never leaves out';
    if (slot !== null && known && durable[row] === 0 && inWal(transaction) && transaction.published && !history) {
      const { at } = transaction;
      if (at >= slot.start && at < slot.confirmed) return 'a row is acknowledged that is not durable';
      if (at >= slot.start && at < checkpoint.lsn) return 'the checkpoint has passed a row that is not in the log';
    }
    if (calm && there === 0 && transaction.stage === 'visible' && !leftOut(state, bounds, i)) return 'a row is missing';
  }
  return '';
}

/** SNAPSHOT=never leaves out what began before the first start; where somebody deleted the checkpoint, what no slot can bring from before it was made again. */
function leftOut(state: State, { SNAPSHOT }: Bounds, i: number): boolean {
  if (SNAPSHOT !== 'never') return false;
  if (!state.deleted) return i < state.first;
  return i < state.checkpoint!.horizon && state.transactions[i]!.at < state.slot!.start;
}
