/** What becomes of an SMS whose life ended while the gateway was down, by what the gateway says when it is back, and what dates are written. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { gatewayDate, reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, readSms, series, startPoller, statusBecomes } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());
beforeEach(async () => {
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  await db.sql`truncate verification.sms_log, smslogd.sms_poll`;
});
afterEach(() => gateway.close());

const whole = (at: number) => new Date(Math.floor(at / 1000) * 1000);
const PAST = whole(Date.now() - 400 * 86_400_000);
const FUTURE = whole(Date.now() + 86_400_000);
/** what is written as status_changed_at */
type Written = 'reply' | 'verdict';

const CASES: [when: string, state: string, date: Date, over: boolean, status: string, written: Written][] = [
  ['past its life', 'Delivered', PAST, true, 'Delivered', 'reply'],
  ['past its life', 'Delivered', FUTURE, true, 'Delivered', 'reply'],
  ['past its life', 'Undeliverable', PAST, true, 'Undeliverable', 'reply'],
  ['past its life', 'Enroute', PAST, true, 'Terminated', 'verdict'],
  ['past its life', 'Enroute', FUTURE, true, 'Terminated', 'verdict'],
  ['past its life', 'Accepted', PAST, true, 'Terminated', 'verdict'],
  ['past its life', 'Levitating', PAST, true, 'Terminated', 'verdict'],
  ['in its life', 'Delivered', PAST, false, 'Delivered', 'reply'],
  ['in its life', 'Delivered', FUTURE, false, 'Delivered', 'reply'],
  ['in its life', 'Enroute', PAST, false, 'Enroute', 'reply'],
  ['in its life', 'Enroute', FUTURE, false, 'Enroute', 'reply'],
  ['in its life', 'Levitating', PAST, false, 'Unknown', 'reply'],
];

test.each(CASES)('the gateway was down and answers %s with %s of %s', async (_, state, date, over, status, written) => {
  gateway.script = () => ({ status: 500 });
  const id = await insertSms(db, { gatewayId: '1000001' });
  const { metrics, stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  try {
    await until('the failure', () => gateway.count('1000001') > 0);
    const before = await readSms(db, id);
    expect(before).toMatchObject({ gateway_status: 'Accepted', status_changed_at: null });
    const life = over ? "- interval '1 second'" : "+ interval '1 hour'";
    await db.sql.unsafe(
      `update smslogd.sms_poll set deadline_at = now() ${life}, due_at = now(), leased_until = '-infinity'`,
    );
    gateway.script = ({ id: one }) => reply(one, state, gatewayDate(date));
    // the failure may be written only now, and put it off
    const row = await statusBecomesSoon(id, status);
    expect(row.status_changed_at).toEqual(written === 'reply' ? date : row.updated_at);
    expect(row.updated_at.getTime()).toBeGreaterThan(before?.updated_at.getTime() ?? Infinity);
    expect(row.inserted_at).toEqual(before?.inserted_at);
    if (status !== 'Delivered') return;
    const negative = date < row.inserted_at ? 1 : 0;
    await until('the count', async () => {
      const count = await series(metrics, 'smslogd_sms_delivery_seconds_count{type="medication_request"}');
      return count === 1;
    });
    expect(await series(metrics, 'smslogd_sms_negative_latency_total')).toBe(negative);
  } finally {
    await stop();
  }
});

test('an answer from within its life that a locked log lets be written only past it is not the last one', async () => {
  const id = await insertSms(db, { gatewayId: '1000001' });
  const blocker = await db.sql.reserve();
  await blocker.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const { stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  try {
    await until('it to be asked', () => gateway.count('1000001') > 0);
    await untilLocked('the answer to wait', db.sql, 'verification.sms_log');
    gateway.script = ({ id: one }) => reply(one, 'Delivered');
    await db.sql`update smslogd.sms_poll set deadline_at = clock_timestamp()`;
    await blocker.unsafe('rollback');
    await statusBecomes(db, id, 'Delivered');
  } finally {
    await stop();
    blocker.release();
  }
});

test('an answer to a question from within its life that a suspended daemon hears only past it is not the last one', async () => {
  let answer: (() => void) | undefined;
  gateway.script = ({ id }) => new Promise((resolve) => (answer = () => resolve(reply(id, 'Accepted'))));
  const id = await insertSms(db, { gatewayId: '1000003', age: '0 seconds' });
  await db.sql`update smslogd.sms_poll set deadline_at = now() + interval '1 minute'`;
  const { stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  let suspended = 0;
  const now = performance.now.bind(performance);
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + suspended);
  try {
    await until('the question', () => answer !== undefined);
    suspended = 60_000;
    await db.sql`update smslogd.sms_poll set deadline_at = clock_timestamp()`;
    gateway.script = ({ id: one }) => reply(one, 'Delivered');
    answer!();
    await statusBecomes(db, id, 'Delivered');
    expect(gateway.count('1000003')).toBe(2);
  } finally {
    await stop();
    clock.mockRestore();
  }
});

test.each([
  ['404', () => ({ status: 404 })],
  ['the status of another SMS', () => reply('999', 'Delivered')],
  ['an error in JSON', () => ({ body: '{"error":"not found"}' })],
])(
  'an id that the gateway does not know past its life (%s) is no answer: the SMS waits until it is given up',
  async (_, answer) => {
    gateway.script = answer;
    const id = await insertSms(db, { gatewayId: '1000002' });
    await db.sql`update smslogd.sms_poll set deadline_at = now() - interval '1 second', due_at = now(), leased_until = '-infinity'`;
    const { stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
    try {
      await until('the result', async () => {
        const [row] = await db.sql<{ known: boolean }[]>`select last_result is not null as known from smslogd.sms_poll`;
        return row?.known === true;
      });
      expect(await readSms(db, id)).toMatchObject({ gateway_status: 'Accepted', status_changed_at: null });
      await db.sql`update smslogd.sms_poll set give_up_at = now()`;
      const row = await statusBecomes(db, id, 'Terminated');
      expect(row.status_changed_at).toEqual(row.updated_at);
    } finally {
      await stop();
    }
  },
);

/** Makes it due again until it has `status`. */
async function statusBecomesSoon(id: string, status: string) {
  await until(`status ${status}`, async () => {
    await db.sql`update smslogd.sms_poll set due_at = now(), leased_until = '-infinity' where last_result is not null and due_at > now() and last_result <> 'ok'`;
    return (await readSms(db, id))?.gateway_status === status;
  });
  return await statusBecomes(db, id, status);
}
