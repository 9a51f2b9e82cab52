import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPoller } from '../../src/poller/poller.ts';
import { openConnections } from '../../src/postgres/connections.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { gatewayDate, reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, queueSize, readSms, series, startPoller, statusBecomes, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running[] = [];

beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());
beforeEach(async () => {
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  await db.sql`truncate verification.sms_log, smslogd.sms_poll, verification.verifications`;
});
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const each of running) await each.stop();
  running = [];
  await gateway.close();
});

async function start(env: Record<string, string> = {}, log?: Parameters<typeof startPoller>[2]): Promise<Running> {
  const one = await startPoller(db, { IP2SMS_URL: gateway.url, ...env }, log);
  running.push(one);
  return one;
}

/** The life of the SMS ends now, and it is due. */
async function endLife(id: string): Promise<void> {
  await db.sql`update smslogd.sms_poll set deadline_at = now() - interval '1 second', due_at = now(), leased_until = '-infinity' where id = ${id}`;
}

async function asked(id: string, times = 1): Promise<void> {
  await until(`${times} requests`, () => gateway.count(id) >= times);
}

/** Date of the database's clock. */
async function databaseNow(): Promise<Date> {
  const [row] = await db.sql<{ now: Date }[]>`select now()`;
  return row?.now ?? new Date(0);
}

test('an SMS that another service inserts becomes Enroute, then Delivered with the date of the reply, and leaves the queue; a changed password is used', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  const password = join(directory, 'password');
  writeFileSync(password, 'first');
  vi.stubEnv('IP2SMS_PASSWORD_FILE', password);
  const { metrics } = await start();
  const id = await insertSms(db, { gatewayId: '1234567' });
  expect((await statusBecomes(db, id, 'Enroute')).status_changed_at).toEqual(new Date('2007-03-28T09:35:00Z'));
  const date = new Date(Math.floor(Date.now() / 1000) * 1000);
  const second = `Basic ${Buffer.from('login:second').toString('base64')}`;
  gateway.script = ({ id: one, authorization }) =>
    reply(one, authorization === second ? 'Delivered' : 'Enroute', gatewayDate(date));
  writeFileSync(password, 'second');
  expect((await statusBecomes(db, id, 'Delivered')).status_changed_at).toEqual(date);
  expect(await queueSize(db)).toBe(0);
  rmSync(directory, { recursive: true });
  const delivered = 'smslogd_sms_status_transitions_total{type="medication_request",from="Enroute",to="Delivered"}';
  await until('the count', async () => (await series(metrics, delivered)) === 1);
  const accepted = 'smslogd_sms_status_transitions_total{type="medication_request",from="Accepted",to="Enroute"}';
  expect(await series(metrics, accepted)).toBe(1);
  expect(await series(metrics, 'smslogd_sms_final_total{type="medication_request",status="Delivered"}')).toBe(1);
  expect(await series(metrics, 'smslogd_sms_delivery_seconds_count{type="medication_request"}')).toBe(1);
  expect(await series(metrics, 'smslogd_poll_requests_total{result="ok"}')).toBe(2);
});

test('a Delivered that is learned late stays Delivered, any other answer past the life is Terminated now', async () => {
  gateway.script = ({ id }) => reply(id, id === '1000001' ? 'Delivered' : 'Pending');
  const late = await insertSms(db, { gatewayId: '1000001' });
  const stuck = await insertSms(db, { gatewayId: '1000002' });
  await endLife(late);
  await endLife(stuck);
  const before = await databaseNow();
  await start();
  expect((await statusBecomes(db, late, 'Delivered')).status_changed_at).toEqual(new Date('2007-03-28T09:35:00Z'));
  const terminated = await statusBecomes(db, stuck, 'Terminated');
  expect(terminated.status_changed_at?.getTime()).toBeGreaterThanOrEqual(before.getTime());
  expect(terminated.updated_at).toEqual(terminated.status_changed_at);
  expect(await queueSize(db)).toBe(0);
});

test('the first reply with the same status gives the date, a later one with another date writes nothing', async () => {
  gateway.script = ({ id }) => reply(id, 'Accepted');
  const id = await insertSms(db, { gatewayId: '1000003' });
  const { metrics } = await start();
  await until('the date', async () => (await readSms(db, id))?.status_changed_at !== null);
  const first = await readSms(db, id);
  gateway.script = ({ id: one }) => reply(one, 'Accepted', 'Thu, 29 Mar 2007 12:35:00 +0300');
  const times = gateway.count('1000003');
  await asked('1000003', times + 2);
  await until(
    'both to be counted',
    async () => ((await series(metrics, 'smslogd_poll_requests_total{result="unchanged"}')) ?? 0) >= times + 1,
  );
  expect(await readSms(db, id)).toEqual(first);
});

