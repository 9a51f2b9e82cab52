import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Sql } from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDatabase } from '../../src/postgres/pools.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { readFacts } from '../../src/figures/readings.ts';
import { migrate } from '../../src/schema/migrate.ts';
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
  await migrate(db.owner.config(), { role: daemon, say: () => {} });
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
  test.each([
    'select on verification.verifications',
    'select on smslogd.settings',
    'usage on schema verification',
    'usage on schema smslogd',
  ])('gets back what was taken from it: %s', async (right) => {
    const privileges = () =>
      db.sql`
        select has_table_privilege(${daemon}, 'verification.verifications', 'select') and has_table_privilege(${daemon}, 'smslogd.settings', 'select')
           and has_schema_privilege(${daemon}, 'verification', 'usage') and has_schema_privilege(${daemon}, 'smslogd', 'usage') as all`;
    await db.sql.unsafe(`revoke ${right} from ${daemon}`);
    expect((await privileges())[0]).toEqual({ all: false });
    const said: string[] = [];
    await migrate(db.owner.config(), { say: (line) => said.push(line) });
    expect((await privileges())[0]).toEqual({ all: true });
    expect(said).toContain(`grants to ${daemon}`);
  });

  test('writes and completes the log, keeps its queue, checkpoint and counters, reads figures and source', async () => {
    const [row] = await sql<{ id: string }[]>`
      insert into verification.sms_log as l (phone_number, type, gateway_id, gateway_status) values ('+380000000000', 'verification', '1234567', 'Accepted')
      on conflict (id) do update set gateway_id = excluded.gateway_id, gateway_status = excluded.gateway_status, updated_at = now()
      returning id`;
    await sql`update verification.sms_log set gateway_status = 'Delivered', status_changed_at = now(), updated_at = now() where id = ${row!.id}`;
    await sql`select from verification.sms_log where id = ${row!.id} for update`;
    await sql`insert into smslogd.sms_poll select * from smslogd.queue_entry(${row!.id}, '1234567', 'Accepted', 'text', now(), now()) on conflict (id) do nothing`;
    await sql`update smslogd.sms_poll set attempt = attempt + 1`;
    await sql`delete from smslogd.sms_poll`;
    await sql`insert into smslogd.checkpoint (slot_name) values (${db.name})`;
    await sql`update smslogd.checkpoint set term = term + 1 where slot_name = ${db.name}`;
    await sql`update smslogd.settings set life = life`;
    await sql`select * from smslogd.migrations`;
    await sql`select count(*) from verification.verifications`;
    await refreshHourly(sql);
    const facts = await readFacts(sql, db.name, 10_000);
    expect(facts.entered).toEqual({ verification: 1 });
    expect(facts.delivered).toEqual({ verification: expect.any(Number) });
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
    ['move the days of the figures', `update smslogd.settings set report_timezone = 'UTC'`],
    ['change a prefix', `delete from smslogd.operator_prefix`],
    ['read a single SMS in the views', 'select * from verification.sms_log_masked'],
    ['call what triggers call', 'select smslogd.note_hours()'],
    ['drop a view', 'drop view verification.sms_backlog'],
    ['replace a view', 'create or replace view verification.sms_backlog as select 1 as x'],
    ['disable a trigger', 'alter table verification.sms_log disable trigger smslogd_note_inserted'],
    ['create an index', 'create index on verification.sms_log (type)'],
    ['lock the log', 'do $$ begin lock table verification.sms_log in access exclusive mode; end $$'],
    ['lock the source', 'do $$ begin lock table verification.verifications in share mode; end $$'],
    ['clean a table of others', 'truncate verification.verifications'],
    ['create a publication', 'create publication mine for table verification.verifications'],
    ['add to the publication', 'alter publication smslogd add table verification.sms_log'],
    [
      'create a trigger',
      'create trigger mine after insert on verification.verifications execute function smslogd.note_hours()',
    ],
    ['become a superuser', `alter role ${daemon} superuser`],
    ['take another role', 'set role sms_dba'],
    ['change the server', `alter system set wal_level = 'minimal'`],
    ['run a program', `copy (select 1) to program 'true'`],
    ['read a file', `copy smslogd.changed_hour from '/etc/hostname'`],
    ['read password hashes', 'select rolpassword from pg_authid'],
    ['create a function', 'create function smslogd.mine() returns int language sql as $$ select 1 $$'],
    [
      'end a connection of others',
      `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid <> pg_backend_pid()`,
    ],
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

const row = async (type: string, gatewayId: string | null, status: string | null) => {
  const [made] = await db.sql<{ id: string }[]>`
        insert into verification.sms_log (phone_number, type, gateway_id, gateway_status) values ('+380000000000', ${type}, ${gatewayId}, ${status}) returning id`;
  return made!.id;
};
const completes = (id: string, gatewayId: string | null, status: string | null) =>
  db.sql.begin(async (tx) => {
    await tx`set local role sms_writer`;
    await tx`update verification.sms_log set gateway_id = ${gatewayId}, gateway_status = ${status}, updated_at = now() where id = ${id}`;
  });

describe('the other roles', () => {
  test('no view shows a phone, a text, a code or a gateway id to anybody', async () => {
    const marks = { phone: '+380009876543', code: 73_918_465, gatewayId: '5556667778889' };
    await db.sql`
      with sms as (
        insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
        select p.phone, t.type, 'a secret with ' || ${marks.code}::int4, ${marks.gatewayId}::text || coalesce(status, ''), status, now() - d * interval '1 hour'
          from unnest(array[${marks.phone}, 'a name', '+380971']) p (phone), unnest('{verification,text}'::text[]) t (type),
               unnest(array['Accepted', 'Delivered', null]) status, generate_series(0, 2) d
        returning id, type, inserted_at
      )
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, inserted_at)
      select id, ${marks.phone}, 1, 'verified', ${marks.code}, now() at time zone 'UTC', false, ${marks.gatewayId}, inserted_at at time zone 'UTC' from sms where type = 'verification'`;
    // a day before all was well
    await db.sql`
      insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, status_changed_at, inserted_at)
      select ${marks.phone}, 'text', 'a secret', ${marks.gatewayId}, 'Delivered', now(), now() - d * interval '1 hour' from generate_series(24, 26) d`;
    await db.sql`update verification.sms_log set status_changed_at = inserted_at + interval '5 seconds' where inserted_at < now() - interval '20 hours'`;
    const views = (await db.sql`select smslogd.views()::text as view`).map(({ view }) => view as string);
    const all =
      await db.sql`select oid::regclass::text as view from pg_class where relkind = 'v' and relnamespace = 'verification'::regnamespace`;
    expect(all.map(({ view }) => view as string).sort()).toEqual([...views].sort());
    const readable = await db.sql<{ role: string; view: string }[]>`
      select role, view from unnest(${[daemon, 'sms_reader', 'sms_dba', 'sms_writer']}::text[]) role, unnest(${views}::text[]) view where has_table_privilege(role, view, 'select')`;
    for (const role of ['sms_reader', 'sms_dba'])
      expect(readable.filter((each) => each.role === role)).toHaveLength(views.length);
    expect(readable.filter((each) => each.role === 'sms_writer')).toEqual([]);
    for (const { role, view } of readable) {
      const rows = await as(role, `select v.*, v::text as whole from ${view} v`);
      expect({ view, empty: rows.length === 0 }).toEqual({ view, empty: false });
      const told = /9876543|73918465|555666|secret|a name|380971/.exec(JSON.stringify(rows))?.[0];
      expect({ view, role, told }).toEqual({ view, role, told: undefined });
    }
    const phones = await as('sms_reader', `select distinct phone_number from verification.sms_log_masked`);
    expect(phones.map((row) => row['phone_number'] as string)).toEqual(
      expect.arrayContaining(['****', '+38000*****43']),
    );
  });

  test.each([
    ['sms_reader', 'select id from verification.sms_log'],
    ['sms_reader', 'select id from verification.verifications'],
    ['sms_reader', 'select * from smslogd.sms_poll'],
    ['sms_reader', 'select smslogd.count_sms(now(), now(), now())'],
    ['sms_reader', 'select * from smslogd.hour_counts'],
    ['sms_reader', 'select * from smslogd.otp_conversion(current_date, current_date)'],
    ['sms_reader', 'select * from smslogd.resends(current_date, current_date)'],
    ['sms_writer', 'select * from verification.sms_delivery_between(current_date, current_date)'],
    ['sms_reader', 'delete from verification.sms_log_masked'],
    ['sms_reader', `update verification.sms_log_masked set type = 'text'`],
    ['sms_writer', 'select * from verification.sms_log_masked'],
    ['sms_dba', 'select id from verification.verifications'],
    ['sms_dba', 'update verification.sms_log set body = null'],
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

  describe('a writer', () => {
    const own = ['medication_request', 'text', '2FA'];
    const open = ['Accepted', 'Enroute', 'Pending', 'Unknown'];
    const final = ['Delivered', 'Expired', 'Deleted', 'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated'];
    test.each(own)('inserts %s in every way that there is', async (type) => {
      await as(
        'sms_writer',
        `insert into verification.sms_log (phone_number, type) values ('+380000000000', '${type}')`,
      );
      const many = await as(
        'sms_writer',
        `insert into verification.sms_log (phone_number, type) select '+380000000000', '${type}' from generate_series(1, 3) returning id`,
      );
      expect(many).toHaveLength(3);
    });

    test.each([
      `insert into verification.sms_log (phone_number, type) values ('+380000000000', 'verification')`,
      `insert into verification.sms_log (phone_number, type) values ('+380000000000', 'text'), ('+380000000000', 'verification')`,
      `insert into verification.sms_log (id, phone_number, type) select id, '+380000000000', 'verification' from verification.sms_log where id is null
       union all select gen_random_uuid(), '+380000000000', 'verification'`,
    ])('inserts no verification: %s', async (statement) => {
      await expect(as('sms_writer', statement)).rejects.toMatchObject(refused);
    });

    test.each(own.flatMap((type) => [null, ...open].map((status) => [type, status] as const)))(
      'completes %s with status %s: the gateway id that is missing, and any status',
      async (type, status) => {
        for (const next of [...open, ...final]) {
          const id = await row(type, null, status);
          await completes(id, '1234567', next);
        }
        const id = await row(type, '1234567', status);
        await completes(id, '1234567', 'Delivered');
        const [done] = await db.sql`select gateway_id, gateway_status from verification.sms_log where id = ${id}`;
        expect(done).toEqual({ gateway_id: '1234567', gateway_status: 'Delivered' });
      },
    );

    test.each(final)('never changes %s', async (status) => {
      for (const next of [null, ...open, ...final].filter((each) => each !== status)) {
        const id = await row('text', '1234567', status);
        await expect(completes(id, '1234567', next)).rejects.toMatchObject(refused);
      }
      await completes(await row('text', null, status), '1234567', status);
    });

    test.each(open)('never takes %s away', async (status) => {
      await expect(completes(await row('text', '1234567', status), '1234567', null)).rejects.toMatchObject(refused);
    });

    test('never changes a gateway id', async () => {
      for (const next of [null, '7654321'])
        await expect(completes(await row('text', '1234567', 'Accepted'), next, 'Accepted')).rejects.toMatchObject(
          refused,
        );
    });

    test('never changes a verification, nor many rows of which one is', async () => {
      for (const [gatewayId, status] of [
        [null, null],
        ['1234567', 'Accepted'],
      ] as const)
        await expect(
          completes(await row('verification', gatewayId, status), '1234567', 'Delivered'),
        ).rejects.toMatchObject(refused);
      await expect(
        as('sms_writer', `update verification.sms_log set gateway_status = 'Delivered'`),
      ).rejects.toMatchObject(refused);
      await expect(
        as(
          'sms_writer',
          `insert into verification.sms_log (id, phone_number, type) values ('${await row('verification', null, null)}', '+380000000000', 'text')
           on conflict (id) do update set gateway_status = 'Delivered'`,
        ),
      ).rejects.toMatchObject(refused);
    });
  });

  test('a reader takes many days together', async () => {
    const rows = await as(
      'sms_reader',
      'select * from verification.sms_delivery_between(current_date - 1, current_date)',
    );
    expect(rows.length).toBeGreaterThan(0);
  });

  test('a DBA reads the log and what smslogd keeps', async () => {
    expect(await as('sms_dba', 'select phone_number, body from verification.sms_log limit 1')).toHaveLength(1);
    expect((await as('sms_dba', 'select * from smslogd.hour_counts')).length).toBeGreaterThan(0);
  });

  test('roles made after the first migrate get their grants with the next', async () => {
    await db.sql`revoke select on verification.sms_backlog from sms_reader`;
    await expect(as('sms_reader', 'select * from verification.sms_backlog')).rejects.toMatchObject(refused);
    await migrate(db.owner.config(), { role: daemon, say: () => {} });
    expect(await as('sms_reader', 'select * from verification.sms_backlog')).toHaveLength(16);
  });

  test('a database whose functions are nobody’s but the owner’s serves readers, writers and the daemon after the next migrate', async () => {
    const { user } = (await db.owner.sql<{ user: string }[]>`select current_user::text as user`)[0]!;
    await db.sql.unsafe(`
      alter default privileges for role ${user} revoke execute on functions from public;
      revoke execute on all functions in schema smslogd from public; drop function smslogd.clock() cascade`);
    const id = await row('text', null, null);
    await expect(completes(id, '1234567', 'Accepted')).rejects.toMatchObject(refused);
    await migrate(db.owner.config(), { role: daemon, say: () => {} });
    await completes(id, '1234567', 'Accepted');
    expect(await as('sms_reader', 'select * from verification.sms_backlog')).toHaveLength(16);
    await sql`update verification.sms_log set gateway_status = 'Enroute', status_changed_at = now() where id = ${id}`;
    expect((await readFacts(sql, 'none', 10_000)).open).toContainEqual(
      expect.objectContaining({ type: 'text', status: 'Enroute' }),
    );
    const { rows } = (
      await db.sql<{ rows: string }[]>`
      select string_agg(proname, ' ' order by proname) as rows from pg_proc
       where pronamespace = 'smslogd'::regnamespace and not has_function_privilege('public', oid, 'execute')`
    )[0]!;
    expect(rows).toBe(
      'freeze_hours guard_writers no_gateway_id note_hours queue_completed queue_inserted remove_logged',
    );
  });
});
