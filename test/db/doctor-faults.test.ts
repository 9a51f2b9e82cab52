/**
 * Every wrong set-up is found by the check that is about it, and the fix that is printed with it, pasted, makes that check content. The
 * mirror runs only where a fix says to run it: it mends much by itself.
 */
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/doctor.ts';
import { command as verify } from '../../src/commands/verify.ts';
import type { Cluster } from '../../src/demo/cluster.ts';
import type { Level, Result } from '../../src/doctor/check.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { connect, createServer } from '../support/postgres.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let server: Cluster;
let db: TestDatabase;
let mirror: RunningMirror | undefined;

beforeAll(async () => {
  server = await createServer({
    max_slot_wal_keep_size: '10GB',
    log_error_verbosity: 'terse',
    log_parameter_max_length: 0,
  });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  await insertMany(db.sql, 5);
});
afterAll(async () => {
  await db.sql.end({ timeout: 1 });
  await server.remove();
});
afterEach(stop);

async function run() {
  mirror = startMirror(db);
  await mirror.streaming();
}
async function stop() {
  await mirror?.stop();
  mirror = undefined;
  await until(
    'the slot to be free',
    async () => (await db.sql`select from pg_replication_slots where active`).length === 0,
  );
}

async function doctor(of: TestDatabase, more: Record<string, string> = {}): Promise<Result[]> {
  const lines: string[] = [];
  const env = of.env({ LOOPS: 'mirror', ...more });
  await command.run({ json: true }, { env, print: (line: string) => lines.push(line), stdoutIsTerminal: false });
  return (JSON.parse(lines.join('\n')) as { checks: Result[] }).checks;
}

/** What a check says once it is no longer at `level`: the server takes a reloaded setting a moment later. */
async function notAnymore(level: Level, check: string, more: Record<string, string> = {}): Promise<Result> {
  let found: Result | undefined;
  await until(`${check} to be no longer ${level}`, async () => {
    found = (await doctor(db, more)).find(({ name }) => name === check)!;
    return found.level !== level;
  });
  return found!;
}

/** Runs a fix as it is printed; returns the settings that it says to set. */
async function paste(fix: string, url = db.superuser.url): Promise<Record<string, string>> {
  const [first = ''] = fix.split(' # ');
  const setting = /^([A-Z_]+)=(.*)$/.exec(first);
  if (setting !== null) return { [setting[1]!]: setting[2]! };
  if (first === 'smslogd migrate') await migrate(db.owner.config(), { say: () => {} });
  else if (first === 'smslogd run') await run();
  else {
    // one statement after the other in one session, as psql does
    const session = connect(url, { max: 1 });
    const [statements = ''] = fix.split(' -- ');
    for (const statement of statements.split(';')) if (statement.trim() !== '') await session.unsafe(statement);
    await session.end();
    if (fix.endsWith(': smslogd migrate')) await migrate(db.owner.config(), { say: () => {} });
  }
  if (fix.includes('smslogd verify --repair'))
    await verify.run({ repair: true }, { env: db.env(), print: () => {}, stdoutIsTerminal: false });
  return {};
}

const contentButGateway = ({ level, name }: Result) => level === 'ok' || name === 'gateway';

test('with a right set-up the doctor is content', async () => {
  await run();
  expect((await doctor(db)).filter((result) => !contentButGateway(result))).toEqual([]);
});

test('a server as it comes from its package is named in all that needs a restart, and one restart after the fixes it is ready', async () => {
  const settings = { wal_level: 'replica', max_replication_slots: 1, max_wal_senders: 0 };
  const bare = await createServer({ ...settings, max_slot_wal_keep_size: '10GB' });
  try {
    const first = await createDatabase({ adminUrl: bare.url('postgres') });
    // as where the roles were made by one who may not keep the server's log from showing much
    await first.sql`alter role smslogd reset all`;
    await first.sql`select pg_create_physical_replication_slot('other')`;
    const before = await doctor(first);
    const of = (check: string) => before.find(({ name }) => name === check)!;
    expect(of('wal_level')).toMatchObject({ level: 'FAIL', says: expect.stringContaining('replica') });
    expect(of('slots and senders')).toMatchObject({
      level: 'FAIL',
      says: '1 of 1 slots and 0 of 0 senders in use',
    });
    // the daemon does not try again and again what only an administrator can change
    const mirror = startMirror(first);
    await expect(mirror.done).rejects.toMatchObject({
      code: 'wal_level',
      hint: expect.stringContaining('ALTER SYSTEM'),
    });
    await mirror.stop();
    for (const check of ['wal_level', 'slots and senders']) {
      expect(of(check).fix).toContain('then restart PostgreSQL');
      await paste(of(check).fix!, first.superuser.url);
    }
    expect(of("the server's own log")).toMatchObject({
      level: 'warn',
      says: expect.stringContaining('log_error_verbosity'),
    });
    await paste(of("the server's own log").fix!, first.superuser.url);
    await first.sql.end({ timeout: 1 });
    await bare.stop('fast');
    await bare.start();
    expect((await doctor(first)).filter((result) => !contentButGateway(result))).toEqual([]);
  } finally {
    await bare.remove();
  }
});

