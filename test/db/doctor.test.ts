import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { command } from '../../src/commands/doctor.ts';
import type { Result } from '../../src/doctor/check.ts';
import { findingOf } from '../../src/doctor/gateway.ts';
import { wantedPrivileges } from '../../src/doctor/privileges.ts';
import { toSmslogdError } from '../../src/errors.ts';
import type { Outcome } from '../../src/poller/outcome.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

const ROLE_PASSWORD = 'secret-of-the-role';
const GATEWAY_PASSWORD = 'secret-of-the-gateway';

let db: TestDatabase;
let role: string;
let url: string;
const gateway = createServer((request, response) => {
  const login = Buffer.from(`login:${GATEWAY_PASSWORD}`).toString('base64');
  if (request.headers.authorization === `Basic ${login}`)
    response.end("<status id='1000001' date=''><state error='x'>Rejected</state></status>");
  else response.end('401 Unauthorized');
}).listen(0, '127.0.0.1');

beforeAll(async () => {
  db = await createDatabase();
  role = `${db.name}_daemon`;
  await db.sql.unsafe(`create role ${role} login password '${ROLE_PASSWORD}'`);
  url = db.url.replace(/postgres:\/\/[^@]+@/, `postgres://${role}:${ROLE_PASSWORD}@`);
  if (!gateway.listening) await once(gateway, 'listening');
});
afterAll(async () => {
  gateway.close();
  await db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  await db.drop();
});

async function doctor(more: Record<string, string> = {}) {
  const lines: string[] = [];
  const { port } = gateway.address() as AddressInfo;
  const env = db.env({
    DATABASE_URL: url,
    IP2SMS_URL: `http://127.0.0.1:${port}/ip2sms/`,
    IP2SMS_PASSWORD: GATEWAY_PASSWORD,
    ...more,
  });
  const io = { env, print: (line: string) => lines.push(line), stdoutIsTerminal: false };
  const code = await command.run({ json: true }, io);
  const text = lines.join('\n');
  expect(text).not.toContain('secret-of');
  const { checks } = JSON.parse(text) as { checks: Result[] };
  return { code, checks, of: (name: string) => checks.find((check) => check.name === name) };
}

test('a role without privileges is told what to grant, and what depends on it is skipped or fails with the same fix', async () => {
  const { code, of } = await doctor();
  expect(code).toBe(1);
  expect(of('database')?.level).toBe('ok');
  expect(of('role of DATABASE_URL')?.level).toBe('ok');
  expect(of('replication connection')).toMatchObject({
    level: 'FAIL',
    fix: expect.stringMatching(
      /^Set DATABASE_REPLICATION_URL to the address of the role that may, as smslogd_replication of sql\/roles\.sql/,
    ),
  });
  expect(of('schema')).toMatchObject({ level: 'FAIL', fix: expect.stringContaining('smslogd migrate --role') });
  expect(of('privileges')?.level).toBe('skip');
});

test('after the fixes nothing fails, and what is only worth doing is a warning', async () => {
  await db.sql.unsafe(`alter role ${role} replication`);
  await migrate(db.owner.config(), { role, say: () => {} });
  const { code, checks, of } = await doctor();
  expect(checks.filter((check) => check.level === 'FAIL')).toEqual([]);
  expect(code).toBe(0);
  // one role for both: it works, at a price
  expect(of('role of DATABASE_URL')).toMatchObject({
    level: 'warn',
    says: expect.stringContaining('can copy the whole server'),
    fix: `alter role "${role}" noreplication; -- once DATABASE_REPLICATION_URL names a role of its own, as smslogd_replication of sql/roles.sql`,
  });
  expect(of('slot')).toMatchObject({ level: 'ok', says: expect.stringContaining('does not exist yet') });
  expect(of('max_slot_wal_keep_size')).toMatchObject({ level: 'warn', fix: expect.stringContaining('alter system') });
  expect(of('gateway')?.level).toBe('ok');
});

