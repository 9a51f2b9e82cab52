/** While somebody has locked the source nothing of ours waits for it for long, and what was to be done is done once the lock is free. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command as doctor } from '../../src/commands/doctor.ts';
import { command as verify } from '../../src/commands/verify.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { pagesOf } from '../../src/reconcile/compare.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { describeSource } from '../../src/source.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { insertSms, series, startPoller, statusBecomes } from '../support/poller.ts';
import { insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let sql: Sql;

beforeEach(async () => {
  db = await createDatabase();
  sql = openDatabase(db.config(), { max: 2, name: 'test' });
});
afterEach(async () => {
  await sql.end();
  await db.drop();
});

/** Locks the source as an ALTER TABLE does; returns what ends that. */
async function lockSource(table = 'verification.verifications'): Promise<() => Promise<void>> {
  const session = await db.sql.reserve();
  await session.unsafe(`begin; lock ${table} in access exclusive mode`);
  return async () => {
    await session.unsafe('rollback');
    session.release();
  };
}

/** Makes the source the one partition of another that has its name. */
async function partitionSource(): Promise<void> {
  await db.owner.sql.unsafe(`
    alter table verification.verifications rename to part;
    create table verification.verifications (like verification.part including defaults, primary key (id)) partition by hash (id);
    alter table verification.verifications attach partition verification.part for values with (modulus 1, remainder 0)`);
  await migrate(db.owner.config(), { role: DAEMON_ROLE, say: () => {} });
}

/** Waits until a session that has asked for the table's lock has stopped waiting for it, though it is held. */
async function givesUp(application: string, table = 'verification.verifications'): Promise<void> {
  const waiting = async () =>
    (
      await db.sql`select from pg_locks join pg_stat_activity using (pid)
                    where not granted and relation = ${table}::text::regclass and datname = current_database() and application_name like ${application}`
    ).length > 0;
  await until('it to wait for the lock', waiting);
  await until('it to give up', async () => !(await waiting()));
}

const print = (lines: string[]) => ({ print: (line: string) => void lines.push(line), stdoutIsTerminal: false });

test.each([
  ['in the source', 'the verdict', 'Unaccepted', null],
  ['which the source has by now', 'the last look', 'Accepted', '7777777'],
])('an SMS without a gateway id, %s: %s gives up and is tried again', async (_, __, status, gatewayId) => {
  const id = await insertSms(db, { type: 'verification', age: '36 minutes' });
  await db.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, gateway_id, inserted_at)
               values (${id}, '+380000000001', 1, 'new', 1234, now(), ${gatewayId}, now() at time zone 'UTC')`;
  const release = await lockSource();
  const { metrics, stop } = await startPoller(db, {});
  await until('it to be told', async () => (await series(metrics, 'smslogd_errors_total{code="database_busy"}')) === 1);
  await until('it to be put off', async () => {
    const [row] = await db.sql`select due_at > now() as later from smslogd.sms_poll`;
    return row?.['later'] === true;
  });
  await release();
  await statusBecomes(db, id, status);
  await stop();
});

const OF_AUDIT = {
  sinceSeconds: 900,
  mirrorTimeoutMs: 1_000,
  share: 1,
  missing: async () => {},
  incomplete: async () => {},
};

test('an audit gives up the size of the source, and is tried again', async () => {
  await insertMany(db.sql, 10);
  const source = await describeSource(sql, db.config());
  const release = await lockSource();
  await expect(pagesOf(sql, source.table)).rejects.toMatchObject({ code: '55P03' });
  const audited = lightAudit(sql, db.config(), source, OF_AUDIT, new AbortController().signal);
  await givesUp('smslogd test');
  await release();
  expect(await audited).toMatchObject({ missing: 10 });
});

test('verify gives up, and goes on afterwards', async () => {
  await insertMany(db.sql, 10);
  const release = await lockSource();
  const lines: string[] = [];
  const verified = verify.run({ json: true }, { env: db.env(), ...print(lines) });
  await givesUp('smslogd verify');
  await release();
  await verified;
  expect(JSON.parse(lines.join(''))).toMatchObject({ source: 10 });
});

test('where one partition is locked an audit and verify give up too, and go on afterwards', async () => {
  await partitionSource();
  // what an audit before has seen
  await db.sql`insert into smslogd.checkpoint (slot_name, audited_xid) values (${db.name}, pg_current_xact_id())`;
  await insertMany(db.sql, 10);
  const source = await describeSource(sql, db.config());
  const release = await lockSource('verification.part');
  const audited = lightAudit(sql, db.config(), source, OF_AUDIT, new AbortController().signal);
  audited.catch(() => {});
  const lines: string[] = [];
  const verified = verify.run({ json: true }, { env: db.env(), ...print(lines) });
  verified.catch(() => {});
  await Promise.all(['smslogd test', 'smslogd verify'].map((name) => givesUp(name, 'verification.part')));
  await release();
  expect(await audited).toMatchObject({ missing: 10 });
  await verified;
  expect(JSON.parse(lines.join(''))).toMatchObject({ source: 10 });
});

test('where one partition is locked the stream goes on beside its audits', async () => {
  await partitionSource();
  const mirror = startMirror(db, { auditMs: 300 });
  await mirror.streaming();
  const term = async () => (await db.sql`select term::text from smslogd.checkpoint`)[0]?.['term'] as string;
  const before = await term();
  const release = await lockSource('verification.part');
  for (let times = 0; times < 3; times += 1) await givesUp('smslogd copy%', 'verification.part');
  await release();
  await insertMany(db.sql, 10);
  await until('the rows', async () => (await db.sql`select from verification.sms_log`).length === 10);
  expect(await term()).toBe(before);
  await mirror.stop();
});

test('doctor does not ask for the lock', async () => {
  const release = await lockSource();
  const lines: string[] = [];
  await doctor.run({ json: true }, { env: db.env(), ...print(lines) });
  await release();
  const { checks } = JSON.parse(lines.join('\n')) as { checks: { name: string; level: string }[] };
  expect(checks.find(({ name }) => name === 'source table')?.level).toBe('ok');
});

test('what codes came to is read again and again, without waiting for long', async () => {
  const release = await lockSource();
  const read = db.sql`select count(*)::int as days from verification.sms_otp_conversion`;
  const done = read.then(([row]) => row?.['days'] as number);
  await until('it to rest between two tries', async () => {
    const rows = await db.sql`select from pg_stat_activity where datname = ${db.name} and wait_event = 'PgSleep'`;
    return rows.length > 0;
  });
  await release();
  expect(await done).toBe(2);
});