/** What is wrong, what the check says of it, how it is brought about, and how what the fix leaves behind is undone. */
type Fault = readonly [wrong: string, says: string, make: () => Promise<unknown>, undo?: () => Promise<unknown>];
const faults = (check: string, level: Level, ...list: Fault[]) =>
  list.map(([wrong, says, make, undo]) => ({ check, level, wrong, says, make, undo }));

const sql = (text: string) => async () => {
  for (const statement of text.split(';')) await db.sql.unsafe(statement);
};
const alterSystem = (text: string) => sql(`alter system set ${text}; select pg_reload_conf()`);
/** Fills `count` segments of 16 MB, as far as their positions go. */
const passWal = async (count: number) => {
  for (let n = 0; n < count; n += 1) await db.sql`select pg_logical_emit_message(false, 'test', ''), pg_switch_wal()`;
};
const dropSlot = () => db.sql`select pg_drop_replication_slot(${db.name})`;
const publication = (text: string) => sql(`alter publication smslogd ${text}`);
const identity = (text: string) => sql(`alter table verification.verifications replica identity ${text}`);

const readOnly = (action: string) =>
  sql(
    `alter database ${db.name} ${action}; alter role postgres in database ${db.name} reset default_transaction_read_only`,
  )();
const loseSlot = async () => {
  await alterSystem("max_slot_wal_keep_size = '1MB'")();
  await until('the slot to be lost', async () => {
    await passWal(2);
    await db.sql`checkpoint`;
    return (await db.sql`select from pg_replication_slots where wal_status = 'lost'`).length === 1;
  });
};

