import { afterAll, beforeAll, expect, test } from 'vitest';
import { dryRun, migrate, requireSchema } from '../../src/schema.ts';
import { openDatabase } from '../../src/db.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

test('migrate runs twice and from two places at once without harm', async () => {
  const said: string[] = [];
  await Promise.all([1, 2, 3].map(() => migrate(db.config(), { say: (line) => said.push(line) })));
  expect(said.filter((line) => line.startsWith('migration'))).toEqual([]);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  await requireSchema(sql);
  await sql.end();
});

test('a row that another service inserts is queued at once, a final one is not', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status)
               values ('+380000000001', 'medication_request', 'text', '1234567', 'Accepted'),
                      ('+380000000002', 'medication_request', 'text', '1234568', 'Delivered')`;
  const queued = await db.sql`select gateway_id, lane from smslogd.sms_poll`;
  expect([...queued]).toEqual([{ gateway_id: '1234567', lane: 0 }]);
});

test('migrate waits for a lock in small steps, says so, and nothing of the owner waits behind it', async () => {
  const fresh = await createDatabase();
  await fresh.sql`drop publication smslogd`;
  const other = await fresh.sql.reserve();
  await other.unsafe('begin; lock table verification.verifications in share update exclusive mode');
  const said: string[] = [];
  const done = migrate(fresh.config(), { say: (line) => said.push(line) });
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

test('the SQL that --dry-run prints does by hand what migrate does, which then finds nothing to do', async () => {
  const empty = await createDatabase({ empty: true });
  await empty.sql.unsafe(SOURCE_DDL);
  await empty.sql.unsafe(await dryRun(empty.config(), undefined)).simple();
  await requireSchema(empty.sql);
  const said: string[] = [];
  await migrate(empty.config(), { say: (line) => said.push(line) });
  expect(said).toEqual(['settings']);
  const shapes = await Promise.all(
    [empty, db].map(
      ({ sql }) => sql`
        select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns
         where table_schema in ('smslogd', 'verification') order by 1, 2`,
    ),
  );
  expect(shapes[0]).toEqual(shapes[1]);
  await empty.drop();
});