test('an empty or broken date is the time of the write, and is counted', async () => {
  gateway.script = ({ id }) => reply(id, 'Delivered', id === '1000004' ? '' : 'yesterday');
  const ids = [await insertSms(db, { gatewayId: '1000004' }), await insertSms(db, { gatewayId: '1000005' })];
  const { metrics } = await start();
  for (const id of ids) {
    const row = await statusBecomes(db, id, 'Delivered');
    expect(row.status_changed_at).toEqual(row.updated_at);
  }
  expect(await series(metrics, 'smslogd_poll_bad_dates_total')).toBe(2);
});

test('a gateway whose clock is behind gives a negative latency, which counts as 0', async () => {
  gateway.script = ({ id }) => reply(id, 'Delivered');
  const id = await insertSms(db, { gatewayId: '1000006' });
  const { metrics } = await start();
  await statusBecomes(db, id, 'Delivered');
  await until('the count', async () => (await series(metrics, 'smslogd_sms_negative_latency_total')) === 1);
  expect(await series(metrics, 'smslogd_sms_delivery_seconds_sum{type="medication_request"}')).toBe(0);
});

test('one bad id, one reply about another SMS, one timeout and one nonsense do not stop the others', async () => {
  gateway.script = ({ id }) => {
    if (id === '1000009' || id === '1000010') return { status: 404 };
    if (id === '1000011') return reply('999', 'Delivered');
    if (id === '1000012') return { afterMs: 60_000 };
    if (id === '1000013') return { body: `Request not recognized - xml parse failed. Request text: ${id}` };
    return reply(id, 'Delivered');
  };
  const bad = [];
  for (const gatewayId of ['1000010', '1000011', '1000012', '1000013']) bad.push(await insertSms(db, { gatewayId }));
  const unsendable = await insertSms(db, { gatewayId: '"><x/>' });
  const old = await insertSms(db, { gatewayId: '1000009', age: '20 minutes' });
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(line) });
  const { metrics } = await start({ IP2SMS_TIMEOUT_MS: '300' }, log);
  for (let i = 0; i < 5; i += 1) {
    await statusBecomes(db, await insertSms(db, { gatewayId: `200000${i}` }), 'Delivered');
  }
  for (const result of ['http_4xx', 'mismatch', 'timeout', 'protocol'])
    await until(
      result,
      async () => ((await series(metrics, `smslogd_poll_requests_total{result="${result}"}`)) ?? 0) > 0,
    );
  for (const id of [...bad, unsendable, old])
    expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Accepted' });
  // one that is new is not left for long: the gateway may refuse all for a while
  const rows = await db.sql<{ id: string; slow: boolean }[]>`
    select id, due_at > now() + interval '10 minutes' as slow from smslogd.sms_poll where id in (${bad[0] ?? ''}, ${old}, ${unsendable})`;
  expect(Object.fromEntries(rows.map(({ id, slow }) => [id, slow]))).toEqual({
    [bad[0] ?? '']: false,
    [old]: true,
    [unsendable]: true,
  });
  expect(lines.filter((line) => line.includes('"gateway_id_unsendable"'))).toHaveLength(1);
  expect(gateway.asked.some(({ body }) => body.includes('<x/>'))).toBe(false);
});

test('a row that is deleted or finalised by hand, while it is asked for, leaves the queue and stays as it is', async () => {
  const held: (() => void)[] = [];
  gateway.script = async ({ id }) => {
    await new Promise<void>((resolve) => held.push(resolve));
    return reply(id, 'Delivered');
  };
  const gone = await insertSms(db, { gatewayId: '4000001' });
  const judged = await insertSms(db, { gatewayId: '4000002' });
  await start();
  await until('both to be asked', () => held.length === 2);
  await db.sql`delete from verification.sms_log where id = ${gone}`;
  await db.sql`update verification.sms_log set gateway_status = 'Deleted' where id = ${judged}`;
  for (const release of held) release();
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(await readSms(db, gone)).toBeUndefined();
  expect(await readSms(db, judged)).toMatchObject({ gateway_status: 'Deleted', status_changed_at: null });
});

test('while the gateway is down past the life there is no verdict; when it is back it decides', async () => {
  gateway.script = () => ({ status: 503 });
  const delivered = await insertSms(db, { gatewayId: '5000001' });
  const stuck = await insertSms(db, { gatewayId: '5000002' });
  const { metrics } = await start();
  await endLife(delivered);
  await endLife(stuck);
  await asked('5000001', 1);
  await asked('5000002', 1);
  await until(
    'the counts',
    async () => ((await series(metrics, 'smslogd_poll_requests_total{result="http_5xx"}')) ?? 0) >= 2,
  );
  expect(await readSms(db, delivered)).toMatchObject({ gateway_status: 'Accepted' });
  expect(await readSms(db, stuck)).toMatchObject({ gateway_status: 'Accepted' });
  gateway.script = ({ id }) => reply(id, id === '5000001' ? 'Delivered' : 'Unknown');
  await db.sql`update smslogd.sms_poll set due_at = now(), leased_until = '-infinity'`;
  await statusBecomes(db, delivered, 'Delivered');
  await statusBecomes(db, stuck, 'Terminated');
});

