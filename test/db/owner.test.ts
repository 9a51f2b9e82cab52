/** Who makes what smslogd owns, and who can use it: the source's owner alone makes it, and nobody reads personal data who was not meant to. */
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { SmslogdError } from '../../src/errors.ts';
import { dryRun, migrate } from '../../src/schema/migrate.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

const PASSWORD = 'made-up';
/** roles of this test's own: owner and others of the source, and somebody else */
const names = () =>
  ['owner', 'next', 'member', 'other', 'analyst'].map((each) => `${each}_${randomBytes(4).toString('hex')}`);
let db: TestDatabase;
let [owner, next, member, other, analyst]: string[] = [];

beforeEach(async () => {
  db = await createDatabase({ empty: true, superuser: 'each test says who it is' });
  [owner, next, member, other, analyst] = names();
  for (const role of [owner, next, member, other, analyst])
    await db.sql.unsafe(
      `create role ${role} login password '${PASSWORD}'; grant create on database ${db.name} to ${role}`,
    );
  await db.sql.begin(async (tx) => {
    await tx.unsafe(`set local role ${owner}; ${SOURCE_DDL}`);
  });
});
afterEach(async () => {
  // what a role granted goes with it, and stands in the way of who got it
  for (const role of [owner, next, other, member, analyst]) await db.sql.unsafe(`drop owned by ${role} cascade`);
  for (const role of [owner, next, other, member, analyst]) await db.sql.unsafe(`drop role ${role}`);
  await db.drop();
});

function config(role?: string, more: Record<string, string> = {}) {
  const url = new URL(db.url);
  if (role !== undefined) [url.username, url.password] = [role, PASSWORD];
  return db.config({ DATABASE_URL: url.href, ...more });
}

async function migrateAs(role?: string, more?: Record<string, string>): Promise<string[]> {
  const said: string[] = [];
  await migrate(config(role, more), { say: (line) => said.push(line) });
  return said;
}

/** The failure of a migrate. */
async function failureAs(role?: string): Promise<SmslogdError> {
  const failure = await migrateAs(role).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(SmslogdError);
  return failure as SmslogdError;
}

const ownersOfOurs = async () =>
  (
    await db.sql`
      select distinct pg_get_userbyid(owner)::text as owner from (
        select relowner as owner from pg_class where relnamespace = 'smslogd'::regnamespace or oid = 'verification.sms_log'::regclass
        union all select proowner from pg_proc where pronamespace in ('smslogd'::regnamespace, 'verification'::regnamespace)
        union all select pubowner from pg_publication union all select nspowner from pg_namespace where nspname = 'smslogd') o`
  ).map((row) => row['owner'] as string);

