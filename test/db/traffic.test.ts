/** The views over SMS one by one and over the source: stuck, last seen, sent again, by prefix, and what codes came to. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { OWNER } from '../support/postgres.ts';

const CLOCK = '2026-05-20 12:00:00+00';
let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
  await db.sql.unsafe(
    `create or replace function smslogd.clock() returns timestamptz language sql stable as $$ select timestamptz '${CLOCK}' $$`,
  );
});
beforeEach(() => db.sql`truncate verification.sms_log, smslogd.sms_poll, verification.verifications`);
afterAll(() => db.drop());

interface Sms {
  readonly at: string;
  readonly type?: string;
  readonly phone?: string;
  readonly status?: string | null;
  readonly changed?: string | null;
  readonly gatewayId?: string | null;
}

/** Logs an SMS; times in UTC. */
async function log({
  at,
  type = 'verification',
  phone = '+380000000000',
  status = null,
  changed = null,
  gatewayId = '1234567',
}: Sms): Promise<string> {
  const id = randomUUID();
  await db.sql`insert into verification.sms_log (id, phone_number, type, gateway_id, gateway_status, status_changed_at, updated_at, inserted_at)
    values (${id}, ${phone}, ${type}, ${gatewayId}, ${status}, ${changed}::text::timestamptz, coalesce(${changed}::text::timestamptz, ${at}::text::timestamptz), ${at}::text::timestamptz)`;
  return id;
}

test('an SMS that is open for more than five minutes is stuck, with what the gateway was asked', async () => {
  await log({ at: '2026-05-20 11:55:00.000001+00', status: 'Accepted' });
  await log({ at: '2026-05-20 11:00+00', status: 'Delivered', changed: '2026-05-20 11:01+00' });
  // somebody else knew, and it is still in the queue
  const known = await log({ at: '2026-05-20 11:00+00', status: 'Accepted' });
  await db.sql`update verification.sms_log set gateway_status = 'Delivered' where id = ${known}`;
  const asked = await log({ at: '2026-05-20 11:55:00+00', status: 'Enroute' });
  const waits = await log({ at: '2026-05-20 10:00+00', type: 'text', gatewayId: null });
  await db.sql`update smslogd.sms_poll set attempt = 3, last_result = 'timeout', due_at = '2026-05-20 12:01+00', deadline_at = '2026-05-20 12:30+00' where id = ${asked}`;
  // claimed just now
  await db.sql`update smslogd.sms_poll set deadline_at = '2026-05-20 10:35+00', due_at = '2026-05-20 11:59+00', leased_until = '2026-05-20 12:02+00' where id = ${waits}`;
  const rows =
    await db.sql`select id, type, gateway_status, extract(epoch from age)::int as age, past_life, attempts, last_result from verification.sms_stuck`;
  expect([...rows]).toEqual([
    { id: waits, type: 'text', gateway_status: null, age: 7_200, past_life: true, attempts: 0, last_result: null },
    {
      id: asked,
      type: 'verification',
      gateway_status: 'Enroute',
      age: 300,
      past_life: false,
      attempts: 3,
      last_result: 'timeout',
    },
  ]);
  const due = await db.sql`select next_due_at as at from verification.sms_stuck`;
  expect([...due]).toEqual([{ at: new Date('2026-05-20T12:02:00Z') }, { at: new Date('2026-05-20T12:01:00Z') }]);
});