test.for([
  ...faults('database', 'FAIL', [
    'transactions are read only',
    'read only',
    () => readOnly('set default_transaction_read_only = on'),
    () => readOnly('reset default_transaction_read_only'),
  ]),
  ...faults('max_slot_wal_keep_size', 'warn', [
    'slots have no limit',
    'fills the disk',
    alterSystem('max_slot_wal_keep_size = -1'),
  ]),
  ...faults(
    'wal_sender_timeout',
    'warn',
    ['wal_sender_timeout is tiny', '1s', alterSystem("wal_sender_timeout = '1s'")],
    ['wal_sender_timeout is off', 'never', alterSystem('wal_sender_timeout = 0')],
  ),
  ...faults(
    'publication',
    'FAIL',
    ['the publication is gone', 'does not exist', sql('drop publication smslogd')],
    ['the table is not in it', 'does not have the source', publication('drop table verification.verifications')],
    ['it has a row filter', 'row filter', publication('set table verification.verifications where (id is not null)')],
    ['it has a column list', 'its columns', publication('set table verification.verifications (id, phone_number)')],
    ['it has no INSERTs', 'does not publish INSERTs', publication("set (publish = 'update')")],
    ['it leaves the partition root out', 'partition root', publication('set (publish_via_partition_root = false)')],
    [
      "the owner's UPDATEs cannot be published",
      'publishes UPDATE and',
      sql(`alter publication smslogd set (publish = 'insert, update');
           alter table verification.verifications replica identity nothing`),
      identity('default'),
    ],
    [
      "the owner's DELETEs cannot be published",
      'publishes DELETE and',
      sql(`alter publication smslogd set (publish = 'insert, delete');
           alter table verification.verifications replica identity nothing`),
      identity('default'),
    ],
  ),
  ...faults('publication', 'warn', [
    'it has UPDATEs, which nobody needs',
    'publishes UPDATEs or DELETEs',
    publication("set (publish = 'insert, update')"),
  ]),
  ...['all tables', 'tables in schema verification'].flatMap((what) =>
    faults('publication', what === 'all tables' ? 'warn' : 'FAIL', [
      `it is for ${what}`,
      what === 'all tables' ? 'tables other than' : 'does not have the source',
      sql(`drop publication smslogd;
           create publication smslogd for ${what} with (publish = insert, publish_via_partition_root = true)`),
    ]),
  ),
  ...faults(
    'slot',
    'warn',
    ['the slot is gone', 'is missing', dropSlot],
    ['the slot has lost its WAL', 'has lost its WAL', loseSlot, alterSystem("max_slot_wal_keep_size = '10GB'")],
    ['nobody reads the slot', ', inactive, retains', stop],
    [
      'the slot sends prepared transactions early',
      'two_phase',
      async () => {
        await dropSlot();
        await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput', false, true)`;
      },
    ],
  ),
  ...faults('slot', 'FAIL', [
    "the slot is somebody else's",
    'belongs to somebody else',
    async () => {
      await dropSlot();
      await db.sql`select pg_create_physical_replication_slot(${db.name})`;
    },
    async () => {
      await dropSlot();
      await run();
    },
  ]),
  ...faults(
    'checkpoint',
    'warn',
    ['it is in the future', 'ahead', sql('update smslogd.checkpoint set lsn = pg_current_wal_lsn() + 1073741824')],
    ['the log is of another cluster', 'another cluster', sql(`update smslogd.checkpoint set system_id = '1'`)],
  ),
  ...faults('other slots', 'warn', [
    'another slot holds WAL',
    'other',
    async () => {
      await db.sql`select pg_create_physical_replication_slot('other', true)`;
      await passWal(5);
    },
  ]),
  ...faults('refused rows', 'warn', [
    'a row was refused',
    'no_zeros',
    async () => {
      const { id } = await insertVerification(db.sql);
      await db.sql`insert into smslogd.sms_refused (id, sqlstate, reason) values (${id}, '23514', 'no_zeros')`;
    },
  ]),
  ...faults(
    'standbys',
    'FAIL',
    ['the standby is away', '0 of 1 answer', alterSystem("synchronous_standby_names = 'absent'")],
    ['any reader of WAL is one', "the daemon's own", alterSystem("synchronous_standby_names = '*'")],
  ),
  ...faults('synchronized_standby_slots', 'FAIL', [
    'the standby of failover slots is away',
    'absent is inactive, and the stream waits for it',
    alterSystem("synchronized_standby_slots = 'absent'"),
  ]),
  ...faults('source table', 'FAIL', [
    'it is unlogged',
    'streams nothing',
    sql(`alter publication smslogd drop table verification.verifications;
         alter table verification.verifications set unlogged`),
    publication('add table verification.verifications'),
  ]),
  ...faults(
    'the log',
    'FAIL',
    ['it is unlogged', 'a crash empties it', sql('alter table verification.sms_log set unlogged')],
    ['its primary key is gone', 'coming twice', sql('alter table verification.sms_log drop constraint sms_log_pkey')],
    [
      'its primary key is checked at the end of a transaction alone',
      'coming twice',
      sql(`alter table verification.sms_log drop constraint sms_log_pkey, add primary key (id) deferrable`),
    ],
    [
      'its primary key is another column',
      'coming twice',
      sql(`alter table verification.sms_log drop constraint sms_log_pkey;
           alter table verification.sms_log add number int generated always as identity, add primary key (number) include (id)`),
      sql('alter table verification.sms_log drop number'),
    ],
    [
      'a column of its own must have a value',
      'every SMS is refused',
      sql(`alter table verification.sms_log add note text not null default '';
           alter table verification.sms_log alter note drop default`),
      sql('alter table verification.sms_log drop note'),
    ],
  ),
  ...faults(
    'installed objects',
    'FAIL',
    ['a view is gone', 'view verification.sms_stuck was dropped', sql('drop view verification.sms_stuck')],
    [
      'an index of the log is gone',
      'index verification.sms_log_time_idx was dropped',
      sql('drop index verification.sms_log_time_idx'),
    ],
    [
      'the triggers of the log are off',
      'trigger smslogd_note_inserted on verification.sms_log was changed',
      sql('alter table verification.sms_log disable trigger user'),
    ],
    [
      'a function has another body',
      'function smslogd.clock() was changed',
      sql(
        `create or replace function smslogd.clock() returns timestamptz language sql stable parallel safe as 'select null::timestamptz'`,
      ),
    ],
  ),
  ...faults('idle_replication_slot_timeout', 'warn', [
    'idle slots are invalidated',
    '1h',
    alterSystem("idle_replication_slot_timeout = '1h'"),
  ]),
])('$check: $wrong: found, and the fix mends it', async ({ check, level, says, make, undo }, { skip }) => {
  if (['idle_replication_slot_timeout', 'synchronized_standby_slots'].includes(check))
    skip((await db.sql`select from pg_settings where name = ${check}`).length === 0, 'this server does not know it');
  await make();
  const found = await notAnymore('ok', check);
  expect(found).toMatchObject({ level, says: expect.stringContaining(says), fix: expect.any(String) });
  const settings = await paste(found.fix!);
  expect(await notAnymore(level, check, settings)).toMatchObject({ level: 'ok' });
  await undo?.();
});

