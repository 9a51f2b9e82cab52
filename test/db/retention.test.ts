import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { lackingPrivileges } from '../../src/doctor/privileges.ts';
import { createFigures } from '../../src/figures/gauges.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { runRetention } from '../../src/figures/retention.ts';
import { freezeHours, removeRows } from '../../src/figures/counters.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { insertVerification } from '../support/verifications.ts';

const daemon = `daemon_${randomBytes(4).toString('hex')}`;
const DAYS = 3;
let db: TestDatabase;
/** the daemon's own role, so that all of this is done with what it may */
let sql: Sql;
/** what was past retention when the test began: an hour may turn while it runs */
let oldBefore: Date;

beforeAll(async () => {
  db = await createDatabase();
  await db.sql.unsafe(`create role ${daemon} login replication password 'daemon'`);
  await migrate(db.owner.config(), { role: daemon, say: () => {} });
  const url = new URL(db.url);
  url.username = daemon;
  url.password = 'daemon';
  sql = openDatabase(db.config({ DATABASE_URL: url.href }), { max: 4, name: 'test' });
});
beforeEach(async () => {
  const [row] = await db.sql`
    select date_bin('1 hour', now() - ${DAYS} * interval '24 hours' - interval '2 hours', '2000-01-01 00:00+00') as at`;
  oldBefore = row!['at'] as Date;
  await db.sql`update smslogd.settings set frozen_before = '-infinity', retention_days = ${DAYS}`;
  await db.sql`truncate verification.sms_log, smslogd.sms_hourly, smslogd.sms_poll, smslogd.changed_hour, smslogd.sms_entered, verification.verifications`;
});
afterAll(async () => {
  await sql.end();
  await db.sql.unsafe(`drop owned by ${daemon}; drop role ${daemon}`);
  await db.drop();
});

/** SMS of the last `days` days, an even spread of types and statuses, in no order of time. */
const insert = (count: number, days: number) => db.sql`
  insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
  select '+380000000000', (array['verification', 'medication_request', 'text'])[1 + g % 3], '1234567',
         (array['Accepted', 'Delivered', 'Delivered', 'Expired', 'Unknown'])[1 + g % 5], at + interval '1 second' * (g % 4000), at
    from generate_series(1, ${count}::int4) g,
         lateral (select now() - interval '1 minute' - interval '1 day' * ((g::int8 * 7919) % ${count}::int4 * ${days}::int4::float8 / ${count}::int4) as at) a`;

const old = () => db.sql`
  select id, ctid::text as place from verification.sms_log where inserted_at < ${oldBefore}`;
const count = async () => (await db.sql`select from verification.sms_log`).length;
const hours = async () => [...(await db.sql`select * from verification.sms_delivery_hourly`)];

/** Runs the loop until it has made `turns` turns. */
async function retain({
  days = DAYS,
  by = sql,
  config = db.config({ RETENTION_DAYS: String(days) }),
} = {}): Promise<void> {
  const stop = new AbortController();
  await runRetention({ config, sql: by, log: silentLog, works: () => stop.abort() }, stop.signal);
}

test('older rows leave, younger ones stay, and the figures of every day stay as they were, also after counting again', async () => {
  await insert(9_000, 8);
  const before = await hours();
  const gone = (await old()).length;
  expect(gone).toBeGreaterThan(4_000);
  await retain();
  expect(await count()).toBe(9_000 - gone);
  expect(await old()).toHaveLength(0);
  expect(await hours()).toEqual(before);
  await db.sql`insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly`;
  expect(await hours()).toEqual(before);
  await refreshHourly(sql);
  expect(await hours()).toEqual(before);
});

test('a daemon that leads no longer freezes no hour and removes no row', async () => {
  await insert(2_000, 8);
  const gone = (await old()).map(({ place }) => place as string);
  expect(await freezeHours(sql, DAYS, 'false')).toMatchObject({ raised: false, frozen: false });
  expect([...(await db.sql`select frozen_before::text as at from smslogd.settings`)]).toEqual([{ at: '-infinity' }]);
  const { before } = await freezeHours(sql, DAYS);
  // it froze them, and another one leads now
  expect(await freezeHours(sql, DAYS, 'false')).toMatchObject({ raised: false, frozen: false });
  expect(await removeRows(sql, gone, before, 'false')).toBe(0);
  expect(await count()).toBe(2_000);
  expect(await removeRows(sql, gone, before, 'true')).toBe(gone.length);
});

