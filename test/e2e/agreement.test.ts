/**
 * Two days of traffic through the real daemon, and then the same figures four times: the views, the stored counters, /metrics, and a plain count of
 * the log. The views' clock stands still while they are compared.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { DELIVERY_BUCKETS } from '../../src/metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, STATUSES } from '../../src/status.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';

const ZONE = 'Europe/Kyiv';
const MINUTE = 60_000;
let db: TestDatabase;
let gateway: Simulator;
let daemon: Daemon | undefined;
beforeAll(async () => {
  db = await createDatabase();
  gateway = await startSimulator({ login: 'login', password: 'password' });
});
afterAll(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  await gateway.close();
  await db.drop();
});

const FINAL = ['Expired', 'Deleted', 'Undeliverable', 'Rejected', 'Unaccepted'];
/** Seconds: in and beside every group and most buckets. */
const LATENCIES = [-3, 0, 1, 4, 4, 4, 9, 45, 119, 120, 121, 290, 301, 1_200, 1_800, 1_801, 3_599, 7_200];

/** What comes into the log older than that is history, and in no counter of the process. */
const HISTORY = 70 * MINUTE;

interface Sms {
  readonly gatewayId: string | null;
  readonly type: string;
  /** epoch ms */
  readonly at: number;
}

/** 50 hours of SMS, few of them at night, and a busy last half hour. The gateway knows what became of each; past their life they get their verdict. */
function traffic(now: number): Sms[] {
  const ages = [
    ...Array.from({ length: 1_500 }, (_, i) => 31 * MINUTE + i * 2 * MINUTE).filter(
      (age, i) => i % 12 === 0 || new Date(now - age + 3 * 60 * MINUTE).getUTCHours() >= 7,
    ),
    ...Array.from({ length: 200 }, (_, i) => 1_000 + i * 7_000),
  ].filter((age) => age < 24 * MINUTE || (age > 36 * MINUTE && Math.abs(age - HISTORY) > 4 * MINUTE));
  return ages.map((age, i) => {
    const at = now - age;
    const type = ['verification', 'verification', 'medication_request', 'text', 'verification', '2FA'][i % 6]!;
    if (i % 41 === 0) return { gatewayId: null, type, at };
    const gatewayId = String(6_614_000_000_000 + i);
    const kind = i % 13;
    // odd statuses stay as they are for good: the daemon must not see one change between two looks
    const last =
      kind < 8
        ? { status: 'Delivered', at: at + LATENCIES[i % LATENCIES.length]! * 1_000 }
        : { status: kind === 12 ? OPEN_STATUSES[i % 4]! : FINAL[i % 5]!, at: at + 2_000 };
    gateway.load(
      gatewayId,
      last.at <= now ? [{ status: 'Accepted', at: at - 10_000 }, last] : [{ status: 'Enroute', at }],
    );
    return { gatewayId, type, at };
  });
}

/** Verifications go into the source, the others straight into the log, as their services do it. */
async function insert(rows: readonly Sms[]): Promise<void> {
  const sms = JSON.stringify(rows);
  await db.sql`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
    select gen_random_uuid(), '+380000000000', 1, 'new', 1234, now() at time zone 'UTC', false, s."gatewayId", case when s."gatewayId" is not null then 'Accepted' end,
           to_timestamp(s.at / 1000) at time zone 'UTC'
      from json_to_recordset(${sms}::text::json) as s ("gatewayId" text, type text, at float8) where s.type = 'verification'`;
  await db.sql`
    insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
    select '+380000000000', s.type, 'text', s."gatewayId", case when s."gatewayId" is not null then 'Accepted' end, to_timestamp(s.at / 1000)
      from json_to_recordset(${sms}::text::json) as s ("gatewayId" text, type text, at float8) where s.type <> 'verification'`;
}

