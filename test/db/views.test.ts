import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { DELIVERY_BUCKETS } from '../../src/metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, STATUSES } from '../../src/status.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

/** A row of a view, or of a count by hand. */
type Row = Record<string, unknown>;

async function moveTo(clock: string, zone: string, since = '-infinity'): Promise<void> {
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select timestamptz '${clock}' $$`,
  );
  await db.sql`update smslogd.settings set report_timezone = ${zone}, tracked_since = ${since}::text::timestamptz`;
}

/**
 * Four days of SMS around the moment: all types and statuses, with and without gateway ids, latencies on and beside each bound, ages on and
 * beside two minutes; and some at times that cannot be.
 */
async function generate(clock: string): Promise<void> {
  await db.sql`truncate verification.sms_log`;
  await db.sql`
    with latency as (
      select array[-5, 0, 0.5, 1, 119.999999, 120, 120.000001, 299, 300, 300.000001, 1799, 1800, 1800.000001, 3600, 3601, 90000]::numeric[] as seconds
    ), sms as (
      select g, ${clock}::timestamptz - interval '3 days' + g * interval '167.3 seconds' as at from generate_series(1, 2000) g
      union all
      select g, ${clock}::timestamptz + s * interval '1 second' from (values (-120), (-120.000001), (-119.999999), (-1), (0), (1)) v(s), generate_series(1, 48) g
    )
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', (array['verification', 'medication_request', '2FA'])[1 + g % 3], case when g % 4 > 0 then g::text end,
           (array['Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Delivered', 'Delivered', 'Delivered', 'Expired', 'Deleted',
                  'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated', null])[1 + g / 3 % 15],
           case when g % 50 <> 0 then at + seconds[1 + g / 7 % 16] * interval '1 second' end, at
      from sms, latency`;
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', 'text', '1234567', status, changed, at
      from unnest('{-infinity,1970-01-01,3000-01-01,294276-12-31 23:59:59.999999+00,infinity}'::timestamptz[]) at,
           unnest('{Accepted,Delivered,Rejected}'::text[]) status, unnest(array[null, at, 'infinity', '-infinity', ${clock}]) changed`;
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', 'text', '1234567', 'Delivered', changed, ${clock}::timestamptz - interval '1 day'
      from unnest('{infinity,-infinity}'::timestamptz[]) changed`;
}

const instant = (clock: string) => `timestamptz '${clock}'`;

/** The log with each row's status as the figures name it and its local time, a row's latency and whether it is two minutes old. */
const judged = (clock: string, zone: string, since: string) => `
  sms as (
    select *, case when gateway_status is not null then gateway_status
                   when gateway_id is not null or type <> 'verification' or inserted_at >= '${since}' then 'Accepted' else 'untracked' end as status,
           gateway_status is null and gateway_id is null and (type <> 'verification' or inserted_at >= '${since}') as waits,
           case when inserted_at between '2000-01-01' and '2999-12-31' then inserted_at at time zone '${zone}' end as local, date_trunc('hour', inserted_at, 'UTC') as hour,
           case when inserted_at between '2000-01-01' and '2999-12-31' and isfinite(status_changed_at)
                then extract(epoch from status_changed_at - inserted_at) end as seconds,
           inserted_at <= ${instant(clock)} - interval '2 minutes' as due
      from verification.sms_log
  )`;

/** The figures of a group of `sms`, by hand: no bucket, no stored hour. Null rows of an outer join count nothing. */
const FIGURES = `
  count(id) as total,
  count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')) as processed,
  count(id) filter (where status = 'Delivered') as delivered,
  count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked', 'Delivered')) as undelivered,
  round(count(id) filter (where status = 'Delivered')::numeric
        / nullif(count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')), 0), 4) as success_ratio,
  count(id) filter (where status = 'Delivered' and seconds <= 120) as le_2m,
  count(id) filter (where status = 'Delivered' and seconds > 120 and seconds <= 300) as m2_5,
  count(id) filter (where status = 'Delivered' and seconds > 300 and seconds <= 1800) as m5_30,
  count(id) filter (where status = 'Delivered' and seconds > 1800) as gt_30m,
  count(id) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')) as open,
  round(count(id) filter (where status not in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'untracked'))::numeric / nullif(count(id), 0), 4) as known_ratio,
  round(count(id) filter (where status = 'Delivered' and seconds <= 120 and due)::numeric / nullif(count(id) filter (where due), 0), 4) as on_time_ratio`;
const REST = `
  count(id) filter (where status = 'untracked') as untracked,
  count(id) filter (where waits) as waiting`;

/** The same columns of a view. */
const COLUMNS =
  'total, processed, delivered, undelivered, success_ratio, le_2m, m2_5, m5_30, gt_30m, open, known_ratio, on_time_ratio';

const OPEN = `status in ('Accepted', 'Enroute', 'Pending', 'Unknown')`;
/** What the views show, and the same counted by hand. */
function queries(clock: string, zone: string): readonly (readonly [view: string, byHand: string])[] {
  const today = `(${instant(clock)} at time zone '${zone}')::date`;
  const possible = `inserted_at >= '2000-01-01' and inserted_at < '3000-01-01'`;
  return [
    [
      `select period, type, settled, ${COLUMNS}, extract(epoch from oldest_open_age)::int as oldest_open_age
         from verification.sms_today_vs_yesterday order by 1, 2`,
      `select period, type.type, period <> 'today' and count(id) filter (where ${OPEN}) = 0 as settled, ${FIGURES},
              trunc(extract(epoch from ${instant(clock)} - min(inserted_at) filter (where ${OPEN})))::int as oldest_open_age
         from (values ('today'), ('yesterday_same_time'), ('yesterday')) as period (period)
        cross join (values ('verification'), ('medication_request'), ('text'), ('2FA')) as type (type)
         left join sms on sms.type = type.type and case period
                when 'today' then local::date = ${today}
                when 'yesterday' then local::date = ${today} - 1
                else local::date = ${today} - 1 and local < ${instant(clock)} at time zone '${zone}' - interval '1 day' end
        group by 1, 2 order by 1, 2`,
    ],
    [
      `select hour, local_hour, type, settled, ${COLUMNS}, untracked from verification.sms_delivery_hourly order by 1, 3`,
      `select hour, hour at time zone '${zone}' as local_hour, type,
              hour + interval '1 hour' <= ${instant(clock)} and count(*) filter (where ${OPEN}) = 0 as settled, ${FIGURES}, count(id) filter (where status = 'untracked') as untracked
         from sms where ${possible} group by hour, type order by 1, 3`,
    ],
    [
      `select day::text, type, settled, ${COLUMNS}, untracked, waiting from verification.sms_delivery_daily order by 1, 2`,
      `select local::date::text as day, type, local::date < ${today} and count(*) filter (where ${OPEN}) = 0 as settled, ${FIGURES}, ${REST}
         from sms where ${possible} group by local::date, type order by 1, 2`,
    ],
    [
      `select day::text, type, status, sms, share from verification.sms_status_daily order by 1, 2, 3`,
      `select local::date::text as day, type, status, count(*) as sms, round(count(*) / sum(count(*)) over (partition by local::date, type), 4) as share
         from sms where ${possible} group by local::date, type, status order by 1, 2, 3`,
    ],
    [
      `select type, status, open, oldest_inserted_at, waiting from verification.sms_backlog where open > 0 order by 1, 2`,
      `select type, status, count(*) as open, min(inserted_at) filter (where ${possible}) as oldest_inserted_at, count(*) filter (where waits) as waiting
         from sms where ${OPEN} group by 1, 2 order by 1, 2`,
    ],
    [
      `select period, type, ${COLUMNS} from verification.sms_week_against_week order by 1, 2`,
      `select period, type, ${FIGURES}
         from (values ('this_week', 0), ('last_week_same_time', 7), ('last_week', 7)) as period (period, ago)
         join sms on local::date between date_trunc('week', ${today})::date - ago and date_trunc('week', ${today})::date - ago + 6
          and (period <> 'last_week_same_time' or local < ${instant(clock)} at time zone '${zone}' - interval '7 days') and (ago > 0 or local::date <= ${today})
        group by 1, 2 order by 1, 2`,
    ],
    [
      `select hour, type, total, usual_total, on_time_ratio, usual_on_time_ratio, success_ratio, usual_success_ratio, on_time_drop, success_drop, sms_lost
         from verification.sms_delivery_drop order by sms_lost desc, 1, 2`,
      `select *, round(total * greatest(on_time_drop, success_drop)) as sms_lost
         from (select *, usual_on_time_ratio - on_time_ratio as on_time_drop, usual_success_ratio - success_ratio as success_drop
                 from (
       select hour, type, total, round(usual_total / 7.0, 1) as usual_total, round(on_time / nullif(due, 0)::numeric, 4) as on_time_ratio,
              round(usual_on_time / nullif(usual_due, 0), 4) as usual_on_time_ratio, round(delivered / nullif(processed, 0)::numeric, 4) as success_ratio,
              round(usual_delivered / nullif(usual_processed, 0), 4) as usual_success_ratio
         from (select n.hour, t.type, count(id) as total, count(id) filter (where due) as due,
                      count(id) filter (where status = 'Delivered' and seconds <= 120 and due) as on_time,
                      count(id) filter (where status = 'Delivered') as delivered, count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')) as processed
                 from generate_series(date_trunc('hour', ${instant(clock)}) - interval '24 hours', ${instant(clock)}, '1 hour') n (hour)
                cross join (values ('verification'), ('medication_request'), ('text'), ('2FA')) as t (type)
                 left join sms on sms.hour = n.hour and sms.type = t.type
                group by 1, 2) h
         cross join lateral (
           select count(*) as usual_total, count(*) filter (where s.status = 'Delivered' and s.seconds <= 120 and s.due)::numeric as usual_on_time,
                  count(*) filter (where s.due) as usual_due, count(*) filter (where s.status = 'Delivered')::numeric as usual_delivered,
                  count(*) filter (where s.status not in ('Accepted', 'Enroute', 'untracked')) as usual_processed
             from sms s
            where s.type = h.type and s.hour < h.hour and ${possible}
              and date_part('hour', s.hour at time zone '${zone}') = date_part('hour', h.hour at time zone '${zone}')
              and (s.hour at time zone '${zone}')::date between (h.hour at time zone '${zone}')::date - 7 and (h.hour at time zone '${zone}')::date - 1) u
        ) ratios) drops where on_time_drop > 0 or success_drop > 0 order by sms_lost desc, 1, 2`,
    ],
  ];
}

const viewed = async (clock: string, zone: string) =>
  await Promise.all(queries(clock, zone).map(async ([view]) => [...(await db.sql.unsafe<Row[]>(view))]));

const counted = async (clock: string, zone: string, since: string) =>
  await Promise.all(
    queries(clock, zone).map(async ([, byHand]) => [
      ...(await db.sql.unsafe<Row[]>(`with ${judged(clock, zone, since)} ${byHand}`)),
    ]),
  );

describe('the views equal a count by hand, before and after the counters are stored, and after changes by hand', () => {
  test.each<[string, string, string, string?]>([
    ['an ordinary afternoon', '2026-05-20 12:34:56.789+00', 'Europe/Kyiv'],
    ['just after midnight', '2026-05-19 21:01:00+00', 'Europe/Kyiv'],
    ['the day of 23 hours', '2026-03-29 12:20:00+00', 'Europe/Kyiv'],
    ['the day after it', '2026-03-30 09:00:00+00', 'Europe/Kyiv'],
    ['the day of 25 hours', '2026-10-25 18:00:30+00', 'Europe/Kyiv'],
    ['the day after it', '2026-10-26 18:00:00+00', 'Europe/Kyiv'],
    ['a zone whose day is missing an hour at midnight', '2026-09-07 12:00:00+00', 'America/Santiago'],
    ['the day of the same zone whose last hour comes twice', '2026-04-05 12:00:00+00', 'America/Santiago'],
    ['a zone whose midnight comes twice', '2026-11-01 18:30:00+00', 'America/Havana'],
    ['the day after it', '2026-11-02 18:30:00+00', 'America/Havana'],
    ['a day of a source without gateway ids', '2026-05-20 12:34:56+00', 'Europe/Kyiv', 'infinity'],
    ['the day after it got them', '2026-05-20 12:34:56+00', 'Europe/Kyiv', '2026-05-19 10:20:30+00'],
  ])('on %s (%s %s)', async (_, clock, zone, since = '-infinity') => {
    await moveTo(clock, zone, since);
    await generate(clock);
    const byHand = await counted(clock, zone, since);
    expect(byHand.map((rows) => rows.length > 2)).toEqual(queries(clock, zone).map(() => true));
    expect(await viewed(clock, zone)).toEqual(byHand);
    await refreshHourly(db.daemon);
    expect(await viewed(clock, zone)).toEqual(byHand);

    // late deliveries of past days, rows moved to another hour, rows that go and rows that come; all in hours that are stored
    await db.sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = inserted_at + interval '2 hours'
                  where gateway_status = 'Enroute' and inserted_at < ${clock}::timestamptz - interval '20 hours'`;
    await db.sql`update verification.sms_log set inserted_at = inserted_at - interval '5 hours' where gateway_id like '%11'`;
    await db.sql`delete from verification.sms_log where gateway_id like '%22'`;
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at)
                 values ('+380000000000', 'text', 'Accepted', ${clock}::timestamptz - interval '25 hours')`;
    const changed = await counted(clock, zone, since);
    expect(await viewed(clock, zone)).toEqual(changed);
    await refreshHourly(db.daemon);
    expect(await viewed(clock, zone)).toEqual(changed);
  });
});

test('the stored counters are what the views read: a wrong one shows', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
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

test('yesterday keeps the SMS that retention has removed', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
  const shown = async () => [...(await db.sql`select * from verification.sms_today_vs_yesterday`)];
  const before = await shown();
  // as with RETENTION_DAYS=1
  await db.sql`update smslogd.settings set frozen_before = '2026-05-19 10:00+00'`;
  const removed = await db.sql`delete from verification.sms_log where inserted_at < '2026-05-19 10:00+00'`;
  expect(removed.count).toBeGreaterThan(1_000);
  expect(await shown()).toEqual(before);
  await db.sql`update smslogd.settings set frozen_before = '-infinity'`;
});

test('an SMS of another age adds its day and no more, and a change of the zone moves the days', async () => {
  await moveTo('2026-05-20 12:00:00+00', 'Europe/Kyiv');
  await db.sql`truncate verification.sms_log`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at) values
    ('+380000000000', 'text', 'Rejected', '2000-01-01 00:00+00'), ('+380000000000', 'text', 'Rejected', '2026-05-17 21:30+00'),
    ('+380000000000', 'text', 'Rejected', '2026-05-18 21:30+00'), ('+380000000000', 'text', 'Rejected', '2999-12-30 00:00+00')`;
  const days = async () =>
    (await db.sql`select day::text from verification.sms_delivery_daily`).map((row) => row['day'] as string);
  for (const stored of [false, true]) {
    if (stored) await refreshHourly(db.daemon);
    expect(await days()).toEqual(['2000-01-01', '2026-05-18', '2026-05-19', '2999-12-30']);
  }
  await moveTo('2026-05-20 12:00:00+00', 'UTC');
  expect(await days()).toEqual(['2000-01-01', '2026-05-17', '2026-05-18', '2999-12-30']);
});