test('a schema that the role may not use is named with what mends it, and so is a column that the log lacks', async () => {
  await db.sql.unsafe(
    `revoke usage on schema verification from ${role}; alter table verification.sms_log rename column body to text`,
  );
  expect((await doctor()).of('privileges')).toMatchObject({
    level: 'FAIL',
    says: `role ${role} lacks usage on verification`,
    fix: expect.stringContaining(`smslogd migrate --role ${role} `),
  });
  await db.sql.unsafe(`grant usage on schema verification to ${role}`);
  expect((await doctor()).of('the log')).toMatchObject({
    level: 'FAIL',
    says: 'it has no column body',
    fix: expect.stringContaining('smslogd migrate'),
  });
  await db.sql.unsafe('alter table verification.sms_log rename column text to body');
  expect((await doctor()).of('the log')?.level).toBe('ok');
});

test("every grant of sql/grants.sql to the daemon's role is a wanted privilege", () => {
  const grants = readFileSync('sql/grants.sql', 'utf8').match(/^grant .* to :"role";$/gm) ?? [];
  expect(grants.length).toBeGreaterThan(4);
  expect(grants.filter((line) => wantedPrivileges(line, { table: '"a"."b"', schema: 'a' }).length === 0)).toEqual([]);
});

test.for([
  ['update (gateway_status) on verification.sms_log', 'update (gateway_status)', 'verification.sms_log'],
  ['select on "verification"."verifications"', 'select', 'verification.verifications'],
  ['delete on smslogd.sms_poll', 'delete', 'smslogd.sms_poll'],
  // granted on all tables of the schema at once
  ['select on smslogd.operator_prefix', 'select', 'smslogd.operator_prefix'],
  ['execute on smslogd.freeze_hours(timestamptz)', 'execute', 'function smslogd.freeze_hours(timestamptz)'],
] as const)('a privilege that was taken away is named: %s', async ([name, privilege, table]) => {
  await db.sql.unsafe(`revoke ${privilege} on ${table} from ${role}`);
  const { code, of } = await doctor();
  expect(code).toBe(1);
  expect(of('privileges')).toMatchObject({ level: 'FAIL', says: expect.stringContaining(name) });
  await db.sql.unsafe(`grant ${privilege} on ${table} to ${role}`);
});

test('a publication that is gone or changed comes with the SQL that mends it', async () => {
  await db.sql`alter publication smslogd set (publish = 'delete')`;
  const changed = (await doctor()).of('publication');
  expect(changed).toMatchObject({ level: 'FAIL', fix: expect.stringContaining('alter publication "smslogd" set') });
  await db.sql`drop publication smslogd`;
  const gone = (await doctor()).of('publication');
  expect(gone).toMatchObject({ level: 'FAIL', fix: expect.stringContaining('create publication "smslogd"') });
  await migrate(db.owner.config(), { say: () => {} });
  expect((await doctor()).of('publication')?.level).toBe('ok');
});

test("a slot of another plugin is somebody else's, and so is one of another database", async () => {
  await db.sql`select pg_create_physical_replication_slot(${db.name})`;
  expect((await doctor()).of('slot')?.level).toBe('FAIL');
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  expect((await doctor()).of('slot')).toMatchObject({
    level: 'warn',
    says: expect.stringContaining(', inactive, retains'),
  });
  await db.sql`select pg_drop_replication_slot(${db.name})`;
});

test('a slot that a daemon reads and that is no failover slot is warned of, where the server has them', async ({
  skip,
}) => {
  const [{ version } = { version: 0 }] = await db.sql<
    { version: number }[]
  >`select current_setting('server_version_num')::int as version`;
  skip(version < 170_000, 'this server has no failover slots');
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  const reader = new Client(await pgConfig(db.replicationUrl, { name: 'test', replication: true }));
  await reader.connect();
  const read = `START_REPLICATION SLOT "${db.name}" LOGICAL 0/0 (proto_version '1', publication_names 'smslogd')`;
  const reading = reader.query(read).catch(() => {});
  await until(
    'it to be read',
    async () => (await db.sql`select from pg_replication_slots where slot_name = ${db.name} and active`).length === 1,
  );
  const { level, says, fix } = await said('slot');
  expect({ level, says, fix }).toEqual({
    level: 'warn',
    says: expect.stringContaining('no failover slot'),
    fix: expect.stringContaining(`ALTER_REPLICATION_SLOT "${db.name}" (FAILOVER true)`),
  });
  await reader.end();
  await reading;
  await until(
    'it to be free',
    async () =>
      (await db.sql`select from pg_replication_slots where slot_name = ${db.name} and not active`).length === 1,
  );
  await db.sql`select pg_drop_replication_slot(${db.name})`;
});

