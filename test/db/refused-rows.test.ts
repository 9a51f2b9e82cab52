/** A trigger of somebody's may refuse a row with any SQLSTATE. That one is set aside or put off; every other row goes on. */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { runRetention } from '../../src/figures/retention.ts';
import type { Log } from '../../src/log.ts';
import { createDatabase, until, untilLocked, untilNone, type TestDatabase } from '../support/database.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { insertSms, startPoller } from '../support/poller.ts';
import { insertMany, insertVerification, verification } from '../support/verifications.ts';

/** One or more of each class that a server or a trigger may raise. */
const CODES =
  '01000 02000 03000 08006 09000 0A000 0B000 0F000 0L000 0P000 0Z000 20000 21000 22003 23505 24000 25006 26000 27000 28000 2B000 2D000 2F005 34000 38001 39P01 3B000 3D000 3F000 40001 40P01 42501 42P01 44000 53100 53300 54000 54001 55000 55006 55P03 57014 57P01 57P02 57P03 58030 72000 F0000 HV000 P0001 P0004 XX000 XX001 SM001 ABCDE 99999'.split(
    ' ',
  );

let db: TestDatabase;
let mirror: RunningMirror | undefined;
let lines: { id?: string; code?: string }[];
let log: Log;

beforeEach(async () => {
  db = await createDatabase();
  lines = [];
  log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(JSON.parse(line) as { id?: string }) });
});
afterEach(async () => {
  await mirror?.stop();
  mirror = undefined;
  await db.drop();
});

/** From now on what `event` does to a row of the log is refused with the SQLSTATE that stands in the place of its phone number, if it is one. */
const refuse = (event: string) =>
  db.sql.unsafe(`
    create or replace function refuse() returns trigger language plpgsql as $$
    begin
      raise exception 'no' using errcode = (coalesce(new, old)).phone_number;
    end $$;
    create trigger refuse before ${event} on verification.sms_log for each row when (${event === 'insert' ? 'new' : 'old'}.phone_number not like '+%') execute function refuse()`);

/** The ids of the rows that were told of as refused, in order; not one of them is told of as anything else. */
const told = () => {
  const some = lines.filter(({ id }) => id !== undefined);
  expect(new Set(some.map(({ code }) => code))).toEqual(new Set(['row_refused']));
  return inOrder(some.map(({ id = '' }) => id));
};
const inOrder = (ids: readonly string[]) => ids.toSorted((a, b) => (a < b ? -1 : 1));
const logged = async () => (await db.sql`select from verification.sms_log`).length;
const aside = async () =>
  (await db.sql<{ id: string; sqlstate: string }[]>`select id, sqlstate from smslogd.sms_refused`).map((row) => [
    row.id,
    row.sqlstate,
  ]);
const sorted = (pairs: string[][]) => pairs.toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1));

test('on the stream, alone and among others, whatever the SQLSTATE', async () => {
  mirror = startMirror(db, { log });
  await mirror.streaming();
  await refuse('insert');
  const bad: string[][] = [];
  for (const code of CODES) {
    const alone = await insertVerification(db.sql, { phone_number: code });
    await until(`it to be set aside (${code})`, async () => (await aside()).length === bad.length + 1);
    await db.sql`update verification.verifications set active = false where id = ${alone.id}`;
    const among = await db.sql.begin(async (tx) => {
      await insertMany(tx, 3);
      const row = await insertVerification(tx, { phone_number: code });
      await insertMany(tx, 4);
      return row;
    });
    bad.push([alone.id, code], [among.id, code]);
    await until(`it to be set aside among others (${code})`, async () => (await aside()).length === bad.length);
    await db.sql`update verification.verifications set active = false where id = ${among.id}`;
  }
  await untilNone('every other row', async () => 7 * CODES.length - (await logged()));
  expect(sorted(await aside())).toEqual(sorted(bad));
  // a row is told of once it is set aside
  await until('the line of the last one', () => lines.length >= bad.length);
  expect(told()).toEqual(inOrder(bad.map(([id = '']) => id)));
  expect(lines).toHaveLength(bad.length);
});

