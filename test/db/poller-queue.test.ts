/** The queue's own rules: what is in it and when it is due, what a claim holds, whose clock counts. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { openHours, requeueHour } from '../../src/poller/queue.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import type { Sql } from '../../src/postgres/pools.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, queueSize, readSms, startPoller, statusBecomes, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running | undefined;

beforeEach(async () => {
  db = await createDatabase();
  gateway = await startGateway(({ id }) => reply(id, 'Delivered'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await running?.stop();
  running = undefined;
  await gateway.close();
  await db.drop();
});

async function start(env: Record<string, string> = {}): Promise<void> {
  running = await startPoller(db, { IP2SMS_URL: gateway.url, ...env });
}

test('while the gateway is asked no transaction is open, no entry is locked, and no more are claimed than there are places', async () => {
  let answer!: () => void;
  const answered = new Promise<void>((resolve) => (answer = resolve));
  gateway.script = async ({ id }) => {
    await answered;
    return reply(id, 'Delivered');
  };
  for (let i = 0; i < 20; i += 1) await insertSms(db, { gatewayId: String(6_000_000 + i) });
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  await start({ IP2SMS_MAX_CONCURRENCY: '4' });
  await until('all places to be taken', () => gateway.asked.length === 4);
  // the lease has room for the writing of what comes at the end of a request's time
  const [claimed] = await db.sql`
    select count(*)::int as n, min(leased_until) > now() + interval '13 seconds' as longer from smslogd.sms_poll where attempt > 0`;
  expect(claimed).toEqual({ n: 4, longer: true });
  const open = await db.sql`
    select from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`;
  expect(open).toHaveLength(0);
  expect(await db.sql`select from smslogd.sms_poll for update nowait`).toHaveLength(20);
  answer();
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(gateway.asked).toHaveLength(20);
});

test('where the source has no gateway ids its SMS are not queued, those of other services wait for theirs', async () => {
  await db.sql`update smslogd.settings set tracked_since = 'infinity'`;
  await insertSms(db, { type: 'verification', gatewayId: null });
  const waiting = await insertSms(db, { type: 'medication_request', gatewayId: null });
  const asked = await insertSms(db, { type: 'verification', gatewayId: '1000001' });
  const queued = await db.sql<{ id: string }[]>`select id from smslogd.sms_poll`;
  expect(queued.map(({ id }) => id).toSorted()).toEqual([waiting, asked].toSorted());
});

test('where an SMS cannot be queued its row is written all the same, and it is queued when it can be', async () => {
  await db.sql`alter table smslogd.sms_poll add constraint nobody check (gateway_id not like '99%')`;
  const inserted = await insertSms(db, { gatewayId: '9900001' });
  const completed = await insertSms(db, {});
  await db.sql`update verification.sms_log set gateway_id = '9900002', gateway_status = 'Accepted' where id = ${completed}`;
  expect(await readSms(db, completed)).toMatchObject({ gateway_id: '9900002' });
  expect(await db.sql`select from smslogd.sms_poll where gateway_id is not null`).toHaveLength(0);
  await db.sql`alter table smslogd.sms_poll drop constraint nobody`;
  await start();
  for (const id of [inserted, completed]) await statusBecomes(db, id, 'Delivered');
});

test('an SMS that waits for its gateway id is queued again where it is missing, also if its hour is counted', async () => {
  const waiting = await insertSms(db, {});
  await db.sql`delete from smslogd.sms_poll`;
  await refreshHourly(db.daemon);
  const hours = await openHours(db.daemon);
  expect(hours).toHaveLength(1);
  expect(await requeueHour(db.daemon, hours[0]!, 'true')).toBe(1);
  expect([...(await db.sql`select id from smslogd.sms_poll`)]).toEqual([{ id: waiting }]);
});

test('an SMS that is queued without the gateway id that it has is queued with it; an entry that somebody holds waits until the next time', async () => {
  const [held, free] = [await insertSms(db, { age: '1 minute' }), await insertSms(db, { age: '1 minute' })];
  await db.sql.begin(async (sql) => {
    await sql`set local session_replication_role = replica`;
    await sql`update verification.sms_log set gateway_id = '6100003', gateway_status = 'Accepted'`;
  });
  const requeued = async () => {
    let rows = 0;
    for (const hour of await openHours(db.daemon)) rows += await requeueHour(db.daemon, hour, 'true');
    return rows;
  };
  await db.sql.begin(async (sql) => {
    await sql`select from smslogd.sms_poll where id = ${held} for update`;
    expect(await requeued()).toBe(1);
  });
  const due = () =>
    db.sql`select id from smslogd.sms_poll where gateway_id = '6100003' and due_at <= clock_timestamp()`;
  expect([...(await due())]).toEqual([{ id: free }]);
  expect(await requeued()).toBe(1);
  expect(await due()).toHaveLength(2);
  expect(await requeued()).toBe(0);
});

test('an SMS without a gateway id is due at the end of its life, and any is given up so long after it came into the queue', async () => {
  const without = await insertSms(db, { age: '5 minutes' });
  const old = await insertSms(db, { gatewayId: '6100001', age: '4 days' });
  const rows = await db.sql<{ id: string; due: string; given_up: boolean }[]>`
    select p.id, (p.due_at - l.inserted_at)::text as due,
           p.give_up_at between l.updated_at + interval '3 days' and clock_timestamp() + interval '3 days' as given_up
      from smslogd.sms_poll p join verification.sms_log l using (id)`;
  const of = (id: string) => rows.find((row) => row.id === id);
  expect(of(without)?.due).toBe('00:35:00');
  expect(of(old)?.given_up).toBe(true);
  // one that is sent later than now, as by a wrong zone, ages all the same: it would be asked for each 2.5 seconds
  await insertSms(db, { gatewayId: '6100002', age: '-3 hours' });
  expect(await db.sql`select from smslogd.sms_poll where sent_at > now()`).toHaveLength(0);
});

test('an empty gateway id of a service is none: it can still be set, and without one the SMS is Unaccepted at the end of its life', async () => {
  const [set, unset] = [await insertSms(db, { gatewayId: '' }), await insertSms(db, { gatewayId: '' })];
  expect(await db.sql`select id from smslogd.sms_poll where gateway_id is null`).toHaveLength(2);
  await db.sql.begin(async (sql) => {
    await sql`set local role sms_writer`;
    await sql`update verification.sms_log set gateway_id = '' where id = ${set}`;
    await sql`update verification.sms_log set gateway_id = '6160001', gateway_status = 'Accepted' where id = ${set}`;
  });
  await start();
  await statusBecomes(db, set, 'Delivered');
  await db.sql`update smslogd.sms_poll set deadline_at = now(), due_at = now()`;
  expect(await statusBecomes(db, unset, 'Unaccepted')).toMatchObject({ gateway_id: null });
});

test('an SMS that stays open is due again by the schedule, but no later than at the end of its life, and in nobody’s lease', async () => {
  const ids = [await insertSms(db, { gatewayId: '6110001' }), await insertSms(db, { gatewayId: '6110002' })];
  await db.sql`update smslogd.sms_poll set due_at = now(), deadline_at = now() + interval '50 seconds' where id = ${ids[1]!}`;
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  const store = createPollerStore(db.daemon, 20_000);
  const { rows: claimed } = await store.claim({ total: 2, old: 0, past: 0 }, [null, null, null]);
  await store.completeClaims(
    claimed.map(({ id, attempt, gatewayId }) => ({
      id,
      attempt,
      gatewayId: gatewayId!,
      result: 'ok',
      status: 'Enroute',
      date: null,
      gapMs: 100_000,
    })),
  );
  const rows = await db.sql`
    select id, leased_until <= now() as free, due_at = deadline_at as last, due_at = l.updated_at + interval '100 seconds' as scheduled
      from smslogd.sms_poll p join verification.sms_log l using (id) order by p.gateway_id`;
  expect([...rows]).toEqual([
    { id: ids[0], free: true, last: false, scheduled: true },
    { id: ids[1], free: true, last: true, scheduled: false },
  ]);
});

test('an answer of an earlier claim, or about a gateway id that was changed meanwhile, writes nothing', async () => {
  const fenced = await insertSms(db, { gatewayId: '6130001' });
  const changed = await insertSms(db, { gatewayId: '6130002' });
  const untold = await insertSms(db, { gatewayId: '6130004' });
  const store = createPollerStore(db.daemon, 20_000);
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  const { rows: claimed } = await store.claim({ total: 3, old: 0, past: 0 }, [null, null, null]);
  await db.sql`update smslogd.sms_poll set leased_until = now() where id = ${fenced}`;
  expect((await store.claim({ total: 2, old: 0, past: 0 }, [null, null, null])).rows).toMatchObject([
    { id: fenced, attempt: 2 },
  ]);
  await db.sql`update verification.sms_log set gateway_id = '6130003' where id = ${changed}`;
  // without the trigger that tells the queue
  await db.sql
    .unsafe(
      `set local session_replication_role = replica; update verification.sms_log set gateway_id = '6130005' where id = '${untold}'`,
    )
    .simple();
  const queued = () => db.sql`select * from smslogd.sms_poll where id <> ${untold} order by id`;
  const before = await queued();
  const answers = claimed.map(({ id, attempt, gatewayId }) => ({ id, attempt, gatewayId: gatewayId!, gapMs: 1_000 }));
  const delivered = answers.map((row) => ({ ...row, result: 'ok', status: 'Delivered', date: null }) as const);
  expect(await store.completeClaims(delivered)).toEqual({ changes: [], locked: new Set() });
  expect(await queued()).toEqual(before);
  for (const id of [fenced, changed, untold])
    expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Accepted' });
  await start();
  expect(await statusBecomes(db, changed, 'Delivered')).toMatchObject({ gateway_id: '6130003' });
  expect(await statusBecomes(db, untold, 'Delivered')).toMatchObject({ gateway_id: '6130005' });
  for (const former of ['6130002', '6130004']) expect(gateway.count(former)).toBe(0);
});

test('a claim that is over puts off nothing', async () => {
  await insertSms(db, { gatewayId: '6160001' });
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  const store = createPollerStore(db.daemon, 20_000);
  const { rows } = await store.claim({ total: 1, old: 0, past: 0 }, [null, null, null]);
  await db.sql`update smslogd.sms_poll set attempt = attempt + 1`;
  const queued = async () => [...(await db.sql`select due_at, leased_until from smslogd.sms_poll`)];
  const before = await queued();
  await store.postpone(rows, 60_000);
  expect(await queued()).toEqual(before);
  await store.postpone([{ ...rows[0]!, attempt: rows[0]!.attempt + 1 }], 60_000);
  expect(await queued()).not.toEqual(before);
});

test('what somebody holds is not put off, and not waited for', async () => {
  await insertSms(db, { gatewayId: '6160002' });
  const entries = await db.sql<{ id: string; attempt: number }[]>`select id, attempt from smslogd.sms_poll`;
  await db.sql.begin(async (holder) => {
    await holder`select from smslogd.sms_poll for update`;
    await db.sql.begin(async (sql) => {
      // who waits fails
      await sql`set local lock_timeout = 100`;
      const store = createPollerStore(sql as unknown as Sql, 20_000);
      await store.postpone(entries, 60_000);
      await store.postponeGiveUp(entries[0]!.id, 60_000);
    });
  });
  const put = await db.sql`
    select due_at > now() + interval '30 seconds' as off, give_up_at < now() + interval '1 hour' as ends from smslogd.sms_poll`;
  expect([...put]).toEqual([{ off: false, ends: false }]);
});

test('no answer changes a final status that somebody else has written meanwhile, and the SMS leaves the queue', async () => {
  for (const gatewayId of ['6150001', '6150002']) await insertSms(db, { gatewayId });
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  const store = createPollerStore(db.daemon, 20_000);
  const { rows } = await store.claim({ total: 2, old: 0, past: 0 }, [null, null, null]);
  expect(rows).toHaveLength(2);
  await db.sql`update verification.sms_log set gateway_status = 'Undeliverable', status_changed_at = now()`;
  const answers = (['Delivered', 'Enroute'] as const).map((status, i) => {
    const { id, attempt, gatewayId } = rows[i]!;
    return { id, attempt, gatewayId: gatewayId!, result: 'ok' as const, status, date: null, gapMs: 1_000 };
  });
  expect(await store.completeClaims(answers)).toEqual({ changes: [], locked: new Set() });
  for (const { id } of rows) expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Undeliverable' });
  expect(await queueSize(db)).toBe(0);
});

test('no verdict changes a final status that somebody else has written, and the SMS leaves the queue, whoever holds its row', async () => {
  const asked = await insertSms(db, { gatewayId: '6140001' });
  const without = await insertSms(db, {});
  await db.sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now()`;
  await db.sql`update smslogd.sms_poll set due_at = now(), deadline_at = now(), give_up_at = now()`;
  const store = createPollerStore(db.daemon, 20_000);
  await db.sql.begin(async (sql) => {
    await sql`select from verification.sms_log for update`;
    expect(await store.markTerminated([asked])).toEqual([]);
    const { rows: claimed } = await store.claim({ total: 2, old: 0, past: 0 }, [null, null, null]);
    expect(claimed).toMatchObject([{ id: without }]);
    expect(await store.markUnaccepted(claimed)).toEqual([]);
    expect(await queueSize(db)).toBe(0);
  });
  for (const id of [asked, without]) expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Delivered' });
});

test('a transaction that refers to an SMS from another table and goes on puts off no answer, no verdict and no gateway id', async () => {
  const answered = await insertSms(db, { gatewayId: '6130001' });
  const givenUp = await insertSms(db, { gatewayId: '6130002' });
  const without = await insertSms(db, {});
  const completed = await insertSms(db, { type: 'verification' });
  await db.sql`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, gateway_id, inserted_at)
    values (${completed}, '+380000000001', 1, 'new', 1, now(), '6130003', now())`;
  await db.sql`update smslogd.sms_poll set due_at = now() - interval '1 second', deadline_at = now(), give_up_at = now()`;
  await db.sql`create table public.reimbursement (sms uuid references verification.sms_log)`;
  const store = createPollerStore(db.daemon, 20_000);
  const source = await describeSource(db.daemon, db.config());
  const { rows } = await store.claim({ total: 4, old: 0, past: 0 }, [null, null, null]);
  const of = (id: string) => rows.find((row) => row.id === id)!;
  const { attempt } = of(answered);
  await db.sql.begin(async (sql) => {
    await sql`insert into public.reimbursement select id from verification.sms_log`;
    await store.completeClaims([
      { id: answered, attempt, gatewayId: '6130001', result: 'ok', status: 'Delivered', date: null, gapMs: 1_000 },
    ]);
    await store.fillFromSource(source, [completed]);
    await store.markUnaccepted([of(without)]);
    await store.markTerminated([givenUp]);
    expect(await readSms(db, answered)).toMatchObject({ gateway_status: 'Delivered' });
    expect(await readSms(db, completed)).toMatchObject({ gateway_id: '6130003', gateway_status: 'Accepted' });
    expect(await readSms(db, without)).toMatchObject({ gateway_status: 'Unaccepted' });
    expect(await readSms(db, givenUp)).toMatchObject({ gateway_status: 'Terminated' });
  });
});

test('one that was past its life when it was queued is not given up before it was asked for once', async () => {
  const ids = [
    await insertSms(db, { gatewayId: '6120001', age: '4 days' }),
    await insertSms(db, { gatewayId: '6120002' }),
  ];
  await db.sql`update smslogd.sms_poll set give_up_at = now()`;
  const store = createPollerStore(db.daemon, 20_000);
  expect(await store.overdue(10)).toEqual([ids[1]]);
  await store.claim({ total: 2, old: 0, past: 2 }, [null, null, null]);
  expect((await store.overdue(10)).toSorted()).toEqual(ids.toSorted());
});

test('after days without a daemon, as after a restore, the gateway is asked before anything is given up', async () => {
  const given = await insertSms(db, { gatewayId: '6170001' });
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status)
    select '+380000000001', 'text', (6180000 + g)::text, 'Accepted' from generate_series(1, 100) g`;
  await insertSms(db, {});
  await db.sql`update smslogd.sms_poll set due_at = now() - interval '3 days', deadline_at = now() - interval '3 days', give_up_at = now()`;
  gateway.script = ({ id }) => (id === '6170001' ? { status: 500 } : reply(id, 'Delivered'));
  await start();
  await statusBecomes(db, given, 'Terminated');
  await until('the others', async () => (await queueSize(db)) === 0);
  expect(
    await db.sql`select gateway_status as status, count(*)::int as n from verification.sms_log group by 1 order by 1`,
  ).toEqual([
    { status: 'Delivered', n: 100 },
    { status: 'Terminated', n: 1 },
    { status: 'Unaccepted', n: 1 },
  ]);
});

test.each([-365, 365])(
  "a daemon whose clock is %d days off asks when the database's tells, and writes its time",
  async (days) => {
    const now = Date.now;
    vi.spyOn(Date, 'now').mockImplementation(() => now() + days * 86_400_000);
    gateway.script = ({ id }) => reply(id, 'Enroute', '');
    const id = await insertSms(db, { gatewayId: '6200001' });
    await start();
    const row = await statusBecomes(db, id, 'Enroute');
    expect(row.status_changed_at).toEqual(row.updated_at);
    gateway.script = ({ id: one }) => reply(one, 'Delivered', '');
    expect(Math.abs((await statusBecomes(db, id, 'Delivered')).updated_at.getTime() - now())).toBeLessThan(60_000);
  },
);

test('a claim and a new status write into no index, and a claim finds what is due by one', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
               select '+380000000001', 'text', 'text', (6300000 + i)::text, 'Accepted', now() - interval '5 seconds' from generate_series(1, 2000) i`;
  await db.sql.begin(async (sql) => {
    const store = createPollerStore(sql as unknown as Sql, 20_000);
    /** Updates of this connection so far: those that wrote into every index, and those that stayed in their block. */
    const updates = async (table: string) => {
      const [row] = await sql<{ hot: number; cold: number }[]>`
        select hot, updated - hot as cold
          from (select pg_stat_get_xact_tuples_hot_updated(c)::int as hot, pg_stat_get_xact_tuples_updated(c)::int as updated
                  from (select ${table}::text::regclass::oid as c) named) counted`;
      return row ?? { hot: 0, cold: 0 };
    };
    const before = await updates('smslogd.sms_poll');
    const { rows } = await store.claim({ total: 1_000, old: 0, past: 0 }, [null, null, null]);
    expect(await updates('smslogd.sms_poll')).toEqual({ hot: before.hot + 1_000, cold: before.cold });
    const [scans] = await sql`select pg_stat_get_xact_numscans('smslogd.sms_poll'::regclass)::int as whole`;
    expect(scans).toEqual({ whole: 0 });
    const enroute = rows.map(({ id, attempt, gatewayId }) => ({
      id,
      attempt,
      gatewayId: gatewayId ?? '',
      result: 'ok' as const,
      status: 'Enroute' as const,
      date: null,
      gapMs: 1_000,
    }));
    // a few of each block at a time, as they come in time
    await store.completeClaims(enroute.filter((_, i) => i % 8 === 0));
    expect(await updates('verification.sms_log')).toEqual({ hot: 125, cold: 0 });
  });
});

test.each(['repeatable read', 'serializable'])(
  'where the database has transactions %s by default two pollers go on, and each SMS gets its status',
  async (level) => {
    await db.sql.unsafe(`alter database ${db.name} set default_transaction_isolation = '${level}'`);
    gateway.script = ({ id }) => reply(id, gateway.count(id) > 1 ? 'Delivered' : 'Enroute');
    // as through a pooler: a direct connection sets its own level
    const pooled = { DATABASE_POOLED: 'true' };
    await start(pooled);
    const other = await startPoller(db, { IP2SMS_URL: gateway.url, ...pooled });
    try {
      for (let i = 0; i < 200; i += 1) await insertSms(db, { gatewayId: String(6_400_000 + i) });
      await until('the queue to be empty', async () => (await queueSize(db)) === 0);
    } finally {
      await other.stop();
    }
    const rows = await db.sql`select gateway_status, count(*)::int as n from verification.sms_log group by 1`;
    expect([...rows]).toEqual([{ gateway_status: 'Delivered', n: 200 }]);
  },
);
