import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { SmslogdError } from '../../src/errors.ts';
import { dryRun, migrate, requireSchema } from '../../src/schema/migrate.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

test('migrate runs twice and from two places at once without harm', async () => {
  const said: string[] = [];
  await Promise.all([1, 2, 3].map(() => migrate(db.owner.config(), { say: (line) => said.push(line) })));
  expect(said.filter((line) => line.startsWith('migration'))).toEqual([]);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  await requireSchema(sql);
  await sql.end();
});

test('those who wait for another migrate do not keep it from building an index of the log, however long that waits for others', async () => {
  await db.sql`drop index verification.sms_log_gateway_id_idx`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; update verification.sms_log set phone_number = phone_number where false');
  const said: string[] = [];
  const done = Promise.all([1, 2].map(() => migrate(db.owner.config(), { say: (line) => said.push(line) })));
  await until('one to build it', async () => (await db.sql`select from pg_stat_progress_create_index`).length > 0);
  await until('the other to wait', () => said.includes('another migrate runs; waiting for it to end'));
  await old.unsafe('commit');
  old.release();
  await done;
  expect(said.filter((line) => line.startsWith('index'))).toEqual(['index sms_log_gateway_id_idx of the log']);
});

test('a row that another service inserts is queued at once, a final one is not', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status)
               values ('+380000000001', 'medication_request', 'text', '1234567', 'Accepted'),
                      ('+380000000002', 'medication_request', 'text', '1234568', 'Delivered')`;
  const queued = await db.sql`select gateway_id, lane from smslogd.sms_poll`;
  expect([...queued]).toEqual([{ gateway_id: '1234567', lane: 0 }]);
});

test('the queue is vacuumed by the number of its dead entries, at full speed, and not by their share', async () => {
  const [row] = await db.sql`select reloptions from pg_class where oid = 'smslogd.sms_poll'::regclass`;
  expect(row?.['reloptions']).toEqual(
    expect.arrayContaining([
      'autovacuum_vacuum_scale_factor=0',
      'autovacuum_vacuum_threshold=5000',
      'autovacuum_vacuum_cost_delay=0',
    ]),
  );
});

test('no function that runs with the rights of its owner looks for names where its caller says', async () => {
  const functions = await db.sql<{ name: string; fixed: boolean }[]>`
    select proname as name, coalesce(array_to_string(proconfig, ' ') ~ 'search_path=pg_catalog, pg_temp', false) as fixed
      from pg_proc where prosecdef and pronamespace in ('smslogd'::regnamespace, 'verification'::regnamespace)`;
  expect(functions.length).toBeGreaterThan(1);
  expect(functions.filter(({ fixed }) => !fixed)).toEqual([]);
});

test.each(
  ['migrations', 'settings', 'installed'].flatMap((table) => [
    { name: 'migrate', work: migrate, table },
    { name: 'migrate --dry-run', work: dryRun, table },
  ]),
)(
  '$name says that it waits where somebody holds a lock of smslogd.$table, and ends well afterwards',
  async ({ work, table }) => {
    const other = await db.sql.reserve();
    await other.unsafe(`begin; lock table smslogd.${table} in access exclusive mode`);
    const said: string[] = [];
    const done: Promise<unknown> = work(db.owner.config(), { say: (line) => said.push(line) });
    await until('it to say so', () => said.includes('a table is locked by another session; trying again'));
    await other.unsafe('rollback');
    other.release();
    await done;
  },
);

test('migrate waits for a lock in small steps, says so, and nothing of the owner waits behind it', async () => {
  const fresh = await createDatabase();
  await fresh.sql`drop publication smslogd`;
  const other = await fresh.sql.reserve();
  await other.unsafe('begin; lock table verification.verifications in share update exclusive mode');
  const said: string[] = [];
  const done = migrate(fresh.owner.config(), { say: (line) => said.push(line) });
  await until('it to be patient', () => said.some((line) => line.includes('trying again')));
  await fresh.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, inserted_at)
                  values (gen_random_uuid(), '+380000000009', 1, 'new', 1234, now(), now())`;
  expect(await fresh.sql`select from pg_publication where pubname = 'smslogd'`).toHaveLength(0);
  await other.unsafe('rollback');
  other.release();
  await done;
  expect(await fresh.sql`select from pg_publication where pubname = 'smslogd'`).toHaveLength(1);
  await fresh.drop();
});