test('in a copy', async () => {
  await refuse('insert');
  const bad: string[][] = [];
  for (const code of CODES) {
    await insertMany(db.sql, 5);
    bad.push([(await insertVerification(db.sql, { phone_number: code })).id, code]);
  }
  mirror = startMirror(db, { log });
  await mirror.streaming();
  expect(await logged()).toBe(5 * CODES.length);
  expect(sorted(await aside())).toEqual(sorted(bad));
  expect(told()).toEqual(inOrder(bad.map(([id = '']) => id)));
});

test('where the gateway id comes late', async () => {
  mirror = startMirror(db, { log });
  await mirror.streaming();
  const without = { gateway_id: null, gateway_status: null };
  const bad: string[] = [];
  const good: string[] = [];
  for (const code of CODES) {
    bad.push((await insertVerification(db.sql, { ...without, phone_number: code })).id);
    good.push((await insertVerification(db.sql, without)).id);
  }
  await untilNone('the rows', async () => 2 * CODES.length - (await logged()));
  await refuse('update');
  await db.sql`update verification.verifications set gateway_id = '7777777', gateway_status = 'Accepted'`;
  await untilNone('the gateway ids', async () => {
    const others = await db.sql`
      select from verification.sms_log where (gateway_id is not null) is distinct from (id = any (${good}::uuid[]))`;
    return others.length;
  });
  await untilNone('all to be told', async () => Math.max(0, bad.length - lines.length));
  expect(told()).toEqual(inOrder(bad));
});

/** For each code an SMS that is refused, and two others. */
async function insertEach(
  sms: (n: number) => Parameters<typeof insertSms>[1],
): Promise<{ bad: string[]; good: string[] }> {
  const bad: string[] = [];
  const good: string[] = [];
  for (const [i, code] of CODES.entries()) {
    const id = await insertSms(db, sms(3 * i));
    await db.sql`update verification.sms_log set phone_number = ${code} where id = ${id}`;
    bad.push(id);
    good.push(await insertSms(db, sms(3 * i + 1)), await insertSms(db, sms(3 * i + 2)));
  }
  await refuse('update');
  return { bad, good };
}

/** Waits until these SMS have `status`. */
const haveStatus = (ids: readonly string[], status: string) =>
  untilNone(`the others to have ${status}`, async () => {
    const others = await db.sql`
      select from verification.sms_log where id = any (${ids}::uuid[]) and gateway_status is distinct from ${status}`;
    return others.length;
  });

/** Waits until the bad SMS are put off for minutes, and nothing but them is queued. */
const putOff = async (bad: readonly string[]) => {
  await untilNone('the refused SMS to be put off', async () => {
    const others = await db.sql`
      select from smslogd.sms_poll
       where id <> all (${bad}::uuid[]) or greatest(due_at, give_up_at) <= now() + interval '10 minutes'`;
    return others.length;
  });
  expect(await db.sql`select from smslogd.sms_poll`).toHaveLength(bad.length);
};

test("with the gateway's answer", async () => {
  const gateway = await startGateway(({ id }) => reply(id, 'Delivered'));
  const { bad, good } = await insertEach((n) => ({ gatewayId: String(9_000_000 + n) }));
  const { stop } = await startPoller(db, { IP2SMS_URL: gateway.url }, log);
  await haveStatus(good, 'Delivered');
  await putOff(bad);
  await stop();
  await gateway.close();
  expect(told()).toEqual(inOrder(bad));
});

test('with the verdict on an SMS without a gateway id', async () => {
  const { bad, good } = await insertEach(() => ({ type: 'verification', age: '36 minutes' }));
  const { stop } = await startPoller(db, {}, log);
  await haveStatus(good, 'Unaccepted');
  await putOff(bad);
  await stop();
  expect(told()).toEqual(inOrder(bad));
});

