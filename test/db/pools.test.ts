import { afterAll, beforeAll, expect, test } from 'vitest';
import { dropConnections, openDatabase } from '../../src/postgres/pools.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

test('connections that are cut in the middle of their work fail what waits on them and nothing else', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  await sql`select 1`;
  const waiting = Promise.allSettled([sql`select 1`]);
  // it is on its way, and not written yet; an error that nobody listens for would end the process, and this run with it
  await new Promise((resolve) => process.nextTick(resolve));
  dropConnections(sql);
  expect(await waiting).toMatchObject([{ status: 'rejected', reason: { code: 'CONNECTION_CLOSED' } }]);
  // what it had not sent is not in the way of what comes after it
  expect(await sql`select 2 as two`).toEqual([{ two: 2 }]);
  await sql.end({ timeout: 1 });
});

test('an address where nobody listens is the failure of each query', async () => {
  const nobody = new URL(db.url);
  nobody.port = '1';
  for (const [url, code] of [
    [nobody.href, 'ECONNREFUSED'],
    ['postgres://nobody@localhost/none?host=/nowhere', 'database_unreachable'],
  ] as const) {
    const sql = openDatabase(db.config({ DATABASE_URL: url }), { max: 1, name: 'test' });
    for (let tries = 0; tries < 3; tries += 1) await expect(sql`select 1`).rejects.toMatchObject({ code });
    await sql.end({ timeout: 1 });
  }
});
