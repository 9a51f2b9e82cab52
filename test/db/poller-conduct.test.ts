/** How a whole poller behaves to a gateway that is dead or answers nonsense, seen by a gateway that counts. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { factsOf, readStatus } from '../../src/page/from-database.ts';
import { createSettling } from '../../src/page/settling.ts';
import { createDatabase, until, untilLocked, untilNone, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, queueSize, series, startPoller, statusBecomes, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running;
const lines: string[] = [];

beforeEach(async () => {
  db = await createDatabase();
  lines.length = 0;
  gateway = await startGateway(({ id }) => reply(id, 'Delivered'));
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               select '+380000000001', 'text', (7000000 + i)::text, 'Accepted', now() - interval '3 seconds' from generate_series(1, 200) i`;
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  await running.stop();
  await gateway.close();
  await db.drop();
});

async function start(env: Record<string, string> = {}): Promise<void> {
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  running = await startPoller(db, { IP2SMS_URL: gateway.url, ...env }, log);
}

const said = (text: string) => lines.filter((line) => line.includes(text));

async function allAnswered(): Promise<void> {
  await untilNone('all to be answered', async () => {
    await db.sql`update smslogd.sms_poll set due_at = now() where last_result is not null and due_at > now()`;
    return await queueSize(db);
  });
}

test('a gateway that resets every connection is tried by single requests, and when it is back all are answered', async () => {
  gateway.script = () => 'reset';
  await start();
  const openings = 'smslogd_errors_total{code="gateway_unreachable"}';
  await until('three tries', async () => ((await series(running.metrics, openings)) ?? 0) >= 4);
  // the first ones that were under way together, then three tries; each once more at once
  expect(gateway.asked.length).toBeLessThanOrEqual(2 * (8 + 8 + 3));
  expect(said('"gateway_unreachable"')).toEqual([
    expect.stringMatching(/does not answer \((ECONNRESET|UND_ERR_SOCKET)\)/),
  ]);
  gateway.script = ({ id }) => reply(id, 'Delivered');
  await allAnswered();
  expect(said('the gateway answers again')).toHaveLength(1);
});

test('with IP2SMS_MAX_RPS no more requests begin in a second, however many SMS are due', async () => {
  await start({ IP2SMS_MAX_RPS: '1' });
  await until('the third request', () => gateway.asked.length >= 3);
  const times = gateway.asked.map(({ at }) => at);
  // two seconds, but for what the way to the gateway took
  expect(times[2]! - times[0]!).toBeGreaterThan(1_000);
});

test('answers about other SMS are said once, and each is counted', async () => {
  gateway.script = () => reply('999', 'Delivered');
  await start();
  const mismatches = () => series(running.metrics, 'smslogd_poll_requests_total{result="mismatch"}');
  await untilNone('all to be asked for', async () => Math.max(0, 200 - ((await mismatches()) ?? 0)));
  expect(said('the gateway answered about another SMS')).toHaveLength(1);
  expect(await series(running.metrics, 'smslogd_errors_total{code="gateway_protocol"}')).toBeGreaterThanOrEqual(200);
  expect(lines.join('')).not.toMatch(/70000\d\d|38000000/);
});

test('429 with Retry-After: nobody asks before that, then all are asked for; it is said once, as what it is', async () => {
  gateway.script = () => ({ status: 429, headers: { 'retry-after': '3' } });
  await start();
  await until('the pause', () => said('"gateway_busy"').length === 1);
  gateway.script = ({ id }) => reply(id, 'Delivered');
  await allAnswered();
  const times = gateway.asked.map(({ at }) => at);
  const pause = times.findIndex((at, i) => at - (times[i - 1] ?? at) > 1_500);
  // those that were under way together
  expect(pause).toBeGreaterThanOrEqual(1);
  expect(pause).toBeLessThanOrEqual(8);
  expect(said('"gateway_busy"')).toHaveLength(1);
  expect(said('does not answer')).toHaveLength(0);
  expect(said('the gateway answers again')).toHaveLength(1);
  expect(await series(running.metrics, 'smslogd_poll_breaker_open')).toBe(0);
});

test('a pause of the gateway ends no SMS that was to be given up while nobody asked: when it is over all are asked for', async () => {
  await db.sql`update smslogd.sms_poll set sent_at = now() - interval '4 days', deadline_at = now() - interval '4 days', give_up_at = now()`;
  gateway.script = () => ({ status: 429, headers: { 'retry-after': '300' } });
  await start();
  await until('the pause', () => said('"gateway_busy"').length === 1);
  await until('what was under way', async () => (await series(running.metrics, 'smslogd_poll_in_flight')) === 0);
  gateway.script = ({ id }) => reply(id, 'Delivered');
  // it was asked for in vain: once it is given up, the others have been looked at
  const inVain = await insertSms(db, { gatewayId: '9000001' });
  await db.sql`update smslogd.sms_poll set attempt = 1, give_up_at = now(), due_at = now() + interval '1 hour' where id = ${inVain}`;
  await statusBecomes(db, inVain, 'Terminated');
  running.tryNow();
  await untilNone('all to be answered', () => queueSize(db));
  expect(await db.sql`select from verification.sms_log where gateway_status = 'Delivered'`).toHaveLength(200);
});

test.each([
  [{ status: 401 }, 'gateway_unauthorized'],
  ['reset', 'gateway_unreachable'],
] as const)(
  'after %o the database alone tells of it, however many open SMS had answers before',
  async (fault, trouble) => {
    gateway.script = ({ id }) => reply(id, 'Accepted');
    await start();
    await untilNone('all to be answered', async () => {
      const [row] = await db.sql<
        { n: number }[]
      >`select count(*)::int as n from smslogd.sms_poll where last_result is null`;
      return row!.n;
    });
    gateway.script = () => fault;
    await db.sql`update smslogd.sms_poll set due_at = now()`;
    await until('the breaker', () => said(`"${trouble}"`).length > 0);
    await db.sql`update verification.sms_log set updated_at = now() - interval '2 minutes'`;
    const config = db.config({});
    await until('the trouble', async () => {
      const { gateway: seen } = factsOf(await readStatus(db.sql, config), undefined, {
        config,
        version: 'test',
        settling: createSettling(),
      });
      return seen.trouble === trouble;
    });
  },
);

test('an id that alone is refused keeps nobody else waiting: after the pause others are asked for first', async () => {
  gateway.script = ({ id }) => (id === '7000001' ? { status: 403 } : reply(id, 'Delivered'));
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '20 minutes' where gateway_id <> '7000001'`;
  await start();
  await until('the refusal to be noted', async () => {
    return (await db.sql`select from smslogd.sms_poll where last_result = 'unauthorized'`).length === 1;
  });
  await db.sql`update smslogd.sms_poll set due_at = now() where due_at > now() + interval '10 minutes'`;
  running.tryNow();
  await untilNone('all others to be answered', async () => (await queueSize(db)) - 1);
  expect(gateway.count('7000001')).toBeLessThanOrEqual(2);
});

test.each([
  ['SIGHUP', async () => running.tryNow()],
  [
    'a restart',
    async () => {
      await running.stop();
      await start();
    },
  ],
  ['a change of the login', async (password: string) => writeFileSync(password, 'right')],
])('what was refused is asked for at once after %s, also where nothing else is due', async (_, again) => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  const password = join(directory, 'password');
  writeFileSync(password, 'wrong');
  vi.stubEnv('IP2SMS_PASSWORD_FILE', password);
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '20 minutes' where gateway_id <> '7000001'`;
  gateway.script = () => ({ status: 401 });
  try {
    await start();
    await until('the refusal to be noted', async () => {
      return (await db.sql`select from smslogd.sms_poll where last_result = 'unauthorized'`).length === 1;
    });
    // the longest pause of a refusal
    await db.sql`update smslogd.sms_poll set due_at = now() + interval '15 minutes' where gateway_id = '7000001'`;
    gateway.script = ({ id }) => reply(id, 'Delivered');
    await again(password);
    // by itself after a minute
    await until('it to be answered', async () => (await queueSize(db)) === 199, 30);
  } finally {
    vi.unstubAllEnvs();
    rmSync(directory, { recursive: true });
  }
});

/** The troubles that the metrics tell now. */
const troubles = async () =>
  (await running.metrics.gatewayTrouble.get()).values
    .filter(({ value }) => value === 1)
    .map(({ labels }) => labels.code);