test('a replication address of another database fails', async () => {
  const elsewhere = db.replicationUrl.replace(`/${db.name}?`, '/postgres?');
  expect((await doctor({ DATABASE_REPLICATION_URL: elsewhere })).of('replication connection')).toMatchObject({
    level: 'FAIL',
    says: expect.stringContaining('different databases'),
    fix: `Use the database ${db.name} in DATABASE_REPLICATION_URL.`,
  });
});

test('a replication address of another cluster fails', async () => {
  // to this role the server says that it is another one
  await db.sql.unsafe(`
    create schema elsewhere; grant usage on schema elsewhere to ${role};
    create function elsewhere.pg_control_system() returns table (system_identifier bigint) language sql as 'select 1::bigint';
    alter role ${role} set search_path = elsewhere, pg_catalog`);
  const env = { DATABASE_POOLED: 'true', DATABASE_REPLICATION_URL: db.replicationUrl };
  expect((await doctor(env)).of('replication connection')).toMatchObject({
    level: 'FAIL',
    says: expect.stringContaining('different clusters'),
  });
  await db.sql.unsafe(`alter role ${role} reset search_path; drop schema elsewhere cascade`);
});

test('a replication address of a role that may not replicate, or of a standby, fails', async () => {
  const other = `${role}_2`;
  // to this role the server says that it is one
  await db.sql.unsafe(`
    create role ${other} login password '${ROLE_PASSWORD}';
    create schema stand_by; grant usage on schema stand_by to ${other};
    create function stand_by.pg_is_in_recovery() returns boolean language sql as 'select true';
    alter role ${other} set search_path = stand_by, pg_catalog`);
  const found = async () =>
    (await doctor({ DATABASE_REPLICATION_URL: url.replace(role, other) })).of('replication connection')!;
  const { says, fix } = await found();
  expect(says).toBe(`role ${other} may not replicate`);
  await db.sql.unsafe(fix!);
  expect(await found()).toMatchObject({
    level: 'FAIL',
    says: expect.stringMatching(/^DATABASE_REPLICATION_URL leads to a standby/),
  });
  await db.sql.unsafe(`drop schema stand_by cascade; drop role ${other}`);
});

test('a role that may not connect to the database is told who grants it, for the stream as well', async () => {
  const other = `${role}_3`;
  await db.sql.unsafe(
    `revoke connect on database ${db.name} from public; create role ${other} login replication password '${ROLE_PASSWORD}'`,
  );
  const env = { DATABASE_REPLICATION_URL: url.replace(role, other) };
  const { says, fix } = (await doctor(env)).of('database')!;
  expect(says).toContain('42501');
  expect(fix).toMatch(/^As an administrator run: grant connect on database DATABASE to ROLE;/);
  await db.sql.unsafe(`grant connect on database ${db.name} to ${role}`);
  const found = (await doctor(env)).of('replication connection')!;
  expect(found.says).toBe(`role ${other} may not connect to this database`);
  await db.sql.unsafe(found.fix!);
  expect((await doctor(env)).of('replication connection')?.level).toBe('ok');
  await db.sql.unsafe(`grant connect on database ${db.name} to public; drop owned by ${other}; drop role ${other}`);
});

test('another SOURCE_TIMEZONE than the stored one fails, a teardown and another REPORT_TIMEZONE warn', async () => {
  const { SLOT_NAME: slot } = db.config();
  await db.sql`insert into smslogd.checkpoint (slot_name, source_timezone) values (${slot}, 'Europe/Kyiv')`;
  expect((await doctor()).of('settings in the database')).toMatchObject({
    level: 'FAIL',
    fix: 'SOURCE_TIMEZONE=Europe/Kyiv',
  });
  await db.sql`update smslogd.checkpoint set source_timezone = 'UTC', removed_at = now()`;
  expect((await doctor()).of('settings in the database')?.says).toContain('teardown');
  await db.sql`update smslogd.checkpoint set removed_at = null`;
  expect((await doctor({ REPORT_TIMEZONE: 'UTC' })).of('settings in the database')?.level).toBe('warn');
  // it is part of what migrate made
  expect((await doctor({ SOURCE_TIMEZONE: 'Europe/Kyiv' })).of('installed objects')).toMatchObject({
    level: 'warn',
    says: expect.stringMatching(/^of another version or with other settings: sql\/conversion\.sql$/),
  });
});