test('last seen are the youngest SMS, delivery and answer of each type, at possible times', async () => {
  await log({ at: 'infinity', status: 'Delivered', changed: 'infinity', type: 'text' });
  await log({ at: '2026-05-20 09:00+00', status: 'Delivered', changed: '2026-05-20 09:01+00' });
  await log({ at: '2026-05-20 08:00+00', status: 'Rejected', changed: '2026-05-20 09:30+00' });
  await log({ at: '2026-05-20 11:00+00', status: 'Accepted' });
  // days ago, the older one was delivered later
  await log({ at: '2026-05-16 10:00+00', status: 'Delivered', changed: '2026-05-17 09:00+00', type: '2FA' });
  await log({ at: '2026-05-16 11:00+00', status: 'Delivered', changed: '2026-05-16 11:01+00', type: '2FA' });
  const seen = async () => [...(await db.sql`select * from verification.sms_last_seen`)];
  const rows = await seen();
  expect(rows).toEqual([
    {
      type: 'verification',
      last_inserted_at: new Date('2026-05-20T11:00:00Z'),
      last_delivered_at: new Date('2026-05-20T09:01:00Z'),
      last_answered_at: new Date('2026-05-20T09:30:00Z'),
    },
    { type: 'medication_request', last_inserted_at: null, last_delivered_at: null, last_answered_at: null },
    { type: 'text', last_inserted_at: null, last_delivered_at: null, last_answered_at: null },
    {
      type: '2FA',
      last_inserted_at: new Date('2026-05-16T11:00:00Z'),
      last_delivered_at: new Date('2026-05-17T09:00:00Z'),
      last_answered_at: new Date('2026-05-17T09:00:00Z'),
    },
  ]);
  await refreshHourly(db.daemon);
  expect(await seen()).toEqual(rows);
});

test('a type that has been silent for long, and a status that nothing has had for long, are still seen last', async () => {
  await log({ at: '2026-03-01 10:00+00', type: 'text', status: 'Delivered', changed: '2026-03-01 10:01+00' });
  await log({ at: '2026-03-02 10:00+00', type: 'text', status: 'Rejected', changed: '2026-03-02 10:03+00' });
  for (const stored of [false, true]) {
    if (stored) await refreshHourly(db.daemon);
    const [text] = await db.sql`select * from verification.sms_last_seen where type = 'text'`;
    expect(text).toEqual({
      type: 'text',
      last_inserted_at: new Date('2026-03-02T10:00Z'),
      last_delivered_at: new Date('2026-03-01T10:01Z'),
      last_answered_at: new Date('2026-03-02T10:03Z'),
    });
  }
});

test('a resend is an SMS of a type to a phone that had one at most ten minutes before', async () => {
  const [a, b] = ['+380000000001', '+380000000002'];
  // the first of a day may follow one of the day before
  await log({ phone: a, at: '2026-05-18 20:55:00+00' });
  await log({ phone: a, at: '2026-05-18 21:01:00+00' });
  await log({ phone: a, at: '2026-05-18 21:11:00+00' });
  await log({ phone: a, at: '2026-05-18 21:21:00.000001+00' });
  await log({ phone: b, at: '2026-05-18 21:12:00+00' });
  await log({ phone: a, type: 'text', at: '2026-05-18 21:12:00+00' });
  // before the days that are shown, and after now
  await log({ phone: a, at: '2026-05-12 20:59:59+00' });
  await log({ phone: a, at: '2026-05-12 21:00:00+00' });
  await log({ phone: a, at: '2026-05-20 12:00:01+00' });
  await log({ phone: a, type: 'text', at: '2026-05-20 11:00:00+00' });
  const columns = 'day::text, type, total::int, resends::int, resend_ratio::float8, phones::int';
  const today = { day: '2026-05-20', type: 'text', total: 1, resends: 0, resend_ratio: 0, phones: 0 };
  const yesterday = [
    { day: '2026-05-19', type: 'text', total: 1, resends: 0, resend_ratio: 0, phones: 0 },
    { day: '2026-05-19', type: 'verification', total: 4, resends: 2, resend_ratio: 0.5, phones: 1 },
  ];
  expect([...(await db.sql.unsafe(`select ${columns} from verification.sms_resends`))]).toEqual([today, ...yesterday]);
  expect([
    ...(await db.sql.unsafe(`select ${columns} from smslogd.resends('2026-05-13', '2026-05-20') order by day, type`)),
  ]).toEqual([
    { day: '2026-05-13', type: 'verification', total: 1, resends: 1, resend_ratio: 1, phones: 1 },
    { day: '2026-05-18', type: 'verification', total: 1, resends: 0, resend_ratio: 0, phones: 0 },
    ...yesterday,
    today,
  ]);
});

