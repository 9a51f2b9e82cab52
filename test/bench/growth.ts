import type { Sql } from 'postgres';
import { until } from '../support/database.ts';
import { fillAtOnce } from '../support/filled.ts';
import { answers, CLAIM, CONNECTIONS, insertOpen, news, openQueue, type Queue } from './polling.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

/** Claims and completions of one measurement; none of the open SMS comes twice. */
const TURNS = { tiny: 5, short: 200, full: 400 };

/** A log of `count` final rows, as the years leave it: the triggers would queue nothing of it and note hours that are long counted. */
async function fillLog(sql: Sql, count: number): Promise<void> {
  await fillAtOnce(
    sql,
    () =>
      sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, status_changed_at, updated_at, inserted_at)
            select '+38000' || lpad((n::bigint * 7919 % 10000000)::text, 7, '0'), 'verification', 'A text as long as they are: 1234', (5614000000000 + n)::text,
                   'Delivered', at, at, at
              from generate_series(1, ${count}::int) n, lateral (select now() - (${count}::int - n + 86400) * interval '1 second' as at) t`,
  );
}

async function prepare(stage: Stage, logged: number, open: number): Promise<{ db: BenchDatabase; queue: Queue }> {
  const db = await stage.database();
  const began = performance.now();
  if (logged > 0) await fillLog(db.sql, logged);
  await insertOpen(db.sql, open);
  await db.sql`vacuum analyze verification.sms_log`;
  await db.sql`vacuum analyze smslogd.sms_poll`;
  stage.say(`${logged} final and ${open} open SMS, made in ${Math.round((performance.now() - began) / 1000)} s`);
  const queue = await openQueue(db);
  // once through the queue: what is asked for again and again is in memory
  for (let asked = 0; asked < open; asked += CLAIM)
    await queue.store.completeClaims(answers(await queue.claim(), news));
  return { db, queue };
}

/** Milliseconds of a claim and of a completion that writes the status of all its rows; the share of HOT among the updates of the log. */
async function measure({ db, queue }: { db: BenchDatabase; queue: Queue }, turns: number): Promise<Figures> {
  await db.sql`vacuum smslogd.sms_poll`;
  await db.sql`checkpoint`;
  const before = await updates(db.sql);
  const claims: number[] = [];
  const completions: number[] = [];
  let rows = 0;
  for (let turn = 0; turn < turns; turn += 1) {
    const began = performance.now();
    const claimed = await queue.claim();
    const asked = performance.now();
    await queue.store.completeClaims(answers(claimed, news));
    completions.push(performance.now() - asked);
    claims.push(asked - began);
    rows += claimed.length;
  }
  let after = before;
  await until('the statistics', async () => {
    // else an idle connection tells after ten seconds
    await Promise.all(Array.from({ length: CONNECTIONS }, () => queue.sql`select pg_stat_force_next_flush()`));
    after = await updates(db.sql);
    return after.all - before.all >= rows;
  });
  return {
    claim: median(claims),
    complete: median(completions),
    hot: (100 * (after.hot - before.hot)) / (after.all - before.all),
  };
}

async function updates(sql: Sql): Promise<{ all: number; hot: number }> {
  const [row] = await sql<{ all: number; hot: number }[]>`
    select n_tup_upd::float8 as all, n_tup_hot_upd::float8 as hot from pg_stat_user_tables where relid = 'verification.sms_log'::regclass`;
  return row ?? { all: 0, hot: 0 };
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

export const bench: Bench = {
  name: 'growth',
  measures: `claims and completions of ${CLAIM} SMS with a long log, beside an empty one, both with the same open SMS`,
  comparisons: [
    {
      title: 'claim',
      figure: 'claim',
      unit: 'ms',
      against: 'empty',
      reference: 'on an empty log',
      target: { ratio: 1.2, better: 'less' },
    },
    {
      title: 'completion that writes every status',
      figure: 'complete',
      unit: 'ms',
      against: 'empty',
      reference: 'on an empty log',
      target: { ratio: 1.2, better: 'less' },
    },
    { title: 'HOT updates of the log', figure: 'hot', unit: '%', target: { limit: 95, better: 'more' } },
  ],
  run: async (stage) => {
    const logged = stage.pick({ tiny: 2_000, short: 1_000_000, full: 10_000_000 });
    const turns = stage.pick(TURNS);
    const open = stage.pick({ tiny: 500, short: 50_000, full: 50_000 });
    const empty = await prepare(stage, 0, open);
    const long = await prepare(stage, logged, open);
    const sides = { smslogd: () => measure(long, turns), empty: () => measure(empty, turns) };
    await stage.alternate(sides, { rounds: 5 });
    await Promise.all([long.queue.close(), empty.queue.close()]);
  },
};