test('no hour is frozen while it waits to be counted, not the first one either', async () => {
  const [row] = await db.sql<{ at: string }[]>`select smslogd.hour_of(now() - interval '10 days')::text as at`;
  const { at } = row!;
  await db.sql`update smslogd.settings set frozen_before = ${at}::text::timestamptz`;
  await db.sql`insert into smslogd.changed_hour values (${at}::text::timestamptz)`;
  const freeze = () => sql`select smslogd.freeze_hours(${at}::text::timestamptz + interval '1 hour') as frozen`;
  expect([...(await freeze())]).toEqual([{ frozen: false }]);
  await db.sql`delete from smslogd.changed_hour`;
  expect([...(await freeze())]).toEqual([{ frozen: true }]);
  // what is frozen stays so
  const marked = await db.sql`select frozen_before from smslogd.settings`;
  await sql`select smslogd.freeze_hours(${at}::text::timestamptz)`;
  expect([...(await db.sql`select frozen_before from smslogd.settings`)]).toEqual([...marked]);
});

test('a mark that was set while the clock of the server was fast keeps no new hour from being counted', async () => {
  await db.sql`update smslogd.settings set frozen_before = now() + interval '200 days'`;
  await retain();
  await db.sql`insert into verification.sms_log (phone_number, type) values ('+380000000000', 'text')`;
  const total = async () =>
    await db.sql`select total from verification.sms_today_vs_yesterday where period = 'today' and type = 'text'`;
  expect(await total()).toEqual([{ total: '1' }]);
  await refreshHourly(sql);
  expect(await db.sql`select sms from smslogd.sms_hourly`).toEqual([{ sms: '1' }]);
});

test('rows that nothing is old enough of stay, and so does everything at a second turn', async () => {
  await insert(500, 3);
  await retain();
  expect(await count()).toBe(500);
  await insert(1_000, 5);
  await retain();
  const left = await count();
  await retain();
  expect(await count()).toBe(left);
});

test('what leaves while it is open leaves the queue and the backlog too; the sum of all SMS goes on', async () => {
  await insert(6_000, 6);
  const scrape = async () => {
    const metrics = createMetrics('test');
    await createFigures({ config: db.config(), sql, metrics, log: silentLog, waitMs: 30_000 }).refresh();
    return (await metrics.smsTotal.get()).values;
  };
  await refreshHourly(sql);
  const total = await scrape();
  await retain();
  const [queue] = await db.sql`
    select count(*)::int as rows, (count(*) filter (where l.id is null))::int as astray
      from smslogd.sms_poll p left join verification.sms_log l using (id)`;
  const [backlog] = await db.sql`
    select sum(open)::int as open, min(oldest_inserted_at) > now() - ${DAYS} * interval '1 day' - interval '4 hours' as young from verification.sms_backlog`;
  const [open] =
    await db.sql`select count(*)::int as rows from verification.sms_log where gateway_status in ('Accepted', 'Unknown')`;
  expect(queue).toEqual({ rows: open!['rows'] as number, astray: 0 });
  expect(backlog).toEqual({ open: open!['rows'] as number, young: true });
  expect(await scrape()).toEqual(total);
  expect(total.reduce((sum, { value }) => sum + value, 0)).toBe(6_000);
});

test('a reconcile of the mirror and late updates bring nothing back, and nothing that they write is cut off', async () => {
  const at = (ago: string) =>
    db.sql`select to_char(now() at time zone 'UTC' - ${ago}::text::interval, 'YYYY-MM-DD HH24:MI:SS.US') as at`;
  const rows = [];
  // about the mirror's horizon, and about the cutoff
  for (const ago of [
    '71 hours',
    '71 hours 59 minutes',
    '72 hours 1 minute',
    '73 hours 30 minutes',
    '75 hours 1 minute',
    '100 hours',
  ]) {
    const [{ at: inserted_at }] = (await at(ago)) as unknown as [{ at: string }];
    rows.push(await insertVerification(db.sql, { inserted_at }));
  }
  const mirror = startMirror(db);
  await mirror.streaming();
  await until('the copy', async () => (await count()) === 6);
  await mirror.stop();
  await retain();
  const kept = async () =>
    (await db.sql`select id from verification.sms_log order by inserted_at desc`).map(({ id }) => id as string);
  expect(await kept()).toEqual(rows.slice(0, 4).map(({ id }) => id));

  await db.sql`delete from verification.sms_log`;
  await db.sql`update smslogd.checkpoint set reconcile_due = 'test', reconcile_after = null`;
  const again = startMirror(db, { env: { RETENTION_DAYS: String(DAYS) } });
  await again.streaming();
  await until(
    'the reconcile',
    async () => (await db.sql`select from smslogd.checkpoint where reconcile_due is null`).length === 1,
  );
  await db.sql`update verification.verifications set attempts_count = 1`;
  const last = await insertVerification(db.sql, { inserted_at: rows[0]!.inserted_at });
  await until('the stream', async () => (await kept()).includes(last.id));
  await again.stop();
  const copied = [rows[0]!.id, rows[1]!.id, last.id].sort();
  expect((await kept()).sort()).toEqual(copied);
  await retain();
  expect((await kept()).sort()).toEqual(copied);
});

