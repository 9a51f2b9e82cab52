import { makeBacklog, mirrorBacklog, subscribeBacklog } from './backlog.ts';
import type { Backlog } from './backlog.ts';
import type { Bench, Stage } from './stage.ts';

/** The backlog that several benches read: single-row transactions. */
export function singleRows(stage: Stage): Promise<Backlog> {
  const transactions = stage.pick({ tiny: 200, short: 120_000, full: 300_000 });
  return stage.share('single rows', () => makeBacklog(stage, { transactions, rowsEach: 1 }));
}

export const bench: Bench = {
  name: 'catch-up',
  measures: 'single-row transactions from a slot into sms_log, from the first row to the last',
  comparisons: [
    {
      title: 'catch-up',
      figure: 'rate',
      unit: 'rows/s',
      against: 'native',
      reference: 'native subscription',
      target: { ratio: 1, better: 'more' },
    },
  ],
  run: async (stage) => {
    const backlog = await singleRows(stage);
    await stage.alternate({
      smslogd: () => mirrorBacklog(stage, backlog),
      native: () => subscribeBacklog(stage, backlog),
    });
  },
};
