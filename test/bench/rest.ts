import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { dropSlotOnceFree, NEW_ROW } from './backlog.ts';
import { firstLine, GATEWAY, script } from './poll.ts';
import { processorMicros } from './processor.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

/** SMS a second in a busy hour */
const RATE = 60;
const PARTS = { node: 'Node.js', server: "the server's sessions for it", both: 'both together' };

export const bench: Bench = {
  name: 'rest',
  measures: `what a daemon with all its loops costs, with nothing to do and at ${RATE} SMS/s: percent of a core, after some time to settle`,
  comparisons: (['rest', 'busy'] as const).flatMap((state) =>
    Object.entries(PARTS).map(([part, title]) => ({
      title: `${title}, ${state === 'rest' ? 'at rest' : `at ${RATE} SMS/s`}`,
      figure: `${state}_${part}`,
      unit: '%',
      ...(state === 'rest' && part === 'both' ? { target: { limit: 1, better: 'less' as const } } : {}),
    })),
  ),
  run: async (stage) => {
    const db = await stage.database();
    await stage.alternate({ smslogd: () => cost(stage, db) }, { rounds: 1 });
  },
};

async function cost(stage: Stage, db: BenchDatabase): Promise<Figures> {
  const { sql } = db;
  const slot = `rest_${randomBytes(4).toString('hex')}`;
  const gateway = script(GATEWAY, [100]);
  const login = { IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'password' };
  const url = `http://127.0.0.1:${await firstLine(gateway)}/ip2sms/`;
  const daemon = stage.daemon(db.env({ LOOPS: 'mirror,poller', SLOT_NAME: slot, IP2SMS_URL: url, ...login }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const [settle, seconds] = stage.pick({ tiny: [0, 1], short: [10, 20], full: [60, 120] });
  const used = async (): Promise<[number, Map<number, number>]> => {
    const sessions = await sql<{ pid: number }[]>`
      select pid from pg_stat_activity where datname = current_database() and application_name like 'smslogd %'`;
    return [processorMicros(daemon.child.pid!), new Map(sessions.map(({ pid }) => [pid, processorMicros(pid)]))];
  };
  const shares = async (): Promise<[number, number]> => {
    await sleep(settle * 1_000);
    const [node, sessions] = await used();
    await sleep(seconds * 1_000);
    const [after, later] = await used();
    const server = [...later].reduce((sum, [pid, micros]) => sum + micros - (sessions.get(pid) ?? 0), 0);
    return [(after - node) / seconds / 1e4, server / seconds / 1e4];
  };
  const [restNode, restServer] = await shares();
  const stop = new AbortController();
  const writing = write(db, stop.signal);
  const [busyNode, busyServer] = await shares();
  stop.abort();
  await writing;
  daemon.kill('SIGTERM');
  await daemon.exited;
  gateway.kill();
  await dropSlotOnceFree(sql, slot);
  return {
    rest_node: restNode,
    rest_server: restServer,
    rest_both: restNode + restServer,
    busy_node: busyNode,
    busy_server: busyServer,
    busy_both: busyNode + busyServer,
  };
}

/** New rows, one by one, on time. */
async function write({ sql }: BenchDatabase, signal: AbortSignal): Promise<void> {
  const began = performance.now();
  for (let n = 1; !signal.aborted; n += 1) {
    await sql.unsafe(`insert into verification.verifications select ${NEW_ROW} from generate_series(${n}, ${n}) n`);
    await sleep(Math.max(0, began + (n * 1_000) / RATE - performance.now()));
  }
}
