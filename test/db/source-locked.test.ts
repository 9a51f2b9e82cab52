/** While somebody has locked the source nothing of ours waits for it for long, and what was to be done is done once the lock is free. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command as doctor } from '../../src/commands/doctor.ts';
import { command as verify } from '../../src/commands/verify.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { pagesOf } from '../../src/reconcile/compare.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
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
async function lockSource(): Promise<() => Promise<void>> {
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.verifications in access exclusive mode');
  return async () => {
    await session.unsafe('rollback');
    session.release();
  };
}

/** Waits until a session that has asked for the source's lock has stopped waiting for it, though it is held. */
async function givesUp(application: string): Promise<void> {
  const waiting = async () =>
    (
      await db.sql`select from pg_locks join pg_stat_activity using (pid)
                    where not granted and relation = 'verification.verifications'::regclass and datname = current_database() and application_name = ${application}`
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

test('an audit gives up the size of the source, and is tried again', async () => {
  await insertMany(db.sql, 10);
  const source = await describeSource(sql, db.config());
  const release = await lockSource();
  await expect(pagesOf(sql, source.table)).rejects.toMatchObject({ code: '55P03' });
  const options = {
    sinceSeconds: 900,
    mirrorTimeoutMs: 1_000,
    share: 1,
    missing: async () => {},
    incomplete: async () => {},
  };
  const audited = lightAudit(sql, db.config(), source, options, new AbortController().signal);
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
