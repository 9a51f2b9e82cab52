/** What a first copy or a repair brings of the past gets its verdict like all else, and is no traffic: no counter that alerts look at grows by it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { gatewayDate, reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, queueSize, startPoller, type Running } from '../support/poller.ts';

let db: TestDatabase;
let gateway: TestGateway;
let running: Running;

beforeAll(async () => {
  db = await createDatabase();
  const now = gatewayDate(new Date());
  gateway = await startGateway(({ id }) =>
    reply(id, id.startsWith('7') ? 'Enroute' : id.startsWith('8') ? 'Delivered' : 'Rejected', now),
  );
});
afterAll(async () => {
  await running.stop();
  await gateway.close();
  await db.drop();
});

/** The series of these counters that are not 0, without the type. */
async function counted(): Promise<Record<string, number>> {
  const text = await running.metrics.registry.metrics();
  const names =
    /^smslogd_(sms_final_total|sms_status_transitions_total|sms_delivery_seconds_count|gateway_rejects_total|sms_negative_latency_total)/;
  return Object.fromEntries(
    text
      .split('\n')
      .filter((line) => names.test(line) && !line.endsWith(' 0'))
      .map((line) => [
        line.slice('smslogd_'.length, line.lastIndexOf(' ')).replace(/type="[^"]*",?/, ''),
        Number(line.split(' ').at(-1)),
      ]),
  );
}

test('old SMS become Terminated, Delivered, Rejected and Unaccepted, and only those of now are counted', async () => {
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
    select '+380000000001', 'text', case when g % 4 > 0 then (6 + g % 4)::text || (1000000 + g) end,
           case when g % 4 > 0 then 'Accepted' end, now() - interval '10 days' - g * interval '1 minute' from generate_series(1, 400) g`;
  const old = await insertSms(db, { gatewayId: '9000001', age: '71 minutes' });
  // past its life, and of this hour
  await insertSms(db, { gatewayId: '7000001', age: '50 minutes' });
  await insertSms(db, { age: '36 minutes' });
  await insertSms(db, { gatewayId: '8000001' });
  // asked for once, and never answered
  await db.sql`update smslogd.sms_poll set give_up_at = now(), attempt = 1 where id = ${old}`;
  running = await startPoller(db, { IP2SMS_URL: gateway.url });
  await until('all verdicts', async () => (await queueSize(db)) === 0);
  const rows =
    await db.sql`select gateway_status as status, count(*)::int as rows from verification.sms_log group by 1 order by 1`;
  expect(rows.map((row) => row['status'])).toEqual(['Delivered', 'Rejected', 'Terminated', 'Unaccepted']);
  await until('the counts', async () => (await counted())['sms_final_total{status="Delivered"}'] === 1);
  expect(await counted()).toEqual({
    'sms_status_transitions_total{from="Accepted",to="Delivered"}': 1,
    'sms_status_transitions_total{from="Accepted",to="Terminated"}': 1,
    'sms_status_transitions_total{from="none",to="Unaccepted"}': 1,
    'sms_final_total{status="Delivered"}': 1,
    'sms_final_total{status="Terminated"}': 1,
    'sms_final_total{status="Unaccepted"}': 1,
    'sms_delivery_seconds_count{}': 1,
  });
});
