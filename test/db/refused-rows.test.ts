/**
 * A trigger of somebody's may refuse a row with any SQLSTATE. That one is set aside or put off; every other row goes on. Audits try again what was set aside.
 */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { runRetention } from '../../src/figures/retention.ts';
import type { Log } from '../../src/log.ts';
import {
  createDatabase,
  until,
  untilConfirmed,
  untilLocked,
  untilNone,
  type TestDatabase,
} from '../support/database.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { insertSms, startPoller } from '../support/poller.ts';
import { difference, insertMany, insertVerification, verification } from '../support/verifications.ts';

/** One or more of each class that a server or a trigger may raise. */
const CODES =
  '01000 02000 03000 08006 09000 0A000 0B000 0F000 0L000 0P000 0Z000 20000 21000 22003 23505 24000 25006 26000 27000 28000 2B000 2D000 2F005 34000 38001 39P01 3B000 3D000 3F000 40001 40P01 42501 42P01 44000 53100 53300 54000 54001 55000 55006 55P03 57014 57P01 57P02 57P03 58030 72000 F0000 HV000 P0001 P0004 XX000 XX001 SM001 ABCDE 99999'.split(
    ' ',
  );

/** Audits follow each other at once. */
const AUDITED = { auditMs: 100 };

interface Line {
  id?: string;
  code?: string;
  times?: number;
}

let db: TestDatabase;
let mirror: RunningMirror | undefined;
let lines: Line[];
let log: Log;

