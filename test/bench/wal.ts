import type { Sql } from 'postgres';
import type { Status } from '../../src/status.ts';
import { answers, CLAIM, insertOpen, openQueue } from './polling.ts';
import type { Bench, BenchDatabase, Figures } from './stage.ts';

/** What the gateway says at each poll: two changes, the second one final. */
const LIFE: readonly Status[] = ['Enroute', 'Enroute', 'Enroute', 'Enroute', 'Delivered'];

/** The log with the queue's columns in it, and without the triggers that ours has: claims and completions are updates of the log. */
const WIDE_DDL = `
create schema verification;
create table verification.sms_log (
  id uuid primary key default gen_random_uuid(), phone_number text not null, type text not null, body text, gateway_id text, gateway_status text,
  status_changed_at timestamptz, updated_at timestamptz not null default now(), inserted_at timestamptz not null default now(),
  lane smallint not null default 0, due_at timestamptz default now(), deadline_at timestamptz not null default now() + interval '35 minutes',
  give_up_at timestamptz not null default now() + interval '72 hours', attempt integer not null default 0, last_result text
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);
create index on verification.sms_log (phone_number, inserted_at desc);
create index on verification.sms_log (gateway_id);
create index on verification.sms_log using brin (inserted_at);
create index on verification.sms_log (lane, due_at) where due_at is not null;
`;

async function liveOurs(db: BenchDatabase, count: number): Promise<void> {
  const queue = await openQueue(db);
  await insertOpen(db.sql, count);
  for (const status of LIFE) {
    for (let claimed = 0; claimed < count;) {
      const rows = await queue.claim(Math.min(CLAIM, count - claimed));
      claimed += rows.length;
      await queue.store.completeClaims(answers(rows, () => status));
    }
  }
  const [row] = await db.sql`select count(*)::int as n from smslogd.sms_poll`;
  await queue.close();
  if (row?.['n'] !== 0) throw new Error(`${row?.['n']} SMS are still queued`);
}

async function liveWide(sql: Sql, count: number): Promise<void> {
  await insertOpen(sql, count);
  for (const status of LIFE) {
    const final = status === 'Delivered';
    for (let claimed = 0; claimed < count;) {
      const rows = await sql<{ id: string; attempt: number }[]>`
        with due as materialized (
          select id from verification.sms_log where lane = 0 and due_at <= now() order by due_at
           limit ${Math.min(CLAIM, count - claimed)} for update skip locked
        )
        update verification.sms_log l set attempt = l.attempt + 1, due_at = now() + interval '18 seconds'
          from due where l.id = due.id returning l.id, l.attempt`;
      claimed += rows.length;
      await sql`
        update verification.sms_log l
           set gateway_status = ${status}, last_result = 'ok', due_at = case when ${final} then null else now() end,
               status_changed_at = case when l.gateway_status = ${status} then l.status_changed_at else now() end,
               updated_at = case when l.gateway_status = ${status} then l.updated_at else now() end
          from unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ attempt }) => attempt)}::int[]) as said (id, attempt)
         where l.id = said.id and l.attempt = said.attempt`;
    }
  }
  const [row] = await sql`select count(*)::int as n from verification.sms_log where gateway_status <> 'Delivered'`;
  if (row?.['n'] !== 0) throw new Error(`${row?.['n']} SMS are not final`);
}

async function walOf(sql: Sql, count: number, work: () => Promise<void>): Promise<Figures> {
  await sql`checkpoint`;
  const position = async () => {
    const [row] = await sql<{ bytes: number }[]>`select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 as bytes`;
    return row?.bytes ?? NaN;
  };
  const before = await position();
  await work();
  return { bytes: ((await position()) - before) / count };
}

export const bench: Bench = {
  name: 'wal',
  measures: 'WAL of an SMS over its life: insert, five polls, two changes of the status',
  comparisons: [
    {
      title: 'WAL for each SMS',
      figure: 'bytes',
      unit: 'B',
      against: 'wide',
      reference: 'scheduling columns in the log',
      target: { limit: 3_500, better: 'less' },
    },
  ],
  run: async (stage) => {
    const count = stage.pick({ tiny: 200, short: 10_000, full: 50_000 });
    const [ours, wide] = [await stage.database(), await stage.database({ plain: true })];
    await wide.sql.unsafe(WIDE_DDL);
    await stage.alternate({
      smslogd: async () => {
        await ours.sql`truncate verification.sms_log, smslogd.sms_poll`;
        return await walOf(ours.sql, count, () => liveOurs(ours, count));
      },
      wide: async () => {
        await wide.sql`truncate verification.sms_log`;
        return await walOf(wide.sql, count, () => liveWide(wide.sql, count));
      },
    });
  },
};
