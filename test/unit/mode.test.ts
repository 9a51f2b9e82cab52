/** The mirror's next step, over all that it can see; and that no way to a mode leaves out what another one does. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { parseLsn, ZERO_LSN } from '../../src/postgres/lsn.ts';
import type { ReconcileDue } from '../../src/mirror/checkpoint.ts';
import { nextStep, type Observed, type Step } from '../../src/mirror/mode.ts';
import type { Slot } from '../../src/mirror/slot.ts';

const SLOT: Slot = {
  reader: undefined,
  walStatus: 'reserved',
  invalidationReason: undefined,
  confirmed: ZERO_LSN,
  inFuture: false,
  behindBytes: 0,
  retained: '1 kB',
  type: 'logical',
  database: 'db',
  plugin: 'pgoutput',
  twoPhase: false,
  failover: true,
};

/** One that is made later. */
const NEW_SLOT: Slot = { ...SLOT, confirmed: parseLsn('0/1') };
const UNREADABLE = { reason: 'WAL missing', at: SLOT.confirmed };

const OBSERVED: Observed = {
  config: { SNAPSHOT: 'initial' },
  server: { systemId: '1', version: 180_000, database: 'db' },
  checkpoint: {
    term: 1n,
    lsn: undefined,
    inFuture: false,
    systemId: '1',
    sourceTimezone: 'UTC',
    removed: false,
    reconcileDue: undefined,
    auditDue: false,
  },
  hasMirroredRows: false,
  publication: 'correct',
  slot: SLOT,
  makers: [],
  unreadable: undefined,
  marked: undefined,
  failed: new Set(),
  streamFailure: undefined,
};

const checkpoint = (over: Partial<Observed['checkpoint']>) => ({ checkpoint: { ...OBSERVED.checkpoint, ...over } });
const slot = (over: Partial<Slot>) => ({ slot: { ...SLOT, ...over } });

test.each([
  ['all is in place', {}, { step: 'stream' }],
  ['the first start', checkpoint({ systemId: undefined }), { step: 'identify', due: { reason: 'first start' } }],
  [
    'the checkpoint is gone',
    { ...checkpoint({ systemId: undefined }), hasMirroredRows: true },
    { step: 'identify', due: { reason: 'checkpoint missing' }, code: 'checkpoint_missing' },
  ],
  [
    'migrate was run again after a teardown',
    { ...checkpoint({ systemId: undefined, reconcileDue: 'first start' }), hasMirroredRows: true },
    { step: 'identify', due: { reason: 'first start' }, code: undefined },
  ],
  ['another cluster', checkpoint({ systemId: '2' }), { step: 'identify', code: 'database_changed' }],
  ['a checkpoint ahead of the server', checkpoint({ inFuture: true }), { step: 'identify', code: 'checkpoint_future' }],
  [
    'the publication isIncomplete something',
    { publication: 'incomplete' },
    { step: 'repair publication', due: { fresh: false } },
  ],
  [
    'it lacks something at the first start',
    { publication: 'incomplete', ...checkpoint({ reconcileDue: 'first start' }) },
    { step: 'repair publication', due: { reason: 'first start', fresh: false } },
  ],
  ['it publishes too much', { publication: 'excess' }, { step: 'repair publication', due: undefined }],
  [
    'it isIncomplete something that our role may not repair',
    { publication: 'incomplete', failed: new Set(['repair publication']) },
    { step: 'reconcile', why: 'publication_missing' },
  ],
  [
    'it publishes too much, and that is not ours to change',
    { publication: 'excess', failed: new Set(['repair publication']) },
    { step: 'stream' },
  ],
  ['the slot is gone', { slot: undefined }, { step: 'create slot', due: { fresh: true }, code: 'slot_missing' }],
  [
    'a first start was interrupted before its slot',
    { slot: undefined, ...checkpoint({ reconcileDue: 'first start' }) },
    { step: 'create slot', due: { reason: 'first start' }, code: undefined },
  ],
  ['the slot is lost', slot({ walStatus: 'lost' }), { step: 'drop slot', due: { reason: 'slot lost' } }],
  ['the slot cannot be read', { unreadable: UNREADABLE }, { step: 'drop slot', due: { reason: 'WAL missing' } }],
  [
    'the slot that could not be read was made again by somebody',
    { unreadable: UNREADABLE, slot: NEW_SLOT },
    { step: 'stream' },
  ],
  ['the slot belongs to another database', slot({ database: 'other' }), { step: 'reconcile', why: 'slot_foreign' }],
  ['the slot has another plugin', slot({ plugin: 'test_decoding' }), { step: 'reconcile', why: 'slot_foreign' }],
  [
    'a dead daemon still reads the slot',
    slot({ reader: { pid: 7, ours: true } }),
    { step: 'terminate reader', pid: 7 },
  ],
  [
    'its session does not end',
    { ...slot({ reader: { pid: 7, ours: true } }), failed: new Set(['terminate reader']) },
    { step: 'reconcile', why: 'slot_busy' },
  ],
  ['a former leader may still make the slot', { slot: undefined, makers: [7, 8] }, { step: 'terminate maker', pid: 7 }],
  [
    'its session does not end either',
    { makers: [7], failed: new Set(['terminate maker']) },
    { step: 'reconcile', why: 'slot_busy' },
  ],
  [
    'another program reads the slot',
    slot({ reader: { pid: 7, ours: false } }),
    { step: 'reconcile', why: 'slot_busy' },
  ],
  ['the slot is no failover slot', slot({ failover: false }), { step: 'enable failover' }],
  [
    'the server knows no failover slots',
    { ...slot({ failover: false }), server: { ...OBSERVED.server, version: 160_000 } },
    { step: 'stream' },
  ],
  [
    'the stream did not begin the last time',
    { streamFailure: 'database_auth' },
    { step: 'reconcile', why: 'database_auth' },
  ],
] as [string, Partial<Observed>, object][])('%s', (_, over, step) => {
  expect(nextStep({ ...OBSERVED, ...over })).toMatchObject(step);
});

