import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Sql } from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDatabase } from '../../src/db.ts';
import { refreshHourly } from '../../src/figures/hourly.ts';
import { readFacts } from '../../src/figures/store.ts';
import { migrate } from '../../src/schema.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

const ROLES = readFileSync(new URL('../../sql/roles.sql', import.meta.url), 'utf8');
/** a login role of this test's own, so that no other test's grants help it */
const daemon = `daemon_${randomBytes(4).toString('hex')}`;
let db: TestDatabase;
let sql: Sql;

beforeAll(async () => {
  db = await createDatabase();
  await db.sql.unsafe(ROLES);
  await db.sql.unsafe(ROLES);
  await db.sql.unsafe(`create role ${daemon} login replication password 'daemon'`);
  await migrate(db.config(), { role: daemon, say: () => {} });
  const url = new URL(db.url);
  url.username = daemon;
  url.password = 'daemon';
  sql = openDatabase(db.config({ DATABASE_URL: url.href }), { max: 2, name: 'test' });
});
afterAll(async () => {
  await sql.end();
  await db.sql.unsafe(`drop owned by ${daemon}; drop role ${daemon}`);
  await db.drop();
});

const refused = { code: '42501' };

describe('the daemon under its role', () => {
  test('writes and completes the log, keeps its queue, checkpoint and counters, reads figures and source', async () => {
    const [row] = await sql<{ id: string }[]>`
      insert into verification.sms_log as l (phone_number, type, gateway_id, gateway_status) values ('+380000000000', 'verification', '1234567', 'Accepted')
      on conflict (id) do update set gateway_id = excluded.gateway_id, gateway_status = excluded.gateway_status, updated_at = now()
      returning id`;
    await sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now(), updated_at = now() where id = ${row!.id}`;
    await sql`select from verification.sms_log where id = ${row!.id} for update`;
    await sql`insert into smslogd.sms_poll select * from smslogd.queue_entry(${row!.id}, '1234567', 'Accepted', 'text', now()) on conflict (id) do nothing`;
    await sql`update smslogd.sms_poll set attempt = attempt + 1`;
    await sql`delete from smslogd.sms_poll`;
    await sql`insert into smslogd.checkpoint (slot_name) values (${db.name})`;
    await sql`update smslogd.checkpoint set epoch = epoch + 1 where slot_name = ${db.name}`;
    await sql`update smslogd.settings set life = life`;
    await sql`select * from smslogd.migrations`;
    await sql`select count(*) from verification.verifications`;
    await refreshHourly(sql);
    const facts = await readFacts(sql, db.name, 10_000);
    expect(facts.statuses).toMatchObject([{ type: 'verification', status: 'Delivered', sms: 1 }]);
  });

  test.each([
    ['change the source', 'update verification.verifications set attempts_count = 1'],
    ['delete from the source', 'delete from verification.verifications'],
    ['insert into the source', 'insert into verification.verifications (id) values (gen_random_uuid())'],
    ['delete from the log', 'delete from verification.sms_log'],
    ['empty the log', 'truncate verification.sms_log'],
    ['change what an SMS is', `update verification.sms_log set phone_number = ''`],
    ['change the log table', 'alter table verification.sms_log add column x int'],
    ['drop the log', 'drop table verification.sms_log'],
    ['drop a trigger', 'drop trigger smslogd_note_inserted on verification.sms_log'],
    ['create a table beside the log', 'create table verification.mine (x int)'],
    ['create a table in its schema', 'create table smslogd.mine (x int)'],
    ['create a table in public', 'create table public.mine (x int)'],
    ['create a schema', 'create schema mine'],
    ['write down migrations', `insert into smslogd.migrations (name, run_on) values ('x', now())`],
    ['drop the publication', 'drop publication smslogd'],
    ['create a role', 'create role mine'],
  ])('may not %s', async (_, statement) => {
    await expect(sql.unsafe(statement)).rejects.toMatchObject(refused);
  });
});

const as = async (role: string, statement: string) =>
  await db.sql.begin(async (tx) => {
    await tx.unsafe(`set local role ${role}`);
    return await tx.unsafe(statement);
  });

describe('the other roles', () => {
  test('a reader sees the figures and the masked log, without phone, text and gateway id', async () => {
    await db.sql`insert into verification.sms_log (phone_number, type, body, gateway_id) values ('+380000001234', 'text', 'secret 9876', '555666777')`;
    await db.sql`insert into verification.sms_log (phone_number, type, body) values ('a name', 'text', 'secret')`;
    for (const view of ['sms_today_vs_yesterday', 'sms_delivery_hourly', 'sms_backlog', 'sms_log_masked']) {
      const rows = await as('sms_reader', `select * from verification.${view}`);
      expect(rows.length).toBeGreaterThan(0);
      expect(JSON.stringify(rows)).not.toMatch(/0000001234|9876|555666777|secret|a name/);
    }
    const phones = await as(
      'sms_reader',
      `select distinct phone_number from verification.sms_log_masked where type = 'text'`,
    );
    expect(phones.map((row) => row['phone_number'] as string).sort()).toEqual(['****', '+38000*****34']);
  });

  test.each([
    ['sms_reader', 'select id from verification.sms_log'],
    ['sms_reader', 'select id from verification.verifications'],
    ['sms_reader', 'select * from smslogd.sms_poll'],
    ['sms_reader', 'select smslogd.count_sms(now(), now(), now())'],
    ['sms_writer', 'select phone_number from verification.sms_log'],
    ['sms_writer', 'delete from verification.sms_log'],
    ['sms_writer', 'update verification.sms_log set body = null'],
    ['sms_writer', 'select * from smslogd.settings'],
    ['sms_dba', 'delete from verification.sms_log'],
  ])('%s may not: %s', async (role, statement) => {
    await expect(as(role, statement)).rejects.toMatchObject(refused);
  });

  test('a writer inserts, and completes its row when the gateway has answered; both are queued and counted', async () => {
    const [row] = await as(
      'sms_writer',
      `insert into verification.sms_log (phone_number, type, body) values ('+380000000000', 'medication_request', 'text') returning id`,
    );
    await as(
      'sms_writer',
      `update verification.sms_log set gateway_id = '7654321', gateway_status = 'Accepted', updated_at = now() where id = '${row!['id'] as string}'`,
    );
    const [queued] = await db.sql`select gateway_id from smslogd.sms_poll where id = ${row!['id'] as string}`;
    expect(queued).toEqual({ gateway_id: '7654321' });
    const [open] =
      await db.sql`select open from verification.sms_backlog where type = 'medication_request' and status = 'Accepted'`;
    expect(open).toEqual({ open: '1' });
  });

  test('a DBA reads the log and what smslogd keeps', async () => {
    expect(await as('sms_dba', 'select phone_number, body from verification.sms_log limit 1')).toHaveLength(1);
    expect((await as('sms_dba', 'select * from smslogd.sms_hourly_now')).length).toBeGreaterThan(0);
  });

  test('roles made after the first migrate get their grants with the next', async () => {
    await db.sql`revoke select on verification.sms_backlog from sms_reader`;
    await expect(as('sms_reader', 'select * from verification.sms_backlog')).rejects.toMatchObject(refused);
    await migrate(db.config(), { role: daemon, say: () => {} });
    expect(await as('sms_reader', 'select * from verification.sms_backlog')).toHaveLength(16);
  });
});
