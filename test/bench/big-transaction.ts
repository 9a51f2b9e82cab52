import { makeBacklog, mirrorBacklog, subscribeBacklog, type Backlog } from './backlog.ts';
import type { Bench, Stage } from './stage.ts';

/** The backlog of one transaction. */
export function oneTransaction(stage: Stage): Promise<Backlog> {
  const rowsEach = stage.pick({ tiny: 2_000, short: 200_000, full: 1_000_000 });
  return stage.share('one transaction', () => makeBacklog(stage, { transactions: 1, rowsEach }));
}

export const bench: Bench = {
  name: 'big',
  measures: 'one transaction of very many rows, from the start of the consumer to its last row',
  comparisons: [
    {
      title: 'one big transaction',
      figure: 'whole',
      unit: 'rows/s',
      against: 'native',
      reference: 'native subscription',
      target: { ratio: 0.75, better: 'more' },
    },
    {
      title: 'processor time',
      figure: 'processor',
      unit: 'µs a row',
      against: 'native',
      reference: 'native subscription',
      target: { ratio: 1, better: 'less' },
    },
  ],
  run: async (stage) => {
    const backlog = await oneTransaction(stage);
    await stage.alternate({
      smslogd: () => mirrorBacklog(stage, backlog),
      native: () => subscribeBacklog(stage, backlog),
    });
  },
};
