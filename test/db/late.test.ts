/** Gateway ids that come after the row: found by a look at the source, whatever else goes on. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDatabase } from '../../src/postgres/pools.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { fillGatewayIds } from '../../src/reconcile/gateway-ids.ts';
import { createStore } from '../../src/mirror/store.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource, type Source } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror, nextTerm } from '../support/mirror.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirror: RunningMirror | undefined;

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  await mirror?.stop();
  mirror = undefined;
  await db.drop();
});

const without = { gateway_id: null, gateway_status: null };
const give = (id: string, gatewayId: string) =>
  db.sql`update verification.verifications set gateway_id = ${gatewayId}, gateway_status = 'Accepted' where id = ${id}`;
const logged = async () => (await db.sql`select from verification.sms_log`).length;
const has = (id: string, gatewayId: string) =>
  until(
    `the gateway id ${gatewayId}`,
    async () =>
      (await db.sql`select from verification.sms_log where id = ${id} and gateway_id = ${gatewayId}`).length === 1,
  );

/** Three rows that wait, in id order. */
async function threeWait(): Promise<[string, string, string]> {
  mirror = startMirror(db);
  await mirror.streaming();
  const rows = [
    await insertVerification(db.sql, without),
    await insertVerification(db.sql, without),
    await insertVerification(db.sql, without),
  ];
  await until('the rows', async () => (await logged()) === 3);
  return rows.map(({ id }) => id).toSorted() as [string, string, string];
}

test('one that the log refuses is said once and keeps nobody else from its own', async () => {
  const [first, second, third] = await threeWait();
  await db.sql`create unique index once on verification.sms_log (gateway_id)`;
  await give(first, '1111111');
  await has(first, '1111111');
  await give(second, '1111111');
  await give(third, '3333333');
  await has(third, '3333333');
  const next = await insertVerification(db.sql, without);
  await until('the next row', async () => (await logged()) === 4);
  await give(next.id, '4444444');
  await has(next.id, '4444444');
  expect(mirror?.health.mirrorState).toBe('streaming');
  const counted = (await mirror!.metrics.errors.get()).values.find(({ labels }) => labels.code === 'row_refused');
  expect(counted?.value).toBe(1);
});

test('a row of the log that somebody holds keeps nobody else from its own', async () => {
  const [first, second, third] = await threeWait();
  const session = await db.sql.reserve();
  await session`begin`;
  await session`select from verification.sms_log where id = ${second} for update`;
  for (const [id, gatewayId] of [
    [first, '1111111'],
    [second, '2222222'],
    [third, '3333333'],
  ] as const)
    await give(id, gatewayId);
  await has(third, '3333333');
  await has(first, '1111111');
  await session`rollback`;
  session.release();
  await has(second, '2222222');
});

test('they are found where the column came under a running daemon', async () => {
  await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
  mirror = startMirror(db);
  await mirror.streaming();
  await db.sql`alter table verification.verifications add column gateway_id text, add column gateway_status text`;
  await until(
    'the daemon to know it',
    async () => (await db.sql`select from smslogd.settings where tracked_since < 'infinity'`).length === 1,
  );
  await mirror.streaming();
  const { id } = await insertVerification(db.sql, { ...without, inserted_at: new Date().toISOString() });
  await until('the row', async () => (await logged()) === 1);
  await give(id, '1111111');
  await has(id, '1111111');
});

test('they are found where they came with the column, and an audit that did not know it yet has passed over them', async () => {
  await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
  mirror = startMirror(db);
  await mirror.streaming();
  const [row] = await db.sql<{ id: string }[]>`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, inserted_at)
    values (gen_random_uuid(), '+380000000001', 1, 'new', 1234, now(), now() at time zone 'UTC' - interval '1 month') returning id`;
  await until('the row', async () => (await logged()) === 1);
  await mirror.stop();
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  await db.sql`alter table verification.verifications add column gateway_id text, add column gateway_status text`;
  await give(row!.id, '1111111');
  const store = createStore(sql, db.config());
  const { term } = await store.read();
  const found = { missing: async () => {}, incomplete: async () => {} };
  const options = { sinceSeconds: 900, mirrorTimeoutMs: undefined, share: 1, ...found };
  const { auditedXid } = await lightAudit(sql, db.config(), source, options, new AbortController().signal);
  await store.saveAuditedXid(auditedXid!, term);
  await sql.end();
  mirror = startMirror(db, { auditMs: 300 });
  await has(row!.id, '1111111');
});

