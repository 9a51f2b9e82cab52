import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { hoursAfter, refreshHourly, countingPause, runHourly } from '../../src/figures/counting.ts';
import { ENTERED, noteRecentHour, recountHours } from '../../src/figures/counters.ts';
import { silentLog } from '../../src/log.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
let sql: Sql;
beforeAll(async () => {
  db = await createDatabase();
  sql = db.sql;
});
beforeEach(async () => {
  await sql`truncate verification.sms_log`;
  await sql`update smslogd.settings set frozen_before = '-infinity'`;
  await refreshHourly(db.daemon);
});
afterAll(async () => {
  await db.drop();
});

const stored = (by: Sql = sql) => by`select hour, type, status, sms, oldest from smslogd.sms_hourly order by 1, 2, 3`;
const byHand = (by: Sql = sql) => by`
  select date_trunc('hour', inserted_at, 'UTC') as hour, type, coalesce(gateway_status, 'none') as status, count(*) as sms, min(inserted_at) as oldest
    from verification.sms_log group by 1, 2, 3 order by 1, 2, 3`;
const notes = async () => (await sql`select distinct hour from smslogd.changed_hour`).length;

/** `count` SMS of `hours` hours in the recent past, in no order of time; some of them of the first moment of an hour. */
const insert = (count: number, hours: number) => sql`
  insert into verification.sms_log (phone_number, type, gateway_status, inserted_at)
  select '+380000000000', 'verification', case when g % 3 > 0 then 'Accepted' end,
         case when g % 10 = 0 then date_trunc('hour', at, 'UTC') else at end
    from generate_series(1, ${count}::int4) g
   cross join lateral (select now() - interval '1 hour' * ((g::int8 * 7919) % (${hours}::int4 * 60)) / 60.0) a (at)`;

test('what was inserted, changed, moved and deleted is counted again as a whole', async () => {
  await insert(5000, 40);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
  expect(await notes()).toBe(0);

  for (const change of [
    `update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now() where random() < 0.3`,
    `update verification.sms_log set inserted_at = inserted_at - interval '3 days' where random() < 0.1`,
    `delete from verification.sms_log where random() < 0.1 or inserted_at < now() - interval '100 hours'`,
    'truncate verification.sms_log',
  ]) {
    await sql.unsafe(change);
    await refreshHourly(db.daemon);
    expect([...(await stored())]).toEqual([...(await byHand())]);
  }
});