test('the figures of many days are the sums of the days, and their percentiles come from merged buckets', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  for (const stored of [false, true]) {
    if (stored) await refreshHourly(db.daemon);
    const between = await db.sql`
      select type, total, processed, delivered, le_2m, m2_5, m5_30, gt_30m, open, untracked, p95_seconds
        from verification.sms_delivery_between('2026-05-18', '2026-05-20') order by type`;
    const summed = await db.sql`
      select d.type, sum(total)::int8 as total, sum(processed)::int8 as processed, sum(delivered)::int8 as delivered, sum(le_2m)::int8 as le_2m, sum(m2_5)::int8 as m2_5,
             sum(m5_30)::int8 as m5_30, sum(gt_30m)::int8 as gt_30m, sum(open)::int8 as open, sum(untracked)::int8 as untracked,
             (select smslogd.percentile(array_agg(n order by i), 0.95) from (
                select i, count(*) filter (where i = 14 or extract(epoch from l.status_changed_at - l.inserted_at) <= (smslogd.delivery_bounds())[i]) as n
                  from generate_series(1, 14) i
                 cross join (select * from verification.sms_log where gateway_status = 'Delivered' and isfinite(status_changed_at) and inserted_at between '2026-05-01' and '2026-06-01') l
                 where l.type = d.type and (l.inserted_at at time zone 'Europe/Kyiv')::date between '2026-05-18' and '2026-05-20' group by i) b) as p95_seconds
        from verification.sms_delivery_daily d where day between '2026-05-18' and '2026-05-20' group by d.type order by d.type`;
    expect(between.length).toBeGreaterThan(2);
    expect([...between]).toEqual([...summed]);
  }
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
  const backlog = await db.sql`select open::int, oldest_age, waiting::int from verification.sms_backlog`;
  expect([...backlog]).toEqual(Array.from({ length: 16 }, () => ({ open: 0, oldest_age: null, waiting: 0 })));
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
  await db.sql`update smslogd.settings set tracked_since = 'infinity'`;
  expect(await settled()).toEqual({ verification: true, medication_request: false });
  await db.sql`update smslogd.settings set tracked_since = '-infinity'`;
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
    if (stored) await refreshHourly(db.daemon);
    const rows =
      await db.sql`select type, p50_seconds as p50, p95_seconds as p95, p99_seconds as p99 from verification.sms_delivery_daily order by type`;
    const of = (type: string) => rows.find((row) => row['type'] === type);
    // exact: 125, 237.5, 247.5; the bucket from 120 to 300 holds 521 of the 1,000 evenly
    expect(of('verification')?.['p50']).toBeCloseTo(120 + (180 * 20) / 520, 1);
    expect(of('verification')?.['p95']).toBeCloseTo(120 + (180 * 470) / 520, 1);
    expect(of('text')).toMatchObject({ p50: 3600, p99: 3600 });
    expect(of('2FA')).toMatchObject({ p50: null, p99: null });
  }
});

