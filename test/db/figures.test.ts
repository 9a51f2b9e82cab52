import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createFigures } from '../../src/figures/gauges.ts';
import { refreshHourly } from '../../src/figures/hourly.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics, OUTCOMES, PERIODS, TABLES, type Metrics } from '../../src/metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, STATUSES } from '../../src/status.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
let sql: Sql;
let metrics: Metrics;
beforeAll(async () => {
  db = await createDatabase();
  sql = openDatabase(db.config(), { max: 3, name: 'test' });
});
beforeEach(async () => {
  metrics = createMetrics('test');
  await db.sql`truncate verification.sms_log, smslogd.sms_poll`;
});
afterAll(async () => {
  await sql.end();
  await db.drop();
});

const figuresWith = (options: { maxAgeMs?: number; waitMs?: number; limitMs?: number } = { maxAgeMs: 0 }) =>
  createFigures({ config: db.config(), sql, metrics, log: silentLog, ...options });

/** Series → value, as Prometheus sees them. */
async function series(): Promise<Map<string, number>> {
  const lines = (await metrics.registry.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}

test('gauges, views, stored counters and a count by hand agree', async () => {
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', (array['verification', 'medication_request', '2FA'])[1 + g % 3],
           (array['Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Delivered', 'Delivered', 'Expired', 'Deleted', 'Undeliverable',
                  'Rejected', 'Unaccepted', 'Terminated', null])[1 + g / 3 % 14],
           at + (array[1, 120, 121, 301, 1801])[1 + g / 5 % 5] * interval '1 second', at
      from (select g, now() - interval '1 hour' * (g * 7 % 47) - interval '1 second' * (g % 3600) as at from generate_series(1, 3000) g) n`;
  await refreshHourly(sql);
  const figures = figuresWith();
  await figures.refresh();
  const now = await series();

  const byHand = await db.sql<{ type: string; period: string; status: string; n: number }[]>`
    select type, case when (inserted_at at time zone 'Europe/Kyiv')::date = (now() at time zone 'Europe/Kyiv')::date then 'today' else 'yesterday' end as period,
           coalesce(gateway_status, 'Accepted') as status, count(*)::int4 as n
      from verification.sms_log
     where (inserted_at at time zone 'Europe/Kyiv')::date >= (now() at time zone 'Europe/Kyiv')::date - 1
     group by 1, 2, 3`;
  for (const type of SMS_TYPES) {
    for (const period of PERIODS) {
      for (const status of [...STATUSES, 'untracked']) {
        const n = byHand.find((row) => row.type === type && row.period === period && row.status === status)?.n ?? 0;
        expect(now.get(`smslogd_period_sms{type="${type}",period="${period}",status="${status}"}`)).toBe(n);
      }
    }
  }
  const views = await db.sql`select * from verification.sms_today_vs_yesterday where period <> 'yesterday_same_time'`;
  for (const row of views) {
    const labels = `type="${row['type']}",period="${row['period']}"`;
    for (const group of ['le_2m', 'm2_5', 'm5_30', 'gt_30m'])
      expect(now.get(`smslogd_period_delivered{${labels},group="${group}"}`)).toBe(Number(row[group]));
    for (const ratio of ['success_ratio', 'known_ratio', 'on_time_ratio'])
      expect(now.get(`smslogd_period_${ratio}{${labels}}`) ?? null).toBe(row[ratio]);
  }
  const all = await db.sql`
    select type, count(*)::int4 as sms, date_part('epoch', max(status_changed_at) filter (where gateway_status = 'Delivered')) as last_delivered,
           date_part('epoch', now() - min(inserted_at) filter (where coalesce(gateway_status, 'Accepted') in ('Accepted', 'Enroute', 'Pending', 'Unknown'))) as age
      from verification.sms_log group by type`;
  for (const row of all) {
    expect(now.get(`smslogd_sms_total{type="${row['type']}"}`)).toBe(row['sms']);
    expect(now.get(`smslogd_sms_last_delivered_timestamp_seconds{type="${row['type']}"}`)).toBeCloseTo(
      row['last_delivered'],
      3,
    );
    // the hand's clock is a little later
    expect(Math.abs(now.get(`smslogd_sms_oldest_open_age_seconds{type="${row['type']}"}`)! - row['age'])).toBeLessThan(
      60,
    );
    for (const status of OPEN_STATUSES) {
      const [open] =
        await db.sql`select count(*)::int4 as n from verification.sms_log where type = ${row['type']} and coalesce(gateway_status, 'Accepted') = ${status}`;
      expect(now.get(`smslogd_sms_open{type="${row['type']}",status="${status}"}`)).toBe(open!['n']);
    }
  }
});

test('a ratio over nothing has no series, and goes when its SMS go', async () => {
  const figures = figuresWith();
  await figures.refresh();
  const ratios = async () => [...(await series()).keys()].filter((name) => name.includes('_ratio{'));
  expect(await ratios()).toEqual([]);
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status) values ('+380000000000', 'text', 'Rejected')`;
  await figures.refresh();
  expect((await ratios()).sort()).toEqual([
    'smslogd_period_known_ratio{type="text",period="today"}',
    'smslogd_period_success_ratio{type="text",period="today"}',
  ]);
  await db.sql`delete from verification.sms_log`;
  await figures.refresh();
  expect(await ratios()).toEqual([]);
  expect([...(await series()).keys()].filter((name) => name.includes('last_delivered'))).toEqual([]);
});

test('smslogd_sms_total counts up and never back', async () => {
  const figures = figuresWith();
  const total = async () => {
    await figures.refresh();
    return (await series()).get('smslogd_sms_total{type="text"}');
  };
  const insert = () =>
    db.sql`insert into verification.sms_log (phone_number, type) select '+380000000000', 'text' from generate_series(1, 10)`;
  await insert();
  expect(await total()).toBe(10);
  await db.sql`delete from verification.sms_log`;
  expect(await total()).toBe(10);
  await insert();
  expect(await total()).toBe(10);
  await insert();
  expect(await total()).toBe(20);
});

test('slot, checkpoint and queue figures are those of this slot', async () => {
  const figures = figuresWith();
  await figures.refresh();
  expect(
    [...(await series()).keys()].filter((name) => /slot_retained|slot_safe|checkpoint_timestamp/.test(name)),
  ).toEqual([]);

  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await db.sql`insert into smslogd.checkpoint (slot_name, lsn, updated_at) values (${db.name}, '0/1', to_timestamp(1234567890))`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               values ('+380000000000', 'text', '1234567', 'Accepted', now() - interval '1 minute')`;
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  await figures.refresh();
  const now = await series();
  expect(now.get('smslogd_slot_retained_wal_bytes')).toBeGreaterThanOrEqual(0);
  expect(now.has('smslogd_slot_safe_wal_bytes')).toBe(false);
  expect(now.get('smslogd_slot_wal_status{status="reserved"}')).toBe(1);
  expect(now.get('smslogd_slot_wal_status{status="lost"}')).toBe(0);
  expect(now.get('smslogd_slot_active')).toBe(0);
  expect(now.get('smslogd_checkpoint_timestamp_seconds')).toBe(1234567890);
  expect(now.get('smslogd_poll_due')).toBe(1);
});

test('the size of each table of ours is told, with its indexes', async () => {
  await figuresWith().refresh();
  const now = await series();
  for (const table of TABLES) expect(now.get(`smslogd_table_bytes{table="${table}"}`)).toBeGreaterThan(8_000);
  const [log] = await db.sql`select pg_total_relation_size('verification.sms_log')::float8 as bytes`;
  expect(now.get('smslogd_table_bytes{table="sms_log"}')).toBe(log!['bytes']);
});

test('the database is asked once at a time, and not again while the values are fresh', async () => {
  const figures = figuresWith({});
  await Promise.all([figures.refresh(), figures.refresh()]);
  const first = figures.facts;
  expect(first).toBeDefined();
  await figures.refresh();
  expect(figures.facts).toBe(first);
});

test('a database that does not answer in time fails no scrape: the last values stay and the failure is counted', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status) values ('+380000000000', 'text', 'Accepted')`;
  const figures = figuresWith({ maxAgeMs: 0, waitMs: 50, limitMs: 300 });
  await until('a first reading', async () => {
    await figures.refresh();
    return figures.facts !== undefined;
  });
  await db.sql.begin(async (tx) => {
    await tx`lock table smslogd.settings in access exclusive mode`;
    const failures = async () => (await series()).get('smslogd_errors_total{code="database_busy"}') ?? 0;
    const before = await failures();
    // resolves though the table stays locked
    await figures.refresh();
    expect((await series()).get('smslogd_sms_open{type="text",status="Accepted"}')).toBe(1);
    // the first may have joined a reading that was under way before the lock
    await until('the failure to be counted', async () => {
      await figures.refresh();
      return (await failures()) > before;
    });
  });
  await until('a new reading', async () => {
    const last = figures.facts;
    await figures.refresh();
    return figures.facts !== last;
  });
});

test('what became of the SMS of 2 to 12 minutes ago is shown, and nothing of younger and older ones', async () => {
  const sms = (type: string, status: string | null, ageSeconds: number, tookSeconds: number | null) => db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    select '+380000000000', ${type}, ${status}, at, at + ${tookSeconds} * interval '1 second'
      from (select now() - ${ageSeconds} * interval '1 second' as at) a`;
  await sms('verification', 'Delivered', 130, 120);
  await sms('verification', 'Delivered', 710, 0);
  await sms('verification', 'Delivered', 400, 121);
  await sms('verification', 'Rejected', 400, 3);
  await sms('verification', 'Accepted', 400, null);
  await sms('verification', null, 400, null);
  await sms('text', null, 400, null);
  await sms('verification', 'Delivered', 90, 1);
  await sms('verification', 'Delivered', 740, 1);
  const figures = figuresWith();
  const recent = async (type: string) => {
    await figures.refresh();
    const now = await series();
    return Object.fromEntries(
      OUTCOMES.map((outcome) => [outcome, now.get(`smslogd_recent_sms{type="${type}",outcome="${outcome}"}`)]),
    );
  };
  expect(await recent('verification')).toEqual({ on_time: 2, late: 1, undelivered: 1, waiting: 2, untracked: 0 });
  expect(await recent('text')).toEqual({ on_time: 0, late: 0, undelivered: 0, waiting: 1, untracked: 0 });
  // where the source has no gateway ids, its SMS are not waited for; those of other services are
  await db.sql`update smslogd.settings set source_tracks_gateway = false`;
  try {
    expect(await recent('verification')).toEqual({ on_time: 2, late: 1, undelivered: 1, waiting: 1, untracked: 1 });
    expect((await recent('text'))['waiting']).toBe(1);
  } finally {
    await db.sql`update smslogd.settings set source_tracks_gateway = true`;
  }
  await db.sql`delete from verification.sms_log`;
  expect(Object.values(await recent('verification'))).toEqual([0, 0, 0, 0, 0]);
});

test('the last 24 hours are those of the hourly view', async () => {
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    select '+380000000000', 'text', 'Delivered', now() - g * interval '1 hour', now() - g * interval '1 hour' + interval '5 seconds' from generate_series(0, 30) g`;
  const hours = await figuresWith().hours();
  expect(hours).toHaveLength(24);
  expect(hours!.at(-1)).toMatchObject({ type: 'text', total: 1, delivered: 1, le_2m: 1, open: 0, untracked: 0 });
  const [view] =
    await db.sql`select date_part('epoch', max(hour)) as hour, min(p95) as p95 from verification.sms_delivery_hourly`;
  expect(hours!.at(-1)).toMatchObject({ hour: view!['hour'], p95: view!['p95'] });
});
