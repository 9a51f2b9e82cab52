import { randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { until } from '../support/database.ts';
import { dropSlotOnceFree, NEW_ROW, requireRows } from './backlog.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

export const bench: Bench = {
  name: 'reconcile',
  measures:
    'the first copy of a source by the daemon beside one server-side INSERT … SELECT, with the same triggers; beside it new rows are streamed',
  comparisons: [
    {
      title: 'first copy',
      figure: 'rate',
      unit: 'rows/s',
      against: 'statement',
      reference: 'one INSERT … SELECT',
      target: { ratio: 0.8, better: 'more' },
    },
    { title: 'stream beside it, p50', figure: 'p50', unit: 'ms' },
    { title: 'stream beside it, p99', figure: 'p99', unit: 'ms', target: { limit: 50, better: 'less' } },
    { title: 'memory in the first copy', figure: 'memory', unit: 'MiB', target: { limit: 130, better: 'less' } },
  ],
  run: async (stage) => {
    const db = await stage.database();
    const rows = stage.pick({ tiny: 1_000, short: 100_000, full: 10_000_000 });
    await db.sql.unsafe(`
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
      select gen_random_uuid(), '+38000' || lpad((n % 10000000)::text, 7, '0'), 1, 'new', 1000 + n % 9000, now(), false, (6614000000000 + n)::text,
             'Accepted', timestamp '2026-01-01' + n * interval '100 milliseconds' from generate_series(1, ${rows}) n`);
    await db.sql`alter table verification.sms_log add column arrived timestamptz default clock_timestamp()`;
    await db.sql`vacuum analyze verification.verifications`;
    stage.say(`${rows} source rows are written`);
    await stage.alternate(
      {
        statement: () => oneStatement(db, rows),
        smslogd: () => firstCopy(stage, db, rows),
      },
      { rounds: stage.pick({ tiny: 1, short: 3, full: 1 }) },
    );
  },
};

async function oneStatement(db: BenchDatabase, rows: number): Promise<Figures> {
  await empty(db);
  const began = performance.now();
  await db.sql`insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
               select id, phone_number, 'verification', 'text ' || code, gateway_id, gateway_status, inserted_at at time zone 'UTC'
                 from verification.verifications order by id`;
  return { rate: rows / ((performance.now() - began) / 1000) };
}

async function firstCopy(stage: Stage, db: BenchDatabase, rows: number): Promise<Figures> {
  await empty(db);
  const slot = `copy_${randomBytes(4).toString('hex')}`;
  const daemon = stage.daemon(db.env({ SLOT_NAME: slot }));
  await daemon.line('the reconcile begins', (line) => line.includes('"reconcile started'));
  const began = performance.now();
  const live = newRows(db);
  await daemon.line('the reconcile is done', (line) => line.includes('"reconcile done"'));
  const rate = rows / ((performance.now() - began) / 1000);
  const memory = daemon.peakMemory() / 1024 / 1024;
  const written = await live.stop();
  await until('the live rows to arrive', () => hasRows(db, rows + written));
  const delays = await delaysOfLive(db);
  daemon.kill('SIGTERM');
  await daemon.exited;
  await requireRows(db.sql, 'verification.sms_log', rows + written);
  await db.sql`delete from verification.verifications where active`;
  await db.sql`delete from smslogd.checkpoint`;
  await dropSlotOnceFree(db.sql, slot);
  return { rate, memory, p50: delays[delays.length >> 1]!, p99: delays[Math.floor(delays.length * 0.99)]! };
}

async function empty({ sql }: BenchDatabase): Promise<void> {
  await sql`truncate verification.sms_log, smslogd.sms_poll, smslogd.changed_hour`;
  await sql`checkpoint`;
}

/** Rows that come while the copy runs, fifty a second; the copied ones are not active, these are. */
function newRows({ sql }: BenchDatabase) {
  const end = new AbortController();
  let n = 0;
  const done = (async () => {
    while (!end.signal.aborted) {
      n += 1;
      await sql.unsafe(`insert into verification.verifications select ${NEW_ROW} from generate_series(${n}, ${n}) n`);
      await setTimeout(20);
    }
  })();
  return {
    stop: async () => {
      end.abort();
      await done;
      return n;
    },
  };
}

async function hasRows({ sql }: BenchDatabase, wanted: number): Promise<boolean> {
  const [row] = await sql`select count(*)::int as n from verification.sms_log`;
  return row?.['n'] === wanted;
}

/** From commit to log, by the stream or the copy, whichever came first; milliseconds, ascending. */
async function delaysOfLive({ sql }: BenchDatabase): Promise<number[]> {
  const rows = await sql<{ ms: number }[]>`
    select extract(epoch from l.arrived - pg_xact_commit_timestamp(s.xmin))::float8 * 1000 as ms
      from verification.verifications s join verification.sms_log l using (id) where s.active order by 1`;
  return rows.map(({ ms }) => ms);
}