test('a row that somebody holds is left for the next turn, and nobody is waited for', async () => {
  await insert(2_000, 6);
  const ids = (await old()).map(({ id }) => id as string);
  await db.sql.begin(async (tx) => {
    await tx`select from verification.sms_log where id = ${ids[0]!} for update`;
    // what only the queue holds goes
    expect(await tx`select from smslogd.sms_poll where id = any (${ids.slice(1)}) limit 1 for update`).toHaveLength(1);
    await retain();
    expect((await old()).map(({ id }) => id as string)).toEqual([ids[0]]);
  });
  await retain();
  expect(await old()).toHaveLength(0);
});

test('a daemon that dies in the middle of a batch leaves everything to the next; two at once remove each row once', async () => {
  await insert(6_000, 9);
  const before = await hours();
  const dying = openDatabase(db.config(), { max: 1, name: 'dying' });
  await db.sql.begin(async (tx) => {
    await tx`lock table smslogd.sms_poll in share mode`;
    const pass = retain({ by: dying }).catch((error: unknown) => error);
    await untilLocked('the batch to wait', db.sql);
    await db.sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'smslogd dying'`;
    expect(await pass).toBeInstanceOf(Error);
  });
  await dying.end({ timeout: 1 });
  expect(await count()).toBe(6_000);
  await Promise.all([retain(), retain()]);
  expect(await old()).toHaveLength(0);
  expect(await hours()).toEqual(before);
});

test('a stop ends a pass between two batches, and the next start goes on', async () => {
  await insert(5_000, 9);
  const before = await hours();
  const stop = new AbortController();
  const config = db.config({ RETENTION_DAYS: String(DAYS) });
  // asked for by each statement that writes: the one that freezes the hours, then each batch
  let writes = 0;
  const fence = () => {
    writes += 1;
    if (writes === 3) stop.abort();
    return 'true';
  };
  await runRetention({ config, sql, log: silentLog, fence }, stop.signal);
  expect(await count()).toBe(3_000);
  expect((await old()).length).toBeGreaterThan(0);
  await retain();
  expect(await old()).toHaveLength(0);
  expect(await hours()).toEqual(before);
});

test('the daemon removes nothing younger than migrate allows, whatever its own settings say, and nothing where it allows nothing', async () => {
  await insert(100, 5);
  await expect(retain({ days: DAYS - 1 })).rejects.toMatchObject({ code: 'retention_kept' });
  await migrate(db.owner.config(), { role: daemon, say: () => {} });
  await expect(retain()).rejects.toMatchObject({ code: 'retention_kept' });
  await expect(sql`update smslogd.settings set frozen_before = now()`).rejects.toMatchObject({ code: '42501' });
  await expect(sql`update smslogd.settings set retention_days = 1`).rejects.toMatchObject({ code: '42501' });
  await expect(sql`select smslogd.freeze_hours(now() - interval '1 year')`).rejects.toMatchObject({ code: '55000' });
  await expect(removeRows(sql, [], '-infinity')).rejects.toMatchObject({ code: '55000' });
  expect(await count()).toBe(100);
  await migrate(db.owner.config({ RETENTION_DAYS: String(DAYS) }), { role: daemon, say: () => {} });
  await retain();
  expect(await old()).toHaveLength(0);
});

test('only hours that are frozen can be removed, none of the last days, and only by the daemon', async () => {
  await insert(100, 5);
  const places = (await db.sql`select ctid::text as place from verification.sms_log`).map(
    ({ place }) => place as string,
  );
  const ago = async (interval: string) =>
    (await db.sql`select (now() - ${interval}::text::interval)::text as at`)[0]!['at'] as string;
  await expect(removeRows(sql, places, await ago('4 days'))).rejects.toMatchObject({ code: '55000' });
  await db.sql`update smslogd.settings set frozen_before = 'infinity'`;
  await expect(removeRows(sql, places, await ago('23 hours'))).rejects.toMatchObject({ code: '55000' });
  expect(await removeRows(sql, places, await ago('4 days'))).toBe(20);
  for (const role of ['sms_reader', 'sms_writer', 'sms_dba']) {
    const call = db.sql.begin(async (tx) => {
      await tx.unsafe(`set local role ${role}`);
      await tx`select smslogd.remove_logged('{}', now())`;
    });
    await expect(call).rejects.toMatchObject({ code: '42501' });
  }
});

test('doctor knows that the daemon needs these functions', async () => {
  const source = await describeSource(db.daemon, db.config());
  expect(await lackingPrivileges(sql, source)).toEqual([]);
  await db.sql.unsafe(`revoke execute on function smslogd.remove_logged from ${daemon}`);
  expect(await lackingPrivileges(sql, source)).toEqual(['execute on smslogd.remove_logged(tid[],timestamptz)']);
  await db.sql.unsafe(`grant execute on function smslogd.remove_logged to ${daemon}`);
});

test('waiting for an answer ends before the row leaves', () => {
  const minutes = ['1', '30', '0'].map((days) => db.config({ RETENTION_DAYS: days }).SMS_STATUSES_GIVE_UP);
  expect(minutes).toEqual([1_440, 4_320, 4_320]);
});