test('delivery is split by the longest prefix that is listed; the list is for DBAs to edit', async () => {
  const at = '2026-05-20 11:00:00+00';
  await log({ at, phone: '+380670000001', status: 'Delivered', changed: '2026-05-20 11:02+00' });
  await log({ at, phone: '+380670000002', status: 'Delivered', changed: '2026-05-20 11:02:00.000001+00' });
  await log({ at, phone: '+380670000002', status: 'Delivered', changed: '-infinity' });
  // too young to be on time or late
  const young = '2026-05-20 11:58:00.000001+00';
  await log({ at: young, phone: '+380670000002', status: 'Delivered', changed: '2026-05-20 11:59+00' });
  // the first moment of the day
  await log({ at: '2026-05-19 21:00+00', phone: '+380670000003', status: 'Pending', changed: '2026-05-20 11:01+00' });
  await log({ at, phone: '+380670000003', gatewayId: null });
  await log({ at: young, phone: '+380990000001', status: 'Rejected' });
  await log({ at: '2026-05-20 11:58+00', phone: '+38000' });
  await log({ at: '2026-05-19 20:59+00', phone: '+380990000001', status: 'Rejected' });
  const rows = async () => [
    ...(await db.sql`select day::text, prefix, operator, total::int, processed::int, delivered::int, undelivered::int, success_ratio::float8, open::int, known_ratio::float8, on_time_ratio::float8
                       from verification.sms_delivery_by_prefix`),
  ];
  const none = {
    day: '2026-05-20',
    processed: 0,
    delivered: 0,
    undelivered: 0,
    success_ratio: null,
    open: 1,
    known_ratio: 0,
    on_time_ratio: 0,
  };
  const rejected = {
    prefix: '+38099',
    operator: 'Vodafone',
    total: 1,
    processed: 1,
    delivered: 0,
    undelivered: 1,
    success_ratio: 0,
    open: 0,
    known_ratio: 1,
  };
  expect(await rows()).toEqual([
    // what fails first
    { prefix: null, operator: 'other', total: 1, ...none },
    {
      day: '2026-05-20',
      prefix: '+38067',
      operator: 'Kyivstar',
      total: 6,
      processed: 5,
      delivered: 4,
      undelivered: 1,
      success_ratio: 0.8,
      open: 2,
      known_ratio: 0.6667,
      on_time_ratio: 0.2,
    },
    { ...rejected, day: '2026-05-20', on_time_ratio: null },
    { ...rejected, day: '2026-05-19', on_time_ratio: 0 },
  ]);
  await db.sql`insert into smslogd.operator_prefix values ('+38', 'Ukraine'), ('+3809', 'nobody'), ('+3806700', 'somebody')`;
  expect((await rows()).map(({ prefix }) => prefix as string)).toEqual(['+38', '+3806700', '+38099', '+38099']);
  await db.sql`delete from smslogd.operator_prefix where prefix in ('+38', '+3809', '+3806700')`;
  await expect(db.sql`insert into smslogd.operator_prefix values ('+380670000001', 'x')`).rejects.toMatchObject({
    code: '23514',
  });
});

const delivered = (changed: string) => ({ status: 'Delivered', changed });