test('a password that is corrected is tried at once, also where a symbolic link leads to another file', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  // as Kubernetes mounts a secret
  const mount = (name: string, password: string) => {
    mkdirSync(join(directory, name));
    writeFileSync(join(directory, name, 'password'), password);
    symlinkSync(name, join(directory, 'next'));
    renameSync(join(directory, 'next'), join(directory, '..data'));
  };
  mount('first', 'wrong');
  symlinkSync('..data/password', join(directory, 'password'));
  vi.stubEnv('IP2SMS_PASSWORD_FILE', join(directory, 'password'));
  const right = `Basic ${Buffer.from('login:right').toString('base64')}`;
  gateway.script = ({ id, authorization }) => (authorization === right ? reply(id, 'Delivered') : { status: 401 });
  try {
    await start();
    await until('the refusal', () => said('"gateway_unauthorized"').length === 1);
    expect(await troubles()).toEqual(['gateway_unauthorized']);
    await until('all that were under way', async () => (await series(running.metrics, 'smslogd_poll_in_flight')) === 0);
    const asked = gateway.asked.length;
    // a wrong one is tried once
    mount('second', 'wrong, too');
    await until('a try', () => gateway.asked.length > asked);
    mount('third', 'right');
    await allAnswered();
    expect(gateway.asked.filter(({ authorization }) => authorization !== right)).toHaveLength(asked + 1);
    expect(await troubles()).toEqual([]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('while answers cannot be written SMS are asked for until two thousand of them wait, and then no more', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               select '+380000000001', 'text', (7001000 + i)::text, 'Accepted', now() - interval '3 seconds' from generate_series(1, 2800) i`;
  await db.sql.begin(async (sql) => {
    await sql`lock table verification.sms_log in exclusive mode`;
    await start();
    let last = { asked: 0, beats: 0 };
    await until('the poller to turn without a question', () => {
      const asked = gateway.asked.length;
      if (asked > last.asked) last = { asked, beats: running.beats };
      return asked >= 2_000 && running.beats >= last.beats + 20;
    });
    // beside them two batches are being written, and the last claim has had all places
    expect(last.asked).toBeLessThanOrEqual(2_000 + 2 * 200 + 64);
  });
  await allAnswered();
  expect(gateway.asked).toHaveLength(3_000);
});

test('of a claim that took half of its lease nothing is asked for: its SMS are given back, and claimed again', async () => {
  const attempts: unknown[] = [];
  gateway.script = async ({ id }) => {
    attempts.push((await db.sql`select attempt from smslogd.sms_poll where gateway_id = ${id}`)[0]?.['attempt']);
    return reply(id, 'Delivered');
  };
  let late = 0;
  const now = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => now() + late);
  await db.sql.begin(async (sql) => {
    await sql`lock table smslogd.sms_poll in access exclusive mode`;
    await start();
    await untilLocked('the claim', db.sql, 'smslogd.sms_poll');
    late = 6_000;
  });
  await allAnswered();
  expect(attempts.filter((attempt) => attempt === 2)).toHaveLength(8);
});