test('what cannot be asked for until it is given up is Terminated, also while the gateway is left alone', async () => {
  gateway.script = () => ({ status: 401 });
  const id = await insertSms(db, { gatewayId: '5000003' });
  const { metrics } = await start();
  await until('the breaker', async () => (await series(metrics, 'smslogd_poll_breaker_open')) === 1);
  expect(gateway.count('5000003')).toBe(1);
  expect(await series(metrics, 'smslogd_poll_requests_total{result="unauthorized"}')).toBe(1);
  await until('the refusal to be noted', async () => {
    return (await db.sql`select from smslogd.sms_poll where last_result = 'unauthorized'`).length === 1;
  });
  await db.sql`update smslogd.sms_poll set give_up_at = now() where id = ${id}`;
  const row = await statusBecomes(db, id, 'Terminated');
  expect(row.status_changed_at).toEqual(row.updated_at);
  expect(gateway.count('5000003')).toBe(1);
});

test('the loop beats while the gateway is left alone', async () => {
  gateway.script = () => ({ status: 403 });
  await insertSms(db, { gatewayId: '5000004' });
  const one = await start();
  await asked('5000004');
  const beats = one.beats;
  await until('beats', () => one.beats > beats + 3);
  expect(gateway.count('5000004')).toBe(1);
});

test('rows past their life that come in are asked for once, and only after what is live', async () => {
  for (let i = 0; i < 20; i += 1) await insertSms(db, { gatewayId: `600000${i}`, age: '3 days' });
  for (let i = 0; i < 20; i += 1) await insertSms(db, { gatewayId: `610000${i}` });
  gateway.script = ({ id }) => reply(id, id.startsWith('60') ? 'Accepted' : 'Delivered');
  await start({ IP2SMS_MAX_CONCURRENCY: '4' });
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  // the last claim of live ones may have places left over
  expect(new Set(gateway.asked.slice(0, 17).map(({ id }) => id.slice(0, 2)))).toEqual(new Set(['61']));
  expect(gateway.asked).toHaveLength(40);
  const rows = await db.sql`select gateway_status, count(*)::int as n from verification.sms_log group by 1 order by 1`;
  expect([...rows]).toEqual([
    { gateway_status: 'Delivered', n: 20 },
    { gateway_status: 'Terminated', n: 20 },
  ]);
});

