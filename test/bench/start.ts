import { randomBytes } from 'node:crypto';
import { dropSlotOnceFree } from './backlog.ts';
import type { Bench } from './stage.ts';

export const bench: Bench = {
  name: 'start',
  measures: 'from the start of the process until it streams from a slot that is caught up',
  comparisons: [{ title: 'run to streaming', figure: 'ms', unit: 'ms', target: { limit: 1000, better: 'less' } }],
  run: async (stage) => {
    const db = await stage.database();
    const slot = `start_${randomBytes(4).toString('hex')}`;
    const start = async () => {
      const began = performance.now();
      const daemon = stage.daemon(db.env({ SLOT_NAME: slot }));
      await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
      const ms = performance.now() - began;
      daemon.kill('SIGTERM');
      await daemon.exited;
      return { ms };
    };
    // the first one makes the slot
    await start();
    await stage.alternate({ smslogd: start }, { rounds: 5 });
    await dropSlotOnceFree(db.sql, slot);
  },
};
