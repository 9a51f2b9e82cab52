import { randomBytes } from 'node:crypto';
import { until } from '../support/database.ts';
import { createSubscriber, dropSlotOnceFree, libpq, NEW_ROW } from './backlog.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

const RATES = [200, 2000] as const;
const WRITERS = 4;
/** The first part of each run is not counted. */
const WARM = 0.2;

export const bench: Bench = {
  name: 'latency',
  measures: "from the source's commit (track_commit_timestamp) to the target row's clock_timestamp()",
  comparisons: RATES.flatMap((rate) =>
    (['p50', 'p99'] as const).map((part) => ({
      title: `${part} at ${rate}/s`,
      figure: `${part}_${rate}`,
      unit: 'ms',
      against: 'native',
      reference: 'native subscription',
      target: { ratio: part === 'p50' && rate <= 200 ? 1.5 : 2, better: 'less' as const },
    })),
  ),
  run: async (stage) => {
    const source = await stage.database();
    await source.sql`alter table verification.sms_log add column arrived timestamptz default clock_timestamp()`;
    await source.sql.unsafe(`create procedure public.write_paced(first int, n int, gap interval) language plpgsql as $$
      declare due timestamptz := clock_timestamp();
      begin
        for n in first .. first + n - 1 loop
          insert into verification.verifications select ${NEW_ROW};
          commit;
          due := due + gap;
          if due > clock_timestamp() then perform pg_sleep(extract(epoch from due - clock_timestamp())); end if;
        end loop;
      end $$`);
    const target = await createSubscriber(stage);
    await target.sql`alter table verification.verifications add column arrived timestamptz default clock_timestamp()`;
    await stage.alternate({
      smslogd: () => mirrored(stage, source),
      native: () => subscribed(stage, source, target),
    });
  },
};

async function mirrored(stage: Stage, source: BenchDatabase): Promise<Figures> {
  const slot = `latency_${randomBytes(4).toString('hex')}`;
  const daemon = stage.daemon(source.env({ SLOT_NAME: slot, SNAPSHOT: 'never' }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const figures = await atEachRate(stage, source, source, 'verification.sms_log');
  daemon.kill('SIGTERM');
  await daemon.exited;
  await dropSlotOnceFree(source.sql, slot);
  return figures;
}

async function subscribed(stage: Stage, source: BenchDatabase, target: BenchDatabase): Promise<Figures> {
  const slot = `latency_${randomBytes(4).toString('hex')}`;
  await source.sql`select pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
  await target.sql.unsafe(`create subscription bench connection '${libpq(source.url)}' publication smslogd
                             with (create_slot = false, slot_name = ${slot}, copy_data = false)`);
  await until('the subscription to stream', async () => {
    const [row] = await source.sql`select active from pg_replication_slots where slot_name = ${slot}`;
    return row?.['active'] === true;
  });
  const figures = await atEachRate(stage, source, target, 'verification.verifications');
  await target.sql`alter subscription bench disable`;
  await target.sql`alter subscription bench set (slot_name = none)`;
  await target.sql`drop subscription bench`;
  await dropSlotOnceFree(source.sql, slot);
  return figures;
}

async function atEachRate(stage: Stage, source: BenchDatabase, target: BenchDatabase, table: string): Promise<Figures> {
  const figures: Record<string, number> = {};
  const seconds = stage.pick({ tiny: 0.1, short: 4, full: 20 });
  for (const rate of RATES) {
    await source.sql`truncate verification.verifications`;
    await target.sql.unsafe(`truncate ${table}`);
    const each = Math.ceil((rate * seconds) / WRITERS);
    const gap = `${(WRITERS / rate) * 1e6} microseconds`;
    await Promise.all(
      Array.from({ length: WRITERS }, (_, i) =>
        source.sql.unsafe(`call public.write_paced(${i * each}, ${each}, '${gap}')`),
      ),
    );
    await until('every row to arrive', async () => {
      const [row] = await target.sql.unsafe(`select count(*)::int as n from ${table}`);
      return row?.['n'] === each * WRITERS;
    });
    const delays = await delaysOf(source, target, table);
    figures[`p50_${rate}`] = delays[Math.floor(delays.length * 0.5)]!;
    figures[`p99_${rate}`] = delays[Math.floor(delays.length * 0.99)]!;
  }
  return figures;
}

/** Milliseconds, ascending. */
async function delaysOf(source: BenchDatabase, target: BenchDatabase, table: string): Promise<number[]> {
  const commits = await source.sql<{ id: string; at: number }[]>`
    select id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at from verification.verifications order by at`;
  const arrivals = await target.sql.unsafe<{ id: string; at: number }[]>(
    `select id, extract(epoch from arrived)::float8 as at from ${table}`,
  );
  const arrived = new Map(arrivals.map(({ id, at }) => [id, at]));
  return commits
    .slice(Math.floor(commits.length * WARM))
    .map(({ id, at }) => (arrived.get(id)! - at) * 1000)
    .sort((a, b) => a - b);
}