test('the database has the types, statuses and bounds that the program has', async () => {
  const [row] = await db.sql`
    select smslogd.types() as types, smslogd.statuses() as statuses, smslogd.open_statuses() as open,
           smslogd.delivery_bounds()::int4[] as bounds`;
  expect(row).toEqual({ types: SMS_TYPES, statuses: STATUSES, open: OPEN_STATUSES, bounds: DELIVERY_BUCKETS });
  for (const [column, values] of [
    ['type', SMS_TYPES],
    ['gateway_status', STATUSES],
  ] as const) {
    const [check] = await db.sql<{ says: string }[]>`
      select pg_get_constraintdef(oid) as says from pg_constraint where conname = ${`sms_log_${column}_check`}`;
    expect([...check!.says.matchAll(/'(\w+)'/g)].map(([, word]) => word)).toEqual(values);
  }
});

test('the main view has 16 columns, ratios of four places and ages of whole seconds', async () => {
  const columns = await db.sql<{ name: string; type: string }[]>`
    select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute where attrelid = 'verification.sms_today_vs_yesterday'::regclass and attnum > 0`;
  expect(columns.length).toBeLessThanOrEqual(16);
  const ratios = await db.sql<{ name: string; type: string }[]>`
    select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute join pg_class c on c.oid = attrelid
     where c.relkind = 'v' and c.relnamespace = 'verification'::regnamespace and attnum > 0 and (attname ~ '_ratio$|_drop$|^share$')`;
  expect(ratios.length).toBeGreaterThan(20);
  expect(ratios.filter(({ type }) => type !== 'numeric')).toEqual([]);
});

test('a ratio is 1 or 0 only where it is all or nothing: one SMS of 25,000 that failed shows', async () => {
  const ratios = await db.sql`
    select smslogd.ratio(part, whole)::text as ratio from (values (25000, 25000), (24999, 25000), (2, 3), (1, 25000), (0, 25000), (0, 0)) r (part, whole)`;
  expect(ratios.map(({ ratio }) => ratio as unknown)).toEqual(['1.0000', '0.9999', '0.6667', '0.0001', '0.0000', null]);
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