/** A verification SMS and its row in the source; times of the day in UTC. */
async function code(sent: string, sms: Omit<Sms, 'at'>, expires: string, status: string): Promise<void> {
  const id = await log({ at: sent, ...sms });
  await db.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, inserted_at)
    values (${id}, '+380000000000', 1, ${status}, 1, ${expires}::text::timestamp, false, ${sent}::text::timestamp)`;
}
const shown = async () => {
  const rows = await db.sql`
    select day::text, total::int, matched::int, delivered::int, delivered_expired::int as expired, verified::int, verified_undelivered::int as undelivered,
           delivered_ratio::float8, verified_ratio::float8
      from verification.sms_otp_conversion`;
  return rows.filter(({ total }) => total !== 0);
};

describe('what the codes came to', () => {
  beforeEach(async () => {
    await code('2026-05-20 10:00', delivered('2026-05-20 10:01'), '2026-05-20 10:15', 'verified');
    await code('2026-05-20 10:00', delivered('2026-05-20 10:15'), '2026-05-20 10:15', 'expired');
    await code('2026-05-20 10:00', delivered('2026-05-20 10:15:01'), '2026-05-20 10:15', 'unverified');
    await code(
      '2026-05-20 10:00',
      { status: 'Terminated', changed: '2026-05-20 10:35' },
      '2026-05-20 10:15',
      'VERIFIED',
    );
    await code('2026-05-20 10:00', { status: null }, '2026-05-20 10:15', 'verified');
    // the day begins at 21:00 UTC; its last 15 minutes
    await code('2026-05-19 21:00', delivered('2026-05-19 21:00'), '2026-05-20 10:15', 'completed');
    await code('2026-05-19 20:59:59.999999', delivered('2026-05-19 21:00'), '2026-05-19 22:00', 'new');
    await log({ at: '2026-05-20 11:00+00', status: 'Delivered' });
    await log({ at: '2026-05-20 11:00+00', status: 'Delivered', type: 'text' });
  });
  const yesterday = {
    day: '2026-05-19',
    total: 1,
    matched: 1,
    delivered: 1,
    expired: 0,
    verified: 0,
    undelivered: 0,
    delivered_ratio: 1,
    verified_ratio: 0,
  };
  const today = {
    day: '2026-05-20',
    total: 7,
    matched: 6,
    delivered: 4,
    expired: 1,
    verified: 4,
    undelivered: 2,
    delivered_ratio: 0.6667,
    verified_ratio: 0.6667,
  };

  test('is counted by day, of the verifications that are still there', async () => {
    expect(await shown()).toEqual([today, yesterday]);
    const [other] = await db.sql`select total::int from smslogd.otp_conversion('2026-05-19', '2026-05-19')`;
    expect(other).toEqual({ total: 1 });
  });

  test("lets the owner's DDL through while a reader's transaction is open, and shows what is left after it", async () => {
    const reader = await db.sql.reserve();
    await reader`begin`;
    await reader`select * from verification.sms_otp_conversion`;
    await db.sql.begin(async (tx) => {
      await tx`set local lock_timeout = 1`;
      await tx`alter table verification.verifications alter column code_expired_at type timestamptz using code_expired_at at time zone 'UTC'`;
    });
    await reader`commit`;
    reader.release();
    expect(await shown()).toEqual([today, yesterday]);
    const nothing = { expired: null, verified: null, undelivered: null, verified_ratio: null };
    const unmatched = [today, yesterday].map((day) => ({
      ...day,
      ...nothing,
      matched: 0,
      delivered: 0,
      delivered_ratio: null,
    }));
    await db.sql`revoke select on verification.verifications from ${db.sql(OWNER)}`;
    expect(await shown()).toEqual(unmatched);
    await db.sql`grant select on verification.verifications to ${db.sql(OWNER)}`;
    await db.sql`alter table verification.verifications drop column code_expired_at`;
    expect(await shown()).toEqual([
      { ...today, expired: null },
      { ...yesterday, expired: null },
    ]);
    await db.sql`alter table verification.verifications drop column status`;
    expect(await shown()).toEqual([
      { ...today, ...nothing },
      { ...yesterday, ...nothing },
    ]);
    await db.sql`alter table verification.verifications rename column id to key`;
    expect(await shown()).toEqual(unmatched);
    await db.sql`alter table verification.verifications rename to gone`;
    expect(await shown()).toEqual(unmatched);
    // what somebody else has put there is not read with the rights of the source's owner
    await db.sql`create table verification.verifications as select key as id from verification.gone`;
    await db.sql`grant select on verification.verifications to public`;
    expect(await shown()).toEqual(unmatched);
  });
});
