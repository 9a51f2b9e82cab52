import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mirrorBacklog } from './backlog.ts';
import { oneTransaction } from './big-transaction.ts';
import { singleRows } from './catch-up.ts';
import { memoryWithOpen } from './polling.ts';
import type { Bench, Figures } from './stage.ts';

const LIMIT = { target: { limit: 130, better: 'less' }, against: 'node', reference: 'a bare Node.js process' } as const;

export const bench: Bench = {
  name: 'memory',
  measures: 'peak resident memory of the daemon',
  comparisons: [
    { title: 'catch-up', figure: 'catch_up', unit: 'MiB', ...LIMIT },
    { title: 'one big transaction', figure: 'big', unit: 'MiB', ...LIMIT },
    { title: '50,000 open SMS', figure: 'open', unit: 'MiB', ...LIMIT },
  ],
  run: async (stage) => {
    const single = await singleRows(stage);
    const big = await oneTransaction(stage);
    const open = stage.pick({ tiny: 200, short: 50_000, full: 50_000 });
    await stage.alternate(
      {
        smslogd: async () => ({
          catch_up: (await mirrorBacklog(stage, single))['memory']!,
          big: (await mirrorBacklog(stage, big))['memory']!,
          open: await memoryWithOpen(stage, open),
        }),
        node: bareNode,
      },
      { rounds: stage.pick({ tiny: 1, short: 1, full: 3 }) },
    );
  },
};

async function bareNode(): Promise<Figures> {
  const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1000)'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024;
  child.kill('SIGKILL');
  await once(child, 'exit');
  return { catch_up: peak, big: peak, open: peak };
}
