/** The audit against a log with planted faults: one that finds nothing is worth nothing. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/verify.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;

beforeAll(async () => {
  db = await createDatabase();
  await insertMany(db.sql, 100);
  const mirror = startMirror(db);
  await mirror.streaming();
  await mirror.stop();
});
afterAll(() => db.drop());

async function verify(flags: Record<string, string | boolean> = {}) {
  const lines: string[] = [];
  const io = { env: db.env(), print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
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

test('every planted fault is found, by its kind', async () => {
  const ids = (await db.sql`select id from verification.sms_log order by id limit 6`).map((row) => row['id'] as string);
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

test('rows older than --since are not looked at', async () => {
  await db.sql`update verification.verifications set active = false`;
  await insertVerification(db.sql, { inserted_at: '2020-01-01 00:00:00' });
  expect(await verify({ since: '24h' })).toMatchObject({ code: 0, missing: 0 });
  expect(await verify()).toMatchObject({ code: 1, missing: 1 });
});