test('with the gateway id that the last look at the source finds', async () => {
  const { bad, good } = await insertEach(() => ({ type: 'verification', age: '36 minutes' }));
  const ids = [...bad, ...good];
  const rows = ids.map((id, i) => ({
    ...verification({ id }),
    check_digit: 1,
    status: 'new',
    code_expired_at: new Date(),
    gateway_id: String(9_000_000 + i),
  }));
  await db.sql`insert into verification.verifications ${db.sql(rows)}`;
  const { stop } = await startPoller(db, {}, log);
  await haveStatus(good, 'Accepted');
  await untilNone('all to be told', async () => Math.max(0, bad.length - lines.length));
  await stop();
  expect(told()).toEqual(inOrder(bad));
});

test('with being given up', async () => {
  const gateway = await startGateway(() => ({ status: 503 }));
  const { bad, good } = await insertEach((n) => ({ gatewayId: String(9_000_000 + n) }));
  await db.sql`update smslogd.sms_poll set give_up_at = now(), due_at = now() + interval '5 minutes'`;
  const { stop } = await startPoller(db, { IP2SMS_URL: gateway.url }, log);
  await haveStatus(good, 'Terminated');
  await putOff(bad);
  await stop();
  await gateway.close();
  expect(told()).toEqual(inOrder(bad));
});

test('with being removed after RETENTION_DAYS', async () => {
  const { bad } = await insertEach(() => ({ status: 'Delivered', age: '5 days' }));
  await db.sql`drop trigger refuse on verification.sms_log`;
  await refuse('delete');
  await db.sql`update smslogd.settings set retention_days = 3`;
  const stop = new AbortController();
  await runRetention(
    { config: db.config({ RETENTION_DAYS: '3' }), sql: db.sql, log, works: () => stop.abort() },
    stop.signal,
  );
  const left = await db.sql<{ id: string }[]>`select id from verification.sms_log`;
  expect(inOrder(left.map(({ id }) => id))).toEqual(inOrder(bad));
  expect(told()).toEqual(inOrder(bad));
});

test('what the code of a trigger runs into for one row, among others', async () => {
  mirror = startMirror(db, { log });
  await mirror.streaming();
  const holder = await db.sql.reserve();
  await holder`begin`;
  await db.sql.unsafe('create table held (); grant all on held to public');
  await holder`lock table held`;
  const codes = {
    '0A000':
      'set session authorization default; perform 1; execute $e$ select count(*) over () from generate_series(1, 2) for update $e$',
    '42P01': 'perform 1 from nowhere',
    '42883': 'perform nothing()',
    '55P03': 'lock table held nowait',
    '21000': 'perform (select g from generate_series(1, 2) g)',
  };
  const branches = Object.entries(codes).map(([code, text]) => `if new.phone_number = '${code}' then ${text}; end if;`);
  await db.sql.unsafe(`
    create function run_into() returns trigger language plpgsql as $$ begin ${branches.join(' ')} return new; end $$;
    create trigger run_into before insert on verification.sms_log for each row execute function run_into()`);
  const bad: string[][] = [];
  for (const code of Object.keys(codes)) {
    await db.sql.begin(async (tx) => {
      await insertMany(tx, 20);
      bad.push([(await insertVerification(tx, { phone_number: code })).id, code]);
      await insertMany(tx, 20);
    });
  }
  await until('the others', async () => (await logged()) === 40 * bad.length);
  await until('them to be set aside', async () => (await aside()).length === bad.length);
  expect(sorted(await aside())).toEqual(sorted(bad));
  await holder`rollback`;
  holder.release();
});

