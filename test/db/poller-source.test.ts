/** SMS without a gateway id: the last look at the source, and the verdict. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { refreshHourly } from '../../src/figures/counting.ts';
import { readFacts } from '../../src/figures/readings.ts';
import { silentLog } from '../../src/log.ts';
import { repairQueue } from '../../src/poller/requeue.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { insertSms, queueSize, readSms, series, startPoller, statusBecomes, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running[] = [];
let mirror: RunningMirror | undefined;

beforeAll(async () => {
  gateway = await startGateway(({ id }) => reply(id, 'Delivered'));
});
afterAll(() => gateway.close());
beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  for (const each of running) await each.stop();
  running = [];
  await mirror?.stop();
  mirror = undefined;
  await db.drop();
});

async function start(env: Record<string, string> = {}): Promise<Running> {
  const one = await startPoller(db, { IP2SMS_URL: gateway.url, ...env });
  running.push(one);
  return one;
}

/** Writes the verification that the SMS `id` was mirrored from, as it is now. */
async function writeSource(id: string, gatewayId: string | null, status: string | null): Promise<void> {
  await db.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, gateway_id, gateway_status, inserted_at, active)
               values (${id}, '+380000000001', 1, 'new', 1234, now(), ${gatewayId}, ${status}, now() at time zone 'UTC', false)`;
}

function readSettings() {
  return db.sql`select life::text, give_up::text, first_poll::text, xmin::text from smslogd.settings`;
}

const OVER = { type: 'verification', age: '36 minutes' };

test('without a gateway id at the end of its life an SMS is Unaccepted, whether its source row is there or not', async () => {
  const there = await insertSms(db, OVER);
  await writeSource(there, null, null);
  const gone = await insertSms(db, OVER);
  const foreign = await insertSms(db, { type: 'medication_request', age: '36 minutes' });
  const young = await insertSms(db, { type: 'verification', age: '30 minutes' });
  // a hand makes nobody's life shorter
  await db.sql`update smslogd.sms_poll set due_at = now() where id = ${young}`;
  const { metrics } = await start();
  for (const id of [there, gone, foreign]) {
    const row = await statusBecomes(db, id, 'Unaccepted');
    expect(row.status_changed_at).toEqual(row.updated_at);
  }
  await until('the young one to be looked at', async () => {
    const [row] =
      await db.sql`select attempt > 0 and due_at = deadline_at as looked from smslogd.sms_poll where id = ${young}`;
    return row?.['looked'] === true;
  });
  expect(await readSms(db, young)).toMatchObject({ gateway_status: null });
  expect(await queueSize(db)).toBe(1);
  const name = 'smslogd_sms_status_transitions_total{type="verification",from="none",to="Unaccepted"}';
  await until('the count', async () => (await series(metrics, name)) === 2);
});

test('a gateway id that the source has got meanwhile completes the SMS, which is then asked for', async () => {
  const id = await insertSms(db, OVER);
  await writeSource(id, '1234567', null);
  await start();
  expect(await statusBecomes(db, id, 'Delivered')).toMatchObject({ gateway_id: '1234567' });
  expect(gateway.count('1234567')).toBe(1);
  expect(await queueSize(db)).toBe(0);
});

test('while somebody holds an SMS whose gateway id the source has got, it is not called Unaccepted', async () => {
  const id = await insertSms(db, OVER);
  await writeSource(id, '1234566', null);
  const later = await insertSms(db, OVER);
  await db.sql.begin(async (sql) => {
    await sql`select from verification.sms_log where id = ${id} for update`;
    await start();
    await statusBecomes(db, later, 'Unaccepted');
    await until('it to be looked at', async () => {
      const [row] = await db.sql<{ attempt: number }[]>`select attempt from smslogd.sms_poll where id = ${id}`;
      return (row?.attempt ?? 0) > 0;
    });
  });
  await db.sql`update smslogd.sms_poll set leased_until = '-infinity'`;
  expect(await statusBecomes(db, id, 'Delivered')).toMatchObject({ gateway_id: '1234566' });
});

test('an SMS that is free again when it is judged keeps the gateway id that the source has got', async () => {
  const id = await insertSms(db, OVER);
  await writeSource(id, '1234565', null);
  const store = createPollerStore(db.daemon, 60_000);
  const source = await describeSource(db.daemon, db.config());
  const claimed = await store.claimWithoutGatewayId(10);
  // somebody held it at the last look at the source, and holds it no more
  expect(await store.markUnaccepted(claimed, source)).toEqual([]);
  expect(await readSms(db, id)).toMatchObject({ gateway_status: null });
  await start();
  expect(await statusBecomes(db, id, 'Delivered')).toMatchObject({ gateway_id: '1234565' });
});

test('a final status that the source has got meanwhile is taken, without a question to the gateway', async () => {
  const id = await insertSms(db, OVER);
  await writeSource(id, '1234568', 'canceled');
  await start();
  expect(await statusBecomes(db, id, 'Deleted')).toMatchObject({ gateway_id: '1234568', status_changed_at: null });
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(gateway.count('1234568')).toBe(0);
});

test('a status word that the source has got meanwhile and nobody knows is counted', async () => {
  const id = await insertSms(db, OVER);
  await writeSource(id, '1234564', 'Levitating');
  const { metrics } = await start();
  await statusBecomes(db, id, 'Delivered');
  expect(await series(metrics, 'smslogd_poll_unknown_status_words_total')).toBe(1);
});

test('where the source has no gateway columns a mirrored SMS is not judged, others are', async () => {
  await db.sql.unsafe('alter table verification.verifications drop column gateway_id, drop column gateway_status');
  const mirrored = await insertSms(db, OVER);
  const foreign = await insertSms(db, { type: '2FA', age: '36 minutes' });
  await start();
  await statusBecomes(db, foreign, 'Unaccepted');
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(await readSms(db, mirrored)).toMatchObject({ gateway_status: null, status_changed_at: null });
});

test('SMS that came while the source had no gateway columns stay untracked when it gets them, those that come then are judged', async () => {
  const insert = async (age: string) => {
    const [row] = await db.sql<{ id: string }[]>`
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, inserted_at, active)
      values (gen_random_uuid(), '+380000000001', 1, 'new', 1234, now(), now() at time zone 'UTC' - ${age}::text::interval, false) returning id`;
    return row!.id;
  };
  const counted = async () => {
    const [row] =
      await db.sql`select sum(untracked)::int as untracked, sum(open)::int as open from verification.sms_delivery_daily`;
    return row;
  };
  const tracked = async (is: boolean) =>
    await until(
      `the columns to be ${is ? 'there' : 'gone'}`,
      async () => (await readFacts(db.daemon, db.name, 10_000)).tracks === is,
    );
  await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
  mirror = startMirror(db, { auditMs: 300 });
  await mirror.streaming();
  const [former, completed] = [await insert('1 month'), await insert('36 minutes')];
  await until(
    'the rows',
    async () => (await readSms(db, former)) !== undefined && (await readSms(db, completed)) !== undefined,
  );
  await refreshHourly(db.daemon);
  await db.sql`alter table verification.verifications add column gateway_id text, add column gateway_status text`;
  await tracked(true);
  expect(await counted()).toEqual({ untracked: 2, open: 0 });
  await refreshHourly(db.daemon);
  const repaired = new AbortController();
  await repairQueue({ sql: db.daemon, log: silentLog, works: () => repaired.abort() }, repaired.signal);
  expect(await queueSize(db)).toBe(0);

  await start({ SMS_STATUSES_EXPIRATION: '0.05' });
  await statusBecomes(db, await insert('0 seconds'), 'Unaccepted');
  expect(await readSms(db, former)).toMatchObject({ gateway_status: null, status_changed_at: null });
  // its owner fills in an id
  await db.sql`update verification.verifications set gateway_id = '1234563' where id = ${completed}`;
  await statusBecomes(db, completed, 'Delivered');
  expect(await counted()).toEqual({ untracked: 1, open: 0 });

  // what waits for its id when the columns go is untracked too, and stays so when they come back
  await running.pop()!.stop();
  const waiting = await insert('0 seconds');
  await until('the row', async () => (await readSms(db, waiting)) !== undefined);
  await refreshHourly(db.daemon);
  expect(await counted()).toEqual({ untracked: 1, open: 1 });
  await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
  await tracked(false);
  expect(await counted()).toEqual({ untracked: 2, open: 0 });
  await db.sql`alter table verification.verifications add column gateway_id text, add column gateway_status text`;
  await tracked(true);
  await start({ SMS_STATUSES_EXPIRATION: '0.05' });
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(await readSms(db, waiting)).toMatchObject({ gateway_status: null });
  expect(await counted()).toEqual({ untracked: 2, open: 0 });
});

test('where the source cannot be read no mirrored SMS gets a verdict, however long that lasts; an SMS of another service needs no source', async () => {
  await db.sql.unsafe('alter table verification.verifications rename to elsewhere');
  const id = await insertSms(db, OVER);
  const foreign = await insertSms(db, { type: '2FA', age: '36 minutes' });
  const { metrics } = await start();
  await until(
    'the failure',
    async () => ((await series(metrics, 'smslogd_errors_total{code="source_missing"}')) ?? 0) > 0,
  );
  await until('it to be put off', async () => {
    const [row] =
      await db.sql`select greatest(due_at, leased_until) > now() + interval '30 seconds' as later from smslogd.sms_poll where id = ${id}`;
    return row?.['later'] === true;
  });
  await statusBecomes(db, foreign, 'Unaccepted');
  // once the one that is asked for in vain is given up, the other has been looked at
  gateway.script = () => ({ status: 404 });
  const inVain = await insertSms(db, { gatewayId: '1234572' });
  await db.sql`update smslogd.sms_poll set give_up_at = now()`;
  await statusBecomes(db, inVain, 'Terminated');
  gateway.script = ({ id: one }) => reply(one, 'Delivered');
  expect(await readSms(db, id)).toMatchObject({ gateway_status: null });
  await db.sql.unsafe('alter table verification.elsewhere rename to verifications');
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  await statusBecomes(db, id, 'Unaccepted');
});

test('where all that end are of other services the source is not looked for', async () => {
  await db.sql.unsafe('alter table verification.verifications rename to elsewhere');
  const foreign = await insertSms(db, { type: '2FA', age: '36 minutes' });
  const { metrics } = await start();
  await statusBecomes(db, foreign, 'Unaccepted');
  await running.pop()!.stop();
  expect((await series(metrics, 'smslogd_errors_total{code="source_missing"}')) ?? 0).toBe(0);
  await db.sql.unsafe('alter table verification.elsewhere rename to verifications');
});

test('while somebody locks the source no SMS waits for its answer, however many wait for their verdict', async () => {
  await start();
  await db.sql.begin(async (sql) => {
    await sql`lock table verification.verifications in access exclusive mode`;
    for (let i = 0; i < 6; i += 1) {
      await insertSms(db, OVER);
      await statusBecomes(db, await insertSms(db, { gatewayId: String(1_234_600 + i) }), 'Delivered');
    }
    expect(await db.sql`select from verification.sms_log where gateway_status = 'Unaccepted'`).toHaveLength(0);
  });
});

test('at a stop an SMS that waits for its verdict behind others gets it', async () => {
  const claimed = async (id: string) =>
    (await db.sql`select from smslogd.sms_poll where id = ${id} and attempt > 0`).length === 1;
  const first = await insertSms(db, OVER);
  // not by a lock: these are given up after two seconds
  await db.sql.unsafe(`
    create table held as select '${first}'::uuid as id;
    grant select on held to public;
    create function hold() returns trigger language plpgsql as $$ begin
      while exists (select from held where id = new.id) loop perform pg_sleep(0.01); end loop;
      return new;
    end $$;
    create trigger hold before update on verification.sms_log for each row execute function hold()`);
  try {
    const { stop } = await start();
    const held = `select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`;
    await until('the first to be held', async () => (await db.sql.unsafe(held)).length > 0);
    const second = await insertSms(db, OVER);
    await until('the second to be claimed', () => claimed(second));
    const over = stop();
    await db.sql`delete from held`;
    await over;
    for (const id of [first, second]) expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Unaccepted' });
  } finally {
    await db.sql`delete from held`;
    await db.sql.unsafe('drop function hold cascade; drop table held');
  }
});

test('the verdict does not wait for a gateway that is left alone', async () => {
  gateway.script = () => ({ status: 401 });
  try {
    await insertSms(db, { gatewayId: '1234569' });
    const { metrics } = await start();
    await until('the breaker', async () => (await series(metrics, 'smslogd_poll_breaker_open')) === 1);
    const id = await insertSms(db, OVER);
    expect(await statusBecomes(db, id, 'Unaccepted')).toMatchObject({ gateway_id: null });
  } finally {
    gateway.script = ({ id }) => reply(id, 'Delivered');
  }
});

test('the settings that the triggers read are written once, and only where they differ', async () => {
  await start({ SMS_STATUSES_EXPIRATION: '0.5', SMS_STATUSES_GIVE_UP: '90' });
  const [first] = await readSettings();
  expect(first).toMatchObject({ life: '00:00:30', give_up: '01:30:00', first_poll: '00:00:02.5' });
  await start({ SMS_STATUSES_EXPIRATION: '0.5', SMS_STATUSES_GIVE_UP: '90' });
  const [second] = await readSettings();
  expect(second).toEqual(first);
});

test('another life is that of the SMS that are queued, too, in short statements that wait for nobody', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status)
               select '+380000000001', 'text', (1300000 + i)::text, 'Accepted' from generate_series(1, 2498) i`;
  const without = await insertSms(db, {});
  const held = await insertSms(db, { gatewayId: '1234571' });
  await db.sql.unsafe('create table pieces (entries int); grant insert on pieces to public');
  await db.sql.unsafe(`
    create function note() returns trigger language plpgsql as $$ begin insert into pieces select count(*) from written; return null; end $$;
    create trigger note after update on smslogd.sms_poll referencing new table as written for each statement execute function note()`);
  const store = createPollerStore(db.daemon, 60_000);
  await db.sql.begin(async (sql) => {
    await sql`select from smslogd.sms_poll where id = ${held} for update`;
    await store.writeSettings(60, 4320);
  });
  const lives = await db.sql`
    select (deadline_at - sent_at)::text as life, count(*)::int as n, array_agg(id) filter (where due_at = deadline_at) as waiting
      from smslogd.sms_poll group by 1 order by 1`;
  expect([...lives]).toEqual([
    { life: '00:35:00', n: 1, waiting: null },
    { life: '01:00:00', n: 2_499, waiting: [without] },
  ]);
  const [pieces] = await db.sql`select sum(entries)::int as entries, max(entries) as longest from pieces`;
  expect(pieces).toEqual({ entries: 2_499, longest: 1_000 });
  expect((await readSettings())[0]).toMatchObject({ life: '01:00:00' });
});
