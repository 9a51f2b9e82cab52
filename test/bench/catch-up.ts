import { makeBacklog, mirrorBacklog, subscribeBacklog } from './backlog.ts';
import type { Backlog } from './backlog.ts';
import type { Bench, Stage } from './stage.ts';

/** The backlog that several benches read: single-row transactions. */
export function singleRows(stage: Stage): Promise<Backlog> {
  const transactions = stage.pick({ tiny: 200, short: 120_000, full: 300_000 });
  return stage.share('single rows', () => makeBacklog(stage, { transactions, rowsEach: 1 }));
}

const REFERENCES = [
  ['native', 'native subscription', 1],
  ['binary', 'native subscription in binary form', 1],
] as const;
const PARTS = [
  ['sender', "of the server's sender"],
  ['node', 'of Node.js'],
  ['writer', 'of the session that writes'],
] as const;

export const bench: Bench = {
  name: 'catch-up',
  measures: 'single-row transactions from a slot into sms_log, from the first row to the last',
  comparisons: [
    ...REFERENCES.flatMap(([against, reference, ratio]) => [
      {
        title: `catch-up, ${reference}`,
        figure: 'rate',
        unit: 'rows/s',
        against,
        reference,
        target: { ratio, better: 'more' as const },
      },
      {
        title: `processor time, ${reference}`,
        figure: 'processor',
        unit: 'µs a row',
        against,
        reference,
        target: { ratio: 1, better: 'less' as const },
      },
    ]),
    ...PARTS.map(([figure, title]) => ({ title, figure, unit: 'µs a row' })),
  ],
  run: async (stage) => {
    const backlog = await singleRows(stage);
    await stage.alternate({
      smslogd: () => mirrorBacklog(stage, backlog),
      native: () => subscribeBacklog(stage, backlog),
      binary: () => subscribeBacklog(stage, backlog, true),
    });
  },
};