test.each([
  [0, 'warn', 'the database keeps SMS for ever'],
  [31, 'warn', 'the database keeps SMS for 31 days'],
  [30, 'ok', 'days in'],
  [29, 'ok', 'days in'],
])('with RETENTION_DAYS of 30 here and %d in the database it is: %s', async (days, level, says) => {
  await db.sql`update smslogd.settings set retention_days = ${days}`;
  expect((await doctor({ RETENTION_DAYS: '30' })).of('settings in the database')).toMatchObject({
    level,
    says: expect.stringContaining(says),
  });
  await db.sql`update smslogd.settings set retention_days = 0`;
});

test('a refused login fails even where the gateway says it with HTTP 200', async () => {
  const { code, of } = await doctor({ IP2SMS_PASSWORD: 'secret-of-nobody' });
  expect(code).toBe(1);
  expect(of('gateway')).toMatchObject({ level: 'FAIL', says: expect.stringContaining('refuses the login') });
});

test('a secret that can be read once, as from the pipe of <(…), is enough to ask the gateway', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-'));
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const writer = spawn('sh', ['-c', `printf ${GATEWAY_PASSWORD} > ${pipe}; while : > ${pipe}; do :; done`]);
  try {
    expect((await doctor({ IP2SMS_PASSWORD_FILE: pipe })).of('gateway')).toMatchObject({ level: 'ok' });
  } finally {
    writer.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  }
});

const foundBy = (outcome: Pick<Outcome, 'result' | 'why' | 'cause' | 'busy'>) =>
  findingOf({ again: 'schedule', breaker: 'fault', overload: true, ...outcome }, { IP2SMS_TIMEOUT_MS: 1 });

test.each<[...Parameters<typeof foundBy>, Partial<Result>]>([
  [{ result: 'timeout' }, { level: 'FAIL', says: 'no answer within 1 ms' }],
  [{ result: 'http_5xx' }, { level: 'warn', says: expect.stringContaining('5xx') }],
  [
    { result: 'http_4xx', busy: true },
    { level: 'warn', says: 'it is rate limiting: it asks for a pause' },
  ],
  [
    { result: 'http_5xx', busy: true },
    { level: 'warn', says: 'it is rate limiting: it asks for a pause' },
  ],
  [{ result: 'http_4xx' }, { level: 'warn', fix: expect.stringContaining('IP2SMS_STATUS_URL') }],
  [
    { result: 'protocol', why: 'garbage' },
    { level: 'warn', says: expect.stringContaining('(garbage)') },
  ],
  // what a gateway may say of an id that it does not know
  [{ result: 'protocol', why: 'gateway_error' }, { level: 'ok' }],
  [{ result: 'mismatch' }, { level: 'ok' }],
])('a gateway that ends the question about an unknown id with %o is judged by that', (outcome, finding) => {
  expect(foundBy(outcome)).toMatchObject(finding);
});

test('a certificate that is not to be trusted is told apart from a gateway that is not there', () => {
  const hints = {
    CERT_HAS_EXPIRED: 'expired',
    DEPTH_ZERO_SELF_SIGNED_CERT: 'IP2SMS_CA_FILE',
    ERR_TLS_CERT_ALTNAME_INVALID: 'IP2SMS_URL',
  };
  for (const [cause, hint] of Object.entries(hints))
    expect(foundBy({ result: 'network', cause })).toMatchObject({ level: 'FAIL', fix: expect.stringContaining(hint) });
  expect(foundBy({ result: 'network', cause: 'ENOTFOUND' })).toMatchObject({
    level: 'FAIL',
    fix: expect.stringContaining('IP2SMS_STATUS_URL'),
  });
});

