/** Mirror, poller, views and figures in short, as in the field, on Debian's PostgreSQL, which compiles plans (jit). */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { readFacts } from '../../src/figures/readings.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { debianBinaries } from '../support/debian.ts';
import { gatewayDate, reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { startPoller, type Running } from '../support/poller.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

const SMS = 200;
let server: Cluster;
let db: TestDatabase;
let gateway: TestGateway;
let mirror: RunningMirror;
let poller: Running;
beforeAll(async () => {
  server = await createServer({ jit_above_cost: 0 }, { binaries: debianBinaries() });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  gateway = await startGateway((asked) => reply(asked.id, 'Delivered', gatewayDate(new Date())));
});
afterAll(async () => {
  await poller.stop();
  await mirror.stop();
  await gateway.close();
  await db.drop();
  await server.remove();
});

test('SMS are copied, streamed, asked for and counted, and every view answers', async () => {
  expect(await db.sql`select pg_jit_available() as available`).toEqual([{ available: true }]);
  await insertMany(db.sql, SMS / 2);
  mirror = startMirror(db);
  await mirror.streaming();
  poller = await startPoller(db, { IP2SMS_URL: gateway.url });
  await insertMany(db.sql, SMS / 2);
  await until(
    'every SMS to be delivered',
    async () => (await db.sql`select from verification.sms_log where gateway_status = 'Delivered'`).length === SMS,
    40,
  );
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
  await refreshHourly(db.daemon);
  const facts = await readFacts(db.daemon, db.name, 10_000);
  expect(facts.entered).toEqual({ verification: SMS });
  const [stored] = await db.sql`select sum(sms)::int as n from smslogd.sms_hourly where status = 'Delivered'`;
  expect(stored).toEqual({ n: SMS });
  const views = await db.sql<{ view: string }[]>`select smslogd.views()::text as view`;
  expect(views.length).toBeGreaterThan(8);
  for (const { view } of views) await db.sql.unsafe(`set role sms_dba; select * from ${view}; reset role`);
  const [today] = await db.sql`
    select sum(delivered)::int as n from verification.sms_delivery_daily where type = 'verification'`;
  expect(today).toEqual({ n: SMS });
});