test('an index of the log that a former migrate left unfinished is made again, however long that waits for others', async () => {
  const valid = `select from pg_index where indexrelid = 'verification.sms_log_gateway_id_idx'::regclass and indisvalid`;
  await db.sql`update pg_index set indisvalid = false where indexrelid = 'verification.sms_log_gateway_id_idx'::regclass`;
  const said: string[] = [];
  const done = await db.sql.begin(async (sql) => {
    await sql`lock table verification.sms_log in row exclusive mode`;
    const migrated = migrate(db.owner.config(), { say: (line) => said.push(line) });
    migrated.catch(() => {});
    const waits = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query_start < clock_timestamp() - interval '1 s'`;
    await until('it to wait for longer than for other locks', async () => (await db.sql.unsafe(waits)).length > 0);
    return { migrated };
  });
  await done.migrated;
  expect(said).toEqual(['index sms_log_gateway_id_idx of the log']);
  expect(await db.sql.unsafe(valid)).toHaveLength(1);
});

test.each([
  ['', ''],
  [', also in a schema that an administrator made', 'create schema smslogd authorization OWNER'],
])(
  'the SQL that --dry-run prints does by hand what migrate does, which then finds nothing to do%s',
  async (_, made) => {
    const empty = await createDatabase({ empty: true });
    await empty.owner.sql.unsafe(SOURCE_DDL);
    const [owner] = await empty.owner.sql<{ name: string }[]>`select current_user::text as name`;
    await empty.sql.unsafe(made.replace('OWNER', owner!.name));
    await empty.owner.sql.unsafe(await dryRun(empty.owner.config(), { say: () => {} })).simple();
    await requireSchema(empty.sql);
    const said: string[] = [];
    await migrate(empty.owner.config(), { say: (line) => said.push(line) });
    expect(said).toEqual([]);
    const shapes = await Promise.all(
      [empty, db].map(
        ({ sql }) => sql`
        select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns
         where table_schema in ('smslogd', 'verification') order by 1, 2`,
      ),
    );
    expect(shapes[0]).toEqual(shapes[1]);
    await empty.drop();
  },
);

test('a database that a version before 1.0.0 made is refused, with what to run', async () => {
  const old = await createDatabase();
  await old.sql`insert into verification.sms_log (phone_number, type) values ('+380000000001', 'text')`;
  await old.sql`update smslogd.migrations set name = '0001_log'`;
  const refused = { code: 'schema_older', message: expect.stringContaining('before 1.0.0') };
  await expect(requireSchema(old.daemon)).rejects.toMatchObject(refused);
  const refusal = await migrate(old.owner.config(), { say: () => {} }).catch((error: unknown) => error as SmslogdError);
  expect(refusal).toMatchObject(refused);
  const statements = /run: (.*); then run/.exec((refusal as SmslogdError).hint)?.[1];
  await old.owner.sql.unsafe(statements!);
  await migrate(old.owner.config(), { say: () => {} });
  expect([...(await old.sql`select total from verification.sms_delivery_hourly`)]).toEqual([{ total: '1' }]);
  await old.drop();
});

describe('what somebody dropped or changed is told, and put back', () => {
  test.each([
    ['a view', 'drop view verification.sms_backlog', 'view verification.sms_backlog was dropped'],
    ['a view with others on it', 'drop view smslogd.hour_counts cascade', 'view smslogd.hour_counts was dropped'],
    [
      'a view with another text',
      'drop view verification.sms_log_masked; create view verification.sms_log_masked as select id from verification.sms_log',
      'view verification.sms_log_masked was changed',
    ],
    [
      'a trigger',
      'drop trigger smslogd_queue_inserted on verification.sms_log',
      'trigger smslogd_queue_inserted on verification.sms_log was dropped',
    ],
    [
      'a trigger that is switched off',
      'alter table verification.sms_log disable trigger smslogd_note_updated',
      'trigger smslogd_note_updated on verification.sms_log was changed',
    ],
    [
      'a trigger that no longer fires always',
      'alter table verification.sms_log enable trigger smslogd_note_updated',
      'trigger smslogd_note_updated on verification.sms_log was changed',
    ],
    [
      'a function that is an expression',
      'create or replace function smslogd.is_open(status text) returns boolean language sql immutable parallel safe return false',
      'body of function smslogd.is_open(text) was changed',
    ],
    [
      'a function with another body',
      'create or replace function smslogd.clock() returns timestamptz language sql stable parallel safe as $$ select now() - interval $i$1 h$i$ $$',
      'function smslogd.clock() was changed',
    ],
    [
      'a function without its search path',
      'alter function smslogd.note_hours() reset all',
      'function smslogd.note_hours() was changed',
    ],
    [
      'a function and its triggers',
      'drop function smslogd.note_hours() cascade',
      'function smslogd.note_hours() was dropped',
    ],
    ['an index', 'drop index smslogd.sms_poll_due_idx', 'index smslogd.sms_poll_due_idx was dropped'],
    ['a table', 'drop table smslogd.sms_poll cascade', 'table smslogd.sms_poll was dropped'],
    ['what looks for it', 'drop function smslogd.objects()', 'function smslogd.objects() was dropped'],
  ])('%s', async (_, statement, told) => {
    const objects = async () => await db.sql`select * from smslogd.objects() order by 1`;
    const before = await objects();
    await db.owner.sql.unsafe(statement);
    const said: string[] = [];
    await migrate(db.owner.config(), { say: (line) => said.push(line) });
    expect(said).toContain(`${told}: put back`);
    expect(await objects()).toEqual(before);
    await expect(migrateSays()).resolves.toEqual([]);
  });

  test('hours that changed while nothing noted it are counted again', async () => {
    await db.sql`alter table verification.sms_log disable trigger smslogd_note_inserted`;
    await db.sql`insert into verification.sms_log (phone_number, type, inserted_at) values ('+380000000000', 'text', '2020-01-01 10:30+00')`;
    await migrate(db.owner.config(), { say: () => {} });
    const noted = await db.sql`select from smslogd.changed_hour where hour = '2020-01-01 10:00+00'`;
    expect(noted).toHaveLength(1);
  });
});

describe('tables that are there already', () => {
  let kept: TestDatabase;
  beforeEach(async () => {
    kept = await createDatabase();
    await kept.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
                   values ('+380000000001', 'text', '1234567', 'Delivered', '2026-01-02 03:04:05+00')`;
  });
  afterEach(() => kept.drop());
  const again = async (env: Record<string, string> = {}) => {
    const said: string[] = [];
    await migrate(kept.owner.config(env), { say: (line) => said.push(line) });
    return said;
  };
  const objects = async () =>
    (await kept.sql`select object, state from smslogd.objects() where object <> 'server' order by 1`).map((row) => ({
      ...row,
    }));

  test.each([
    ['the log alone, as after a removal', 'drop schema smslogd cascade; drop view verification.sms_log_masked'],
    ['the schema verification alone, as after a restore of it', 'drop schema smslogd cascade'],
    ['the log without its indexes', 'drop index verification.sms_log_time_idx, verification.sms_log_gateway_id_idx'],
    ['the schema smslogd alone', 'drop table verification.sms_log cascade'],
    ['all but the migrations', 'drop table smslogd.migrations'],
    ['all but some tables', 'drop table smslogd.sms_poll, smslogd.settings, smslogd.sms_hourly cascade'],
    ['tables without what is noted of them', 'drop table smslogd.installed cascade'],
  ])('are taken: %s', async (_, statements) => {
    const before = await objects();
    await kept.sql.unsafe(statements);
    await again();
    expect(await objects()).toEqual(before);
    expect(await again()).toEqual([]);
    const [row] = await kept.sql`select pg_get_indexdef(to_regclass('verification.sms_log_time_idx')) as index`;
    expect(row?.['index']).toContain('inserted_at');
  });

  test('keep the names of indexes under a new name of the log, which is told, and the new log gets all of its own', async () => {
    const indexes = async () =>
      (
        await kept.sql`select relname from pg_index join pg_class c on c.oid = indexrelid
                        where indrelid = 'verification.sms_log'::regclass and relname like '%idx' order by 1`
      ).map((row) => row['relname'] as string);
    const before = await indexes();
    await kept.sql.unsafe(`drop schema smslogd cascade; drop view verification.sms_log_masked;
                           alter table verification.sms_log rename to sms_log_old`);
    const failure = (await again().catch((error: unknown) => error)) as SmslogdError;
    expect(failure).toMatchObject({
      code: 'table_unfit',
      message: expect.stringContaining('index sms_log_time_idx, a name of the log'),
    });
    await expect(dryRun(kept.owner.config(), { say: () => {} })).rejects.toMatchObject({ code: 'table_unfit' });
    await kept.owner.sql.unsafe(failure.hint.slice(failure.hint.indexOf('again: ') + 'again: '.length));
    await again();
    expect(await indexes()).toEqual(before);
  });

  test.each([
    [
      'a partitioned log',
      'drop table verification.sms_log; create table verification.sms_log (id uuid) partition by hash (id)',
      'verification.sms_log is a partitioned table, it must be a plain table',
    ],
    [
      'a table under the name of a view',
      'create table verification.sms_backlog (note text)',
      'verification.sms_backlog is a table, it must be a view',
    ],
  ])('are named where they are of another kind, with what makes room: %s', async (_, statements, told) => {
    await kept.sql.unsafe('drop schema smslogd cascade; drop view verification.sms_log_masked');
    await kept.owner.sql.unsafe(statements);
    const failure = (await again().catch((error: unknown) => error)) as SmslogdError;
    expect(failure).toMatchObject({ code: 'table_unfit', message: `existing tables do not match: ${told}` });
    await kept.owner.sql.unsafe(failure.hint.slice(failure.hint.indexOf('again: ') + 'again: '.length));
    await again();
    expect(await again()).toEqual([]);
  });

  test('are taken with their row of settings gone, which is refused until then', async () => {
    await kept.sql`delete from smslogd.settings`;
    await kept.sql`insert into smslogd.sms_hourly (status, type, hour, sms, newest) values ('untracked', 'verification', '2026-01-02 03:00+00', 1, '2026-01-02 03:04:05.000006+00')`;
    const sql = openDatabase(kept.config(), { max: 1, name: 'test' });
    await expect(requireSchema(sql)).rejects.toMatchObject({ code: 'schema_missing' });
    expect(await again({ RETENTION_DAYS: '30', REPORT_TIMEZONE: 'UTC', SMS_STATUSES_EXPIRATION: '20' })).toContain(
      'settings',
    );
    await requireSchema(sql);
    await sql.end();
    // hours of which retention may have removed rows stay as they were counted, and what was untracked stays so
    expect([
      ...(await kept.sql`select report_timezone, retention_days, life::text, tracked_since = '2026-01-02 03:04:05.000007+00' as tracked, now() - frozen_before between '29 days 23 hours' and '30 days 1 hour' as frozen from smslogd.settings`),
    ]).toEqual([{ report_timezone: 'UTC', retention_days: 30, life: '00:20:00', tracked: true, frozen: true }]);
    await again();
  });

  test('and what they hold is counted', async () => {
    await kept.sql.unsafe('drop schema smslogd cascade');
    await again();
    const counted = await kept.sql`select total, delivered from verification.sms_delivery_hourly`;
    expect([...counted]).toEqual([{ total: '1', delivered: '1' }]);
  });

  test.each([
    ['drop column body', 'has no column body (text)'],
    [
      'alter column phone_number type varchar(20)',
      'phone_number of verification.sms_log is character varying(20), it must be text',
    ],
    ['alter column inserted_at type timestamp', 'inserted_at of verification.sms_log is timestamp without time zone'],
    ['alter column phone_number drop not null', 'phone_number of verification.sms_log may be null'],
    ['alter column updated_at drop default', 'updated_at of verification.sms_log has no default'],
    [
      `add column more text not null default ''; alter table verification.sms_log alter more drop default`,
      'more of verification.sms_log must have a value',
    ],
    ['drop constraint sms_log_pkey', 'lacks PRIMARY KEY (id)'],
    ['drop constraint sms_log_pkey, add primary key (id) deferrable', 'lacks PRIMARY KEY (id)'],
    ['drop constraint sms_log_type_check', 'lacks CHECK ((type = ANY'],
    [
      `drop constraint sms_log_type_check, add check (type in ('verification', 'medication_request', 'text', '2FA')) not valid`,
      'lacks CHECK ((type = ANY',
    ],
    ['drop constraint sms_log_gateway_status_check', 'lacks CHECK ((gateway_status = ANY'],
  ])('that do not fit are named, with what makes them fit: %s', async (change, told) => {
    await kept.sql.unsafe(
      `drop schema smslogd cascade; drop view verification.sms_log_masked; alter table verification.sms_log ${change}`,
    );
    const failure = (await again().catch((error: unknown) => error)) as SmslogdError;
    expect(failure).toMatchObject({ code: 'table_unfit', message: expect.stringContaining(told) });
    expect(await kept.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
    await kept.sql.unsafe(failure.hint.slice(failure.hint.indexOf('again: ') + 'again: '.length));
    await again();
    expect(await again()).toEqual([]);
  });
});

async function migrateSays(): Promise<string[]> {
  const said: string[] = [];
  await migrate(db.owner.config(), { say: (line) => said.push(line) });
  return said;
}

test('a role that does not exist is named before anything is created; a missing privilege comes with its grant', async () => {
  const fresh = await createDatabase({ empty: true });
  await fresh.owner.sql.unsafe(SOURCE_DDL);
  await expect(migrate(fresh.owner.config(), { role: 'nosuch', say: () => {} })).rejects.toMatchObject({
    code: 'privilege_missing',
    message: 'the role nosuch does not exist',
  });
  expect(await fresh.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
  const owner = `owner_${fresh.name}`;
  await fresh.sql
    .unsafe(`create role ${owner} login password 'made-up'; alter table verification.verifications owner to ${owner};
                          grant usage on schema verification to ${owner}`);
  const url = new URL(fresh.url);
  url.username = owner;
  url.password = 'made-up';
  await expect(migrate(fresh.owner.config({ DATABASE_URL: url.href }), { say: () => {} })).rejects.toMatchObject({
    code: 'privilege_missing',
    hint: expect.stringContaining(`grant create on database ${fresh.name} to "${owner}"`) as string,
  });
  await fresh.sql.unsafe(`drop owned by ${owner}; drop role ${owner}`);
  await fresh.drop();
});

test('a publication that only a superuser may change is named with what to run before anything is tried', async () => {
  const fresh = await createDatabase();
  await fresh.sql.unsafe('drop publication smslogd; create publication smslogd for all tables');
  await expect(migrate(fresh.owner.config(), { say: () => {} })).rejects.toMatchObject({
    code: 'privilege_missing',
    hint: expect.stringContaining('drop publication "smslogd"; -- as postgres or a superuser') as string,
  });
  await fresh.sql`drop publication smslogd`;
  await migrate(fresh.owner.config(), { say: () => {} });
  await fresh.drop();
});