test('a gateway that does not answer fails; without the poller it is not asked', async () => {
  const dead = { IP2SMS_URL: 'http://127.0.0.1:9/ip2sms/' };
  expect((await doctor(dead)).of('gateway')).toMatchObject({ level: 'FAIL', says: 'no connection (ECONNREFUSED)' });
  expect((await doctor({ ...dead, LOOPS: 'mirror' })).of('gateway')?.level).toBe('skip');
});

const said = async (check: string) => (await doctor()).of(check)!;

test('a source without a unique index on its id is warned of, with the statement that makes one', async () => {
  expect(await said('index on the id')).toMatchObject({ level: 'ok' });
  await db.sql`alter table verification.verifications drop constraint verifications_pkey`;
  await db.sql`create index on verification.verifications (id)`;
  await db.sql`create unique index on verification.verifications (id) where active`;
  await db.sql`create unique index on verification.verifications (id, inserted_at)`;
  await db.sql`create unique index on verification.verifications (inserted_at, id)`;
  await db.sql`create unique index on verification.verifications (inserted_at) include (id)`;
  const { level, fix } = await said('index on the id');
  expect(level).toBe('warn');
  await db.sql.unsafe(fix!);
  expect(await said('index on the id')).toMatchObject({ level: 'ok' });
});

test.each([
  'verification.verifications',
  'verification.sms_log',
  'smslogd.migrations',
  'smslogd.settings',
  'smslogd.sms_poll',
  'smslogd.checkpoint',
])('row-level security of %s that is for the daemon, too, fails, and the daemon says so', async (table) => {
  expect(await said('row-level security')).toMatchObject({ level: 'ok' });
  await db.sql.unsafe(`alter table ${table} enable row level security`);
  const { checks, of } = await doctor();
  const { level, says, fix } = of('row-level security')!;
  expect({ level, says }).toEqual({ level: 'FAIL', says: expect.stringContaining(table) });
  expect(checks.filter((check) => check.level === 'FAIL').map(({ name }) => name)).toEqual(['row-level security']);
  const sql = openDatabase(db.config({ DATABASE_URL: url }), { max: 1, name: 'test' });
  const failure = await sql.unsafe(`select from ${table}`).catch(toSmslogdError);
  expect(failure).toMatchObject({ code: 'row_security' });
  await sql.end();
  await db.sql.unsafe(fix!);
  expect(await said('row-level security')).toMatchObject({ level: 'ok' });
  await db.sql.unsafe(`alter table ${table} disable row level security; alter role ${role} nobypassrls`);
});

test.each([
  ['a superuser', 'smslogd.note_hours()', 'current_user', 'a superuser'],
  [
    'another role than the source',
    'verification.sms_delivery_between(date, date)',
    'pg_monitor',
    'belong to pg_monitor',
  ],
])('a function of smslogd that runs with the rights of %s fails', async (_, name, owner, told) => {
  expect(await said('owner')).toMatchObject({ level: 'ok' });
  const [row] =
    await db.sql`select proowner::regrole::text as owner from pg_proc where oid = ${name}::text::regprocedure`;
  await db.sql.unsafe(`alter function ${name} owner to ${owner}`);
  const { level, says } = await said('owner');
  expect({ level, says }).toEqual({ level: 'FAIL', says: expect.stringContaining(told) });
  await db.sql.unsafe(`alter function ${name} owner to ${row!['owner'] as string}`);
});