test('neither young nor old SMS wait while the others have a backlog', async () => {
  for (const [prefix, age] of [
    ['62', '20 minutes'],
    ['63', '3 seconds'],
  ] as const) {
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
                 select '+380000000001', 'text', ${prefix} || lpad(i::text, 5, '0'), 'Accepted', now() - ${age}::text::interval
                   from generate_series(1, 200) i`;
  }
  gateway.script = ({ id }) => reply(id, 'Delivered');
  await start({ IP2SMS_MAX_CONCURRENCY: '8' });
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  const old = gateway.asked.slice(0, 160).filter(({ id }) => id.startsWith('62')).length;
  expect(old).toBeGreaterThan(20);
  expect(old).toBeLessThan(70);
});

test('two pollers on one queue ask for each SMS once in a lease', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               select '+380000000001', 'text', (7000000 + i)::text, 'Accepted', now() - interval '3 seconds' from generate_series(1, 1000) i`;
  gateway.script = ({ id }) => ({ ...reply(id, 'Delivered'), afterMs: 5 });
  await Promise.all([start(), start()]);
  await until('the queue to be empty', async () => (await queueSize(db)) === 0);
  expect(gateway.asked).toHaveLength(1000);
  expect(new Set(gateway.asked.map(({ id }) => id)).size).toBe(1000);
});

test('a stop waits for what is under way, writes it, and gives the rest back at once', async () => {
  const held: (() => void)[] = [];
  gateway.script = async ({ id }) => {
    if (id === '8000001') await new Promise<void>((resolve) => held.push(resolve));
    return id === '8000001' ? reply(id, 'Delivered') : { afterMs: 60_000 };
  };
  const answered = await insertSms(db, { gatewayId: '8000001' });
  const silent = await insertSms(db, { gatewayId: '8000002' });
  const one = await start({ IP2SMS_TIMEOUT_MS: '60000' });
  await asked('8000001');
  await asked('8000002');
  const stopped = one.stop();
  for (const release of held) release();
  await stopped;
  expect(await readSms(db, answered)).toMatchObject({ gateway_status: 'Delivered' });
  const [row] =
    await db.sql`select greatest(due_at, leased_until) <= now() as due, attempt from smslogd.sms_poll where id = ${silent}`;
  expect(row).toEqual({ due: true, attempt: 1 });
});

test('the queue heals: what is open and not queued is queued at the start', async () => {
  const id = await insertSms(db, { gatewayId: '8100001' });
  const old = await insertSms(db, { gatewayId: '8100002', age: '400 days' });
  const final = await insertSms(db, { gatewayId: '8100003', status: 'Expired' });
  await db.sql`truncate smslogd.sms_poll`;
  gateway.script = ({ id: one }) => reply(one, 'Delivered');
  await start();
  await statusBecomes(db, id, 'Delivered');
  await statusBecomes(db, old, 'Delivered');
  expect(await readSms(db, final)).toMatchObject({ gateway_status: 'Expired' });
  expect(gateway.count('8100003')).toBe(0);
});

test('a word that is not known is Unknown, counted and logged, and no line tells more of the SMS than its id', async () => {
  const lines: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) });
  gateway.script = ({ id, body }) =>
    id === '8200001' ? reply(id, 'Levitating') : { body: `Request not recognized: ${body}` };
  const id = await insertSms(db, { gatewayId: '8200001' });
  await insertSms(db, { gatewayId: '8200002' });
  const { metrics } = await start({}, log);
  await statusBecomes(db, id, 'Unknown');
  await until(
    'the fault',
    async () => ((await series(metrics, 'smslogd_poll_requests_total{result="protocol"}')) ?? 0) > 0,
  );
  expect(await series(metrics, 'smslogd_poll_unknown_status_words_total')).toBeGreaterThan(0);
  const line = lines.find((each) => each.includes('Levitating'));
  expect(JSON.parse(line ?? '{}')).toMatchObject({ code: 'unknown_status_word', id, level: 40 });
  expect(lines.join('')).not.toMatch(/820000|38000000|request id/);
});

test('a row whose status is null but whose gateway id is known is open', async () => {
  gateway.script = ({ id }) => reply(id, 'Delivered');
  const id = await insertSms(db, { gatewayId: '8300001', status: null });
  const { metrics } = await start();
  await statusBecomes(db, id, 'Delivered');
  const name = 'smslogd_sms_status_transitions_total{type="medication_request",from="none",to="Delivered"}';
  await until('the count', async () => (await series(metrics, name)) === 1);
  expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Delivered' });
});

test('an SMS whose time is none that can be stops nobody, and gets its status', async () => {
  gateway.script = ({ id }) => reply(id, 'Delivered');
  const ids: string[] = [];
  for (const [i, time] of ['-infinity', 'infinity', '4714-11-24 00:00Z BC', '294276-12-31 23:59:59Z'].entries()) {
    const [row] = await db.sql<{ id: string }[]>`
      insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
      values ('+380000000001', 'text', ${`850000${i}`}, 'Accepted', ${time}::text::timestamptz) returning id`;
    ids.push(row?.id ?? '');
  }
  expect(await queueSize(db)).toBe(ids.length);
  // half of them are healed
  await db.sql`delete from smslogd.sms_poll where gateway_id in ('8500001', '8500003')`;
  await start();
  for (const id of [...ids, await insertSms(db, { gatewayId: '8500009' })]) await statusBecomes(db, id, 'Delivered');
  expect(await queueSize(db)).toBe(0);
});

test("the gateway's certificate files are read at the start: a run after a failure goes on without them", async () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  const file = join(directory, 'ca.crt');
  writeFileSync(file, '');
  const config = db.config({ IP2SMS_URL: gateway.url, IP2SMS_CA_FILE: file });
  const connections = openConnections(config);
  const health = { beat: () => {}, waits: () => {}, pollerProblem: undefined };
  try {
    const poller = createPoller({ config, connections, metrics: createMetrics('test'), log: silentLog, health });
    rmSync(file);
    await expect(poller(AbortSignal.abort())).resolves.toBeUndefined();
  } finally {
    await connections.end();
    rmSync(directory, { recursive: true });
  }
});

test('a rejection is counted by its reason', async () => {
  gateway.script = () => ({ body: `<status date=''><state error='Invalid abonent number'>Rejected</state></status>` });
  const id = await insertSms(db, { gatewayId: '8400001' });
  const { metrics } = await start();
  await statusBecomes(db, id, 'Rejected');
  const final = 'smslogd_sms_final_total{type="medication_request",status="Rejected"}';
  await until('the count', async () => (await series(metrics, final)) === 1);
  expect(await series(metrics, 'smslogd_gateway_rejects_total{reason="invalid_number"}')).toBe(1);
});