beforeEach(async () => {
  db = await createDatabase();
  lines = [];
  // each row is told at the level debug; not the sums, which others see
  const write = (line: string) => {
    const told = JSON.parse(line) as Line;
    if (told.code !== undefined && told.times === undefined) lines.push(told);
  };
  log = pino({ level: 'debug' }, { write });
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

test('what the code of a trigger runs into for one row, among others, and when they are tried again without them', async () => {
  mirror = startMirror(db, { log, ...AUDITED });
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
  await triedAgain();
  expect(told()).toEqual(inOrder(bad.map(([id = '']) => id)));
  expect(lines).toHaveLength(bad.length);
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

test('a trigger that refuses one row and, while that one is sought, comes to refuse every row: the others are not set aside for it, and all are logged once it works', async () => {
  await db.sql.unsafe(`
    create sequence tries;
    grant usage, select on sequence tries to public;
    create function audit() returns trigger language plpgsql as $$
    begin
      if new.phone_number = 'bad' then perform nextval('tries'); end if;
      if new.phone_number = 'bad' or (select last_value from tries) > 2 then perform from nowhere; end if;
      return new;
    end $$;
    create trigger audit before insert on verification.sms_log for each row execute function audit()`);
  mirror = startMirror(db, { log, ...AUDITED });
  await mirror.streaming();
  await db.sql.begin(async (tx) => {
    await insertMany(tx, 10);
    await insertVerification(tx, { phone_number: 'bad' });
    await insertMany(tx, 190);
  });
  await until('the failure to be told', () => lines.some(({ code }) => code === 'database_failed'));
  expect((await aside()).length).toBeLessThan(9);
  await db.sql.unsafe('drop trigger audit on verification.sms_log');
  await until('all rows', async () => (await logged()) === 201);
  await untilNone('them to be forgotten', async () => (await aside()).length);
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

/** From now on the log refuses every row. */
const refuseAll = () => db.sql`alter table verification.sms_log add constraint nothing check (false) not valid`;
const acceptAll = () => db.sql`alter table verification.sms_log drop constraint nothing`;

/** Waits until every row that is set aside now was refused once more. */
const triedAgain = async () => {
  const [row] = await db.sql<{ at: string }[]>`select clock_timestamp()::text as at`;
  await untilNone('them to be tried again', async () => {
    return (await db.sql`select from smslogd.sms_refused where refused_at < ${row!.at}::text::timestamptz`).length;
  });
};
const counted = async () =>
  (await mirror!.metrics.errors.get()).values.find(({ labels }) => labels.code === 'row_refused')?.value;

test.each([
  ['streams', async () => {}],
  [
    'reconciles',
    async () => void (await db.sql`select pg_create_logical_replication_slot(${db.name}, 'test_decoding')`),
  ],
])(
  'rows that a constraint set aside which every row violates come back by themselves once it is gone, each once, where the mirror %s',
  async (_, prepare) => {
    await prepare();
    mirror = startMirror(db, { log, ...AUDITED });
    await insertMany(db.sql, 3);
    await until('the first rows', async () => (await logged()) === 3);
    await refuseAll();
    await insertMany(db.sql, 40);
    await until('the others to be set aside', async () => (await aside()).length === 40);
    await until('them to be told', async () => (await counted()) === 40);
    await triedAgain();
    await acceptAll();
    await untilNone('them to come back', async () => (await aside()).length);
    expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
    expect(await db.sql`select from smslogd.sms_poll join verification.sms_log using (id)`).toHaveLength(43);
    await refreshHourly(db.daemon);
    expect([...(await db.sql`select sum(sms)::int as sms from smslogd.sms_hourly`)]).toEqual([{ sms: 43 }]);
    const right = await db.sql`
      select from verification.verifications v join verification.sms_log l using (id, gateway_id)
       where l.phone_number = v.phone_number and l.body like '%: ' || v.code and l.inserted_at = v.inserted_at at time zone 'UTC'`;
    expect(right).toHaveLength(43);
    expect(told()).toHaveLength(40);
    expect(new Set(told()).size).toBe(40);
    expect(await counted()).toBe(40);
  },
);

test('they come back while the copy waits for an old transaction, and no audit has begun', async () => {
  // the daemon's own would wait for that transaction
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await insertMany(db.sql, 3);
  await refuseAll();
  const open = await db.sql.reserve();
  await open`begin`;
  await open`select pg_current_xact_id()`;
  mirror = startMirror(db, { log, ...AUDITED });
  await until('them to be set aside', async () => (await aside()).length === 3);
  await acceptAll();
  await until('them to come back', async () => (await logged()) === 3);
  await open`rollback`;
  open.release();
});

test('rows that are refused for good keep no other one aside, and are told once, whatever the SQLSTATE', async () => {
  mirror = startMirror(db, { log, ...AUDITED });
  await mirror.streaming();
  await refuse('insert');
  await db.sql.unsafe(`
    create function pass_over() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger pass_over before insert on verification.sms_log for each row when (new.phone_number = 'pass') execute function pass_over()`);
  const bad: string[] = [];
  await db.sql.begin(async (tx) => {
    await insertMany(tx, 1);
    for (const code of [...CODES, 'pass']) bad.push((await insertVerification(tx, { phone_number: code })).id);
  });
  await until('them to be set aside', async () => (await aside()).length === bad.length);
  await refuseAll();
  await insertMany(db.sql, 30);
  await until('the others to be set aside', async () => (await aside()).length === bad.length + 30);
  await acceptAll();
  // the bad ones first, of which some have an SQLSTATE that is tried for a second
  await db.sql`update smslogd.sms_refused set refused_at = now() - interval '1 day' where id = any (${bad}::uuid[])`;
  await until('the others', async () => (await logged()) === 31);
  await triedAgain();
  expect(inOrder((await aside()).map(([id = '']) => id))).toEqual(inOrder(bad));
  expect(told()).toHaveLength(bad.length + 30);
  expect(new Set(told()).size).toBe(bad.length + 30);
  expect(lines).toHaveLength(bad.length + 30);
  expect(await counted()).toBe(bad.length + 30);
  await db.sql.unsafe('drop trigger refuse on verification.sms_log; drop trigger pass_over on verification.sms_log');
  await untilNone('them to come back', async () => (await aside()).length);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('a row that is set aside is forgotten where the log need not have it any more: the source row is gone, or older than RETENTION_DAYS', async () => {
  mirror = startMirror(db, { log, env: { RETENTION_DAYS: '3' }, ...AUDITED });
  await mirror.streaming();
  await refuseAll();
  await insertMany(db.sql, 3);
  await until('them to be set aside', async () => (await aside()).length === 3);
  const [gone, old, due] = (await aside()).map(([id]) => id);
  await db.sql`delete from verification.verifications where id = ${gone!}`;
  await db.sql`update verification.verifications set inserted_at = now() - interval '4 days' where id = ${old!}`;
  await until('two to be forgotten', async () => (await aside()).length === 1);
  expect(await aside()).toEqual([[due, '23514']]);
  await acceptAll();
  await until('the third one', async () => (await logged()) === 1);
});

test('one whose value was too large comes back once it is smaller', async () => {
  await db.sql.unsafe(`
    alter table verification.verifications alter phone_number type text;
    drop index verification.verifications_phone_number_idx, verification.verifications_phone_number_inserted_at_idx`);
  mirror = startMirror(db, { log, ...AUDITED });
  await mirror.streaming();
  const { id } = await insertVerification(db.sql, { phone_number: '0'.repeat(70_000) });
  await until('it to be set aside', async () => (await aside()).length === 1);
  await triedAgain();
  await db.sql`update verification.verifications set phone_number = '+380000000001' where id = ${id}`;
  await until('it to come back', async () => (await logged()) === 1);
  await untilNone('it to be forgotten', async () => (await aside()).length);
  expect(lines).toHaveLength(1);
});

test('of two rows with one id in a source without a key one is copied, and one comes back', async () => {
  await db.sql`alter table verification.verifications drop constraint verifications_pkey`;
  const copied = await insertVerification(db.sql);
  await insertVerification(db.sql, { id: copied.id });
  mirror = startMirror(db, { log, ...AUDITED });
  await mirror.streaming();
  expect(await logged()).toBe(1);
  expect(lines).toEqual([]);
  await refuseAll();
  const { id } = await insertVerification(db.sql);
  await insertVerification(db.sql, { id });
  await until('it to be set aside', async () => (await aside()).length === 1);
  await acceptAll();
  await until('it to come back', async () => (await logged()) === 2);
  await untilNone('it to be forgotten', async () => (await aside()).length);
  expect(told()).toEqual([id]);
});

const maybe = (body: string) =>
  `create or replace function maybe() returns trigger language plpgsql as $$ begin ${body}; end $$`;

const copyGivesUp = async () => {
  await untilLocked('a copy to wait', db.sql, 'verification.sms_log');
  const waiting = () => db.sql`select from pg_locks where not granted and relation = 'verification.sms_log'::regclass`;
  await until('it to give up', async () => (await waiting()).length === 0);
};

test('while somebody holds a lock of the log, audits go on without what is set aside, and it comes back afterwards', async () => {
  await db.sql.unsafe(`${maybe("raise exception 'no'")};
    create trigger maybe before insert on verification.sms_log for each row execute function maybe()`);
  mirror = startMirror(db, { log, ...AUDITED });
  await mirror.streaming();
  await insertMany(db.sql, 3);
  await until('them to be set aside', async () => (await aside()).length === 3);
  // a write that waits for the lock would keep the audits from going on: they then wait for the stream
  await untilConfirmed(db.sql, db.name);
  const hold = await db.sql.reserve();
  await hold`begin`;
  // as a CREATE INDEX does
  await hold`lock verification.sms_log in share mode`;
  await db.sql.unsafe(maybe('return new'));
  const states = vi.spyOn(mirror.health, 'setMirrorState');
  await copyGivesUp();
  // each audit saves in the checkpoint what it has found
  const saved = async () => (await db.sql<{ xmin: string }[]>`select xmin::text from smslogd.checkpoint`)[0]!.xmin;
  for (let i = 0; i < 3; i += 1) {
    const before = await saved();
    await until('an audit', async () => (await saved()) !== before);
  }
  expect(await logged()).toBe(0);
  await hold`rollback`;
  hold.release();
  await until('them to come back', async () => (await logged()) === 3);
  expect(told()).toHaveLength(3);
  expect(states).not.toHaveBeenCalledWith('stopped', expect.anything());
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
  for (let i = 0; i < 3; i += 1) await copyGivesUp();
  await hold`rollback`;
  hold.release();
  await until('the others', async () => (await logged()) === 6);
  expect(states).not.toHaveBeenCalledWith('stopped', expect.anything());
});

test('they come back while an audit of a mirror that reconciles waits with a row whose id somebody holds in the log', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'test_decoding')`;
  await db.sql.unsafe(`${maybe("raise exception 'no'")};
    create trigger maybe before insert on verification.sms_log for each row when (new.phone_number = 'bad') execute function maybe()`);
  mirror = startMirror(db, { log, ...AUDITED });
  const { id } = await insertVerification(db.sql, { phone_number: 'bad' });
  await until('it to be set aside', async () => (await aside()).length === 1);
  const held = randomUUID();
  const hold = await db.sql.reserve();
  await hold`begin`;
  await hold`insert into verification.sms_log (id, phone_number, type) values (${held}, '+380000000001', 'text')`;
  await insertVerification(db.sql, { id: held });
  await untilLocked('the audit to wait', db.sql);
  await db.sql.unsafe(maybe('return new'));
  await until('the other one to come back', async () => (await logged()) === 1);
  await hold`rollback`;
  hold.release();
  await until('both', async () => (await logged()) === 2);
  expect(told()).toEqual([id]);
});
