/** A real poller with real rows against every reply of test/support/hostile.ts: none may cost an SMS its true status. */
import { Writable } from 'node:stream';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { createDatabase, until } from '../support/database.ts';
import { healthy, HOSTILE, MARK, ODD, startHostileGateway } from '../support/hostile.ts';
import { insertSms, queueSize, series, startPoller } from '../support/poller.ts';

test('a gateway that says everything but a status costs no SMS anything, and each is completed when it is well again', async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => void warnings.push(warning);
  process.on('warning', note);
  const db = await createDatabase();
  const gateway = await startHostileGateway();
  let log = '';
  const stream = new Writable({
    write: (chunk, _, done) => {
      log += String(chunk);
      done();
    },
  });
  const cases = new Map(Object.values(HOSTILE).map((hostile, at) => [String(7_000_001 + at), hostile]));
  const odd = new Map(Object.values(ODD).map((each, at) => [String(8_000_001 + at), each]));
  gateway.answer = (id) => cases.get(id) ?? odd.get(id) ?? healthy;
  for (const gatewayId of [...cases.keys(), ...odd.keys()]) await insertSms(db, { gatewayId });
  const { metrics, stop } = await startPoller(
    db,
    { IP2SMS_URL: gateway.url, IP2SMS_TIMEOUT_MS: '500', IP2SMS_PASSWORD: 'a-secret' },
    pino({ level: 'trace' }, stream),
  );
  const statuses = async () =>
    await db.sql<{ gateway_id: string; gateway_status: string; queued: boolean }[]>`
      select l.gateway_id, gateway_status, p.due_at < 'infinity' and p.attempt > 0 as queued
        from verification.sms_log l left join smslogd.sms_poll p using (id)`;
  // in id order, as the poller locks them
  const dueNow = async () =>
    void (await db.sql`with held as materialized (select id from smslogd.sms_poll order by id for update)
                       update smslogd.sms_poll p set due_at = now() from held where p.id = held.id`);
  try {
    await until(
      'each to be asked for, over pauses of the breaker, and the odd ones to be read',
      async () => [...cases.keys()].every((id) => gateway.asked.has(id)) && (await queueSize(db)) === cases.size,
      60,
    );
    for (const row of await statuses()) {
      const open = cases.has(row.gateway_id);
      expect(row).toMatchObject({ gateway_status: open ? 'Accepted' : 'Delivered', queued: open ? true : null });
    }
    gateway.answer = () => healthy;
    await until(
      'all to be Delivered',
      async () => {
        await dueNow();
        return (await queueSize(db)) === 0;
      },
      60,
    );
    for (const row of await statuses()) expect(row).toMatchObject({ gateway_status: 'Delivered' });
    expect(await series(metrics, 'smslogd_poll_requests_total{result="protocol"}')).toBeGreaterThan(30);
  } finally {
    await stop();
  }
  await until('no connection to be open', () => gateway.open === 0);
  const shown = log + (await metrics.registry.metrics());
  expect(log).toContain('"gateway_protocol"');
  expect(shown).not.toMatch(new RegExp(`${MARK}|a-secret|\\b[78]0000\\d\\d\\b|\\+38000`));
  expect(gateway.trapped).toBe(0);
  expect(gateway.mostWritten).toBeLessThan(32 * 1024 * 1024);
  expect(warnings).toEqual([]);
  process.off('warning', note);
  await gateway.close();
  await db.drop();
});
