/** The benches work: at a tiny size each one measures both sides of all that it compares. Nothing is said about speed here. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCluster, type Cluster } from '../../src/demo/cluster.ts';
import { BENCHES } from '../bench/bench.ts';
import { createStage, SETTINGS, type OpenStage } from '../bench/stage.ts';
import { summarize, table, type Sample } from '../bench/table.ts';

let cluster: Cluster;
let stage: OpenStage;
let running = '';
const samples: Sample[] = [];

beforeAll(async () => {
  cluster = await createCluster({ settings: { ...SETTINGS, fsync: 'off' } });
  stage = createStage({
    scale: 'tiny',
    cluster,
    ownOnly: false,
    say: () => {},
    measured: (side, figures) => samples.push({ bench: running, side, figures }),
  });
});
afterAll(async () => {
  await stage.close();
  await cluster.remove();
});

for (const bench of BENCHES) {
  test(`the bench ${bench.name} measures all that it compares`, async () => {
    running = bench.name;
    await bench.run(stage);
    const lines = summarize([bench], samples);
    expect(lines.map(({ title }) => title)).toEqual(bench.comparisons.map(({ title }) => title));
    const medians = lines.flatMap(({ smslogd, reference }) => [smslogd.median, reference?.spread.median ?? 1]);
    expect(medians.filter((median) => !(median > 0))).toEqual([]);
    const compared = lines.filter(({ reference }) => reference !== undefined).length;
    expect(compared).toBe(bench.comparisons.filter(({ against }) => against !== undefined).length);
  });
}

test('the table tells medians, spreads, the ratio and whether the target is reached', () => {
  const bench = {
    name: 'made-up',
    measures: 'nothing',
    run: async () => {},
    comparisons: [
      { title: 'rate', figure: 'rate', unit: 'rows/s', against: 'other', target: { ratio: 2, better: 'more' } },
      { title: 'delay', figure: 'delay', unit: 'ms', target: { limit: 5, better: 'less' } },
    ],
  } as const;
  const rates = [
    ['smslogd', 1000],
    ['smslogd', 900],
    ['smslogd', 2000],
    ['other', 600],
  ] as const;
  const made = rates.map(([side, rate]) => ({ bench: 'made-up', side, figures: { rate, delay: rate / 100 } }));
  const lines = summarize([bench], made);
  expect(lines[0]).toMatchObject({ smslogd: { median: 1000, least: 900, most: 2000 }, reached: false });
  expect(lines[0]?.reference?.ratio).toBeCloseTo(1.67);
  expect(lines[1]).toMatchObject({ smslogd: { median: 10 }, target: '≤ 5 ms', reached: false });
  expect(table(lines).split('\n')).toHaveLength(4);
});
