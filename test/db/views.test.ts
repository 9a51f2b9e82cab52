import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { refreshHourly } from '../../src/figures/hourly.ts';
import { DELIVERY_BUCKETS } from '../../src/metrics.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

/** A row of a view, or of a count by hand; ratios to ten digits. */
type Row = Record<string, unknown>;

async function moveTo(clock: string, zone: string): Promise<void> {
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select timestamptz '${clock}' $$`,
  );
  await db.sql`update smslogd.settings set report_timezone = ${zone}`;
}

/** Four days of SMS around the moment: all types and statuses, latencies on and beside each bound, ages on and beside two minutes. */
async function generate(clock: string): Promise<void> {
  await db.sql`truncate verification.sms_log`;
  await db.sql`
    with latency as (
      select array[-5, 0, 0.5, 1, 119.999999, 120, 120.000001, 299, 300, 300.000001, 1799, 1800, 1800.000001, 3600, 3601, 90000]::numeric[] as seconds
    ), sms as (
      select g, ${clock}::timestamptz - interval '3 days' + g * interval '83.7 seconds' as at from generate_series(1, 4000) g
      union all
      select g, ${clock}::timestamptz + s * interval '1 second' from (values (-120), (-120.000001), (-119.999999), (-1), (0), (1)) v(s), generate_series(1, 48) g
    )
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', (array['verification', 'medication_request', '2FA'])[1 + g % 3], g::text,
           (array['Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Delivered', 'Delivered', 'Delivered', 'Expired', 'Deleted',
                  'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated', null])[1 + g / 3 % 15],
           case when g % 50 <> 0 then at + seconds[1 + g / 7 % 16] * interval '1 second' end, at
      from sms, latency`;
}

/** The period view counted by hand: local dates and times instead of instants, no bucket, no hour. */
async function countPeriods(clock: string, zone: string): Promise<Row[]> {
  return await db.sql<Row[]>`
    with sms as (
      select *, inserted_at at time zone ${zone} as local, extract(epoch from status_changed_at - inserted_at) as seconds,
             extract(epoch from ${clock}::timestamptz - inserted_at) as age
        from verification.sms_log
    ), moment as (select ${clock}::timestamptz at time zone ${zone} as local),
    period (place, period) as (values (1, 'today'), (2, 'yesterday_same_time'), (3, 'yesterday')),
    type (type) as (values ('verification'), ('medication_request'), ('text'), ('2FA'))
    select period, type.type, count(id) as total,
           count(*) filter (where gateway_status not in ('Accepted', 'Enroute')) as finished,
           count(*) filter (where gateway_status = 'Delivered') as delivered,
           count(*) filter (where gateway_status not in ('Accepted', 'Enroute', 'Delivered')) as undelivered,
           round(count(*) filter (where gateway_status = 'Delivered')::numeric
                 / nullif(count(*) filter (where gateway_status not in ('Accepted', 'Enroute')), 0), 10) as success_ratio,
           count(*) filter (where gateway_status = 'Delivered' and seconds <= 120) as le_2m,
           count(*) filter (where gateway_status = 'Delivered' and seconds > 120 and seconds <= 300) as m2_5,
           count(*) filter (where gateway_status = 'Delivered' and seconds > 300 and seconds <= 1800) as m5_30,
           count(*) filter (where gateway_status = 'Delivered' and seconds > 1800) as gt_30m,
           count(*) filter (where gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown')) as open,
           round(max(age) filter (where gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown')), 6) as oldest_open_age,
           round(count(*) filter (where gateway_status not in ('Accepted', 'Enroute', 'Pending', 'Unknown'))::numeric
                 / nullif(count(id), 0), 10) as known_ratio,
           round(count(*) filter (where gateway_status = 'Delivered' and seconds <= 120 and age >= 120)::numeric
                 / nullif(count(*) filter (where age >= 120), 0), 10) as on_time_ratio,
           count(id) filter (where gateway_status is null) as untracked,
           count(*) filter (where gateway_status = 'Pending') as pending,
           count(*) filter (where gateway_status = 'Terminated') as terminated
      from period cross join type
      left join sms on sms.type = type.type and case period
             when 'today' then sms.local::date = (select local::date from moment)
             when 'yesterday' then sms.local::date = (select local::date from moment) - 1
             else sms.local::date = (select local::date from moment) - 1 and sms.local < (select local from moment) - interval '1 day' end
     group by place, period, type.type
     order by place, type.type`;
}

async function viewPeriods(): Promise<Row[]> {
  return await db.sql<Row[]>`
    select period, type, total, finished, delivered, undelivered, round(success_ratio::numeric, 10) as success_ratio, le_2m, m2_5, m5_30, gt_30m,
           open, round(extract(epoch from oldest_open_age), 6) as oldest_open_age, round(known_ratio::numeric, 10) as known_ratio,
           round(on_time_ratio::numeric, 10) as on_time_ratio, untracked, pending, terminated
      from verification.sms_today_vs_yesterday
     order by array_position('{today,yesterday_same_time,yesterday}'::text[], period), type`;
}

async function countHours(clock: string): Promise<Row[]> {
  return await db.sql<Row[]>`
    select date_trunc('hour', inserted_at, 'UTC') as hour, type, count(*) as total,
           count(*) filter (where gateway_status = 'Delivered') as delivered,
           count(*) filter (where gateway_status = 'Delivered' and extract(epoch from status_changed_at - inserted_at) <= 120) as le_2m,
           count(*) filter (where gateway_status = 'Delivered' and extract(epoch from status_changed_at - inserted_at) > 1800) as gt_30m,
           count(*) filter (where gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown')) as open,
           round(count(*) filter (where gateway_status = 'Delivered' and extract(epoch from status_changed_at - inserted_at) <= 120
                                    and inserted_at <= ${clock}::timestamptz - interval '2 minutes')::numeric
                 / nullif(count(*) filter (where inserted_at <= ${clock}::timestamptz - interval '2 minutes'), 0), 10) as on_time_ratio
      from verification.sms_log group by 1, 2 order by 1, 2`;
}

async function viewHours(): Promise<Row[]> {
  return await db.sql<Row[]>`
    select hour, type, total, delivered, le_2m, gt_30m, open, round(on_time_ratio::numeric, 10) as on_time_ratio
      from verification.sms_delivery_hourly order by 1, 2`;
}

async function viewBacklog(): Promise<Row[]> {
  return await db.sql<Row[]>`
    select type, status, open, oldest_inserted_at from verification.sms_backlog where open > 0 order by 1, 2`;
}

async function countBacklog(): Promise<Row[]> {
  return await db.sql<Row[]>`
    select type, gateway_status as status, count(*) as open, min(inserted_at) as oldest_inserted_at from verification.sms_log
     where gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown') group by 1, 2 order by 1, 2`;
}

async function viewed(): Promise<Row[][]> {
  return [await viewPeriods(), await viewHours(), await viewBacklog()].map((rows) => [...rows]);
}

async function counted(clock: string, zone: string): Promise<Row[][]> {
  return [await countPeriods(clock, zone), await countHours(clock), await countBacklog()].map((rows) => [...rows]);
}

describe('the views equal a count by hand, before and after the counters are stored, and after changes by hand', () => {
  test.each([
    ['an ordinary afternoon', '2026-05-20 12:34:56.789+00', 'Europe/Kyiv'],
    ['just after midnight', '2026-05-19 21:01:00+00', 'Europe/Kyiv'],
    ['the day of 23 hours', '2026-03-29 12:20:00+00', 'Europe/Kyiv'],
    ['the day after it', '2026-03-30 09:00:00+00', 'Europe/Kyiv'],
    ['the day of 25 hours', '2026-10-25 18:00:30+00', 'Europe/Kyiv'],
    ['the day after it', '2026-10-26 18:00:00+00', 'Europe/Kyiv'],
    ['a zone whose days begin within a UTC hour', '2026-05-20 04:10:00+00', 'Asia/Kolkata'],
    ['a zone of 45 minutes', '2026-05-20 18:16:00+00', 'Asia/Kathmandu'],
  ])('on %s (%s %s)', async (_, clock, zone) => {
    await moveTo(clock, zone);
    await generate(clock);
    expect(await viewed()).toEqual(await counted(clock, zone));
    await refreshHourly(db.sql);
    expect(await viewed()).toEqual(await counted(clock, zone));

    // late deliveries of past days, rows moved to another hour, rows that go and rows that come; all in hours that are stored
    await db.sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = inserted_at + interval '2 hours'
                  where gateway_status = 'Enroute' and inserted_at < ${clock}::timestamptz - interval '20 hours'`;
    await db.sql`update verification.sms_log set inserted_at = inserted_at - interval '5 hours' where gateway_id like '%11'`;
    await db.sql`delete from verification.sms_log where gateway_id like '%22'`;
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at)
                 values ('+380000000000', 'text', 'Accepted', ${clock}::timestamptz - interval '25 hours')`;
    expect(await viewed()).toEqual(await counted(clock, zone));
    await refreshHourly(db.sql);
    expect(await viewed()).toEqual(await counted(clock, zone));
  });
});

test('the stored counters are what the views read: a wrong one shows', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.sql);
  const total = async () =>
    Number(
      (await db.sql`select sum(total) as sms from verification.sms_today_vs_yesterday where period = 'yesterday'`)[0]![
        'sms'
      ],
    );
  const before = await total();
  await db.sql`update smslogd.sms_hourly set sms = sms + 1 where hour = '2026-05-19 06:00+00'`;
  const [changed] =
    await db.sql`select count(*)::int4 as rows from smslogd.sms_hourly where hour = '2026-05-19 06:00+00'`;
  expect(await total()).toBe(before + changed!['rows']);
});

test('an empty log has a row for each type and period, no ratio, and nothing to settle', async () => {
  await moveTo('2026-05-20 12:00:00+00', 'Europe/Kyiv');
  await db.sql`truncate verification.sms_log`;
  const rows = await db.sql`select * from verification.sms_today_vs_yesterday`;
  expect(rows).toHaveLength(12);
  for (const row of rows) {
    expect(row).toMatchObject({
      total: '0',
      success_ratio: null,
      known_ratio: null,
      on_time_ratio: null,
      oldest_open_age: null,
    });
    expect(row['settled']).toBe(row['period'] !== 'today');
  }
});

test('a past day is settled once none of its SMS is open or waits for a gateway id', async () => {
  await moveTo('2026-05-20 12:00:00+00', 'Europe/Kyiv');
  await db.sql`truncate verification.sms_log`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at) values
    ('+380000000000', 'verification', 'Pending', '2026-05-19 05:00+00'), ('+380000000000', 'medication_request', null, '2026-05-19 05:00+00')`;
  const settled = async () =>
    Object.fromEntries(
      (
        await db.sql`select type, settled from verification.sms_today_vs_yesterday
                      where period = 'yesterday' and type in ('verification', 'medication_request')`
      ).map((row) => [row['type'], row['settled']]),
    );
  expect(await settled()).toEqual({ verification: false, medication_request: false });
  await db.sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = inserted_at where type = 'verification'`;
  expect(await settled()).toEqual({ verification: true, medication_request: false });
  await db.sql`update verification.sms_log set gateway_status = 'Unaccepted' where type = 'medication_request'`;
  expect(await settled()).toEqual({ verification: true, medication_request: true });

  // a source without gateway ids: its rows are not judged, so nothing is waited for
  await db.sql`update verification.sms_log set gateway_status = null`;
  await db.sql`update smslogd.settings set source_tracks_gateway = false`;
  expect(await settled()).toEqual({ verification: true, medication_request: false });
  await db.sql`update smslogd.settings set source_tracks_gateway = true`;
});

test('percentiles lie in the bucket of the exact one, and beyond all bounds they are the highest', async () => {
  await moveTo('2026-05-20 12:00:00+00', 'Europe/Kyiv');
  await db.sql`truncate verification.sms_log`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    select '+380000000000', 'verification', 'Delivered', at, at + g * interval '0.25 seconds'
      from (select g, timestamptz '2026-05-20 08:00:00+00' + g * interval '1 second' as at from generate_series(1, 1000) g) n`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    values ('+380000000000', 'text', 'Delivered', '2026-05-20 08:00:00+00', '2026-05-20 18:00:00+00'),
           ('+380000000000', '2FA', 'Rejected', '2026-05-20 08:00:00+00', '2026-05-20 18:00:00+00')`;
  for (const stored of [false, true]) {
    if (stored) await refreshHourly(db.sql);
    const rows = await db.sql`select type, p50, p95, p99 from verification.sms_delivery_hourly order by type`;
    const of = (type: string) => rows.find((row) => row['type'] === type);
    // exact: 125, 237.5, 247.5; the bucket from 120 to 300 holds 521 of the 1,000 evenly
    expect(of('verification')?.['p50']).toBeCloseTo(120 + (180 * 20) / 520, 6);
    expect(of('verification')?.['p95']).toBeCloseTo(120 + (180 * 470) / 520, 6);
    expect(of('text')).toMatchObject({ p50: 3600, p99: 3600 });
    expect(of('2FA')).toMatchObject({ p50: null, p99: null });
  }
});

test('buckets of longer periods are merged', async () => {
  const [row] = await db.sql<{ merged: string }[]>`
    select smslogd.merge_buckets(b)::text as merged from (values ('{1,2,3}'::int8[]), ('{}'), ('{10,0,5}')) v (b)`;
  expect(row?.merged).toBe('{11,2,8}');
});

test('the bounds in the database are those of the histogram', async () => {
  const [row] = await db.sql<{ bounds: string }[]>`select array_to_json(smslogd.delivery_bounds())::text as bounds`;
  expect(JSON.parse(row!.bounds)).toEqual(DELIVERY_BUCKETS);
});

test('every view and every column has a comment', async () => {
  const bare = await db.sql`
    select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0
     where c.relnamespace = 'verification'::regnamespace and c.relkind = 'v'
       and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)`;
  expect([...bare]).toEqual([]);
});

test('no view depends on the source table, so its owner can change it', async () => {
  await db.sql`alter table verification.verifications drop column check_digit, alter column phone_number type text`;
  await db.sql`drop table verification.verifications`;
  expect(await db.sql`select * from verification.sms_today_vs_yesterday`).toHaveLength(12);
});