describe('what migrate makes is the owner of the source table', () => {
  test("'s, also where a superuser runs it", async () => {
    await migrateAs();
    expect(await ownersOfOurs()).toEqual([owner]);
  });

  test("'s, also where a superuser pastes what --dry-run prints", async () => {
    await db.sql.unsafe(await dryRun(config(), { say: () => {} })).simple();
    expect(await ownersOfOurs()).toEqual([owner]);
  });

  test("'s, also where one of several owners runs it, a member of that role", async () => {
    await db.sql.unsafe(`grant ${owner} to ${member}`);
    await migrateAs(member);
    expect(await ownersOfOurs()).toEqual([owner]);
  });

  test('and nobody else runs it: it says who, and nothing is done', async () => {
    const failure = await failureAs(other);
    expect(failure).toMatchObject({ code: 'privilege_missing', message: expect.stringContaining(owner!) });
    // not to make it one: it may be the daemon's role
    expect(failure.hint).toBe(`Give migrate the address of ${owner}, or of a member of that role, in DATABASE_URL.`);
    expect(await db.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
  });

  test('and what that role lacks is named, each privilege', async () => {
    await db.sql.unsafe(
      `alter schema verification owner to ${other}; revoke create on database ${db.name} from ${owner}`,
    );
    const failure = await failureAs(owner);
    expect(failure.code).toBe('privilege_missing');
    const grants = /run: (.*)$/.exec(failure.hint)![1]!;
    expect(grants).toContain(`grant create on schema verification to "${owner}";`);
    await db.sql.unsafe(grants);
    await migrate(config(owner), { role: analyst!, say: () => {} });
    const [row] = await db.sql`select has_schema_privilege(${analyst!}, 'verification', 'usage') as may`;
    expect(row?.['may']).toBe(true);
  });

  test('and so is the right to create in the database, which a publication needs also where the schemas are there', async () => {
    await db.sql.unsafe(
      `create schema smslogd authorization ${owner}; revoke create on database ${db.name} from ${owner}`,
    );
    const grant = `grant create on database ${db.name} to "${owner}";`;
    expect(await failureAs(owner)).toMatchObject({ hint: `As an administrator run: ${grant}` });
    await db.sql.unsafe(grant);
    await migrateAs(owner);
    await db.sql.unsafe(`revoke create on database ${db.name} from ${owner}`);
    await migrateAs(owner);
  });

  test('and a schema that it may use and not grant is named before anything is made', async () => {
    await db.sql.unsafe(
      `alter schema verification owner to ${other}; grant usage, create on schema verification to ${owner}`,
    );
    const failure = await failureAs(owner);
    expect(failure).toMatchObject({
      code: 'privilege_missing',
      hint: expect.stringContaining(`grant usage on schema verification to "${owner}" with grant option;`) as string,
    });
    expect(await db.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
  });

  test('and so is a language that it may not use; what only the server knows is told in its words', async () => {
    await db.sql.unsafe('revoke usage on language plpgsql from public');
    expect(await failureAs(owner)).toMatchObject({
      code: 'privilege_missing',
      hint: `As an administrator run: grant usage on language plpgsql to "${owner}";`,
    });
    expect(await db.sql`select from pg_namespace where nspname = 'smslogd'`).toHaveLength(0);
    await db.sql.unsafe(`
      grant usage on language plpgsql to public;
      create function public.forbid() returns event_trigger language plpgsql as $$
      begin raise exception 'views are made by the DBAs' using errcode = '42501'; end $$;
      create event trigger forbid on ddl_command_end when tag in ('CREATE VIEW') execute function public.forbid()`);
    const failure = await failureAs(owner);
    await db.sql.unsafe('drop event trigger forbid');
    expect(failure).toMatchObject({
      code: 'privilege_missing',
      message: `${owner} may not create what smslogd needs: views are made by the DBAs`,
      hint: `As an administrator grant ${owner} what it lacks, then run migrate again.`,
    });
  });

  test('where policies hide what is made from the daemon it says so, and what to run', async () => {
    await db.sql.unsafe(`
      create schema rules;
      create function rules.protect() returns event_trigger language plpgsql as $$
      declare each record;
      begin
        for each in select objid from pg_event_trigger_ddl_commands() where object_type = 'table' loop
          execute format('alter table %s enable row level security', each.objid::regclass);
        end loop;
      end $$;
      create event trigger protect on ddl_command_end when tag in ('CREATE TABLE') execute function rules.protect()`);
    const failure = await migrate(config(owner), { role: analyst!, say: () => {} }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'row_security' });
    const { hint } = failure as SmslogdError;
    expect(hint).toContain('alter table smslogd.checkpoint disable row level security;');
    await db.sql.unsafe('drop event trigger protect');
    await db.sql.unsafe(hint);
    await migrate(config(owner), { role: analyst!, say: () => {} });
    // to a member of the owner they apply where they do to the owner
    await db.sql.unsafe(`grant ${owner} to ${analyst}; alter table smslogd.sms_refused enable row level security`);
    await migrate(config(owner), { role: analyst!, say: () => {} });
    await db.sql.unsafe('alter table smslogd.sms_refused force row level security');
    const forced = migrate(config(owner), { role: analyst!, say: () => {} });
    await expect(forced).rejects.toMatchObject({ code: 'row_security' });
    await db.sql.unsafe(`alter role ${analyst} bypassrls`);
    await migrate(config(owner), { role: analyst!, say: () => {} });
    await db.sql.unsafe(`alter role ${analyst} nobypassrls; revoke ${owner} from ${analyst}`);
  });
});

describe('nothing of others is run or built upon', () => {
  test.each([
    ['schema smslogd', 'create schema smslogd', 'schema smslogd'],
    [
      'a function',
      `create schema smslogd; create function smslogd.objects() returns table (object text, state text) language plpgsql as $$ begin perform pg_catalog.set_config('planted.ran', 'yes', false); end $$`,
      'smslogd',
    ],
    ['a table of the schema', 'create schema smslogd; create table smslogd.settings (only_row boolean)', 'smslogd'],
    ['a schema that all may create in', 'create schema smslogd; grant create on schema smslogd to public', "public's"],
    ['a view', 'create view verification.sms_backlog as select 1 as x', 'view verification.sms_backlog'],
    ['the log', 'create table verification.sms_log (id uuid primary key)', 'table verification.sms_log'],
    [
      'a function beside the log',
      'create function verification.sms_delivery_between(a date, b date) returns int language sql as $$ select 1 $$',
      'function verification.sms_delivery_between(date,date)',
    ],
  ])('%s that somebody else has put there', async (_, planted, told) => {
    await db.sql.unsafe(`grant usage, create on schema verification to ${other}`);
    await db.sql.begin(async (tx) => {
      await tx.unsafe(`set local role ${other}; ${planted}`);
    });
    const before = await db.sql`select oid, relname from pg_class order by 1`;
    for (const role of [undefined, owner]) {
      const failure = await failureAs(role);
      expect(failure).toMatchObject({ code: 'owner_mismatch', message: expect.stringContaining(told) });
      expect(failure.message).toContain(other);
    }
    expect(await db.sql`select oid, relname from pg_class order by 1`).toEqual(before);
  });

  test('a schema in which somebody else may create', async () => {
    await db.sql.begin(async (tx) => {
      await tx.unsafe(`set local role ${owner}; create schema smslogd; grant create on schema smslogd to ${other}`);
    });
    const failure = await failureAs();
    expect(failure).toMatchObject({
      code: 'owner_mismatch',
      message: expect.stringContaining('create in schema smslogd'),
    });
    expect(failure.hint).toContain(`revoke create on schema smslogd from ${other}`);
  });

  test("a trigger on a table of smslogd that runs somebody else's function", async () => {
    await migrateAs();
    await db.sql.unsafe(`
      create schema elsewhere authorization ${other};
      set role ${other};
      create function elsewhere.planted() returns trigger language plpgsql as $$ begin raise exception 'it ran'; end $$;
      reset role;
      create trigger planted before update on smslogd.settings for each row execute function elsewhere.planted()`);
    const failure = await failureAs();
    expect(failure).toMatchObject({ code: 'owner_mismatch', message: expect.stringContaining('trigger planted') });
  });

  test('a search path of the database that leads to functions of others', async () => {
    await db.sql.unsafe(`
      create schema elsewhere authorization ${other};
      grant usage on schema elsewhere to public;
      set role ${other};
      create function elsewhere.to_regclass(text) returns regclass language plpgsql as $$ begin raise exception 'it ran'; end $$;
      reset role;
      alter database ${db.name} set search_path = elsewhere, pg_catalog`);
    await migrateAs();
    await migrateAs(owner);
    expect(await ownersOfOurs()).toEqual([owner]);
  });
});

test("after a change of the source's owner it says what to run and who may, and goes on when that was done", async () => {
  await migrateAs(owner);
  await db.sql.unsafe(
    `alter table verification.verifications owner to ${next}; grant usage on schema verification to ${next}`,
  );
  for (const role of [owner, next]) expect((await failureAs(role)).code).toMatch(/owner_mismatch|privilege_missing/);
  const { code, hint } = await failureAs(next);
  expect(code).toBe('owner_mismatch');
  const statements = [...hint.matchAll(/alter [a-z ]+ \S[^;]* owner to [^;]+;/g)].map(([each]) => each).join(' ');
  await db.sql.unsafe(statements);
  await db.sql.unsafe(
    `grant create on schema verification to ${next}; grant usage on schema verification to ${next} with grant option`,
  );
  const said = await migrateAs(next);
  expect(said.filter((line) => line.endsWith('put back'))).toEqual([
    expect.stringMatching(/^function \S+\(.*\) and \d\d more were changed: put back$/),
  ]);
  expect(await ownersOfOurs()).toEqual([next]);
});

describe('personal data', () => {
  const personal = ['verification.sms_log', 'smslogd.sms_poll', 'smslogd.sms_refused'];
  const readableBy = async (role: string) =>
    (
      await db.sql`select name from unnest(${personal}::text[]) name where has_any_column_privilege(${role}, name, 'select')`
    ).map((row) => row['name'] as string);

  test('is read by nobody whom ALTER DEFAULT PRIVILEGES gives all that the owner makes', async () => {
    await db.sql.unsafe(`
      alter default privileges for role ${owner} grant all on tables to ${analyst};
      alter default privileges for role ${owner} grant all on functions to ${analyst};
      alter default privileges for role ${owner} grant all on sequences to ${analyst};
      alter default privileges for role ${owner} in schema verification grant all on tables to ${member};
      alter default privileges for role ${owner} grant select on tables to public`);
    const said = await migrateAs();
    for (const role of [analyst!, member!]) {
      expect(said.filter((line) => line.startsWith(`taken from ${role}: `))).toHaveLength(1);
      expect(await readableBy(role)).toEqual([]);
    }
    const [row] = await db.sql`
      select has_table_privilege(${analyst!}, 'verification.sms_log_masked', 'delete') as deletes,
             has_function_privilege(${analyst!}, 'smslogd.remove_logged(tid[],timestamptz)', 'execute') as removes,
             has_table_privilege(${analyst!}, 'verification.sms_backlog', 'select') as looks`;
    expect(row).toEqual({ deletes: false, removes: false, looks: true });
  });

  test('is taken from those who were granted it by name, by column or as everybody; the roles keep theirs', async () => {
    await db.sql.unsafe(`grant usage on schema verification to ${other}, ${analyst}`);
    await migrateAs();
    await migrate(config(), { role: other!, say: () => {} });
    const privileges = () => db.sql`
      select c.oid::regclass::text as name, relacl::text as acl, array(select attacl::text from pg_attribute where attrelid = c.oid and attacl is not null) as columns
        from pg_class c where relnamespace = 'smslogd'::regnamespace or oid = 'verification.sms_log'::regclass order by 1`;
    const before = await privileges();
    await db.sql.unsafe(`
      grant select on verification.sms_log to ${analyst} with grant option;
      set role ${analyst}; grant select on verification.sms_log to ${member}; reset role;
      grant select (phone_number) on verification.sms_log to ${next};
      grant select on smslogd.sms_poll to public;
      revoke update on smslogd.checkpoint from ${other}`);
    const said = await migrateAs();
    expect(said).toEqual(
      expect.arrayContaining([
        `taken from ${analyst}: select on verification.sms_log`,
        `taken from ${member}: select on verification.sms_log`,
        `taken from ${next}: select on verification.sms_log.phone_number`,
        'taken from public: select on smslogd.sms_poll',
        `grants to ${other}`,
      ]),
    );
    expect(await privileges()).toEqual(before);
    expect(await migrateAs()).toEqual([]);
  });
});
