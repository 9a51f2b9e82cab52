/** The worlds that are explored, and for each known mistake the small one in which it shows. */
import type { Bounds, Fault, Trap } from './world.ts';

const BASE: Bounds = {
  rows: [[0]],
  SNAPSHOT: 'initial',
  settled: true,
  faults: [],
  mostFaults: 1,
  mostTakeovers: 0,
  mostOther: 0,
  repairs: true,
  audits: 'none',
};
const TWO = [[0], [1]];
/** What stream, checkpoint and reconcile make good without an audit. */
const FAULTS: readonly Fault[] = [
  'the stream is cut',
  'the server crashes',
  'the slot is lost',
  'the slot is dropped',
  'the checkpoint is deleted',
  'the publication loses the table',
];

export interface World extends Bounds {
  readonly name: string;
}

const world = (name: string, over: Partial<Bounds>): World => ({ name, ...BASE, ...over });

/** `npm test` explores these. */
export const WORLDS: readonly World[] = [
  world('a first start, with any fault', { settled: false, faults: FAULTS }),
  world('a first start that leaves history out', {
    settled: false,
    SNAPSHOT: 'never',
    faults: ['the stream is cut', 'somebody makes the slot'],
    mostFaults: 2,
    audits: 'regular',
  }),
  world('history that stays left out, with any fault', { SNAPSHOT: 'never', rows: TWO, faults: FAULTS }),
  world('two commits back to back', { rows: TWO, faults: ['the stream is cut'], mostFaults: 2 }),
  world('a transaction of several batches', { rows: [[0, 1]], faults: ['the stream is cut', 'the server crashes'] }),
  world('two faults', { faults: FAULTS.filter((fault) => fault !== 'the slot is dropped'), mostFaults: 2 }),
  world('a takeover while a former leader goes on', {
    faults: ['the stream is cut'],
    mostTakeovers: 1,
  }),
  world('a publication that only the owner can repair', {
    faults: ['the publication loses the table', 'the stream is cut'],
    mostFaults: 2,
    repairs: false,
    audits: 'regular',
  }),
  world('a slot that somebody makes again further on', {
    faults: ['somebody makes the slot', 'the stream is cut'],
    mostFaults: 2,
    audits: 'regular',
  }),
];

/** `npm run model` explores these, too: minutes. */
export const LARGE: readonly World[] = [
  world('a slot that somebody makes again, without a regular audit', {
    rows: TWO,
    faults: ['somebody makes the slot', 'the stream is cut'],
    mostFaults: 2,
    audits: 'due',
  }),
  world('two transactions from the first start, with any fault', { settled: false, rows: TWO, faults: FAULTS }),
  world('two transactions, with any fault, behind WAL of others', { rows: TWO, faults: FAULTS, mostOther: 1 }),
  world('three transactions, with a cut or a crash', {
    rows: [[2], [0], [1]],
    faults: ['the stream is cut', 'the server crashes'],
  }),
  world('any fault and a takeover', { faults: FAULTS, mostTakeovers: 1 }),
  world('two takeovers', { faults: ['the slot is dropped'], mostTakeovers: 2 }),
  world('a slot that a former leader wants to make late', {
    faults: ['the slot is dropped', 'somebody makes the slot'],
    mostFaults: 2,
    mostTakeovers: 1,
    audits: 'regular',
  }),
];

/** Where each mistake shows. */
export const TRAPS: Readonly<Record<Trap, Partial<Bounds>>> = {
  'acknowledges one byte more': { rows: TWO, faults: ['the stream is cut'] },
  'acknowledges before the write': { faults: ['the stream is cut'] },
  'acknowledges before the flush': { faults: ['the server crashes'] },
  'acknowledges keepalives while rows wait': { faults: ['the stream is cut'] },
  'acknowledges keepalives in a transaction': { faults: ['the stream is cut'] },
  'skips a commit that begins at the checkpoint': { rows: TWO, faults: ['the stream is cut'] },
  'resumes from the slot': { faults: ['the stream is cut'] },
  'moves the checkpoint with a part of a transaction': { rows: [[0, 1]], faults: ['the stream is cut'] },
  'writes without the term': { mostFaults: 0, mostTakeovers: 1 },
  'keeps the position of a reconcile without the term': {
    faults: ['the slot is dropped'],
    mostFaults: 2,
    mostTakeovers: 1,
    audits: 'regular',
  },
  'reconciles without a second look': { settled: false, mostFaults: 0 },
  'marks a reconcile after the slot is made': { faults: ['the slot is dropped', 'the stream is cut'], mostFaults: 2 },
  'lets a former leader make the slot': { faults: ['the slot is dropped'], mostFaults: 2, mostTakeovers: 1 },
  'repairs the publication without a mark': { faults: ['the publication loses the table'] },
  'resumes a reconcile that is marked anew': {
    rows: [[1], [0]],
    SNAPSHOT: 'never',
    faults: ['the slot is dropped'],
    mostFaults: 2,
  },
  'sets no horizon where the checkpoint is missing': {
    rows: TWO,
    SNAPSHOT: 'never',
    faults: ['the checkpoint is deleted'],
  },
  'sets the horizon anew': { rows: TWO, SNAPSHOT: 'never', faults: ['the slot is dropped'] },
  'streams what a slot has from before the first start': {
    settled: false,
    SNAPSHOT: 'never',
    faults: ['somebody makes the slot'],
    audits: 'regular',
  },
  'forgets that an audit is due': {
    rows: TWO,
    faults: ['somebody makes the slot', 'the stream is cut'],
    mostFaults: 2,
    audits: 'due',
  },
  'counts as audited what began before the end of the audit': {
    faults: ['somebody makes the slot'],
    audits: 'regular',
  },
  'goes on under a checkpoint of another term': {
    rows: [],
    faults: ['the checkpoint is deleted'],
    mostTakeovers: 1,
  },
  'has no primary key': { settled: false, mostFaults: 0 },
};

export const trapWorld = (trap: Trap): World => world(trap, TRAPS[trap]);