async function start(): Promise<Daemon> {
  daemon = startDaemon(db.env({ IP2SMS_URL: gateway.url, REPORT_TIMEZONE: ZONE }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  return daemon;
}

/** Waits until every SMS is logged, asked for and judged, and every hour is counted; then stops the views' clock. */
async function settle(total: number): Promise<void> {
  await until(
    'everything to be mirrored, asked for and judged',
    async () => {
      const [row] = await db.sql`
        select (select count(*)::int from verification.sms_log) = ${total}
               and not exists (select from smslogd.sms_poll where deadline_at <= now() or gateway_id is not null and last_result is null) as done`;
      return row!['done'] as boolean;
    },
    60,
  );
  // the present hour's count rests for a hundred times as long as it takes
  const counted = async () => (await db.sql`select from smslogd.changed_hour`).length === 0;
  await until('every hour to be counted', counted);
  const [clock] = await db.sql`select now()::text as now`;
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select timestamptz '${clock!['now'] as string}' $$`,
  );
}

type Numbers = Record<string, number | null>;

/** The series of /metrics that are compared; the values of a ratio over nothing are absent. */
async function scraped(url: string, series: readonly string[]): Promise<Numbers> {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split('\n');
  const values = new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
  return Object.fromEntries(series.map((name) => [name, values.get(name) ?? null]));
}

/** The same series from the views. */
async function viewed(): Promise<Numbers> {
  const numbers: Numbers = {};
  for (const row of await db.sql`select * from smslogd.today_counts where period in ('today', 'yesterday')`)
    numbers[`smslogd_period_sms{type="${row['type']}",period="${row['period']}",status="${row['status']}"}`] = Number(
      row['sms'],
    );
  for (const row of await db.sql`select * from verification.sms_today_vs_yesterday where period <> 'yesterday_same_time'`) {
    const labels = `type="${row['type']}",period="${row['period']}"`;
    for (const status of [...STATUSES, 'untracked']) numbers[`smslogd_period_sms{${labels},status="${status}"}`] ??= 0;
    for (const group of ['le_2m', 'm2_5', 'm5_30', 'gt_30m'])
      numbers[`smslogd_period_delivered{${labels},group="${group}"}`] = Number(row[group]);
    for (const ratio of ['success_ratio', 'known_ratio', 'on_time_ratio'])
      numbers[`smslogd_period_${ratio}{${labels}}`] = row[ratio] === null ? null : Number(row[ratio]);
  }
  for (const row of await db.sql`select * from verification.sms_backlog`)
    numbers[`smslogd_sms_open{type="${row['type']}",status="${row['status']}"}`] = Number(row['open']);
  for (const row of await db.sql`select type, extract(epoch from coalesce(max(oldest_age), '0'))::float8 as age from verification.sms_backlog group by type`)
    numbers[`smslogd_sms_oldest_open_age_seconds{type="${row['type']}"}`] = row['age'] as number;
  for (const row of await db.sql`select type, extract(epoch from last_delivered_at)::float8 as at from verification.sms_last_seen`)
    numbers[`smslogd_sms_last_delivered_timestamp_seconds{type="${row['type']}"}`] = row['at'] as number | null;
  for (const type of SMS_TYPES) {
    const [row] =
      await db.sql`select coalesce(sum(total), 0)::int as sms from verification.sms_delivery_daily where type = ${type}`;
    numbers[`smslogd_sms_total{type="${type}"}`] = row!['sms'] as number;
  }
  return numbers;
}

/** The same series by a plain count of the log. `tracks`: whether the source knows gateway ids. */
async function recounted(tracks: boolean): Promise<Numbers> {
  const rows = await db.sql<{ name: string; value: number | null }[]>`
    with sms as (
      select type, inserted_at, status_changed_at, extract(epoch from status_changed_at - inserted_at) as seconds,
             inserted_at <= smslogd.clock() - interval '2 minutes' as due,
             (smslogd.clock() at time zone ${ZONE})::date - (inserted_at at time zone ${ZONE})::date as ago,
             case when gateway_status is not null then gateway_status when type <> 'verification' or ${tracks} then 'Accepted' else 'untracked' end as status
        from verification.sms_log
    ), types as (select unnest(${[...SMS_TYPES]}::text[]) as type),
    statuses as (select unnest(${[...STATUSES, 'untracked']}::text[]) as status),
    open as (select unnest(${[...OPEN_STATUSES]}::text[]) as status),
    periods (period, days) as (values ('today', 0), ('yesterday', 1))
    select format('smslogd_period_sms{type="%s",period="%s",status="%s"}', t.type, period, s.status) as name, count(m)::float8 as value
      from types t cross join periods p cross join statuses s left join sms m on m.type = t.type and m.status = s.status and m.ago = p.days group by 1
    union all
    select format('smslogd_period_delivered{type="%s",period="%s",group="%s"}', t.type, period, g), count(m)
      from types t cross join periods p cross join (values ('le_2m', -9e9, 120), ('m2_5', 120, 300), ('m5_30', 300, 1800), ('gt_30m', 1800, 9e9)) as g (g, above, upto)
      left join sms m on m.type = t.type and m.ago = p.days and m.status = 'Delivered' and m.seconds > above and m.seconds <= upto group by 1
    union all
    select format('smslogd_period_%s_ratio{type="%s",period="%s"}', r.ratio, t.type, period),
           round(case ratio when 'success' then count(m) filter (where m.status = 'Delivered')::numeric / nullif(count(m) filter (where m.status not in ('Accepted', 'Enroute', 'untracked')), 0)
                            when 'known' then count(m) filter (where m.status not in (select status from open) and m.status <> 'untracked')::numeric / nullif(count(m), 0)
                            else count(m) filter (where m.status = 'Delivered' and m.seconds <= 120 and m.due)::numeric / nullif(count(m) filter (where m.due), 0) end, 4)::float8
      from types t cross join periods p cross join (values ('success'), ('known'), ('on_time')) as r (ratio)
      left join sms m on m.type = t.type and m.ago = p.days group by r.ratio, t.type, period
    union all
    select format('smslogd_sms_open{type="%s",status="%s"}', t.type, o.status), count(m)
      from types t cross join open o left join sms m on m.type = t.type and m.status = o.status group by 1
    union all
    select format('smslogd_sms_oldest_open_age_seconds{type="%s"}', t.type),
           trunc(coalesce(extract(epoch from smslogd.clock() - min(m.inserted_at) filter (where m.status in (select status from open))), 0))
      from types t left join sms m using (type) group by 1
    union all
    select format('smslogd_sms_last_delivered_timestamp_seconds{type="%s"}', t.type), extract(epoch from max(m.status_changed_at) filter (where m.status = 'Delivered'))
      from types t left join sms m using (type) group by 1
    union all
    select format('smslogd_sms_total{type="%s"}', t.type), count(m) from types t left join sms m using (type) group by 1`;
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
}

const counters = () =>
  db.sql`select hour, type, status, sms, le_2m, m2_5, m5_30, gt_30m from smslogd.sms_hourly order by 1, 2, 3`;
const countedHours = (tracks: boolean) => db.sql`
  select date_trunc('hour', inserted_at, 'UTC') as hour, type, case when gateway_status is not null then gateway_status when type <> 'verification' or ${tracks} then 'none' else 'untracked' end as status, count(*) as sms,
         count(*) filter (where gateway_status = 'Delivered' and seconds <= 120) as le_2m, count(*) filter (where gateway_status = 'Delivered' and seconds > 120 and seconds <= 300) as m2_5,
         count(*) filter (where gateway_status = 'Delivered' and seconds > 300 and seconds <= 1800) as m5_30, count(*) filter (where gateway_status = 'Delivered' and seconds > 1800) as gt_30m
    from verification.sms_log, extract(epoch from status_changed_at - inserted_at) as seconds
   group by 1, 2, 3 order by 1, 2, 3`;

/** To nine digits: sums of floats by different ways. */
const rounded = (numbers: Numbers) =>
  Object.fromEntries(
    Object.entries(numbers).map(([name, value]) => [name, value === null ? null : Number(value.toPrecision(9))]),
  );

async function expectAgreement(url: string, tracks: boolean): Promise<void> {
  const byHand = rounded(await recounted(tracks));
  const names = Object.keys(byHand);
  expect(names.length).toBeGreaterThan(150);
  expect(rounded(await viewed())).toEqual(byHand);
  expect([...(await counters())]).toEqual([...(await countedHours(tracks))]);
  // a scrape shows what was read within the last seconds
  const shown = async () => rounded(await scraped(url, names));
  await until('the scrape to be fresh', async () => JSON.stringify(await shown()) === JSON.stringify(byHand)).catch(
    () => {},
  );
  expect(await shown()).toEqual(byHand);
}

test('views, stored counters, /metrics and a plain count of the log give the same numbers', async () => {
  const sms = traffic(Date.now());
  // half of it is there before the first start and is copied, half of it comes by the stream
  await insert(sms.filter((_, i) => i % 2 === 0));
  const first = await start();
  await insert(sms.filter((_, i) => i % 2 === 1));
  await settle(sms.length);
  await expectAgreement(await first.url(), true);

  // every status is among it; the process's own counters count the same SMS, but for history
  const finals = await db.sql`
    select type, gateway_status as status, (count(*) filter (where recent))::int as sms,
           coalesce(array_agg(extract(epoch from status_changed_at - inserted_at)::float8) filter (where recent), '{}') as seconds
      from (select *, inserted_at > now() - ${HISTORY} * interval '1 millisecond' as recent from verification.sms_log) l
     where gateway_status <> all (${[...OPEN_STATUSES]}::text[]) group by 1, 2`;
  expect(finals.filter(({ sms: n }) => (n as number) > 0).length).toBeGreaterThan(10);
  expect(new Set(finals.map(({ status }) => status as string)).size).toBe(STATUSES.length - OPEN_STATUSES.length);
  const own: Numbers = {};
  for (const { type, status, sms: n, seconds } of finals) {
    own[`smslogd_sms_final_total{type="${type}",status="${status}"}`] = n as number;
    if (status !== 'Delivered') continue;
    for (const bound of DELIVERY_BUCKETS)
      own[`smslogd_sms_delivery_seconds_bucket{le="${bound}",type="${type}"}`] = (seconds as number[]).filter(
        (each) => each <= bound,
      ).length;
    own[`smslogd_sms_delivery_seconds_count{type="${type}"}`] = n as number;
  }
  expect(await scraped(await first.url(), Object.keys(own))).toEqual(own);
  first.kill('SIGTERM');
  expect(await first.exited).toBe(0);

  // the source loses its gateway columns: what comes now is untracked, what waited for its id is so too
  await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select now() $$`,
  );
  const second = await start();
  await db.sql`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, inserted_at)
    select gen_random_uuid(), '+380000000000', 1, 'new', 1234, now(), false, now() at time zone 'UTC' - g * interval '1 hour' from generate_series(0, 30) g`;
  await settle(sms.length + 31);
  await expectAgreement(await second.url(), false);
  const [untracked] = await db.sql`select sum(untracked)::int as sms from verification.sms_delivery_daily`;
  expect(untracked!['sms']).toBeGreaterThan(31);
});
