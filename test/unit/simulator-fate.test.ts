import { describe, expect, it } from 'vitest';
import { drawFate, makeGatewayId, stateAt, type Fate } from '../../src/simulator/fate.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { createTruth } from '../../src/simulator/truth.ts';
import { isFinal, statusOfWord, STATUSES } from '../../src/status.ts';

const SENT_AT = Date.UTC(2026, 0, 5, 12);
const DRAWS = 100_000;

const fates: Fate[] = (() => {
  const random = seededRandom(20_260_105);
  return Array.from({ length: DRAWS }, () => drawFate(SENT_AT, random));
})();
const last = (fate: Fate) => fate.at(-1)!;
const shareOf = (which: (fate: Fate) => boolean) => fates.filter(which).length / DRAWS;
const isOpen = (fate: Fate) => !isFinal(statusOfWord(last(fate).status)!);
const delay = (fate: Fate) => last(fate).at - SENT_AT;

const delivered = fates.filter((fate) => last(fate).status === 'Delivered');
/** The share of SMS that were delivered in more than `from` and at most `to` minutes. */
const group = (from: number, to: number) =>
  delivered.filter((fate) => delay(fate) > from * 60_000 && delay(fate) <= to * 60_000).length / DRAWS;

function draw(seed: number): Fate[] {
  const random = seededRandom(seed);
  return Array.from({ length: 50 }, () => drawFate(SENT_AT, random));
}

describe('the stated distribution of fates', () => {
  it('delivers 95 of 100, ends 3 undelivered and leaves 2 without an end', () => {
    expect(delivered.length / DRAWS).toBeCloseTo(0.95, 2);
    expect(shareOf(isOpen)).toBeCloseTo(0.02, 2);
    expect(shareOf((fate) => !isOpen(fate) && last(fate).status !== 'Delivered')).toBeCloseTo(0.03, 2);
  });

  it('delivers most within seconds, with a median near 4 s', () => {
    const delays = delivered.map(delay).sort((a, b) => a - b);
    const median = delays[Math.floor(delays.length / 2)]!;
    expect(median).toBeGreaterThan(4_000);
    expect(median).toBeLessThan(5_000);
    expect(delays.filter((ms) => ms <= 26_000).length / delays.length).toBeGreaterThan(0.89);
  });

  it('puts the stated share into each latency group of the reports', () => {
    expect(group(-1, 2)).toBeCloseTo(0.8965, 2);
    expect(group(2, 5)).toBeCloseTo(0.0175, 2);
    expect(group(5, 30)).toBeCloseTo(0.0342, 2);
    const late = group(30, 33.001);
    expect(late).toBeGreaterThan(0.001);
    expect(late).toBeLessThan(0.003);
    expect(group(33.001, Infinity)).toBe(0);
  });

  it('uses every status but Terminated, which is not the gateway’s to give', () => {
    const used = new Set(fates.flatMap((fate) => fate.map(({ status }) => status)));
    expect([...used].sort()).toEqual(STATUSES.filter((status) => status !== 'Terminated').sort());
  });

  it('begins each fate as Accepted at the time of sending, in order, and never goes on after a final status', () => {
    const wrong = fates.filter(
      (fate) =>
        fate[0]!.status !== 'Accepted' ||
        fate[0]!.at !== SENT_AT ||
        fate.some(({ at }, step) => step > 0 && at < fate[step - 1]!.at) ||
        fate.slice(0, -1).some(({ status }) => isFinal(statusOfWord(status)!)),
    );
    expect(wrong).toEqual([]);
  });

  it('is the same for the same seed and another one for another', () => {
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });
});

describe('the state at a moment', () => {
  const fate: Fate = [
    { status: 'Accepted', at: 1_000 },
    { status: 'Enroute', at: 2_000 },
    { status: 'Delivered', at: 5_000 },
  ];
  const truth = createTruth();
  truth.set('1', fate);

  it.each([
    [999, undefined],
    [1_000, 'Accepted'],
    [1_999, 'Accepted'],
    [2_000, 'Enroute'],
    [4_999, 'Enroute'],
    [5_000, 'Delivered'],
    [9e15, 'Delivered'],
  ])('at %d ms is %s, packed or not', (now, status) => {
    expect(stateAt(fate, now)?.status).toBe(status);
    expect(truth.stateAt('1', now)).toEqual(stateAt(fate, now));
  });
});

describe('the packed truth', () => {
  it('gives back every fate as it was set, past all growing', () => {
    const truth = createTruth();
    fates.slice(0, 20_000).forEach((fate, index) => truth.set(`${index}`, fate));
    expect(truth.size).toBe(20_000);
    expect([...truth.ids()].map((id) => truth.get(id))).toEqual(fates.slice(0, 20_000));
    expect([...truth.ids()].slice(0, 3)).toEqual(['0', '1', '2']);
  });

  it('takes another fate for a known id, any word as a status, and knows nothing of other ids', () => {
    const truth = createTruth();
    truth.set('1', [{ status: 'Accepted', at: 1 }]);
    truth.set('1', [{ status: 'sent elsewhere', at: 2 }]);
    expect(truth.size).toBe(1);
    expect(truth.get('1')).toEqual([{ status: 'sent elsewhere', at: 2 }]);
    expect(truth.has('2')).toBe(false);
    expect(truth.get('2')).toBeUndefined();
    expect(truth.stateAt('2', 9)).toBeUndefined();
  });
});

describe('gateway ids', () => {
  it('have the three known lengths, the long one beginning with phone and time of sending', () => {
    const random = seededRandom(3);
    const sentAt = SENT_AT + 384;
    const ids = Array.from({ length: 10_000 }, () => makeGatewayId('+380001234567', sentAt, random));
    const lengths = new Set(ids.map((id) => id.length));
    expect([...lengths].sort((a, b) => a - b)).toEqual([7, 8, 9, 13, 25]);
    for (const id of ids) expect(id).toMatch(/^[1-9][0-9]*$/);
    expect(new Set(ids.filter((id) => id.length === 25))).toEqual(new Set([`380001234567${SENT_AT / 1000}384`]));
    expect(makeGatewayId('380001234567', SENT_AT + 7, () => 0.2)).toHaveLength(23);
  });
});
