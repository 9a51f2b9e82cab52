import { assert, integer, property } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkRow, trueStatus, type LoggedState } from '../../src/demo/correctness.ts';
import { drawFate, stateAt, type Fate } from '../../src/simulator/fate.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { isFinal, type Status } from '../../src/status.ts';

const MINUTE = 60_000;
const LIFE = 35 * MINUTE;
const SENT = Date.parse('2026-03-01T10:00:00.250Z');
const clock = { now: SENT + 60 * MINUTE, lifeMs: LIFE };
const young = { now: SENT + 10 * MINUTE, lifeMs: LIFE };

const delivered: Fate = [
  { status: 'Accepted', at: SENT },
  { status: 'Enroute', at: SENT + 1_400 },
  { status: 'Delivered', at: SENT + 5_300 },
];
const stuck: Fate = [
  { status: 'Accepted', at: SENT },
  { status: 'Enroute', at: SENT + 1_400 },
];

function row(status: Status | null, changedAt: number | null, updatedAt = SENT + 59 * MINUTE): LoggedState {
  return { status, changedAt, updatedAt };
}
const second = (at: number) => Math.floor(at / 1000) * 1000;
const flaw = (logged: LoggedState, fate: Fate | undefined, at = clock) =>
  checkRow(logged, { insertedAt: SENT, fate }, at).flaw;

describe('a final status', () => {
  test('with the second at which it came is true', () => {
    expect(flaw(row('Delivered', second(SENT + 5_300)), delivered)).toBeUndefined();
  });
  test('with another second is untrue', () => {
    expect(flaw(row('Delivered', second(SENT + 5_300) + 1_000), delivered)).toBe('date');
    expect(flaw(row('Delivered', SENT + 5_300), delivered)).toBe('date');
    expect(flaw(row('Delivered', null), delivered)).toBe('date');
  });
  test('that the SMS never had is untrue', () => {
    expect(flaw(row('Expired', second(SENT + 5_300)), delivered)).toBe('status');
    expect(flaw(row('Delivered', second(SENT + 1_400)), stuck)).toBe('status');
  });
  test('that had not come yet when the row was written is untrue', () => {
    expect(flaw(row('Delivered', second(SENT + 5_300), SENT + 5_000), delivered)).toBe('status');
  });
  test('of an SMS without a gateway id is untrue', () => {
    expect(flaw(row('Delivered', second(SENT + 5_300)), undefined)).toBe('status');
  });
});

describe('an open status', () => {
  test('that was so once is true while the SMS lives, and counted as behind', () => {
    const check = checkRow(row('Enroute', second(SENT + 1_400)), { insertedAt: SENT, fate: delivered }, young);
    expect(check).toEqual({ flaw: undefined, behindMs: 10 * MINUTE - 5_300 });
  });
  test('that is so is not behind', () => {
    const check = checkRow(row('Enroute', second(SENT + 1_400)), { insertedAt: SENT, fate: stuck }, young);
    expect(check).toEqual({ flaw: undefined, behindMs: 0 });
  });
  test('that never was so is untrue', () => {
    expect(flaw(row('Pending', second(SENT + 1_400)), delivered, young)).toBe('status');
    expect(flaw(row('Enroute', null), delivered, young)).toBe('date');
  });
  test('as its service wrote it, without a date, is true only for Accepted', () => {
    expect(flaw(row('Accepted', null), delivered, young)).toBeUndefined();
    expect(flaw(row('Unknown', null), delivered, young)).toBe('status');
  });
  test('of an SMS whose life is over is overdue, true or not', () => {
    expect(
      flaw(row('Enroute', second(SENT + 1_400)), stuck, { now: SENT + LIFE + 4 * MINUTE, lifeMs: LIFE }),
    ).toBeUndefined();
    expect(flaw(row('Enroute', second(SENT + 1_400)), stuck, { now: SENT + LIFE + 6 * MINUTE, lifeMs: LIFE })).toBe(
      'overdue',
    );
    expect(flaw(row('Enroute', second(SENT + 1_400)), stuck)).toBe('overdue');
    expect(flaw(row('Accepted', null), delivered)).toBe('overdue');
    expect(flaw(row(null, null), undefined)).toBe('overdue');
  });
});

