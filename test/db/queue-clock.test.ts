/** What is due, over or yet to come is decided by the clock of the moment: not by the start of a transaction, nor by that of a statement that waited. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { requeueHour, resetStuck } from '../../src/poller/queue.ts';
import { createPollerStore, type PollerStore } from '../../src/poller/store.ts';
import type { Sql } from '../../src/postgres/pools.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, untilLocked, type TestDatabase } from '../support/database.ts';
import { insertSms } from '../support/poller.ts';

const LEASE_MS = 20_000;
const ALL = { total: 100, old: 100, past: 100 };
const NO_FLOORS = [null, null, null] as const;

let db: TestDatabase;

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(() => db.drop());

/** Runs `work` in a transaction that began before all that follows. */
async function inOldTransaction(work: (sql: Sql, store: PollerStore) => Promise<void>): Promise<void> {
  await db.sql.begin(async (transaction) => {
    await transaction`select 1`;
    const sql = transaction as unknown as Sql;
    await work(sql, createPollerStore(sql, LEASE_MS));
  });
}

test.each([
  ['its own time', 'clock_timestamp()'],
  ['the default', 'default'],
])('an SMS that is written late in a long transaction, with %s, lives as long as any other', async (_, at) => {
  await inOldTransaction(async (sql) => {
    await sql`create temp table began as select clock_timestamp() as at`;
    for (const gatewayId of [`'1000001'`, 'null'])
      await sql.unsafe(`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
                        values ('+380000000001', 'text', ${gatewayId}, ${at})`);
    const rows = await sql`
      select l.inserted_at > b.at as late, p.sent_at = l.inserted_at as own, (p.deadline_at - l.inserted_at)::text as life, p.lane,
             p.give_up_at > b.at + interval '72 hours' as patient,
             case when p.gateway_id is null then p.due_at = p.deadline_at else p.due_at = l.inserted_at + interval '2.5 seconds' end as due
        from smslogd.sms_poll p join verification.sms_log l using (id) cross join began b`;
    const right = { late: true, own: true, life: '00:35:00', lane: 0, patient: true, due: true };
    expect([...rows]).toEqual([right, right]);
  });
});

test('a gateway id that is written late in a long transaction is asked for from then on, as one of its age, in nobody’s lease, and whether it was queued or not', async () => {
  await insertSms(db, { age: '1 hour' });
  const unqueued = await insertSms(db, { age: '1 hour' });
  await db.sql`update smslogd.sms_poll set lane = 0, leased_until = now() + interval '1 day'`;
  await db.sql`delete from smslogd.sms_poll where id = ${unqueued}`;
  await inOldTransaction(async (sql) => {
    await sql`create temp table began as select clock_timestamp() as at`;
    await sql`update verification.sms_log set gateway_id = '1000001'`;
    const rows = await sql`select due_at > at as later, lane, leased_until < at as free from smslogd.sms_poll, began`;
    const asked = { later: true, lane: 2, free: true };
    expect([...rows]).toEqual([asked, asked]);
  });
});

/** How an SMS is queued that says that it was sent `at` from now. */
async function queued(at: string) {
  const [row] = await db.sql<{ id: string }[]>`
    insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
    values ('+380000000001', 'text', '1000001', clock_timestamp() + ${at}::text::interval) returning id`;
  const [entry] = await db.sql`
    select p.deadline_at >= l.inserted_at + interval '35 minutes' as whole, p.deadline_at < clock_timestamp() + interval '1 hour' as soon,
           p.sent_at <= clock_timestamp() as ages, p.due_at < clock_timestamp() + interval '3 seconds' as asked
      from smslogd.sms_poll p join verification.sms_log l using (id) where id = ${row!.id}`;
  return entry;
}

test('an SMS of a service whose clock is fast is not over before it says so, one from another century soon is', async () => {
  expect(await queued('2 minutes')).toEqual({ whole: true, soon: true, ages: true, asked: true });
  expect(await queued('100 years')).toEqual({ whole: false, soon: true, ages: true, asked: true });
});

