import { answers, CLAIM, insertOpen, news, openQueue } from './polling.ts';
import { median } from './growth.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

/** Looks at a queue where nothing is due, in three seconds. */
const LOOKS = 12;

/** Claims and completions one after the other for `seconds`; `held`: while a transaction elsewhere keeps every dead row. */
async function pollOn(stage: Stage, db: BenchDatabase, held: boolean): Promise<Figures> {
  const { sql } = db;
  const seconds = stage.pick({ tiny: 0.5, short: 15, full: 120 });
  const open = stage.pick({ tiny: 500, short: 20_000, full: 50_000 });
  await sql`truncate verification.sms_log, smslogd.sms_poll`;
  await insertOpen(sql, open);
  await sql`vacuum analyze smslogd.sms_poll`;
  await sql`vacuum analyze verification.sms_log`;
  const other = await sql.reserve();
  if (held) await other.unsafe('begin isolation level repeatable read; select count(*) from smslogd.settings');
  const queue = await openQueue(db);
  const claims: number[] = [];
  const began = performance.now();
  let rows = 0;
  while (performance.now() - began < seconds * 1000) {
    const at = performance.now();
    const claimed = await queue.claim();
    claims.push(performance.now() - at);
    await queue.store.completeClaims(answers(claimed, news));
    rows += claimed.length;
  }
  // nothing is due any more: what a poller looks for that waits for SMS, four times a second
  await sql`update smslogd.sms_poll set due_at = now() + interval '1 hour'`;
  let idle = 0;
  const looks = stage.pick({ tiny: 2, short: LOOKS, full: LOOKS });
  for (let look = 0; look < looks; look += 1) {
    const at = performance.now();
    await queue.claim();
    idle += (performance.now() - at) / looks;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  // by the order of the claims: a slow machine may make few, and there is always a last one
  const part = (from: number, to: number) =>
    median(claims.slice(Math.floor(from * claims.length), Math.ceil(to * claims.length)));
  const [size] = await sql<
    { mib: number }[]
  >`select pg_total_relation_size('smslogd.sms_poll') / 1048576.0::float8 as mib`;
  const steps = Array.from({ length: 8 }, (_, n) => part(n / 8, (n + 1) / 8).toFixed(2));
  stage.say(`${held ? 'held' : 'free'}: claim ${steps.join(', ')} ms by eighths of ${seconds} s`);
  if (held) await other.unsafe('rollback');
  other.release();
  await queue.close();
  return {
    first: part(0, 1 / 8),
    last: part(7 / 8, 1),
    rate: rows / seconds,
    idle,
    mib: size?.mib ?? NaN,
  };
}

export const bench: Bench = {
  name: 'held',
  measures: `claims of ${CLAIM} SMS in the last eighth of a run, while a transaction that is open elsewhere keeps every dead row`,
  comparisons: [
    {
      title: 'claim at the end',
      figure: 'last',
      unit: 'ms',
      against: 'free',
      reference: 'no transaction is open',
      target: { ratio: 1.5, better: 'less' },
    },
    {
      title: 'claim where nothing is due, mean',
      figure: 'idle',
      unit: 'ms',
      against: 'free',
      reference: 'no transaction is open',
      target: { limit: 25, better: 'less' },
    },
    {
      title: 'claims and completions',
      figure: 'rate',
      unit: 'SMS/s',
      against: 'free',
      reference: 'no transaction is open',
      target: { ratio: 0.8, better: 'more' },
    },
    {
      title: 'queue and its indexes',
      figure: 'mib',
      unit: 'MiB',
      against: 'free',
      reference: 'no transaction is open',
    },
  ],
  run: async (stage) => {
    const db = await stage.database();
    await stage.alternate(
      {
        smslogd: () => pollOn(stage, db, true),
        free: () => pollOn(stage, db, false),
      },
      { rounds: 1 },
    );
  },
};