test('a delivery whose SMS has a time that cannot be has no latency', async () => {
  await sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', 'text', '1000001', 'Delivered', now(), at
      from unnest('{-infinity,1970-01-01,3000-01-01,infinity}'::timestamptz[]) at`;
  await refreshHourly(db.daemon);
  const counted = await sql`select hour::text, sms, buckets from smslogd.sms_hourly order by 1`;
  expect([...counted]).toEqual(['-infinity', 'infinity'].map((hour) => ({ hour, sms: '2', buckets: null })));
});

/** How many SMS entered, as smslogd_sms_total has it. */
const entered = async () =>
  (
    await sql<
      { type: string; sms: number }[]
    >`select type, sms::int4 as sms from (${sql.unsafe(ENTERED)}) e order by type`
  ).map(({ type, sms }) => [type, sms]);

test('what changes the log is done also where it cannot be noted, and what enters it is counted as that', async () => {
  await sql`truncate smslogd.changed_hour, smslogd.sms_entered`;
  await sql`alter table smslogd.changed_hour add constraint nobody check (false) not valid`;
  try {
    await insert(3, 1);
    await sql`update verification.sms_log set gateway_status = 'Enroute'`;
    expect(await sql`select from verification.sms_log where gateway_status = 'Enroute'`).toHaveLength(3);
    await sql`delete from verification.sms_log`;
    expect(await sql`select from verification.sms_log`).toHaveLength(0);
    await insert(3, 1);
    await sql`truncate verification.sms_log`;
    await sql`alter table smslogd.sms_entered add constraint nobody check (false) not valid`;
    await insert(3, 1);
    expect(await sql`select from verification.sms_log`).toHaveLength(3);
  } finally {
    for (const table of ['changed_hour', 'sms_entered'])
      await sql.unsafe(`alter table smslogd.${table} drop constraint if exists nobody`);
  }
  expect(await entered()).toEqual([['verification', 6]]);
});

test('SMS that enter while somebody holds the notes for longer than their service waits are counted as that', async () => {
  await sql`truncate smslogd.changed_hour, smslogd.sms_entered`;
  const holder = await sql.reserve();
  await holder`begin`;
  await holder`lock table smslogd.changed_hour`;
  let release!: () => void;
  const bothWrote = new Promise<void>((resolve) => (release = resolve));
  let left = 2;
  // neither waits for the other one's commit
  const service = async (transaction: unknown) => {
    const tx = transaction as Sql;
    await tx`set local lock_timeout = 50`;
    for (const types of [['text', '2FA', 'text'], ['2FA']])
      await tx`insert into verification.sms_log (phone_number, type) select '+380000000000', type from unnest(${types}::text[]) type`;
    left -= 1;
    if (left === 0) release();
    await bothWrote;
  };
  await Promise.all([sql.begin(service), sql.begin(service)]);
  await holder`commit`;
  holder.release();
  const sums = [
    ['2FA', 4],
    ['text', 4],
  ];
  expect(await entered()).toEqual(sums);
  await refreshHourly(db.daemon);
  expect(await entered()).toEqual(sums);
});

test('a change counts also where triggers are off for replicas', async () => {
  await sql.begin(async (transaction) => {
    const tx = transaction as unknown as Sql;
    await tx`set local session_replication_role = replica`;
    for (const change of [
      `insert into verification.sms_log (phone_number, type) values ('+380000000000', 'text'), ('+380000000000', '2FA')`,
      `update verification.sms_log set gateway_status = 'Delivered'`,
      `delete from verification.sms_log where type = 'text'`,
      'truncate verification.sms_log',
    ]) {
      await tx`delete from smslogd.changed_hour`;
      await tx.unsafe(change);
      await recountHours(tx, { wait: true, most: 168 });
      expect([...(await stored(tx))]).toEqual([...(await byHand(tx))]);
    }
  });
});

test('notes are taken also while somebody publishes all tables', async () => {
  await sql`create publication everything for all tables`;
  await insert(10, 1);
  await refreshHourly(db.daemon);
  expect(await notes()).toBe(0);
  await sql`drop publication everything`;
});

test('counting again changes nothing and writes nothing', async () => {
  await insert(500, 10);
  await refreshHourly(db.daemon);
  const before = [...(await sql`select h.*, xmin::text from smslogd.sms_hourly h order by hour, type, status`)];
  await sql`insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly`;
  await refreshHourly(db.daemon);
  expect([...(await sql`select h.*, xmin::text from smslogd.sms_hourly h order by hour, type, status`)]).toEqual(
    before,
  );
});

test('two daemons that count while others write end with the right counts', async () => {
  const writers = [1, 2].map(async () => {
    for (let round = 0; round < 25; round += 1) {
      await insert(40, 30);
      await sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now()
                 where id in (select id from verification.sms_log where gateway_status = 'Accepted' order by random() limit 20 for update skip locked)`;
    }
  });
  const written = new AbortController();
  const daemons = [1, 2].map(async () => {
    let turns = 0;
    while (!written.signal.aborted)
      turns += (await recountHours(db.daemon, { wait: false, most: 168 })) === undefined ? 0 : 1;
    return turns;
  });
  await Promise.all(writers);
  written.abort();
  const turns = await Promise.all(daemons);
  expect(turns.reduce((sum, each) => sum + each)).toBeGreaterThan(2);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('while another daemon counts, a turn is left out', async () => {
  await insert(10, 1);
  await sql.begin(async (tx) => {
    await tx`select pg_advisory_xact_lock(7246581904)`;
    expect(await recountHours(db.daemon, { wait: false, most: 168 })).toBeUndefined();
  });
  expect(await recountHours(db.daemon, { wait: false, most: 168 })).toMatchObject({ left: 0 });
});

