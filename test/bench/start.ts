import { makeBacklog, mirrorBacklog, subscribeBacklog } from './backlog.ts';
import type { Bench } from './stage.ts';

export const bench: Bench = {
  name: 'start',
  measures: 'a restart behind a backlog, from the start of the process; both slots live on from round to round',
  comparisons: [
    { title: 'start to first row', figure: 'first', unit: 'ms', target: { limit: 1000, better: 'less' } },
    {
      title: 'catch-up, start included',
      figure: 'whole',
      unit: 'rows/s',
      against: 'native',
      reference: 'native subscription',
      target: { ratio: 1, better: 'more' },
    },
  ],
  run: async (stage) => {
    const transactions = stage.pick({ tiny: 200, short: 40_000, full: 200_000 });
    const backlog = await makeBacklog(stage, { transactions, rowsEach: 1 });
    const [slot, other] = [await backlog.slot(), await backlog.slot()];
    let written = 1;
    /** Each side reads each backlog once. */
    const rounds = () => {
      let round = 0;
      return async () => {
        round += 1;
        if (round > written) await backlog.again();
        written = Math.max(written, round);
      };
    };
    const [mine, natives] = [rounds(), rounds()];
    await stage.alternate({
      smslogd: async () => {
        await mine();
        return await mirrorBacklog(stage, backlog, slot);
      },
      native: async () => {
        await natives();
        return await subscribeBacklog(stage, backlog, false, other);
      },
    });
    for (const each of [slot, other]) await backlog.drop(each);
  },
};
