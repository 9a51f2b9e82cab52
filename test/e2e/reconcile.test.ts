/** The first copy by a daemon that is killed in the middle of it. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { difference, insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let daemon: Daemon;

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  daemon.kill('SIGKILL');
  await daemon.exited;
  await db.drop();
});

test('a copy that was killed goes on where it stopped, and every row is in the log once', async () => {
  await insertMany(db.sql, 60_000);
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  await until('the copy to be under way', async () => {
    const [row] = await db.sql`select reconcile_after is not null as so from smslogd.checkpoint`;
    return row?.['so'] === true;
  });
  daemon.kill('SIGKILL');
  await daemon.exited;
  const [row] = await db.sql`select count(*)::int as copied from verification.sms_log`;
  expect(row?.['copied']).toBeGreaterThan(0);
  expect(row?.['copied']).toBeLessThan(60_000);
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  await daemon.line('the copy to go on', (line) => line.includes('"reconcile resumes'));
  const done = await daemon.line('the copy to end', (line) => line.includes('"reconcile done"'));
  // what was copied before is not looked at again
  expect((JSON.parse(done) as { looked: number }).looked).toBeLessThan(60_000);
  await until('every row', async () => (await difference(db.sql)).missing === 0);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});