test('a slot that somebody reads is not told of, however much WAL it retains', async () => {
  const [{ lsn } = { lsn: '' }] = await db.sql<
    { lsn: string }[]
  >`select lsn::text from pg_create_physical_replication_slot('other', true)`;
  await passWal(5);
  expect((await notAnymore('ok', 'other slots')).level).toBe('warn');
  const reader = new Client(await pgConfig(db.superuser.url, { name: 'test', replication: true }));
  await reader.connect();
  const reading = reader.query(`START_REPLICATION SLOT other PHYSICAL ${lsn}`).catch(() => {});
  expect((await notAnymore('warn', 'other slots')).level).toBe('ok');
  await reader.end();
  await reading;
  await stop();
  await db.sql`select pg_drop_replication_slot('other')`;
});

test('a schema that is newer than this version is said to be so, an older one fails', async () => {
  await db.sql`insert into smslogd.migrations (name, run_on) values ('9999_next', now())`;
  expect(await notAnymore('ok', 'schema')).toMatchObject({ level: 'warn', says: expect.stringContaining('9999_next') });
  await db.sql`delete from smslogd.migrations where name = '9999_next'`;
  await db.sql`update smslogd.migrations set name = 'x' where name = '0001_baseline'`;
  expect(await notAnymore('ok', 'schema')).toMatchObject({
    level: 'FAIL',
    fix: expect.stringContaining('smslogd migrate'),
  });
  await db.sql`update smslogd.migrations set name = '0001_baseline' where name = 'x'`;
});

test.each([
  ['rename column phone_number to phone', 'rename column phone to phone_number', 'phone_number'],
  ['alter column inserted_at type date using inserted_at::date', 'alter column inserted_at type timestamp', 'date'],
  ['rename to elsewhere', '', 'does not exist'],
  [
    'rename to elsewhere; create view verification.verifications as select * from verification.elsewhere',
    'rename to v; drop view verification.v; alter table verification.elsewhere rename to verifications',
    'is no table',
  ],
])('a source table that cannot be mirrored is named with its fault: %s', async (wrong, right, says) => {
  await db.sql.unsafe(`alter table verification.verifications ${wrong}`);
  expect(await notAnymore('ok', 'source table')).toMatchObject({ level: 'FAIL', says: expect.stringContaining(says) });
  await db.sql.unsafe(
    right === ''
      ? 'alter table verification.elsewhere rename to verifications'
      : `alter table verification.verifications ${right}`,
  );
});

test('a locked log keeps the doctor from comparing what is installed, and from nothing else', async () => {
  const blocker = await db.sql.reserve();
  await blocker.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const failing = (await doctor(db)).filter(({ level }) => level === 'FAIL');
  await blocker.unsafe('rollback');
  blocker.release();
  expect(failing).toMatchObject([{ name: 'installed objects', says: expect.stringContaining('a lock') as string }]);
});

test('without settings everything that is missing is named at once', async () => {
  const lines: string[] = [];
  await command.run({ json: true }, { env: {}, print: (line: string) => lines.push(line), stdoutIsTerminal: false });
  const { checks } = JSON.parse(lines.join('\n')) as { checks: Result[] };
  for (const name of ['DATABASE_URL', 'IP2SMS_URL', 'IP2SMS_LOGIN', 'IP2SMS_PASSWORD'])
    expect(checks[0]?.says).toContain(name);
  expect(checks.filter(({ level }) => level === 'FAIL')).toHaveLength(1);
});