test('the views call late what is late by now, also in a transaction of their reader', async () => {
  await inOldTransaction(async (sql) => {
    const id = await insertSms(db, { gatewayId: '1000001' });
    await db.sql`update smslogd.sms_poll set sent_at = now() - interval '5 minutes', deadline_at = now()`;
    const rows = await sql`select id, past_life from verification.sms_stuck`;
    expect([...rows]).toEqual([{ id, past_life: true }]);
  });
});

test('what became due since the transaction began is claimed, and leased from now on', async () => {
  await inOldTransaction(async (sql, store) => {
    const id = await insertSms(db, { gatewayId: '1000001' });
    const without = await insertSms(db, { type: 'verification' });
    await db.sql`update smslogd.sms_poll set due_at = clock_timestamp()`;
    const claimed = [...(await store.claimWithoutGatewayId(10)), ...(await store.claim(ALL, NO_FLOORS)).rows];
    expect(claimed.map((row) => row.id)).toEqual([without, id]);
    const [row] = await sql`
      select bool_and(leased_until > now() + ${LEASE_MS / 1000}::int4 * interval '1 second') as whole from smslogd.sms_poll`;
    expect(row).toEqual({ whole: true });
  });
});

test('a claim that waited for a lock is leased from its end', async () => {
  await insertSms(db, { gatewayId: '1000001', age: '1 minute' });
  const store = createPollerStore(db.sql as never, LEASE_MS);
  const claimed = await db.sql.begin(async (sql) => {
    await sql`lock table smslogd.sms_poll in access exclusive mode`;
    const claim = store.claim(ALL, NO_FLOORS);
    await untilLocked('it to wait', db.sql, 'smslogd.sms_poll');
    await sql`create table waited as select clock_timestamp() as at`;
    return { claim };
  });
  expect((await claimed.claim).rows).toHaveLength(1);
  const [row] = await db.sql`
    select leased_until >= at + ${LEASE_MS / 1000}::int4 * interval '1 second' as whole from smslogd.sms_poll, waited`;
  expect(row).toEqual({ whole: true });
});

test('what is over since the transaction began gets its verdict', async () => {
  await inOldTransaction(async (sql, store) => {
    const answered = await insertSms(db, { gatewayId: '1000001' });
    const without = await insertSms(db, { type: 'verification' });
    const givenUp = await insertSms(db, { gatewayId: '1000002' });
    await db.sql`update smslogd.sms_poll set due_at = now() - interval '1 second'`;
    const { rows: claimed } = await store.claim(ALL, NO_FLOORS);
    await sql`update smslogd.sms_poll set deadline_at = clock_timestamp() where id in (${answered}, ${without})`;
    await sql`update smslogd.sms_poll set give_up_at = clock_timestamp() where id = ${givenUp}`;
    const of = (id: string) => claimed.find((row) => row.id === id)!;
    const { attempt } = of(answered);
    const answer = {
      id: answered,
      attempt,
      gatewayId: '1000001',
      result: 'ok',
      status: 'Enroute',
      date: null,
      gapMs: 0,
    };
    await store.completeClaims([answer as never]);
    await store.markUnaccepted([of(without)], await describeSource(sql, db.config()));
    expect(await store.overdue(10)).toEqual([givenUp]);
    await store.markTerminated([givenUp]);
    const statuses = await sql`
      select id, gateway_status as status, status_changed_at > now() as later, status_changed_at = updated_at as once from verification.sms_log`;
    const status = (id: string) => statuses.find((row) => row['id'] === id);
    expect(status(answered)).toMatchObject({ status: 'Terminated', later: true, once: true });
    expect(status(without)).toMatchObject({ status: 'Unaccepted', later: true, once: true });
    expect(status(givenUp)).toMatchObject({ status: 'Terminated', later: true, once: true });
  });
});

