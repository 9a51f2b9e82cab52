/** What the poller cannot do: a row that the database refuses, a claim whose daemon died, a run that fails. None of it stops the rest. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createHealth } from '../../src/health.ts';
import { openConnections } from '../../src/postgres/connections.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPoller } from '../../src/poller/poller.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { insertSms, readSms, series, startPoller, statusBecomes } from '../support/poller.ts';
import { startProxy } from '../support/proxy.ts';

let db: TestDatabase;
let gateway: TestGateway;

beforeEach(async () => {
  db = await createDatabase();
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
});
afterEach(async () => {
  await gateway.close();
  await db.drop();
});

/** From now on the log takes no update of the SMS `id`. */
async function refuseUpdates(id: string): Promise<void> {
  await db.sql.unsafe(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
    create trigger refuse before update on verification.sms_log for each row when (old.id = '${id}') execute function refuse()`);
}

/** From now on the first two updates of the queue that put an SMS off by `column` are victims of a deadlock; returns how many were tried. */
async function losePuttingOff(column: 'due_at' | 'give_up_at'): Promise<() => Promise<number | undefined>> {
  await db.sql.unsafe(`
    create sequence tries;
    grant usage on sequence tries to public;
    create function lose() returns trigger language plpgsql as $$
    begin
      if nextval('tries') <= 2 then raise exception 'deadlock' using errcode = '40P01'; end if;
      return new;
    end $$;
    create trigger lose before update on smslogd.sms_poll for each row when (new.${column} > now() + interval '10 minutes' and new.${column} > old.${column})
      execute function lose()`);
  return async () => (await db.sql<{ n: number }[]>`select last_value::int as n from tries`)[0]?.n;
}

const failures = (metrics: Parameters<typeof series>[0]) => series(metrics, 'smslogd_errors_total{code="row_refused"}');

test('an SMS that the database refuses to give up keeps no other from it, and is tried again later', async () => {
  gateway.script = () => ({ status: 503 });
  const ids = [];
  for (const gatewayId of ['9100001', '9100002', '9100003']) ids.push(await insertSms(db, { gatewayId }));
  const [first = '', second = '', third = ''] = ids.sort();
  await refuseUpdates(second);
  await db.sql`update smslogd.sms_poll set give_up_at = now()`;
  const tries = await losePuttingOff('give_up_at');
  const { metrics, stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  await statusBecomes(db, first, 'Terminated');
  await statusBecomes(db, third, 'Terminated');
  await until('the failure to be counted', async () => (await failures(metrics)) === 1);
  expect(await readSms(db, second)).toMatchObject({ gateway_status: 'Accepted' });
  await until('it to be put off', async () => {
    const [row] = await db.sql<{ later: boolean }[]>`select give_up_at > now() as later from smslogd.sms_poll`;
    return row?.later === true;
  });
  await stop();
  expect(await tries()).toBe(3);
});

test('an SMS that the database refuses to call Unaccepted keeps no other from it, and is tried again later', async () => {
  const ids = [];
  for (let i = 0; i < 3; i += 1) ids.push(await insertSms(db, { type: 'verification', age: '36 minutes' }));
  const [first = '', second = '', third = ''] = ids;
  await refuseUpdates(second);
  const tries = await losePuttingOff('due_at');
  const { metrics, stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  await statusBecomes(db, first, 'Unaccepted');
  await statusBecomes(db, third, 'Unaccepted');
  await until('the failure to be counted', async () => (await failures(metrics)) === 1);
  expect(await readSms(db, second)).toMatchObject({ gateway_status: null });
  await until('it to be put off', async () => {
    const [row] = await db.sql<{ later: boolean }[]>`
      select due_at > now() + interval '10 minutes' as later from smslogd.sms_poll`;
    return row?.later === true;
  });
  await stop();
  expect(await tries()).toBe(3);
});

test('an SMS whose answer the database refuses keeps no other from theirs, and is tried again later', async () => {
  gateway.script = ({ id }) => reply(id, 'Delivered');
  const ids: string[] = [];
  for (let i = 0; i < 6; i += 1) ids.push(await insertSms(db, { gatewayId: `900000${i}` }));
  await refuseUpdates(ids[3]!);
  const tries = await losePuttingOff('due_at');
  const { metrics, stop } = await startPoller(db, { IP2SMS_URL: gateway.url });
  for (const [i, id] of ids.entries()) if (i !== 3) await statusBecomes(db, id, 'Delivered');
  await until('the failure to be counted', async () => (await failures(metrics)) === 1);
  await until('it to be put off', async () => {
    const rows = await db.sql`select id from smslogd.sms_poll where due_at > now() + interval '10 minutes'`;
    return rows[0]?.['id'] === ids[3];
  });
  await stop();
  expect(await readSms(db, ids[3]!)).toMatchObject({ gateway_status: 'Accepted' });
  expect(await tries()).toBe(3);
});

test('a claim whose daemon dies is due again by the schedule, but past its life as soon as the lease is over', async () => {
  const live = await insertSms(db, { gatewayId: '9200001', age: '30 minutes' });
  const past = await insertSms(db, { gatewayId: '9200002', age: '3 days' });
  const ended = await insertSms(db, { gatewayId: '9200003', age: '20 minutes' });
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  await db.sql`update smslogd.sms_poll set deadline_at = now() where id = ${ended}`;
  const store = createPollerStore(db.daemon, 20_000);
  expect((await store.claim({ total: 10, old: 10, past: 10 }, [null, null, null])).rows).toHaveLength(3);
  const rows = await db.sql<{ id: string; seconds: number }[]>`
    select id, extract(epoch from greatest(due_at, leased_until) - now())::float8 as seconds from smslogd.sms_poll`;
  const waits = (id: string) => rows.find((row) => row.id === id)?.seconds ?? -1;
  expect(waits(live)).toBeGreaterThan(40);
  for (const id of [past, ended]) {
    expect(waits(id)).toBeGreaterThan(0);
    expect(waits(id)).toBeLessThanOrEqual(20);
  }
});

test('an SMS that is given back without an answer is not the next one again', async () => {
  for (const gatewayId of ['9400001', '9400002', '9400003']) await insertSms(db, { gatewayId });
  await db.sql`update smslogd.sms_poll set due_at = now() - interval '1 second'`;
  const store = createPollerStore(db.daemon, 20_000);
  const claimed = new Set<string>();
  for (let i = 0; i < 3; i += 1) {
    const [row] = (await store.claim({ total: 1, old: 0, past: 0 }, [null, null, null])).rows;
    claimed.add(row!.id);
    const { id, attempt, gatewayId } = row!;
    await store.completeClaims([
      { id, attempt, gatewayId: gatewayId ?? '', result: null, status: null, date: null, gapMs: 0 },
    ]);
  }
  expect(claimed.size).toBe(3);
});

test('a second run still leaves a gateway alone that refused the login', async () => {
  gateway.script = () => ({ status: 401 });
  await insertSms(db, { gatewayId: '9300001' });
  const config = db.config({ IP2SMS_URL: gateway.url });
  const connections = openConnections(config);
  const metrics = createMetrics('test');
  let beats = 0;
  const health = { beat: () => void (beats += 1), waits: () => {}, pollerProblem: undefined };
  const poller = createPoller({ config, connections, metrics, log: silentLog, health });
  for (let run = 0; run < 2; run += 1) {
    const abort = new AbortController();
    const done = poller(abort.signal);
    await until('the refusal', async () => (await series(metrics, 'smslogd_poll_breaker_open')) === 1);
    const before = beats;
    await until('it to turn', () => beats > before + 2);
    abort.abort();
    await done;
  }
  await connections.end();
  expect(gateway.asked).toHaveLength(1);
});

test('a run that works again says so also while the gateway is left alone and nothing is claimed', async () => {
  gateway.script = () => ({ status: 401 });
  await insertSms(db, { gatewayId: '9300002' });
  const connections = openConnections(db.config({ IP2SMS_URL: gateway.url }));
  const metrics = createMetrics('test');
  const health = createHealth(metrics, ['poller']);
  const config = db.config({ IP2SMS_URL: gateway.url });
  const poller = createPoller({ config, connections, metrics, log: silentLog, health });
  const stop = new AbortController();
  const first = poller(stop.signal);
  await until('the refusal', async () => (await series(metrics, 'smslogd_poll_breaker_open')) === 1);
  await db.sql`alter table smslogd.sms_poll rename to elsewhere`;
  await expect(first).rejects.toThrow('does not exist');
  expect(health.pollerProblem).toBeDefined();
  await db.sql`alter table smslogd.elsewhere rename to sms_poll`;
  const second = poller(stop.signal);
  await until('it to be well', () => health.pollerProblem === undefined);
  expect(gateway.asked).toHaveLength(1);
  stop.abort();
  await second;
  await connections.end();
});

test('while the database cannot be reached it waits, and is not taken for dead: nobody must restart it for that', async () => {
  const config = db.config({ IP2SMS_URL: gateway.url, DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' });
  const connections = openConnections(config);
  const metrics = createMetrics('test');
  let now = 0;
  const health = createHealth(metrics, ['poller'], () => now);
  const poller = createPoller({ config, connections, metrics, log: silentLog, health });
  await expect(poller(new AbortController().signal)).rejects.toThrow('ECONNREFUSED');
  now += 3_600_000;
  expect(health.silentLoops()).toEqual([]);
  await connections.end();
});

test('where the path to the database dies in silence, or sessions stay read only, a run ends, and a later one works', async () => {
  const url = new URL(db.url);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  const config = db.config({ IP2SMS_URL: gateway.url, DATABASE_URL: url.href });
  // longer than a claim is away from the next one: where no statement waits for its answer none fails
  const connections = openConnections(config, { lookMs: 100, stallMs: 1_500 });
  let beats = 0;
  const health = { beat: () => void (beats += 1), waits: () => {}, pollerProblem: undefined };
  const metrics = createMetrics('test');
  const poller = createPoller({ config, connections, metrics, log: silentLog, health, longestIdleMs: 500 });
  const stop = new AbortController();
  const watch = connections.watch(stop.signal);
  const first = poller(stop.signal);
  await until('it to turn', () => beats > 2);
  proxy.stall();
  await expect(first).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
  await db.sql.unsafe(`alter database ${db.name} set default_transaction_read_only = on`);
  await expect(poller(stop.signal)).rejects.toMatchObject({ code: '25006' });
  await db.sql.unsafe(`alter database ${db.name} reset default_transaction_read_only`);
  // a connection that was in the making may be read only still, which ends one run more
  const last = (async () => {
    for (;;) {
      const error = await poller(stop.signal).catch((failure: unknown) => failure as { code: string });
      if (error === undefined) return;
      expect(['25006', 'CONNECT_TIMEOUT', 'CONNECTION_CLOSED']).toContain(error.code);
    }
  })();
  await statusBecomes(db, await insertSms(db, { gatewayId: '9500001' }), 'Enroute');
  stop.abort();
  await Promise.all([last, watch]);
  await connections.end();
  await proxy.close();
});
