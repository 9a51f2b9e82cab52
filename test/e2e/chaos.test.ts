/** A short campaign of test/chaos with a fixed seed: a round of overlapping faults, and every invariant after it. `npm run chaos` plays longer ones. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { runCampaign } from '../chaos/campaign.ts';
import { describePlan, planOf } from '../chaos/plan.ts';
import { describeReport } from '../chaos/report.ts';

/** Of its first round each fault can always be done: a slow path, a slot that is taken forward, killed daemons and, as the last one, a crash of the server. */
const SEED = 11481;

test('a plan is repeated by its seed, and fills its minutes', () => {
  const plan = planOf({ seed: SEED, minutes: 10 });
  expect(describePlan(planOf({ seed: SEED, minutes: 10 }))).toBe(describePlan(plan));
  expect(describePlan(planOf({ seed: SEED + 1, minutes: 10 }))).not.toBe(describePlan(plan));
  expect(plan.length).toBeGreaterThan(8);
});

test('the campaign of .ci/run has faults of each part', () => {
  const [, minutes, seed] = /--minutes (\d+) --seed (\d+)/.exec(readFileSync('.ci/run', 'utf8'))!;
  const rounds = planOf({ seed: Number(seed), minutes: Number(minutes) });
  const names = rounds.flatMap(({ faults }) => faults.map(({ name }) => name)).join('\n');
  const parts = [
    'leader',
    'server',
    'role',
    'slot',
    'publication',
    'checkpoint',
    'queue',
    'path',
    'gateway',
    '.* disk',
  ];
  expect(parts.filter((part) => !new RegExp(`^${part} `, 'm').test(names))).toEqual([]);
});

test('a round of faults leaves nothing missing, doubled or untrue', { timeout: 600_000 }, async () => {
  const rounds = planOf({ seed: SEED, minutes: 1 }).slice(0, 1);
  const said: string[] = [];
  const report = await runCampaign({ rounds, seed: SEED, daemons: 2, say: (line) => void said.push(line) });
  expect(report.breaches.length === 0 ? '' : [...said, describeReport(report)].join('\n')).toBe('');
  expect(report.rounds).toBe(1);
  expect(Object.fromEntries(report.faults)).toEqual(
    Object.fromEntries(rounds[0]!.faults.map(({ name }) => [name, { done: 1, failed: [] }])),
  );
  expect(report.workload['confirmed']).toBeGreaterThan(20);
});
