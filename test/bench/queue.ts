import { randomBytes } from 'node:crypto';
import { Logger, run } from 'graphile-worker';
import PgBoss from 'pg-boss';
import { createCompletions } from '../../src/poller/completions.ts';
import { until } from '../support/database.ts';
import { answers, insertOpen, openQueue } from './polling.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

/** Answers that wait for the database; the poller claims nothing past it. */
const MAX_UNWRITTEN = 2_000;
/** What the peers' documents advise for many short jobs: take many at once, complete in batches. Ours claims as many. */
const PREFETCH = 500;

/** Ours also writes the final status into the log, which the peers do not. */
async function drainOurs(db: BenchDatabase, jobs: number): Promise<Figures> {
  await db.sql`truncate verification.sms_log, smslogd.sms_poll`;
  await insertOpen(db.sql, jobs);
  await settle(db);
  const queue = await openQueue(db);
  let failure: unknown;
  const completions = createCompletions({
    write: (rows) => queue.store.complete(rows),
    onWritten: () => {},
    onRefused: async (_, error) => void (failure = error),
    onFailure: (error) => (failure = error),
  });
  const began = performance.now();
  for (let claimed = 0; claimed < jobs;) {
    if (failure !== undefined) throw failure;
    if (completions.waiting >= MAX_UNWRITTEN) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    const rows = await queue.claim(PREFETCH);
    claimed += rows.length;
    for (const answer of answers(rows, () => 'Delivered')) completions.add(answer);
  }
  await completions.flush();
  const seconds = (performance.now() - began) / 1000;
  await queue.close();
  const [left] = await db.sql`select count(*)::int as n from smslogd.sms_poll`;
  const [done] = await db.sql`select count(*)::int as n from verification.sms_log where gateway_status = 'Delivered'`;
  if (left?.['n'] !== 0 || done?.['n'] !== jobs) throw new Error(`${done?.['n']} of ${jobs} SMS are final`);
  return { rate: jobs / seconds };
}

async function drainWorker(db: BenchDatabase, jobs: number): Promise<Figures> {
  let done = 0;
  let began = 0;
  const task = () => {
    if (done === 0) began = performance.now();
    done += 1;
  };
  const start = () =>
    run({
      preset: {
        worker: {
          connectionString: db.url,
          concurrentJobs: 24,
          maxPoolSize: 26,
          localQueue: { size: PREFETCH },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        },
      },
      taskList: { ask: task },
      noHandleSignals: true,
      logger: quiet,
    });
  // its schema comes with the first run
  await (await start()).stop();
  await db.sql`select graphile_worker.add_jobs((
    select array_agg(row ('ask', json_build_object('id', n), null, null, null, null, null, null)::graphile_worker.job_spec) from generate_series(1, ${jobs}::int) n))`;
  await settle(db);
  const runner = await start();
  await until('every job to be gone', async () => {
    if (done < jobs) return false;
    const [row] = await db.sql`select exists (select from graphile_worker._private_jobs) as left`;
    return row?.['left'] === false;
  });
  const seconds = (performance.now() - began) / 1000;
  await runner.stop();
  return { rate: jobs / seconds };
}

const quiet = new Logger(() => () => {});

async function drainBoss(db: BenchDatabase, jobs: number): Promise<Figures> {
  const boss = new PgBoss({ connectionString: db.url, supervise: false, schedule: false });
  boss.on('error', () => {});
  await boss.start();
  const name = `ask_${randomBytes(4).toString('hex')}`;
  await boss.createQueue(name);
  await boss.insert(Array.from({ length: jobs }, (_, id) => ({ name, data: { id } })));
  await settle(db);
  const began = performance.now();
  let done = 0;
  const drain = async () => {
    for (;;) {
      const batch = await boss.fetch(name, { batchSize: PREFETCH, priority: false });
      if (batch.length === 0) return;
      await boss.complete(
        name,
        batch.map(({ id }) => id),
      );
      done += batch.length;
    }
  };
  await Promise.all([drain(), drain(), drain(), drain()]);
  const seconds = (performance.now() - began) / 1000;
  await boss.stop({ graceful: false });
  if (done !== jobs) throw new Error(`pg-boss completed ${done} of ${jobs}`);
  return { rate: jobs / seconds };
}

async function settle({ sql }: BenchDatabase): Promise<void> {
  await sql`vacuum analyze`;
  await sql`checkpoint`;
}

export const bench: Bench = {
  name: 'queue',
  measures: 'claim and complete without HTTP; ours writes the status into the log as well',
  comparisons: [
    {
      title: 'against graphile-worker',
      figure: 'rate',
      unit: '/s',
      against: 'worker',
      reference: 'graphile-worker',
      target: { ratio: 2, better: 'more' },
    },
    {
      title: 'against pg-boss',
      figure: 'rate',
      unit: '/s',
      against: 'boss',
      reference: 'pg-boss',
      target: { ratio: 2, better: 'more' },
    },
  ],
  run: async (stage: Stage) => {
    const jobs = stage.pick({ tiny: 300, short: 30_000, full: 100_000 });
    const [ours, workers, bosses] = [
      await stage.database(),
      await stage.database({ plain: true }),
      await stage.database({ plain: true }),
    ];
    await stage.alternate({
      smslogd: () => drainOurs(ours, jobs),
      worker: () => drainWorker(workers, jobs),
      boss: () => drainBoss(bosses, jobs),
    });
  },
};