test('no verdict comes before its time, however little is missing', async () => {
  const store = createPollerStore(db.sql as never, LEASE_MS);
  const answered = await insertSms(db, { gatewayId: '1000001' });
  const without = await insertSms(db, { type: 'verification' });
  const givenUp = await insertSms(db, { gatewayId: '1000002' });
  await db.sql`update smslogd.sms_poll set due_at = now() - interval '1 second'`;
  const { rows: claimed } = await store.claim(ALL, NO_FLOORS);
  await db.sql`create table ends as select id, clock_timestamp() + interval '3 seconds' as at from smslogd.sms_poll`;
  await db.sql`update smslogd.sms_poll p set deadline_at = at, give_up_at = at from ends where ends.id = p.id`;
  const of = (id: string) => claimed.find((row) => row.id === id)!;
  const answer = { result: 'ok', status: 'Enroute', date: null, gapMs: 0 } as const;
  await store.completeClaims([{ ...answer, ...of(answered), gatewayId: '1000001' }]);
  await store.markUnaccepted([of(without)], await describeSource(db.sql, db.config()));
  const listed = await store.overdue(10);
  const early = await db.sql`select id from ends where id = any (${listed}) and at > clock_timestamp()`;
  expect([...early]).toEqual([]);
  await store.markTerminated([givenUp]);
  const verdicts = await db.sql`
    select gateway_status from verification.sms_log join ends using (id)
     where gateway_status in ('Terminated', 'Unaccepted') and status_changed_at < at`;
  expect([...verdicts]).toEqual([]);
});

test('what is put off or made due is so from now on', async () => {
  await inOldTransaction(async (sql, store) => {
    const one = await insertSms(db, { gatewayId: '1000001' });
    const two = await insertSms(db, { gatewayId: '1000002' });
    await sql`create temp table began as select clock_timestamp() as at`;
    await store.postpone([{ id: one, attempt: 0 }], 60_000);
    await store.postponeGiveUp(one, 60_000);
    await sql`update smslogd.sms_poll set due_at = now() + interval '10 days' where id = ${two}`;
    expect(await resetStuck(sql, 'true')).toBe(1);
    const rows = await sql`
      select id, case when id = ${one} then due_at >= at + interval '1 minute' and give_up_at >= at + interval '1 minute' else due_at >= at end as so
        from smslogd.sms_poll, began`;
    expect(rows.every((row) => row['so'] === true)).toBe(true);
  });
});

test('another life is given to what was sent since the transaction began, too', async () => {
  await inOldTransaction(async (sql, store) => {
    const id = await insertSms(db, { gatewayId: '1000001', age: '0 seconds' });
    await store.writeSettings(60, 4_320);
    const [row] = await sql`select (deadline_at - sent_at)::text as life from smslogd.sms_poll where id = ${id}`;
    expect(row).toEqual({ life: '01:00:00' });
  });
});

test('another life counts from what the SMS says, also where the clock of its service is fast', async () => {
  // the infinite ones are no intervals before PostgreSQL 17
  for (const at of [
    "now() + interval '8 minutes'",
    "now() + interval '100 years'",
    "'infinity'",
    "'-infinity'",
    "now() - interval '1 minute'",
  ])
    await db.sql.unsafe(`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
                         values ('+380000000001', 'text', '1000001', ${at})`);
  const before =
    await db.sql`select id, (deadline_at + interval '25 minutes')::text as ends from smslogd.sms_poll order by id`;
  await createPollerStore(db.daemon, LEASE_MS).writeSettings(60, 4_320);
  expect([...(await db.sql`select id, deadline_at::text as ends from smslogd.sms_poll order by id`)]).toEqual([
    ...before,
  ]);
});

test('what is queued afterwards is as old as it says', async () => {
  await insertSms(db, { gatewayId: '1000001', age: '20 minutes' });
  await db.sql`delete from smslogd.sms_poll`;
  await inOldTransaction(async (sql) => {
    const [logged] = await sql<
      { hour: string }[]
    >`select smslogd.hour_of(inserted_at)::text as hour from verification.sms_log`;
    expect(await requeueHour(sql, logged!.hour, 'true')).toBe(1);
    const [row] = await sql`
      select lane, (deadline_at - sent_at)::text as life, give_up_at > now() + interval '72 hours' as patient from smslogd.sms_poll`;
    expect(row).toEqual({ lane: 1, life: '00:35:00', patient: true });
  });
  for (const never of ['infinity', '-infinity']) {
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at) values ('+380000000001', 'text', '1000001', ${never}::text::timestamptz)`;
    await db.sql`delete from smslogd.sms_poll`;
    expect(await requeueHour(db.sql as never, never, 'true')).toBe(1);
  }
});