describe('who else reads personal data is listed', () => {
  const [analyst, member] = ['analyst', 'member'].map((name) => `${name}_${randomBytes(4).toString('hex')}`);
  const filled = (text: string) =>
    text.replaceAll('ANALYST', analyst!).replaceAll('MEMBER', member!).replaceAll('DAEMON', role);
  beforeAll(() => db.sql.unsafe(`create role ${analyst}; create role ${member} login noinherit`));
  afterAll(() => db.sql.unsafe(`drop owned by ${analyst}, ${member}; drop role ${analyst}, ${member}`));

  test.each([
    ['by name', 'grant select on verification.sms_log to ANALYST', 'ANALYST (select on verification.sms_log)'],
    [
      'by column',
      'grant select (id, type, phone_number, body, gateway_id, inserted_at) on verification.sms_log to ANALYST',
      'by ANALYST (select (body) on verification.sms_log), ANALYST (select (gateway_id) on verification.sms_log), ANALYST (select (phone_number) on verification.sms_log)',
    ],
    ['as everybody', 'grant select on smslogd.sms_poll to public', 'public (select on smslogd.sms_poll)'],
    [
      'as a member of such a role',
      'grant select on smslogd.sms_refused to ANALYST; grant ANALYST to MEMBER',
      'MEMBER (member of ANALYST)',
    ],
    ["as a member of the daemon's role", 'grant DAEMON to MEMBER', 'MEMBER (member of DAEMON)'],
  ])('%s', async (_, statement, told) => {
    expect(await said('personal data')).toMatchObject({ level: 'ok' });
    await db.sql.unsafe(filled(statement));
    const { level, says, fix } = await said('personal data');
    expect({ level, says }).toEqual({ level: 'warn', says: expect.stringContaining(filled(told)) });
    await db.sql.unsafe(fix!);
    expect(await said('personal data')).toMatchObject({ level: 'ok' });
  });

  test('through views of others', async () => {
    await db.sql.unsafe(
      filled(`create schema others;
        create view others.phones as select id, phone_number from verification.sms_log;
        create materialized view others.copied as select phone_number from others.phones;
        create view others.counted as select type, count(*) from verification.sms_log group by type;
        create view others.own with (security_invoker = on) as select body from verification.sms_log;
        grant select on all tables in schema others to ANALYST;
        grant select (phone_number) on others.phones to MEMBER`),
    );
    const { level, says, fix } = await said('personal data');
    expect({ level, says }).toEqual({
      level: 'warn',
      says: expect.stringContaining(filled('ANALYST (select on others.copied), ANALYST (select on others.phones)')),
    });
    expect(says).toContain(filled('MEMBER (select (phone_number) on others.phones)'));
    expect(says).not.toMatch(/others\.(counted|own)/);
    await db.sql.unsafe(fix!);
    expect(await said('personal data')).toMatchObject({ level: 'ok' });
    await db.sql.unsafe('drop schema others cascade');
  });

  test('and who is meant to is named, too', async () => {
    await db.sql.unsafe(
      `do $$ begin create role sms_dba; exception when duplicate_object or unique_violation then null; end $$`,
    );
    await db.sql.unsafe(`grant sms_dba, pg_read_all_data to ${member}`);
    const { level, says } = await said('personal data');
    expect(level).toBe('ok');
    for (const group of ['sms_dba', 'pg_read_all_data']) expect(says).toContain(`${member} (member of ${group})`);
    await db.sql.unsafe(`revoke sms_dba, pg_read_all_data from ${member}`);
  });
});

test('a time limit of the role binds the daemon only through a pooler, where it is warned of', async () => {
  for (const limit of [`lock_timeout = '100ms'`, `idle_session_timeout = '1h'`])
    await db.sql.unsafe(`alter role ${role} in database ${db.name} set ${limit}`);
  expect(await said('time limits')).toMatchObject({ level: 'ok' });
  const pooled = { DATABASE_POOLED: 'true' };
  const { level, says, fix } = (await doctor(pooled)).of('time limits')!;
  expect({ level, says }).toEqual({
    level: 'warn',
    says: expect.stringMatching(/^idle_session_timeout = 1h, lock_timeout = 100ms:/) as string,
  });
  await db.sql.unsafe(fix!);
  expect((await doctor(pooled)).of('time limits')).toMatchObject({ level: 'ok' });
});

test('what a pooler keeps the daemon from setting for its sessions is warned of', async () => {
  expect(await said('session settings')).toMatchObject({ level: 'ok' });
  await db.sql.unsafe(`alter role ${role} set transform_null_equals = on`);
  const pooled = { DATABASE_POOLED: 'true' };
  const { level, says, fix } = (await doctor(pooled)).of('session settings')!;
  expect({ level, says }).toEqual({
    level: 'warn',
    says: expect.stringMatching(/row_security = on.*transform_null_equals = on.*policies/) as string,
  });
  await db.sql.unsafe(fix!);
  expect((await doctor(pooled)).of('session settings')).toMatchObject({ level: 'ok' });
  await db.sql.unsafe(`alter role ${role} reset all`);
});

