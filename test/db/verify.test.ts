/** The audit against a log with planted faults: one that finds nothing is worth nothing. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/verify.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import type { Sql } from '../../src/postgres/pools.ts';
import { audit } from '../../src/reconcile/audit.ts';
import { LOG, pagesOf } from '../../src/reconcile/compare.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;

beforeAll(async () => {
  db = await createDatabase();
  await insertMany(db.sql, 100);
  const mirror = startMirror(db);
  await mirror.streaming();
  await mirror.stop();
  // an audit waits a while for one who reads the slot
  await until(
    'the slot to go',
    async () =>
      (
        await db.sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = ${db.name} and not active`
      ).length === 1,
  );
});
afterAll(() => db.drop());

async function verify(flags: Record<string, string | boolean> = {}, of = db, env: Record<string, string> = {}) {
  const lines: string[] = [];
  const io = { env: of.env(env), print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
  const code = await command.run({ json: true, ...flags }, io);
  return { code, ...(JSON.parse(lines.join('')) as Record<string, number>) };
}

test('a right log passes', async () => {
  expect(await verify()).toMatchObject({
    code: 0,
    source: 100,
    log: 100,
    missing: 0,
    incomplete: 0,
    doubled: 0,
    differing: 0,
    orphaned: 0,
  });
});

test('where the log is rewritten while it is read by place, each of its rows is counted all the same', async () => {
  // so that it then has more pages than were known
  await db.sql`alter table verification.sms_log set (fillfactor = 10)`;
  const send = async (text: string) => {
    if (text.includes(`from ${LOG} t where t.ctid`)) await db.sql`vacuum full verification.sms_log`;
    return await db.daemon.unsafe(text).simple();
  };
  const sql = { unsafe: (text: string) => ({ simple: () => send(text) }) } as unknown as Sql;
  const source = await describeSource(db.daemon, db.config());
  const options = { sinceSeconds: 3_600, mirrorTimeoutMs: 0 };
  const audited = await audit(sql, db.config(), source, options, new AbortController().signal);
  expect(audited).toMatchObject({ source: 100, log: 100 });
});

test('every planted fault is found, by its kind', async () => {
  // not the oldest: what is as old as that of the source may have been removed there
  const ids = (await db.sql`select id from verification.sms_log order by inserted_at desc limit 6`).map(
    (row) => row['id'] as string,
  );
  await db.sql`delete from verification.sms_log where id = any (${ids.slice(0, 1)})`;
  await db.sql`update verification.sms_log set body = 'other' where id = ${ids[1]!}`;
  await db.sql`update verification.sms_log set inserted_at = inserted_at + interval '1 microsecond' where id = ${ids[2]!}`;
  await db.sql`update verification.sms_log set phone_number = '+380000000000' where id = ${ids[3]!}`;
  await db.sql`delete from verification.verifications where id = ${ids[4]!}`;
  await db.sql`update verification.sms_log set gateway_id = null, gateway_status = null where id = ${ids[5]!}`;
  expect(await verify()).toMatchObject({
    code: 1,
    source: 99,
    log: 99,
    missing: 1,
    incomplete: 1,
    differing: 3,
    orphaned: 1,
  });
  expect(await verify({ since: '1h' })).toMatchObject({ code: 1, missing: 1, differing: 3 });
});

test('--repair fills what is missing and completes what is incomplete', async () => {
  expect(await verify({ repair: true })).toMatchObject({ code: 0, repaired: 2, missing: 0, incomplete: 0 });
});

test('rows older than --since, or than the retention, are not looked at', async () => {
  await db.sql`update verification.verifications set active = false`;
  await insertVerification(db.sql, { inserted_at: '2020-01-01 00:00:00' });
  expect(await verify({ since: '24h' })).toMatchObject({ code: 0, missing: 0 });
  expect(await verify({}, db, { RETENTION_DAYS: '365' })).toMatchObject({ code: 0, missing: 0 });
  for (const since of ['999999d', '99999999999999999999d', undefined])
    expect(await verify(since === undefined ? {} : { since })).toMatchObject({ code: 1, missing: 1 });
});

test('a row that a constraint of the log refuses is missing, and said to be refused', async () => {
  await db.sql`alter table verification.sms_log add constraint no_zeros check (phone_number not like '%0000666')`;
  await insertVerification(db.sql, { phone_number: '+380000000666' });
  expect(await verify({ repair: true })).toMatchObject({ code: 1, missing: 1, refused: 1, repaired: 1 });
});

test('a row that the log has twice is found, also where the two lie far apart', async () => {
  await db.sql`alter table verification.sms_log drop constraint sms_log_pkey`;
  // of the last hour
  await db.sql`insert into verification.sms_log select * from verification.sms_log order by inserted_at desc limit 2`;
  expect(await verify()).toMatchObject({ code: 1, doubled: 2 });
  expect(await verify({ since: '1h' })).toMatchObject({ code: 1, doubled: 2 });
});

test('a table is known to have pages, partitioned or not: else it would be read in one piece', async () => {
  const [row] = await db.sql`select (pg_relation_size('verification.verifications') / 8192)::int as pages`;
  expect(row?.['pages']).toBeGreaterThan(0);
  expect(await pagesOf(db.daemon, 'verification.verifications')).toMatchObject({ pages: row?.['pages'], leaves: 1 });
  await db.sql`create table verification.parts (id int) partition by list (id)`;
  await db.sql`create table verification.part_1 partition of verification.parts for values in (1)`;
  await db.sql`create table verification.part_2 partition of verification.parts for values in (2)`;
  await db.sql`insert into verification.parts select 2 from generate_series(1, 1000)`;
  const parts = await pagesOf(db.daemon, 'verification.parts');
  expect(parts.leaves).toBe(2);
  expect(parts.pages).toBeGreaterThan(1);
  await db.sql`drop table verification.parts`;
});

test('where the database sorts digits as numbers each row is counted once all the same', async () => {
  const other = await createDatabase({ empty: true, locale: 'en-u-kn' });
  try {
    await other.owner.sql.unsafe(SOURCE_DDL);
    await migrate(other.owner.config(), { role: DAEMON_ROLE, say: () => {} });
    await insertMany(other.sql, 1_000);
    expect(await verify({}, other)).toMatchObject({ source: 1_000, missing: 1_000 });
  } finally {
    await other.drop();
  }
});

test('many missing rows are counted in portions, and a partitioned source is walked whole, by id and by place', async () => {
  const other = await createDatabase();
  try {
    await other.owner.sql.unsafe(`drop table verification.verifications;
      create table verification.verifications (id uuid not null, phone_number text not null, code integer not null, gateway_id text,
        inserted_at timestamp not null, primary key (id, inserted_at)) partition by range (inserted_at);
      create table verification.v_old partition of verification.verifications for values from ('2000-01-01') to ('2026-01-01');
      create table verification.v_new partition of verification.verifications for values from ('2026-01-01') to ('2100-01-01');
      grant select on verification.verifications to ${DAEMON_ROLE}`);
    await other.sql`insert into verification.verifications select gen_random_uuid(), '+380000000001', 1234, null,
                    case when n % 2 = 0 then timestamp '2020-01-01' else now() at time zone 'UTC' end from generate_series(1, 50000) n`;
    expect(await verify({}, other)).toMatchObject({ code: 1, source: 50_000, missing: 50_000, log: 0 });
    expect(await verify({ since: '1h' }, other)).toMatchObject({ code: 1, source: 25_000, missing: 25_000 });
    expect(await verify({ repair: true }, other)).toMatchObject({
      code: 0,
      source: 50_000,
      log: 50_000,
      repaired: 50_000,
    });
    await other.sql`delete from verification.v_new where id in (select id from verification.v_new order by id limit 3)`;
    expect(await verify({ since: '1h' }, other)).toMatchObject({ code: 0, source: 24_997, log: 25_000, orphaned: 3 });
  } finally {
    await other.drop();
  }
});