describe('Terminated', () => {
  test('is true where the gateway had no final status when the life was over', () => {
    expect(flaw(row('Terminated', SENT + LIFE + 20_000), stuck)).toBeUndefined();
  });
  test('before the end of the life is untrue', () => {
    expect(flaw(row('Terminated', SENT + LIFE - 1), stuck)).toBe('date');
    expect(flaw(row('Terminated', null), stuck)).toBe('date');
  });
  test('over a Delivered that could be learned is untrue', () => {
    expect(flaw(row('Terminated', SENT + LIFE + 20_000), delivered)).toBe('status');
    const late: Fate = [...stuck, { status: 'Delivered', at: SENT + LIFE + MINUTE }];
    expect(flaw(row('Terminated', SENT + LIFE + 3 * MINUTE), late)).toBe('status');
    expect(flaw(row('Terminated', SENT + LIFE + 20_000), late)).toBeUndefined();
  });
  test('is untrue where there never was a gateway id', () => {
    expect(flaw(row('Terminated', SENT + LIFE + 20_000), undefined)).toBe('status');
  });
});

describe('Unaccepted', () => {
  test('is our verdict only where no gateway id ever was and the life is over', () => {
    expect(flaw(row('Unaccepted', SENT + LIFE + 20_000), undefined)).toBeUndefined();
    expect(flaw(row('Unaccepted', SENT + LIFE - 1), undefined)).toBe('date');
    expect(flaw(row('Unaccepted', SENT + LIFE + 20_000), stuck)).toBe('status');
  });
  test('by the gateway stands with the gateway’s second', () => {
    const refused: Fate = [...stuck.slice(0, 1), { status: 'Unaccepted', at: SENT + 700 }];
    expect(flaw(row('Unaccepted', second(SENT + 700)), refused)).toBeUndefined();
    expect(flaw(row('Unaccepted', SENT + LIFE), refused)).toBe('date');
  });
});

test('no status is true only where there is no gateway id', () => {
  expect(flaw(row(null, null), undefined, young)).toBeUndefined();
  expect(flaw(row(null, null), stuck, young)).toBe('status');
});

test('the true status is the gateway’s, or our verdict where the life ends without one', () => {
  expect(trueStatus({ insertedAt: SENT, fate: delivered }, clock)).toBe('Delivered');
  expect(trueStatus({ insertedAt: SENT, fate: stuck }, young)).toBe('Enroute');
  expect(trueStatus({ insertedAt: SENT, fate: stuck }, clock)).toBe('Terminated');
  expect(trueStatus({ insertedAt: SENT, fate: undefined }, clock)).toBe('Unaccepted');
  expect(trueStatus({ insertedAt: SENT, fate: undefined }, young)).toBeNull();
});

test('whatever an honest poller writes is true, and the same row with another status is not', () => {
  assert(
    property(integer(), integer({ min: 0, max: 50 * MINUTE }), (seed, askedAfter) => {
      const fate = drawFate(SENT, seededRandom(seed));
      const asked = SENT + askedAfter;
      const state = stateAt(fate, asked)!;
      const over = askedAfter >= LIFE;
      const open = !isFinal(state.status as Status);
      const honest =
        over && open ? row('Terminated', asked, asked) : row(state.status as Status, second(state.at), asked);
      const course = { insertedAt: SENT, fate };
      expect(checkRow(honest, course, { now: asked + 1, lifeMs: LIFE }).flaw).toBeUndefined();
      expect(checkRow({ ...honest, status: 'Rejected' }, course, { now: asked, lifeMs: LIFE }).flaw).toSatisfy(
        (found) => found !== undefined || honest.status === 'Rejected',
      );
    }),
  );
});
