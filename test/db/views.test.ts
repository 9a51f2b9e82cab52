import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { DELIVERY_BUCKETS } from '../../src/metrics.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

/** A row of a view, or of a count by hand; ratios to ten digits. */
type Row = Record<string, unknown>;

async function moveTo(clock: string, zone: string, tracks = true): Promise<void> {
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select timestamptz '${clock}' $$`,
  );
  await db.sql`update smslogd.settings set report_timezone = ${zone}, source_tracks_gateway = ${tracks}`;
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
      select g, ${clock}::timestamptz - interval '3 days' + g * interval '83.7 seconds' as at from generate_series(1, 4000) g
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
const judged = (clock: string, zone: string, tracks: boolean) => `
  sms as (
    select *, case when gateway_status is not null then gateway_status
                   when gateway_id is not null or type <> 'verification' or ${tracks} then 'Accepted' else 'untracked' end as status,
           gateway_status is null and gateway_id is null and (type <> 'verification' or ${tracks}) as waits,
           case when inserted_at between '2000-01-01' and '2999-12-31' then inserted_at at time zone '${zone}' end as local, date_trunc('hour', inserted_at, 'UTC') as hour,
           case when inserted_at between '2000-01-01' and '2999-12-31' and isfinite(status_changed_at)
                then extract(epoch from status_changed_at - inserted_at) end as seconds,
           inserted_at <= ${instant(clock)} - interval '2 minutes' as due
      from verification.sms_log
  )`;

/** The figures of a group of `sms`, by hand: no bucket, no stored hour. Null rows of an outer join count nothing. */
const FIGURES = `
  count(id) as total,
  count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')) as finished,
  count(id) filter (where status = 'Delivered') as delivered,
  count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked', 'Delivered')) as undelivered,
  round(count(id) filter (where status = 'Delivered')::numeric
        / nullif(count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')), 0), 10) as success_ratio,
  count(id) filter (where status = 'Delivered' and seconds <= 120) as le_2m,
  count(id) filter (where status = 'Delivered' and seconds > 120 and seconds <= 300) as m2_5,
  count(id) filter (where status = 'Delivered' and seconds > 300 and seconds <= 1800) as m5_30,
  count(id) filter (where status = 'Delivered' and seconds > 1800) as gt_30m,
  count(id) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')) as open,
  round(count(id) filter (where status not in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'untracked'))::numeric / nullif(count(id), 0), 10) as known_ratio,
  round(count(id) filter (where status = 'Delivered' and seconds <= 120 and due)::numeric / nullif(count(id) filter (where due), 0), 10) as on_time_ratio,
  count(id) filter (where status = 'untracked') as untracked,
  count(id) filter (where waits) as waiting`;

/** The same columns of a view. */
const COLUMNS = `
  total, finished, delivered, undelivered, round(success_ratio::numeric, 10) as success_ratio, le_2m, m2_5, m5_30, gt_30m, open,
  round(known_ratio::numeric, 10) as known_ratio, round(on_time_ratio::numeric, 10) as on_time_ratio, untracked, waiting`;

const OPEN = `status in ('Accepted', 'Enroute', 'Pending', 'Unknown')`;
const PERIOD_STATUSES = [
  'Accepted',
  'Enroute',
  'Pending',
  'Unknown',
  'Expired',
  'Deleted',
  'Undeliverable',
  'Rejected',
  'Unaccepted',
  'Terminated',
];

/** What the views show, and the same counted by hand. */
function queries(clock: string, zone: string): readonly (readonly [view: string, byHand: string])[] {
  const today = `(${instant(clock)} at time zone '${zone}')::date`;
  const possible = `inserted_at >= '2000-01-01' and inserted_at < '3000-01-01'`;
  return [
    [
      `select period, type, settled, ${PERIOD_STATUSES.map((status) => status.toLowerCase()).join(', ')}, ${COLUMNS},
              round(extract(epoch from oldest_open_age), 6) as oldest_open_age
         from verification.sms_today_vs_yesterday order by 1, 2`,
      `select period, type.type, period <> 'today' and count(id) filter (where ${OPEN}) = 0 as settled,
              ${PERIOD_STATUSES.map((status) => `count(id) filter (where status = '${status}') as ${status.toLowerCase()}`).join(', ')}, ${FIGURES},
              round(extract(epoch from ${instant(clock)} - min(inserted_at) filter (where ${OPEN})), 6) as oldest_open_age
         from (values ('today'), ('yesterday_same_time'), ('yesterday')) as period (period)
        cross join (values ('verification'), ('medication_request'), ('text'), ('2FA')) as type (type)
         left join sms on sms.type = type.type and case period
                when 'today' then local::date = ${today}
                when 'yesterday' then local::date = ${today} - 1
                else local::date = ${today} - 1 and local < ${instant(clock)} at time zone '${zone}' - interval '1 day' end
        group by 1, 2 order by 1, 2`,
    ],
    [
      `select hour, local_hour, type, settled, ${COLUMNS} from verification.sms_delivery_hourly order by 1, 3`,
      `select hour, hour at time zone '${zone}' as local_hour, type,
              hour + interval '1 hour' <= ${instant(clock)} and count(*) filter (where ${OPEN}) = 0 as settled, ${FIGURES}
         from sms where ${possible} group by hour, type order by 1, 3`,
    ],
    [
      `select day::text, type, settled, ${COLUMNS} from verification.sms_delivery_daily order by 1, 2`,
      `select local::date::text as day, type, local::date < ${today} and count(*) filter (where ${OPEN}) = 0 as settled, ${FIGURES}
         from sms where ${possible} group by local::date, type order by 1, 2`,
    ],
    [
      `select day::text, type, status, sms, round(share::numeric, 10) as share from verification.sms_status_daily order by 1, 2, 3`,
      `select local::date::text as day, type, status, count(*) as sms, round(count(*) / sum(count(*)) over (partition by local::date, type), 10) as share
         from sms where ${possible} group by local::date, type, status order by 1, 2, 3`,
    ],
    [
      `select type, status, open, oldest_inserted_at, waiting from verification.sms_backlog where open > 0 order by 1, 2`,
      `select type, status, count(*) as open, min(inserted_at) filter (where ${possible}) as oldest_inserted_at, count(*) filter (where waits) as waiting
         from sms where ${OPEN} group by 1, 2 order by 1, 2`,
    ],
    [
      `select hour, type, total, round(usual_total::numeric, 5) as usual_total, round(on_time_ratio::numeric, 10) as on_time,
              round(usual_on_time_ratio::numeric, 10) as usual_on_time, round(success_ratio::numeric, 10) as success, round(usual_success_ratio::numeric, 10) as usual_success
         from verification.sms_delivery_drop order by 1, 2`,
      `select hour, type, total, round(usual_total / 7.0, 5) as usual_total, round(on_time / nullif(due, 0)::numeric, 10) as on_time,
              round(usual_on_time / nullif(usual_due, 0), 10) as usual_on_time, round(delivered / nullif(finished, 0)::numeric, 10) as success,
              round(usual_delivered / nullif(usual_finished, 0), 10) as usual_success
         from (select n.hour, t.type, count(id) as total, count(id) filter (where due) as due,
                      count(id) filter (where status = 'Delivered' and seconds <= 120 and due) as on_time,
                      count(id) filter (where status = 'Delivered') as delivered, count(id) filter (where status not in ('Accepted', 'Enroute', 'untracked')) as finished
                 from generate_series(date_trunc('hour', ${instant(clock)}) - interval '24 hours', ${instant(clock)}, '1 hour') n (hour)
                cross join (values ('verification'), ('medication_request'), ('text'), ('2FA')) as t (type)
                 left join sms on sms.hour = n.hour and sms.type = t.type
                group by 1, 2) h
         cross join lateral (
           select count(*) as usual_total, count(*) filter (where s.status = 'Delivered' and s.seconds <= 120 and s.due)::numeric as usual_on_time,
                  count(*) filter (where s.due) as usual_due, count(*) filter (where s.status = 'Delivered')::numeric as usual_delivered,
                  count(*) filter (where s.status not in ('Accepted', 'Enroute', 'untracked')) as usual_finished
             from sms s
            where s.type = h.type and s.hour < h.hour and ${possible}
              and date_part('hour', s.hour at time zone '${zone}') = date_part('hour', h.hour at time zone '${zone}')
              and (s.hour at time zone '${zone}')::date between (h.hour at time zone '${zone}')::date - 7 and (h.hour at time zone '${zone}')::date - 1) u
        where total > 0 or usual_total > 0 order by 1, 2`,
    ],
  ];
}

const viewed = async (clock: string, zone: string) =>
  await Promise.all(queries(clock, zone).map(async ([view]) => [...(await db.sql.unsafe<Row[]>(view))]));

const counted = async (clock: string, zone: string, tracks: boolean) =>
  await Promise.all(
    queries(clock, zone).map(async ([, byHand]) => [
      ...(await db.sql.unsafe<Row[]>(`with ${judged(clock, zone, tracks)} ${byHand}`)),
    ]),
  );

describe('the views equal a count by hand, before and after the counters are stored, and after changes by hand', () => {
  test.each<[string, string, string, boolean?]>([
    ['an ordinary afternoon', '2026-05-20 12:34:56.789+00', 'Europe/Kyiv'],
    ['just after midnight', '2026-05-19 21:01:00+00', 'Europe/Kyiv'],
    ['the day of 23 hours', '2026-03-29 12:20:00+00', 'Europe/Kyiv'],
    ['the day after it', '2026-03-30 09:00:00+00', 'Europe/Kyiv'],
    ['the day of 25 hours', '2026-10-25 18:00:30+00', 'Europe/Kyiv'],
    ['the day after it', '2026-10-26 18:00:00+00', 'Europe/Kyiv'],
    ['a zone whose day is missing an hour at midnight', '2026-09-07 12:00:00+00', 'America/Santiago'],
    ['a zone that moves by half an hour', '2026-04-05 12:00:00+00', 'Australia/Lord_Howe'],
    ['a zone whose days begin within a UTC hour', '2026-05-20 04:10:00+00', 'Asia/Kolkata'],
    ['a zone of 45 minutes', '2026-05-20 18:16:00+00', 'Asia/Kathmandu'],
    ['a day of a source without gateway ids', '2026-05-20 12:34:56+00', 'Europe/Kyiv', false],
  ])('on %s (%s %s)', async (_, clock, zone, tracks = true) => {
    await moveTo(clock, zone, tracks);
    await generate(clock);
    expect((await viewed(clock, zone)).map((rows) => rows.length > 10)).toEqual(queries(clock, zone).map(() => true));
    expect(await viewed(clock, zone)).toEqual(await counted(clock, zone, tracks));
    await refreshHourly(db.daemon);
    expect(await viewed(clock, zone)).toEqual(await counted(clock, zone, tracks));

    // late deliveries of past days, rows moved to another hour, rows that go and rows that come; all in hours that are stored
    await db.sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = inserted_at + interval '2 hours'
                  where gateway_status = 'Enroute' and inserted_at < ${clock}::timestamptz - interval '20 hours'`;
    await db.sql`update verification.sms_log set inserted_at = inserted_at - interval '5 hours' where gateway_id like '%11'`;
    await db.sql`delete from verification.sms_log where gateway_id like '%22'`;
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, inserted_at)
                 values ('+380000000000', 'text', 'Accepted', ${clock}::timestamptz - interval '25 hours')`;
    expect(await viewed(clock, zone)).toEqual(await counted(clock, zone, tracks));
    await refreshHourly(db.daemon);
    expect(await viewed(clock, zone)).toEqual(await counted(clock, zone, tracks));
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

const dailyStored = () =>
  db.sql`select day::text, type, status, sms, le_2m, m2_5, m5_30, gt_30m, oldest, newest, last_changed_at, last_answered_at,
                (select coalesce(sum(n * place * place), 0)::text from unnest(buckets) with ordinality as b (n, place)) as buckets
           from smslogd.sms_daily order by day, type, status`;
const dailySummed = (zone: string) => db.sql`
  with hours as (
    select *, ((hour + quarter * interval '15 minutes') at time zone ${zone})::date::text as day from smslogd.sms_hourly
  )
  select day, type, status, sum(sms)::int8 as sms, sum(le_2m)::int8 as le_2m, sum(m2_5)::int8 as m2_5, sum(m5_30)::int8 as m5_30, sum(gt_30m)::int8 as gt_30m,
         min(oldest) as oldest, max(newest) as newest, max(last_changed_at) as last_changed_at, max(last_answered_at) as last_answered_at,
         (select coalesce(sum(n * place * place), 0)::text from hours b cross join unnest(b.buckets) with ordinality as u (n, place)
           where (b.day, b.type, b.status) = (h.day, h.type, h.status)) as buckets
    from hours h group by day, type, status order by day::date, type, status`;

test('stored days are the sums of their stored hours, whoever changes the hours, and follow a change of the time zone', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
  const before = [...(await dailyStored())];
  expect(before.length).toBeGreaterThan(100);
  expect(before).toEqual([...(await dailySummed('Europe/Kyiv'))]);

  await db.sql`update smslogd.sms_hourly set sms = sms + 1, hour = hour - interval '90 days' where hour = '2026-05-18 06:00+00'`;
  await db.sql`delete from smslogd.sms_hourly where hour = '2026-05-18 07:00+00'`;
  expect([...(await dailyStored())]).not.toEqual(before);
  expect([...(await dailyStored())]).toEqual([...(await dailySummed('Europe/Kyiv'))]);

  for (const zone of ['Asia/Kathmandu', 'America/Santiago', 'Europe/Kyiv']) {
    await db.sql`update smslogd.settings set report_timezone = ${zone}`;
    expect([...(await dailyStored())]).toEqual([...(await dailySummed(zone))]);
    await refreshHourly(db.daemon);
    expect([...(await dailyStored())]).toEqual([...(await dailySummed(zone))]);
  }
  await db.sql`truncate smslogd.sms_hourly`;
  expect(await dailyStored()).toHaveLength(0);
});

test('two who change hours of one day at once leave its right sum', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
  const change = (hour: string) =>
    db.sql`update smslogd.sms_hourly set sms = sms + 1 where hour = ${hour}::timestamptz`;
  const hours = Array.from({ length: 12 }, (_, i) => `2026-05-18 ${String(i).padStart(2, '0')}:00+00`);
  await Promise.all(hours.map(change));
  expect([...(await dailyStored())]).toEqual([...(await dailySummed('Europe/Kyiv'))]);
});

test.each(['Europe/Kyiv', 'Asia/Kolkata'])('yesterday keeps the SMS that retention has removed (%s)', async (zone) => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, zone);
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

/** Waits until a session waits for a lock that another one holds. */
const somebodyWaits = () =>
  until('somebody to wait', async () => {
    const rows =
      await db.sql`select from pg_stat_activity where datname = ${db.name} and wait_event_type = 'Lock' and wait_event = 'advisory'`;
    return rows.length > 0;
  });

test('who changes the zone while a daemon counts waits for it, and holds nothing that the daemon needs', async () => {
  await moveTo('2026-05-20 12:00:00+00', 'Europe/Kyiv');
  let change: Promise<unknown> | undefined;
  await db.sql.begin(async (tx) => {
    await tx`select pg_advisory_xact_lock(7246581904)`;
    change = Promise.resolve(db.sql`update smslogd.settings set report_timezone = 'UTC'`);
    await somebodyWaits();
    await tx`update smslogd.settings set frozen_before = frozen_before`;
  });
  await change;
  expect([...(await db.sql`select report_timezone as zone from smslogd.settings`)]).toEqual([{ zone: 'UTC' }]);
});

test('hours that are stored while the zone changes are summed up to days of the new zone', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
  let stored: Promise<unknown> | undefined;
  await db.sql.begin(async (tx) => {
    await tx`update smslogd.settings set report_timezone = 'UTC'`;
    // another day in Kyiv than in UTC
    stored = Promise.resolve(db.sql`update smslogd.sms_hourly set sms = sms + 1 where hour = '2026-05-18 22:00+00'`);
    await somebodyWaits();
  });
  expect(await stored).toHaveProperty('count', expect.any(Number));
  expect([...(await dailyStored())]).toEqual([...(await dailySummed('UTC'))]);
});

test('past days are read from the stored days: a wrong one shows; a day that changed is not', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  await refreshHourly(db.daemon);
  const total = async () =>
    Number(
      (await db.sql`select sum(total) as sms from verification.sms_delivery_daily where day = '2026-05-18'`)[0]!['sms'],
    );
  const before = await total();
  await db.sql`update smslogd.sms_daily set sms = sms + 1000000 where (day, type, status) = ('2026-05-18', '2FA', 'Delivered')`;
  expect(await total()).toBe(before + 1_000_000);
  await db.sql`insert into smslogd.changed_hour values ('2026-05-18 08:00+00')`;
  expect(await total()).toBe(before);
  await refreshHourly(db.daemon);
  await db.sql`select smslogd.sum_days(null)`;
  expect(await total()).toBe(before);
});

test('the figures of many days are the sums of the days, and their percentiles come from merged buckets', async () => {
  const clock = '2026-05-20 12:00:00+00';
  await moveTo(clock, 'Europe/Kyiv');
  await generate(clock);
  for (const stored of [false, true]) {
    if (stored) await refreshHourly(db.daemon);
    const between = await db.sql`
      select type, total, finished, delivered, le_2m, m2_5, m5_30, gt_30m, open, untracked, p95
        from verification.sms_delivery_between('2026-05-18', '2026-05-20') order by type`;
    const summed = await db.sql`
      select d.type, sum(total)::int8 as total, sum(finished)::int8 as finished, sum(delivered)::int8 as delivered, sum(le_2m)::int8 as le_2m, sum(m2_5)::int8 as m2_5,
             sum(m5_30)::int8 as m5_30, sum(gt_30m)::int8 as gt_30m, sum(open)::int8 as open, sum(untracked)::int8 as untracked,
             (select (smslogd.percentiles(array_agg(n order by i))).p95 from (
                select i, count(*) filter (where i = 14 - width_bucket(-greatest(extract(epoch from l.status_changed_at - l.inserted_at)::float8, 0),
                         '{-3600,-1800,-900,-600,-300,-120,-60,-30,-20,-10,-5,-2,-1}'::float8[])) as n
                  from generate_series(1, 14) i
                 cross join (select * from verification.sms_log where gateway_status = 'Delivered' and isfinite(status_changed_at) and inserted_at between '2026-05-01' and '2026-06-01') l
                 where l.type = d.type and (l.inserted_at at time zone 'Europe/Kyiv')::date between '2026-05-18' and '2026-05-20' group by i) b) as p95
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
    if (stored) await refreshHourly(db.daemon);
    const rows = await db.sql`select type, p50, p95, p99 from verification.sms_delivery_hourly order by type`;
    const of = (type: string) => rows.find((row) => row['type'] === type);
    // exact: 125, 237.5, 247.5; the bucket from 120 to 300 holds 521 of the 1,000 evenly
    expect(of('verification')?.['p50']).toBeCloseTo(120 + (180 * 20) / 520, 6);
    expect(of('verification')?.['p95']).toBeCloseTo(120 + (180 * 470) / 520, 6);
    expect(of('text')).toMatchObject({ p50: 3600, p99: 3600 });
    expect(of('2FA')).toMatchObject({ p50: null, p99: null });
  }
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