test('a row that is alone and a trigger that cannot work for anybody: it waits, and is set aside once others are accepted', async () => {
  await db.sql.unsafe(`
    create function audit() returns trigger language plpgsql as $$
    begin
      if new.phone_number not like '+%' then insert into audited values (1); end if;
      return new;
    end $$;
    create trigger audit before insert on verification.sms_log for each row execute function audit()`);
  mirror = startMirror(db, { log });
  await mirror.streaming();
  const { id } = await insertVerification(db.sql, { phone_number: randomUUID() });
  await until('the failure to be told', () => lines.some(({ code }) => code === 'database_failed'));
  expect(await aside()).toEqual([]);
  // each in a transaction of its own
  for (let i = 0; i < 10; i += 1) await insertVerification(db.sql);
  await until('the others', async () => (await logged()) === 10);
  expect(await aside()).toEqual([[id, '42P01']]);
});

test.each([
  ['has no partition for any row', 'drop table audited_all', 'create table audited_all partition of audited default'],
  [
    'has a sequence that is at its end',
    "select setval('audited_place_seq', 2); alter sequence audited_place_seq maxvalue 2",
    'alter sequence audited_place_seq no maxvalue',
  ],
])('a trigger whose own table %s: no row is set aside, and all are logged once it works', async (_, breaks, mends) => {
  await db.sql.unsafe(`
    create table audited (of uuid not null, place serial) partition by list (place);
    create table audited_all partition of audited default;
    create function audit() returns trigger language plpgsql security definer as $$ begin insert into audited (of) values (new.id); return new; end $$;
    create trigger audit after insert on verification.sms_log for each row execute function audit()`);
  mirror = startMirror(db, { log });
  await mirror.streaming();
  await db.sql.unsafe(breaks);
  await insertMany(db.sql, 20);
  await until('the failure to be told', () => lines.length > 0);
  expect(lines.map(({ code }) => code)).toEqual(['database_failed']);
  await db.sql.unsafe(mends);
  await until('all rows', async () => (await logged()) === 20);
  expect(await aside()).toEqual([]);
});

test('nothing is set aside on a server that does not know the time zone, as after a failover: every row waits for one that does', async () => {
  const elsewhere = { ...db, config: () => ({ ...db.config(), SOURCE_TIMEZONE: 'Europe/Nowhere' }) };
  mirror = startMirror(elsewhere, { log });
  await mirror.streaming();
  await insertMany(db.sql, 3);
  await until('the failure', () => lines.length > 0);
  await mirror.stop();
  expect(lines.map(({ code }) => code)).toEqual(['database_failed']);
  expect(await aside()).toEqual([]);
  // as if the log had been written with the other zone
  await db.sql`update smslogd.checkpoint set source_timezone = ${db.config().SOURCE_TIMEZONE}`;
  mirror = startMirror(db, { log });
  await mirror.streaming();
  await until('the rows', async () => (await logged()) === 3);
});

test('of two rows with one id in a source without a key one is copied', async () => {
  await db.sql`alter table verification.verifications drop constraint verifications_pkey`;
  const { id } = await insertVerification(db.sql);
  await insertVerification(db.sql, { id });
  mirror = startMirror(db, { log });
  await mirror.streaming();
  expect(await logged()).toBe(1);
  expect(lines).toEqual([]);
});

test('while somebody holds a lock of the log, a mirror that reconciles waits for it with what it has found', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'test_decoding')`;
  mirror = startMirror(db, { log });
  await insertMany(db.sql, 3);
  await until('the rows', async () => (await logged()) === 3);
  const states = vi.spyOn(mirror.health, 'setMirrorState');
  const hold = await db.sql.reserve();
  await hold`begin`;
  await hold`lock verification.sms_log in share mode`;
  await insertMany(db.sql, 3);
  for (let i = 0; i < 3; i += 1) {
    await untilLocked('a copy to wait', db.sql, 'verification.sms_log');
    await until(
      'it to give up',
      async () =>
        (await db.sql`select from pg_locks where not granted and relation = 'verification.sms_log'::regclass`)
          .length === 0,
    );
  }
  await hold`rollback`;
  hold.release();
  await until('the others', async () => (await logged()) === 6);
  expect(states).not.toHaveBeenCalledWith('stopped', expect.anything());
});