const marked = (due: ReconcileDue | undefined, next: Observed): Observed =>
  due === undefined ? next : { ...next, marked: due, checkpoint: { ...next.checkpoint, reconcileDue: due.reason } };

/** What the steps make of what is seen, as the database would. */
function take(observed: Observed, step: Step, may: { repair: boolean; end: boolean }): Observed {
  const failed = (name: Step['step']) => ({ ...observed, failed: new Set([...observed.failed, name]) });
  switch (step.step) {
    case 'identify':
      return marked(step.due, {
        ...observed,
        checkpoint: { ...observed.checkpoint, systemId: observed.server.systemId, inFuture: false },
      });
    case 'repair publication':
      return marked(step.due, may.repair ? { ...observed, publication: 'correct' } : failed('repair publication'));
    case 'terminate maker':
      return may.end ? { ...observed, makers: [] } : failed('terminate maker');
    case 'terminate reader':
      return may.end ? { ...observed, slot: { ...observed.slot!, reader: undefined } } : failed('terminate reader');
    case 'drop slot':
      return marked(step.due, { ...observed, slot: undefined });
    case 'create slot':
      return marked(step.due, { ...observed, slot: NEW_SLOT });
    case 'enable failover':
      return failed('enable failover');
    case 'stream':
    case 'reconcile':
  }
  return observed;
}

/** The steps from `first` to a mode, and what is seen then. */
function way(first: Observed, may: { repair: boolean; end: boolean }): { steps: Step[]; last: Observed } {
  const steps: Step[] = [];
  for (let observed = first; steps.length < 9;) {
    const step = nextStep(observed);
    steps.push(step);
    if (step.step === 'stream' || step.step === 'reconcile') return { steps, last: observed };
    observed = take(observed, step, may);
  }
  throw new Error(`no mode after ${steps.map(({ step }) => step).join()}`);
}

/** What a way from `first` leaves out. */
function leavesOut(first: Observed, { steps, last }: ReturnType<typeof way>): string[] {
  const has = (name: Step['step']) => steps.some(({ step }) => step === name);
  const unknown = first.checkpoint.systemId === undefined;
  const foreign = first.checkpoint.systemId !== first.server.systemId || first.checkpoint.inFuture;
  const began = steps.find((step) => step.step === 'identify');
  const streams = has('stream');
  return [
    foreign && steps[0]?.step !== 'identify' ? 'the cluster is not noted first' : '',
    unknown && began?.due.horizon !== (first.config.SNAPSHOT === 'never') ? 'the horizon is wrong' : '',
    (has('create slot') || has('drop slot')) && last.marked?.fresh !== true
      ? 'what an absent slot missed is not reconciled'
      : '',
    streams && last.publication === 'incomplete' ? 'it streams though the publication is incomplete' : '',
    streams && first.publication === 'incomplete' && last.marked === undefined ? 'what passed is not reconciled' : '',
    streams &&
    (last.slot?.reader !== undefined || last.slot?.walStatus !== 'reserved' || last.slot.inFuture || last.slot.twoPhase)
      ? 'it streams from a slot that is useless'
      : '',
  ].filter((words) => words !== '');
}

const SLOTS: readonly Observed['slot'][] = [
  undefined,
  ...[
    {},
    { walStatus: 'lost' },
    { inFuture: true },
    { twoPhase: true },
    { plugin: 'other' },
    { failover: false },
    { reader: { pid: 1, ours: true } },
    { reader: { pid: 1, ours: false } },
  ].map((over) => ({ ...SLOT, ...over })),
];

const sights: fc.Arbitrary<Observed> = fc
  .record({
    SNAPSHOT: fc.constantFrom('initial' as const, 'never' as const),
    start: fc.constantFrom({}, { systemId: undefined }, { systemId: '2' }, { inFuture: true }),
    reconcileDue: fc.constantFrom(undefined, 'first start', 'audit'),
    hasMirroredRows: fc.boolean(),
    publication: fc.constantFrom('correct' as const, 'excess' as const, 'incomplete' as const),
    slot: fc.constantFrom(...SLOTS),
    unreadable: fc.constantFrom(undefined, UNREADABLE),
    streamFailure: fc.constantFrom<ErrorCode | undefined>(undefined, 'database_auth'),
  })
  .map(({ SNAPSHOT, start, reconcileDue, ...seen }) => ({
    ...OBSERVED,
    ...seen,
    ...checkpoint({ ...start, reconcileDue }),
    config: { SNAPSHOT },
  }));

test('from whatever it sees it comes to a mode in a few steps, and leaves nothing out on its way', () => {
  fc.assert(
    fc.property(sights, fc.record({ repair: fc.boolean(), end: fc.boolean() }), (first, may) => {
      expect(leavesOut(first, way(first, may))).toEqual([]);
    }),
    { numRuns: 5_000 },
  );
});