test('a superuser in DATABASE_URL is warned of', async () => {
  expect((await doctor({ DATABASE_URL: db.superuser.url })).of('role of DATABASE_URL')).toMatchObject({
    level: 'warn',
    says: expect.stringContaining('is a superuser'),
  });
});

test('a transaction_timeout of the role is warned of, since it binds the daemon in any way', async ({ skip }) => {
  const [known] = await db.sql`select from pg_settings where name = 'transaction_timeout'`;
  skip(known === undefined, 'this server does not know it');
  await db.sql.unsafe(`alter role ${role} in database ${db.name} set transaction_timeout = '5min'`);
  const { level, fix } = await said('time limits');
  expect(level).toBe('warn');
  await db.sql.unsafe(fix!);
  expect(await said('time limits')).toMatchObject({ level: 'ok' });
});

test('a role or a database that does not allow as many connections as the daemon needs is warned of', async () => {
  const reader = `${db.name}_reader`;
  await db.sql.unsafe(`create role ${reader} login`);
  const limit = (limits: readonly number[]) =>
    db.sql.unsafe(
      [`role ${role}`, `role ${reader}`, `database ${db.name}`]
        .map((what, i) => `alter ${what} connection limit ${limits[i]}`)
        .join(';'),
    );
  const found = async (user: string) =>
    (await doctor({ DATABASE_REPLICATION_URL: url.replace(role, user) })).of('connections')!;
  await limit([7, 1, 9]);
  const { level, says, fix } = await found(reader);
  expect({ level, says }).toEqual({
    level: 'warn',
    says:
      `role ${reader} is limited to 1, and a daemon may need 2 of it; role ${role} is limited to 7, and a daemon may need 8 of it; ` +
      `database ${db.name} is limited to 9, and a daemon may need 10 of it; a second one as many`,
  });
  await db.sql.unsafe(fix!);
  expect(await found(reader)).toMatchObject({ level: 'ok' });
  await limit([8, 2, 10]);
  expect(await found(reader)).toMatchObject({ level: 'ok' });
  expect(await found(role)).toMatchObject({
    level: 'warn',
    says: `role ${role} is limited to 8, and a daemon may need 10 of it; a second one as many`,
  });
  await limit([-1, -1, -1]);
  await db.sql.unsafe(`drop role ${reader}`);
});

test('a trigger that can change what is logged or pass it over is warned of, ours are not', async () => {
  expect(await said('triggers of the log')).toMatchObject({ level: 'ok' });
  await db.sql.unsafe(`
    create function "Censor"() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger "Censor" before insert on verification.sms_log for each row execute function "Censor"();
    create trigger keep before update on verification.sms_log for each row execute function "Censor"();
    create trigger watch after insert on verification.sms_log for each row execute function "Censor"();
    create trigger asleep before insert on verification.sms_log for each row execute function "Censor"();
    alter table verification.sms_log disable trigger asleep;
    create rule "Mute" as on insert to verification.sms_log do instead nothing`);
  const { level, says, fix } = await said('triggers of the log');
  expect({ level, says }).toEqual({
    level: 'warn',
    says: expect.stringMatching(/^rule "Mute", trigger "Censor", trigger keep can/) as string,
  });
  await db.sql.unsafe(fix!);
  expect(await said('triggers of the log')).toMatchObject({ level: 'ok' });
  await db.sql`drop function "Censor" cascade`;
});

test('a source without gateway_id is told: logged, not judged', async () => {
  await db.sql`alter table verification.verifications drop column gateway_id`;
  expect((await doctor()).of('source table')).toMatchObject({
    level: 'warn',
    says: expect.stringContaining('untracked'),
  });
});

test('an unreachable database is one FAIL, and wrong settings are named without their values', async () => {
  const unreachable = await doctor({ DATABASE_URL: `postgres://x:secret-of-x@127.0.0.1:9/x` });
  expect(unreachable.checks.filter((check) => check.level === 'FAIL').map((check) => check.name)).toEqual(['database']);
  const wrong = await doctor({ DATABASE_URL: 'secret-of-y', SNAPSHOT: 'sometimes' });
  expect(wrong.of('settings')?.says).toContain('SNAPSHOT: must be initial or never');
  expect(wrong.of('gateway')?.level).toBe('skip');
});
