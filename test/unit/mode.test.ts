/** The mirror's next step, over all that it can see; and that no way to a mode leaves out what another one does. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { ZERO_LSN } from '../../src/postgres/lsn.ts';
import type { Due } from '../../src/mirror/checkpoint.ts';
import { nextStep, type Sight, type Step } from '../../src/mirror/mode.ts';
import type { Slot } from '../../src/mirror/slot.ts';

const SLOT: Slot = {
  reader: undefined,
  walStatus: 'reserved',
  confirmed: ZERO_LSN,
  inFuture: false,
  database: 'db',
  plugin: 'pgoutput',
  twoPhase: false,
  failover: true,
};

const SIGHT: Sight = {
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
  },
  hasMirrored: false,
  publication: 'right',
  slot: SLOT,
  unreadable: undefined,
  marked: undefined,
  failed: new Set(),
  streamFailure: undefined,
};

const checkpoint = (over: Partial<Sight['checkpoint']>) => ({ checkpoint: { ...SIGHT.checkpoint, ...over } });
const slot = (over: Partial<Slot>) => ({ slot: { ...SLOT, ...over } });

test.each([
  ['all is in place', {}, { step: 'stream' }],
  ['the first start', checkpoint({ systemId: undefined }), { step: 'begin', due: { reason: 'first start' } }],
  [
    'the checkpoint is gone',
    { ...checkpoint({ systemId: undefined }), hasMirrored: true },
    { step: 'begin', due: { reason: 'checkpoint missing' }, code: 'checkpoint_missing' },
  ],
  ['another cluster', checkpoint({ systemId: '2' }), { step: 'begin', code: 'database_changed' }],
  ['a checkpoint ahead of the server', checkpoint({ inFuture: true }), { step: 'begin', code: 'checkpoint_future' }],
  ['the publication lacks something', { publication: 'lacking' }, { step: 'repair', due: { fresh: false } }],
  ['it publishes too much', { publication: 'excess' }, { step: 'repair', due: undefined }],
  [
    'it lacks something that our role may not repair',
    { publication: 'lacking', failed: new Set(['repair']) },
    { step: 'reconcile', why: 'publication_missing' },
  ],
  [
    'it publishes too much, and that is not ours to change',
    { publication: 'excess', failed: new Set(['repair']) },
    { step: 'stream' },
  ],
  ['the slot is gone', { slot: undefined }, { step: 'make', due: { fresh: true }, code: 'slot_missing' }],
  [
    'a first start was interrupted before its slot',
    { slot: undefined, ...checkpoint({ reconcileDue: 'first start' }) },
    { step: 'make', due: { reason: 'first start' }, code: undefined },
  ],
  ['the slot is lost', slot({ walStatus: 'lost' }), { step: 'drop', due: { reason: 'slot lost' } }],
  ['the slot cannot be read', { unreadable: 'WAL missing' }, { step: 'drop', due: { reason: 'WAL missing' } }],
  ['the slot belongs to another database', slot({ database: 'other' }), { step: 'reconcile', why: 'slot_foreign' }],
  ['the slot has another plugin', slot({ plugin: 'test_decoding' }), { step: 'reconcile', why: 'slot_foreign' }],
  ['a dead daemon still reads the slot', slot({ reader: { pid: 7, ours: true } }), { step: 'end reader', pid: 7 }],
  [
    'its session does not end',
    { ...slot({ reader: { pid: 7, ours: true } }), failed: new Set(['end reader']) },
    { step: 'reconcile', why: 'slot_busy' },
  ],
  [
    'another program reads the slot',
    slot({ reader: { pid: 7, ours: false } }),
    { step: 'reconcile', why: 'slot_busy' },
  ],
  ['the slot is no failover slot', slot({ failover: false }), { step: 'failover' }],
  [
    'the server knows no failover slots',
    { ...slot({ failover: false }), server: { ...SIGHT.server, version: 160_000 } },
    { step: 'stream' },
  ],
  [
    'the stream did not begin the last time',
    { streamFailure: 'database_auth' },
    { step: 'reconcile', why: 'database_auth' },
  ],
] as [string, Partial<Sight>, object][])('%s', (_, over, step) => {
  expect(nextStep({ ...SIGHT, ...over })).toMatchObject(step);
});

const marked = (due: Due | undefined, next: Sight): Sight =>
  due === undefined ? next : { ...next, marked: due, checkpoint: { ...next.checkpoint, reconcileDue: due.reason } };

/** What the steps make of what is seen, as the database would. */
function take(sight: Sight, step: Step, may: { repair: boolean; end: boolean }): Sight {
  const failed = (name: Step['step']) => ({ ...sight, failed: new Set([...sight.failed, name]) });
  switch (step.step) {
    case 'begin':
      return marked(step.due, {
        ...sight,
        checkpoint: { ...sight.checkpoint, systemId: sight.server.systemId, inFuture: false },
      });
    case 'repair':
      return marked(step.due, may.repair ? { ...sight, publication: 'right' } : failed('repair'));
    case 'end reader':
      return may.end ? { ...sight, slot: { ...sight.slot!, reader: undefined } } : failed('end reader');
    case 'drop':
      return marked(step.due, { ...sight, slot: undefined, unreadable: undefined });
    case 'make':
      return marked(step.due, { ...sight, slot: SLOT });
    case 'failover':
      return failed('failover');
    case 'stream':
    case 'reconcile':
  }
  return sight;
}