test.each(['nothing can be streamed', 'the slot waits for an old transaction'])(
  'they are found where the column came while %s',
  async (why) => {
    await db.sql`alter table verification.verifications drop column gateway_id, drop column gateway_status`;
    await db.sql`create table other (id int)`;
    const old = await db.sql.reserve();
    const waits = why !== 'nothing can be streamed';
    if (waits) await old.unsafe('begin; insert into other values (1)');
    else await db.sql`alter publication smslogd drop table verification.verifications`;
    mirror = startMirror(db);
    await until('it to be so', async () => {
      if (!waits) return mirror?.health.mirrorState === 'repairing';
      return (await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).length === 1;
    });
    await db.sql`alter table verification.verifications add column gateway_id text, add column gateway_status text`;
    const { id } = await insertVerification(db.sql, { ...without, inserted_at: new Date().toISOString() });
    await until('the row', async () => (await logged()) === 1);
    await give(id, '1111111');
    await has(id, '1111111');
    if (waits) await old.unsafe('rollback');
    else await db.sql`alter publication smslogd add table verification.verifications`;
    old.release();
    await mirror.streaming();
  },
);

test('one that comes when the queue knows the SMS no more is filled in by the audit, which calls nothing missing', async () => {
  const [first] = await threeWait();
  await mirror!.stop();
  await db.sql`update verification.sms_log set gateway_status = 'Unaccepted', status_changed_at = now() where id = ${first}`;
  await db.sql`delete from smslogd.sms_poll where id = ${first}`;
  await give(first, '1111111');
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  const never = new AbortController().signal;
  const store = createStore(sql, db.config());
  const { term } = await store.acquire(await nextTerm(db.sql));
  const told: string[] = [];
  const incomplete = async (ids: readonly string[]) => {
    told.push(...ids);
    expect(await fillGatewayIds({ store, source, term }, ids, never)).toEqual([]);
  };
  const options = { sinceSeconds: 3600, mirrorTimeoutMs: 1_000, share: 1, missing: async () => {}, incomplete };
  expect(await lightAudit(sql, db.config(), source, options, never)).toMatchObject({ missing: 0 });
  expect(told).toEqual([first]);
  const row = () => db.sql`select gateway_id, gateway_status from verification.sms_log where id = ${first}`;
  const filled = [{ gateway_id: '1111111', gateway_status: 'Unaccepted' }];
  expect(await row()).toEqual(filled);
  // and so does a reconcile
  await db.sql`update verification.sms_log set gateway_id = null where id = ${first}`;
  await store.reconcileChunk(source, undefined, 10, { term });
  expect(await row()).toEqual(filled);
  await sql.end();
});

test('however many come at once, no statement completes more than five hundred', async () => {
  await insertMany(db.sql, 5_000);
  await db.sql`insert into verification.sms_log (id, phone_number, type, body, inserted_at)
               select id, phone_number, 'verification', '', inserted_at from verification.verifications`;
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  const store = createStore(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const sizes: number[] = [];
  const counting = {
    ...store,
    fillGatewayIds: (of: Source, ids: readonly string[]) => {
      sizes.push(ids.length);
      return store.fillGatewayIds(of, ids, term);
    },
  };
  const never = new AbortController().signal;
  const incomplete = async (ids: readonly string[]) => {
    await fillGatewayIds({ store: counting, source, term }, ids, never);
  };
  await lightAudit(
    sql,
    db.config(),
    source,
    { sinceSeconds: 3600, mirrorTimeoutMs: 1_000, share: 1, missing: async () => {}, incomplete },
    never,
  );
  expect(await db.sql`select from verification.sms_log where gateway_id is null`).toHaveLength(0);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(500);
  await sql.end();
});

test('a replica identity that becomes full under a masked daemon stops neither the owner nor the mirror', async () => {
  await migrate(db.owner.config({ SMS_BODY: 'masked' }), { say: () => {} });
  mirror = startMirror(db, { env: { SMS_BODY: 'masked' } });
  await mirror.streaming();
  await db.sql`alter table verification.verifications replica identity full`;
  const { id } = await insertVerification(db.sql, without);
  await give(id, '1111111');
  await has(id, '1111111');
  await db.sql`delete from verification.verifications where id = ${id}`;
  expect(mirror.health.mirrorState).toBe('streaming');
});

test('those that wait are listed a page at a time, each once, all of them or the young ones', async () => {
  const ids = await threeWait();
  await db.sql`update smslogd.sms_poll set give_up_at = give_up_at - interval '1 hour' where id = ${ids[1]}`;
  const store = createStore(db.daemon, db.config());
  for (const [seconds, wait] of [
    [undefined, ids],
    [1_800, [ids[0], ids[2]]],
  ] as const) {
    const listed: string[] = [];
    for (;;) {
      const page = await store.waitingForGatewayId(seconds, listed.at(-1), 1);
      if (page.length === 0) break;
      listed.push(...page);
      if (listed.length > wait.length) break;
    }
    expect(listed).toEqual(wait);
  }
});
