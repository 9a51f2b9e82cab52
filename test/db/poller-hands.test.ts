/** Rows that others write, and rows that somebody changes by hand under the poller's feet. */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { silentLog, type Log } from '../../src/log.ts';
import { repairQueue } from '../../src/poller/requeue.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, queueSize, readSms, series, startPoller, statusBecomes, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running | undefined;

beforeEach(async () => {
  db = await createDatabase();
  gateway = await startGateway(({ id }) => reply(id, 'Delivered'));
});
afterEach(async () => {
  await running?.stop();
  running = undefined;
  await gateway.close();
  await db.drop();
});

async function start({ log, ...options }: { everyMs?: number; log?: Log } = {}): Promise<Running> {
  running = await startPoller(db, { IP2SMS_URL: gateway.url }, log, options);
  return running;
}

test('a medication_request that another role inserts, or completes, is due within five seconds, and asked for without help', async () => {
  await db.sql.unsafe(`create role ${db.name}_writer`);
  try {
    await db.sql.unsafe(
      `grant usage on schema verification to ${db.name}_writer; grant select, insert, update on verification.sms_log to ${db.name}_writer`,
    );
    await start();
    const rows = await db.sql.begin(async (sql) => {
      await sql.unsafe(`set local role ${db.name}_writer`);
      await sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status)
                values ('+380000000001', 'medication_request', 'text', '1000001', 'Accepted'),
                       ('+380000000001', 'medication_request', 'text', null, null)`;
      await sql`update verification.sms_log set gateway_id = '1000002', gateway_status = 'Accepted' where gateway_id is null`;
      await sql`reset role`;
      // before anybody else can have queued them
      return await sql<{ id: string; soon: boolean }[]>`
        select id, due_at <= now() + interval '4 seconds' as soon from smslogd.sms_poll where gateway_id is not null`;
    });
    expect(rows.map(({ soon }) => soon)).toEqual([true, true]);
    for (const { id } of rows) await statusBecomes(db, id, 'Delivered');
  } finally {
    await db.sql.unsafe(`drop owned by ${db.name}_writer; drop role ${db.name}_writer`);
  }
});

test('what is changed by hand while it waits is taken as it is then: status, gateway id, the row, its id', async () => {
  const ids: string[] = [];
  for (let i = 1; i <= 5; i += 1) ids.push(await insertSms(db, { gatewayId: `200000${i}` }));
  ids.push(await insertSms(db, {}));
  const [finalised = '', reopened = '', other = '', gone = '', renamed = '', again = ''] = ids;
  await db.sql`update verification.sms_log set gateway_status = 'Expired' where id = ${finalised}`;
  await db.sql`update verification.sms_log set gateway_status = null, status_changed_at = null where id = ${reopened}`;
  await db.sql`update verification.sms_log set gateway_id = '2100003' where id = ${other}`;
  await db.sql`delete from verification.sms_log where id = ${gone}`;
  const [row] = await db.sql<{ id: string }[]>`
    update verification.sms_log set id = gen_random_uuid() where id = ${renamed} returning id`;
  await db.sql`
    update smslogd.sms_poll set attempt = 3, lane = 2, sent_at = now() - interval '4 days', deadline_at = now() - interval '4 days', give_up_at = now(),
                                leased_until = now() + interval '1 day' where id = ${again}`;
  await db.sql`delete from verification.sms_log where id = ${again}`;
  await db.sql`insert into verification.sms_log (id, phone_number, type, gateway_id, gateway_status)
               values (${again}, '+380000000001', 'text', '2000006', 'Accepted')`;
  const [entry] = await db.sql`
    select due_at < now() + interval '5 seconds' as soon, leased_until < now() as free, lane, sent_at = inserted_at as own,
           (deadline_at - sent_at)::text as life, give_up_at > now() + interval '2 days' as patient, attempt
      from smslogd.sms_poll join verification.sms_log using (id) where id = ${again}`;
  expect(entry).toEqual({ soon: true, free: true, lane: 0, own: true, life: '00:35:00', patient: true, attempt: 3 });
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  await start();
  await statusBecomes(db, reopened, 'Delivered');
  expect(await statusBecomes(db, other, 'Delivered')).toMatchObject({ gateway_id: '2100003' });
  for (const id of [row?.id ?? '', again]) await statusBecomes(db, id, 'Delivered');
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(await readSms(db, finalised)).toMatchObject({ gateway_status: 'Expired', status_changed_at: null });
  expect(await readSms(db, gone)).toBeUndefined();
  expect(gateway.count('2000003')).toBe(0);
});

test('SMS that somebody holds, in the log or in the queue, keep nobody else from the answer, and get theirs when they are free, without another question', async () => {
  const answers: (() => void)[] = [];
  gateway.script = async ({ id }) => {
    if (id !== '2100007') await new Promise<void>((resolve) => answers.push(resolve));
    return reply(id, 'Delivered');
  };
  const ids: string[] = [];
  for (let i = 1; i <= 6; i += 1) ids.push(await insertSms(db, { gatewayId: `210000${i}` }));
  const [logged = '', queued = '', ...others] = ids;
  const { metrics } = await start();
  await until('every question', () => answers.length === ids.length);
  await db.sql.begin(async (sql) => {
    await sql`select from verification.sms_log where id = ${logged} for update`;
    await sql`select from smslogd.sms_poll where id = ${queued} for update`;
    for (const answer of answers) answer();
    for (const id of others) await statusBecomes(db, id, 'Delivered');
    // what comes later is answered, too
    await statusBecomes(db, await insertSms(db, { gatewayId: '2100007' }), 'Delivered');
    for (const id of [logged, queued]) expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Accepted' });
  });
  for (const id of [logged, queued]) await statusBecomes(db, id, 'Delivered');
  expect(gateway.asked).toHaveLength(7);
  await until(
    'each answer to be counted once',
    async () => (await series(metrics, 'smslogd_poll_requests_total{result="ok"}')) === 7,
  );
});

test('SMS that somebody holds keep nobody else from the verdict', async () => {
  gateway.script = () => ({ status: 503 });
  const given = [await insertSms(db, { gatewayId: '2200001' }), await insertSms(db, { gatewayId: '2200002' })].sort();
  const without = [await insertSms(db, { age: '36 minutes' }), await insertSms(db, { age: '36 minutes' })].sort();
  await db.sql`update smslogd.sms_poll set give_up_at = now() where gateway_id is not null`;
  await db.sql.begin(async (sql) => {
    await sql`select from verification.sms_log where id in ${sql([given[0]!, without[0]!])} for update`;
    await start();
    await statusBecomes(db, given[1]!, 'Terminated');
    await statusBecomes(db, without[1]!, 'Unaccepted');
  });
  await db.sql`update smslogd.sms_poll set leased_until = '-infinity'`;
  await statusBecomes(db, given[0]!, 'Terminated');
  const row = await statusBecomes(db, without[0]!, 'Unaccepted');
  expect(row.status_changed_at).toEqual(row.updated_at);
});

test('no hand can write an entry into the queue that would stop the claims of others', async () => {
  await insertSms(db, { gatewayId: '2300001' });
  for (const wrong of ['attempt = -1', `sent_at = 'infinity'`, `due_at = '1969-01-01'`, 'lane = 7'])
    await expect(db.sql.unsafe(`update smslogd.sms_poll set ${wrong}`)).rejects.toMatchObject({ code: '23514' });
});

test('whatever a hand may write into the entries of the queue, each SMS and all others get their status', async () => {
  const odd = [
    'attempt = 2147483647',
    'attempt = 2147483647, gateway_id = null',
    `sent_at = '294276-12-31 23:59:59Z'`,
    `sent_at = '4714-11-24 00:00Z BC'`,
    `due_at = '294276-12-31 23:59:59Z'`,
    `deadline_at = '294276-12-31 23:59:59Z'`,
    `deadline_at = '-infinity'`,
    `give_up_at = '294276-12-31 23:59:59Z'`,
    `leased_until = '294276-12-31 23:59:59Z'`,
    'lane = 2',
    'gateway_id = null',
    `last_result = repeat('x', 100000)`,
  ];
  const ids: string[] = [];
  for (const [i, set] of odd.entries()) {
    const id = await insertSms(db, { gatewayId: String(2_350_000 + i) });
    await db.sql.unsafe(`update smslogd.sms_poll set ${set} where id = '${id}'`);
    ids.push(id);
  }
  await start();
  for (const id of [...ids, await insertSms(db, { gatewayId: '2350999' })]) await statusBecomes(db, id, 'Delivered');
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(gateway.count('2350999')).toBe(1);
});

test('what waits for a time too far away, as after the clock of the database was set back, is due again', async () => {
  const later = await insertSms(db, { gatewayId: '2400001' });
  const leased = await insertSms(db, { gatewayId: '2400002' });
  const waits = await insertSms(db, {});
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '31 minutes' where id = ${later}`;
  await db.sql`update smslogd.sms_poll set leased_until = now() + interval '31 minutes' where id = ${leased}`;
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '40 minutes' where id = ${waits}`;
  await start();
  await statusBecomes(db, later, 'Delivered');
  await statusBecomes(db, leased, 'Delivered');
  const [row] = await db.sql`select due_at > now() + interval '30 minutes' as still from smslogd.sms_poll`;
  expect(row).toEqual({ still: true });
});

test('the victim of a deadlock is written at the second try, without another question', async () => {
  await db.sql.unsafe(`
    create sequence tries;
    grant usage on sequence tries to public;
    create function lose() returns trigger language plpgsql as $$
    begin
      if nextval('tries') <= 2 then raise exception 'deadlock' using errcode = '40P01'; end if;
      return new;
    end $$;
    create trigger lose before update on verification.sms_log for each row execute function lose()`);
  const id = await insertSms(db, { gatewayId: '3000001' });
  const { metrics } = await start();
  await statusBecomes(db, id, 'Delivered');
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(gateway.count('3000001')).toBe(1);
  expect(await series(metrics, 'smslogd_errors_total{code="database_busy"}')).toBe(0);
  const [row] = await db.sql<{ tries: number }[]>`select last_value::int as tries from tries`;
  expect(row?.tries).toBe(3);
});

test('a recent SMS that fell out of the queue while the poller runs is found and asked for', async () => {
  await start({ everyMs: 50 });
  const first = await insertSms(db, { gatewayId: '4000001' });
  await statusBecomes(db, first, 'Delivered');
  await db.sql`alter table verification.sms_log disable trigger smslogd_queue_inserted`;
  const id = await insertSms(db, { gatewayId: '4000002' });
  expect(await statusBecomes(db, id, 'Delivered')).toMatchObject({ gateway_id: '4000002' });
});

test('while the row of settings is gone, what queues nothing says so; once migrate has made it again, all is asked for', async () => {
  const lines: string[] = [];
  await start({ everyMs: 50, log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }) });
  await db.sql`delete from smslogd.settings`;
  const id = await insertSms(db, { gatewayId: '5000001' });
  await until('it to be said', () => lines.some((line) => line.includes('schema_missing')));
  await migrate(db.owner.config(), { say: () => {} });
  expect(await statusBecomes(db, id, 'Delivered')).toMatchObject({ gateway_id: '5000001' });
});

test('one that does not lead queues nothing and resets nothing, and what is far away or missing is mended by the one that does', async () => {
  for (const gatewayId of ['4100001', '4100002']) await insertSms(db, { gatewayId });
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '10 days' where gateway_id = '4100001'`;
  await db.sql`delete from smslogd.sms_poll where gateway_id = '4100002'`;
  const near = async () => (await db.sql`select from smslogd.sms_poll where due_at < now() + interval '1 day'`).length;
  const pass = async (fence: string) => {
    const stop = new AbortController();
    await repairQueue({ sql: db.daemon, log: silentLog, fence: () => fence, works: () => stop.abort() }, stop.signal);
  };
  await pass('false');
  expect([await queueSize(db), await near()]).toEqual([1, 0]);
  await pass('true');
  expect([await queueSize(db), await near()]).toEqual([2, 2]);
});