/** The steps from `first` to a mode, and what is seen then. */
function way(first: Sight, may: { repair: boolean; end: boolean }): { steps: Step[]; last: Sight } {
  const steps: Step[] = [];
  for (let sight = first; steps.length < 9;) {
    const step = nextStep(sight);
    steps.push(step);
    if (step.step === 'stream' || step.step === 'reconcile') return { steps, last: sight };
    sight = take(sight, step, may);
  }
  throw new Error(`no mode after ${steps.map(({ step }) => step).join()}`);
}

/** What a way from `first` leaves out. */
function leavesOut(first: Sight, { steps, last }: ReturnType<typeof way>): string[] {
  const has = (name: Step['step']) => steps.some(({ step }) => step === name);
  const unknown = first.checkpoint.systemId === undefined;
  const foreign = first.checkpoint.systemId !== first.server.systemId || first.checkpoint.inFuture;
  const began = steps.find((step) => step.step === 'begin');
  const streams = has('stream');
  return [
    foreign && steps[0]?.step !== 'begin' ? 'the cluster is not noted first' : '',
    unknown && began?.due.horizon !== (first.config.SNAPSHOT === 'never') ? 'the horizon is wrong' : '',
    (has('make') || has('drop')) && last.marked?.fresh !== true ? 'what an absent slot missed is not reconciled' : '',
    streams && last.publication === 'lacking' ? 'it streams without what the publication lacks' : '',
    streams && first.publication === 'lacking' && last.marked === undefined ? 'what passed is not reconciled' : '',
    streams && (last.slot?.reader !== undefined || last.slot?.walStatus !== 'reserved' || last.slot.inFuture)
      ? 'it streams from a slot that is useless'
      : '',
  ].filter((words) => words !== '');
}

const SLOTS: readonly Sight['slot'][] = [
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

const sights: fc.Arbitrary<Sight> = fc
  .record({
    SNAPSHOT: fc.constantFrom('initial' as const, 'never' as const),
    start: fc.constantFrom({}, { systemId: undefined }, { systemId: '2' }, { inFuture: true }),
    reconcileDue: fc.constantFrom(undefined, 'first start', 'audit'),
    hasMirrored: fc.boolean(),
    publication: fc.constantFrom('right' as const, 'excess' as const, 'lacking' as const),
    slot: fc.constantFrom(...SLOTS),
    unreadable: fc.constantFrom(undefined, 'WAL missing'),
    streamFailure: fc.constantFrom<ErrorCode | undefined>(undefined, 'database_auth'),
  })
  .map(({ SNAPSHOT, start, reconcileDue, ...seen }) => ({
    ...SIGHT,
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