test('a change that commits after its hour was counted is still noted, and the view has it at once', async () => {
  const total = async () =>
    Number(
      (await sql`select sum(total) as sms from verification.sms_delivery_hourly where type = 'text'`)[0]!['sms'] ?? 0,
    );
  const writer = await sql.reserve();
  await writer`begin`;
  await writer`insert into verification.sms_log (phone_number, type, inserted_at) values ('+380000000000', 'text', now() - interval '5 hours')`;
  await sql`insert into verification.sms_log (phone_number, type, inserted_at) values ('+380000000000', 'text', now() - interval '5 hours')`;
  await refreshHourly(db.daemon);
  expect(await total()).toBe(1);
  await writer`commit`;
  writer.release();
  expect(await total()).toBe(2);
  expect(await notes()).toBe(1);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('a turn that dies before its commit leaves the notes', async () => {
  await insert(2000, 24);
  const noted = await notes();
  const dying = openDatabase(db.config(), { max: 1, name: 'dying' });
  // it waits for this row when it stores its counts, and is killed there
  await sql`insert into smslogd.sms_hourly (hour, type, status, sms, oldest)
            select min(hour), 'verification', 'Accepted', 0, now() from smslogd.changed_hour`;
  await sql.begin(async (tx) => {
    await tx`select from smslogd.sms_hourly for update`;
    const turn = recountHours(dying, { wait: true, most: 168 }).catch((error: unknown) => error);
    await untilLocked('the turn to wait', db.sql);
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'smslogd dying'`;
    expect(await turn).toBeInstanceOf(Error);
  });
  await dying.end({ timeout: 1 });
  expect(await notes()).toBe(noted);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('more hours than one statement takes are counted in turns, the youngest first', async () => {
  await insert(3000, 400);
  const first = await recountHours(db.daemon, { wait: true, most: 168 });
  expect(first).toMatchObject({ hours: 168 });
  expect(first!.left).toBeGreaterThan(200);
  const [oldest] = await sql`select min(hour) > now() - interval '169 hours' as recent from smslogd.sms_hourly`;
  expect(oldest!['recent']).toBe(true);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('of hours whose rows are not yet 2 minutes old one note stays where they are left out', async () => {
  const send = () => sql`insert into verification.sms_log (phone_number, type) values ('+380000000000', 'text')`;
  for (let i = 0; i < 5; i += 1) await send();
  await sql`insert into smslogd.changed_hour select date_trunc('hour', now(), 'UTC') - interval '3 hours'`;
  expect(await recountHours(db.daemon, { wait: true, most: 168, which: 'settled' })).toMatchObject({ left: 0 });
  const kept = await sql`select hour from smslogd.changed_hour`;
  expect(kept.length).toBeGreaterThan(0);
  expect(kept.length).toBe(await notes());
  expect([...(await stored())]).toEqual([]);
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('while very many hours wait to be counted, views count the youngest, take the others as they were stored, and say so', async () => {
  await insert(4000, 400);
  await refreshHourly(db.daemon);
  // the present hour and the one before are counted anyway, also where they have no SMS yet
  await sql`insert into smslogd.changed_hour select hour from smslogd.sms_hourly union select hour from smslogd.stale_hours() s (hour)`;
  const behind = async () => (await sql`select hours::int4 as hours, oldest_hour from verification.sms_behind`)[0]!;
  const counted = async () => (await sql`select count(*)::int4 as n from smslogd.stale_hours()`)[0]!['n'] as number;
  const all = await notes();
  expect((await behind())['hours']).toBe(all - (await counted()));
  expect(await counted()).toBe(240);
  // what is stored is out of date in every hour: the views have it as it is where they count
  await sql`update smslogd.sms_hourly set sms = sms + 1000`;
  const [shown] =
    await sql`select count(*) filter (where total > 1000)::int4 as stored, min(hour) filter (where total < 1000) as first
                              from verification.sms_delivery_hourly`;
  expect(shown!['stored']).toBe((await behind())['hours']);
  const [first] = await sql`select min(hour) as hour from smslogd.changed_hour`;
  expect((await behind())['oldest_hour']).toEqual(first!['hour']);
  const days = await sql`
    select v.period, v.total::int4 as shown, (select count(*)::int4 from verification.sms_log l
             where (l.inserted_at at time zone 'Europe/Kyiv')::date = (now() at time zone 'Europe/Kyiv')::date - (v.period = 'yesterday')::int) as by_hand
      from verification.sms_today_vs_yesterday v where type = 'verification' and period <> 'yesterday_same_time'`;
  expect(days.map(({ shown: total }) => total as number)).toEqual(days.map(({ by_hand: total }) => total as number));
  const [today] =
    await sql`select total::int4 as total from verification.sms_delivery_daily where day = (now() at time zone 'Europe/Kyiv')::date`;
  expect(today!['total']).toBe(days[0]!['by_hand']);
  await refreshHourly(db.daemon);
  expect(await behind()).toEqual({ hours: 0, oldest_hour: null });
  expect([...(await stored())]).toEqual([...(await byHand())]);
});

test('hours from the future keep today from nothing', async () => {
  await insert(100, 2);
  await sql`insert into smslogd.changed_hour select now() + g * interval '1 hour' from generate_series(1, 200) g`;
  const [today] = await sql`select bool_and(s.hour <= now()) as so, count(*)::int4 as n
                              from (select smslogd.hour_of(now() - g * interval '1 hour') as hour from generate_series(0, 1) g) n join smslogd.stale_hours() s (hour) using (hour)`;
  expect(today).toEqual({ so: true, n: 2 });
});

test('a turn takes as many hours as a quarter of a second is enough for', () => {
  expect(hoursAfter(24, 10)).toBe(48);
  expect(hoursAfter(800, 100)).toBe(1_000);
  expect(hoursAfter(168, 30_000)).toBe(1);
  expect(hoursAfter(100, 500)).toBe(50);
});

test('hours that retention has frozen stay as they were counted', async () => {
  await insert(1000, 20);
  await refreshHourly(db.daemon);
  const before = [...(await stored())];
  await sql`update smslogd.settings set frozen_before = date_trunc('hour', now(), 'UTC') - interval '10 hours'`;
  await sql`delete from verification.sms_log where inserted_at < (select frozen_before from smslogd.settings)`;
  await refreshHourly(db.daemon);
  expect([...(await stored())]).toEqual(before);
  expect(await notes()).toBe(0);
  const [view] = await sql`select sum(total)::int4 as sms from verification.sms_delivery_hourly`;
  expect(view!['sms']).toBe(1000);
});

test('the loop counts what changes, and of what changed behind the triggers of the last days an hour at a time', async () => {
  await sql`alter table verification.sms_log disable trigger smslogd_note_inserted`;
  await insert(20_000, 300);
  await sql`alter table verification.sms_log enable always trigger smslogd_note_inserted`;
  const stop = new AbortController();
  let turns = 0;
  const loop = runHourly({ sql: db.daemon, log: silentLog, works: () => (turns += 1) }, stop.signal);
  await until('the first turn', () => turns > 0);
  const counted = [...(await stored())];
  expect(new Set(counted.map((row) => String(row['hour']))).size).toBe(1);
  expect(await byHand()).toEqual(expect.arrayContaining(counted));
  stop.abort();
  await Promise.race([
    loop,
    delay(20_000).then(() => {
      throw new Error('the loop does not stop');
    }),
  ]);
});

test('the loop of a daemon that does not lead counts no hour, neither a young nor an old one', async () => {
  await insert(200, 50);
  const noted = await notes();
  const stop = new AbortController();
  let turns = 0;
  const deps = { sql: db.daemon, log: silentLog, fence: () => 'false', works: () => (turns += 1) };
  const loop = runHourly(deps, stop.signal);
  await until('the first turn', () => turns > 0);
  stop.abort();
  await loop;
  expect(await stored()).toHaveLength(0);
  expect(await notes()).toBeGreaterThanOrEqual(noted);
});

test('every hour of the last days comes by in turn to be counted again, and no other', async () => {
  await until('each hour to be noted', async () => {
    await noteRecentHour(db.daemon, 1, 0.003);
    return (await notes()) >= 24;
  });
  const [row] = await sql`
    select count(distinct hour)::int as hours, min(hour) >= now() - interval '25 hours' and max(hour) <= now() as recent from smslogd.changed_hour`;
  expect(row).toEqual({ hours: 24, recent: true });
});

test('a loop rests nine times as long as it worked, five seconds at least', () => {
  expect(countingPause(10, false)).toBe(5_000);
  expect(countingPause(10, true)).toBe(90);
  expect(countingPause(2_000, false)).toBe(18_000);
});
