import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { openDatabase } from '../../src/db.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import { runPoller } from '../../src/poller/poller.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { gatewayDate, reply, startGateway, type TestGateway } from '../support/gateway.ts';

let db: TestDatabase;
let gateway: TestGateway;
let stops: (() => Promise<void>)[] = [];

beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());
beforeEach(async () => {
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  await db.sql`truncate verification.sms_log, smslogd.sms_poll, verification.verifications`;
});
afterEach(async () => {
  for (const stop of stops) await stop();
  stops = [];
  await gateway.close();
});

interface Running {
  metrics: Metrics;
  stop: () => Promise<void>;
}

function start(more: Record<string, string> = {}): Running {
  const config = db.config({ IP2SMS_URL: gateway.url, ...more });
  const sql = openDatabase(config, { max: 4, name: 'poller' });
  const metrics = createMetrics('test');
  const abort = new AbortController();
  const done = runPoller({ config, sql, metrics, log: silentLog, health: { beat: () => {} } }, abort.signal);
  done.catch(() => {});
  let stopped: Promise<void> | undefined;
  const stop = () => {
    abort.abort();
    stopped ??= (async () => {
      try {
        await done;
      } finally {
        await sql.end({ timeout: 1 });
      }
    })();
    return stopped;
  };
  stops.push(stop);
  return { metrics, stop };
}

interface Row {
  id: string;
  gateway_status: string | null;
  status_changed_at: Date | null;
  updated_at: Date;
}

/** Inserts an SMS as another service does. `age` is an interval. */
async function insert(gatewayId: string | null, age = '3 seconds', type = 'medication_request'): Promise<string> {
  const [row] = await db.sql<{ id: string }[]>`
    insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
    values ('+380000000001', ${type}, 'text', ${gatewayId}, ${gatewayId === null ? null : 'Accepted'}, now() - ${age}::text::interval)
    returning id`;
  return row?.id ?? '';
}

async function read(id: string): Promise<Row | undefined> {
  const [row] = await db.sql<Row[]>`select * from verification.sms_log where id = ${id}`;
  return row;
}

async function becomes(id: string, status: string): Promise<Row> {
  await until(`status ${status}`, async () => (await read(id))?.gateway_status === status);
  return (await read(id)) as Row;
}

async function queued(): Promise<number> {
  const [row] = await db.sql<{ n: number }[]>`select count(*)::int as n from smslogd.sms_poll`;
  return row?.n ?? -1;
}

test('an SMS that another service inserts becomes Enroute, then Delivered with the date of the reply, and leaves the queue', async () => {
  const { metrics } = start();
  const id = await insert('1234567');
  expect((await becomes(id, 'Enroute')).status_changed_at).toEqual(new Date('2007-03-28T09:35:00Z'));
  const date = new Date(Math.floor(Date.now() / 1000) * 1000);
  gateway.script = ({ id: asked }) => reply(asked, 'Delivered', gatewayDate(date));
  expect((await becomes(id, 'Delivered')).status_changed_at).toEqual(date);
  expect(await queued()).toBe(0);
  await until('the count', async () => /from="Enroute",to="Delivered"} 1/.test(await metrics.registry.metrics()));
  const text = await metrics.registry.metrics();
  expect(text).toContain(
    'smslogd_sms_status_transitions_total{type="medication_request",from="Accepted",to="Enroute"} 1',
  );
  expect(text).toContain('smslogd_sms_final_total{type="medication_request",status="Delivered"} 1');
  expect(text).toContain('smslogd_sms_delivery_seconds_count{type="medication_request"} 1');
});
