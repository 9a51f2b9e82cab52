/** Many daemons on one queue. `npm run soak:daemons` is the same with 50,000 SMS and says how it went. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FIRST_REQUEST_MS } from '../../src/poller/schedule.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { gatewayDate, reply, startGateway, type Asked, type TestGateway } from '../support/gateway.ts';

const SMS = Number(process.env['SMSLOGD_TEST_SMS'] ?? 2_000);
const DAEMONS = 4;
const TIMEOUT_MS = 5_000;
const SHORTEST_GAP_MS = 0.9 * FIRST_REQUEST_MS;

let db: TestDatabase;
let gateway: TestGateway;
let daemons: Daemon[];

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await gateway.close();
  await db.drop();
});

const loginOf = ({ authorization = '' }: Asked) =>
  Buffer.from(authorization.replace('Basic ', ''), 'base64').toString().split(':', 1)[0]!;

test(
  `${DAEMONS} daemons ask for no SMS twice within a lease, and SIGKILL of all but one loses nothing`,
  async () => {
    const began = performance.now();
    const logins = Array.from({ length: DAEMONS }, (_, n) => `daemon-${n}`);
    const requests = new Map<string, number>();
    const under = new Map<string, Map<string, number>>();
    const last = new Map<string, { readonly login: string; readonly at: number; times: number }>();
    /** until when daemons that were killed before the answer have what they asked for; milliseconds since 1970, by gateway id */
    const leased = new Map<string, number>();
    const tooEarly: string[] = [];
    let held: Promise<void> | undefined;

    gateway = await startGateway(async (asked) => {
      const login = loginOf(asked);
      const before = last.get(asked.id);
      const times = (before?.times ?? 0) + 1;
      requests.set(login, (requests.get(login) ?? 0) + 1);
      if (before !== undefined) {
        const left = before.login === logins[0] ? 0 : (leased.get(asked.id) ?? 0) - Date.now();
        if (left > 0 || asked.at - before.at < SHORTEST_GAP_MS)
          tooEarly.push(
            `${Math.round(asked.at - before.at)} ms after ${before.login}, with ${left} ms of its lease left`,
          );
      }
      last.set(asked.id, { login, at: asked.at, times });
      const mine = under.get(login) ?? new Map<string, number>();
      under.set(login, mine.set(asked.id, asked.at));
      await held;
      mine.delete(asked.id);
      return reply(asked.id, times === 1 ? 'Enroute' : 'Delivered', gatewayDate(new Date()));
    });
    daemons = logins.map((login) =>
      startDaemon(
        db.env({
          LOOPS: 'poller',
          IP2SMS_URL: gateway.url,
          IP2SMS_LOGIN: login,
          IP2SMS_TIMEOUT_MS: String(TIMEOUT_MS),
        }),
      ),
    );
    await Promise.all(daemons.map((daemon) => daemon.url()));
    await db.sql`
      insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
      select '+380000000001', 'text', 'text', (7000000000000 + i)::text, 'Accepted', now() from generate_series(1, ${SMS}::int) i`;
    await until('every daemon to have asked', () => logins.every((login) => (requests.get(login) ?? 0) > SMS / 20));

    const victims = logins.slice(1);
    let release!: () => void;
    held = new Promise((resolve) => {
      release = resolve;
    });
    await until('each victim to wait for an answer', () => victims.every((login) => (under.get(login)?.size ?? 0) > 0));
    // what a stopped daemon has not given up by now it never will
    for (const daemon of daemons.slice(1)) daemon.kill('SIGSTOP');
    const waiting = victims.flatMap((login) => [...under.get(login)!.keys()]);
    const leases = await db.sql<{ id: string; until: number }[]>`
      select gateway_id as id, extract(epoch from leased_until)::float8 * 1000 as until from smslogd.sms_poll
       where gateway_id = any(${waiting}) and leased_until > now()`;
    for (const { id, until: end } of leases) leased.set(id, end);
    expect(leased.size).toBeGreaterThan(0);
    for (const daemon of daemons.slice(1)) daemon.kill('SIGKILL');
    await Promise.all(daemons.slice(1).map((daemon) => daemon.exited));
    held = undefined;
    release();

    await until(
      'every SMS to be final',
      async () => (await db.sql`select from smslogd.sms_poll limit 1`).length === 0,
      90 + SMS / 250,
    );
    const states = await db.sql`select gateway_status, count(*)::int as n from verification.sms_log group by 1`;
    expect([...states]).toEqual([{ gateway_status: 'Delivered', n: SMS }]);
    expect(tooEarly).toEqual([]);
    expect([...leased.keys()].filter((id) => last.get(id)!.login !== logins[0])).toEqual([]);
    if (SMS > 2_000) {
      const seconds = Math.round((performance.now() - began) / 1000);
      process.stdout.write(`${SMS} SMS, requests ${JSON.stringify(Object.fromEntries(requests))}, ${seconds} s\n`);
      process.stdout.write(`${leased.size} were leased by the killed daemons\n`);
    }
  },
  180_000 + SMS * 5,
);

test('a daemon that was frozen past its lease writes nothing of what it had asked for: by now that is another one’s', async () => {
  const ids = ['7100001', '7100002', '7100003'];
  let thaw!: () => void;
  const frozen = new Promise<void>((resolve) => (thaw = resolve));
  const asked = new Map<string, number>();
  gateway = await startGateway(async (one) => {
    const who = `${loginOf(one)} ${one.id}`;
    asked.set(who, (asked.get(who) ?? 0) + 1);
    if (loginOf(one) !== 'frozen' || asked.get(who)! > 1) return reply(one.id, 'Enroute');
    await frozen;
    return reply(one.id, 'Delivered');
  });
  const start = (login: string) =>
    startDaemon(db.env({ LOOPS: 'poller', IP2SMS_URL: gateway.url, IP2SMS_LOGIN: login, IP2SMS_TIMEOUT_MS: '30000' }));
  const first = start('frozen');
  daemons = [first];
  const url = await first.url();
  await db.sql`
    insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
    select '+380000000001', 'text', 'text', id, 'Accepted', now() - interval '5 seconds' from unnest(${ids}::text[]) id`;
  await until('it to ask', () => ids.every((id) => asked.has(`frozen ${id}`)));
  first.kill('SIGSTOP');
  thaw();
  await db.sql`update smslogd.sms_poll set leased_until = '-infinity'`;
  daemons.push(start('other'));
  const states = async () => [...(await db.sql`select distinct gateway_status from verification.sms_log`)];
  const enroute = [{ gateway_status: 'Enroute' }];
  await until('the other one to write', async () => JSON.stringify(await states()) === JSON.stringify(enroute));
  first.kill('SIGCONT');
  await until('what it had asked for to be counted', async () => {
    const text = await (await fetch(`${url}/metrics`)).text();
    const ended = text.matchAll(/^smslogd_poll_requests_total\{result="(?:ok|unchanged)"\} (\d+)/gm);
    return [...ended].reduce((sum, [, n]) => sum + Number(n), 0) >= ids.length;
  });
  expect(await states()).toEqual(enroute);
});
