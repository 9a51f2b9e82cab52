import { randomBytes } from 'node:crypto';
import { Logger, run, type Task } from 'graphile-worker';
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
    write: (rows) => queue.store.completeClaims(rows),
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
  if (left?.['n'] !== 0) throw new Error(`${left?.['n']} SMS are still queued`);
  await requireFinal(db, jobs);
  return { rate: jobs / seconds };
}

async function requireFinal({ sql }: BenchDatabase, count: number): Promise<void> {
  const [row] = await sql`select count(*)::int as n from verification.sms_log where gateway_status = 'Delivered'`;
  if (row?.['n'] !== count) throw new Error(`${row?.['n']} of ${count} SMS are final`);
}

/** What a job of the peers does that writes the status, as ours does: one row, or those of a batch. */
const WRITE_STATUS = `update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now(), updated_at = now() where id = any ($1::uuid[])`;

/** The log as it is, without our triggers; returns the ids of `count` open SMS. */
async function fillLog({ sql }: BenchDatabase, count: number): Promise<string[]> {
  await sql`alter table verification.sms_log disable trigger user`;
  await sql`truncate verification.sms_log`;
  await insertOpen(sql, count);
  return (await sql<{ id: string }[]>`select id from verification.sms_log`).map(({ id }) => id);
}

/** `writes`: each job also writes its status into the log. */
async function drainWorker(db: BenchDatabase, jobs: number, { writes = false } = {}): Promise<Figures> {
  const ids = writes ? await fillLog(db, jobs) : undefined;
  let done = 0;
  let began = 0;
  const task: Task = async (_, helpers) => {
    if (began === 0) began = performance.now();
    const id = ids?.[done];
    done += 1;
    if (id !== undefined) await helpers.query(WRITE_STATUS, [[id]]);
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
  if (writes) await requireFinal(db, jobs);
  return { rate: jobs / seconds };
}

const quiet = new Logger(() => () => {});

async function drainBoss(db: BenchDatabase, jobs: number, { writes = false } = {}): Promise<Figures> {
  const ids = writes ? await fillLog(db, jobs) : undefined;
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
      if (ids !== undefined)
        await db.sql.unsafe(WRITE_STATUS, [batch.map((job) => ids[(job.data as { id: number }).id]!)]);
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
  if (writes) await requireFinal(db, jobs);
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
    {
      title: 'against graphile-worker that writes the status too',
      figure: 'rate',
      unit: '/s',
      against: 'worker_log',
      reference: 'graphile-worker, a row updated by each job',
    },
    {
      title: 'against pg-boss that writes the status too',
      figure: 'rate',
      unit: '/s',
      against: 'boss_log',
      reference: 'pg-boss, one update for each batch',
    },
  ],
  run: async (stage: Stage) => {
    const jobs = stage.pick({ tiny: 300, short: 20_000, full: 100_000 });
    const [ours, workers, bosses] = [await stage.database(), await stage.database(), await stage.database()];
    await stage.alternate({
      smslogd: () => drainOurs(ours, jobs),
      worker: () => drainWorker(workers, jobs),
      boss: () => drainBoss(bosses, jobs),
      // slow, so fewer of them
      worker_log: () => drainWorker(workers, jobs / 4, { writes: true }),
      boss_log: () => drainBoss(bosses, jobs, { writes: true }),
    });
  },
};
