/** A server that stops, crashes, or throws the slot's WAL away. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

let server: Cluster;
let db: TestDatabase;
let mirror: RunningMirror;

beforeEach(async () => {
  server = await createServer({ max_slot_wal_keep_size: '1MB', min_wal_size: '32MB', max_wal_size: '48MB' });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  mirror = startMirror(db);
  await mirror.streaming();
});
afterEach(async () => {
  await mirror.stop();
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });

test("the server's fast shutdown is not held up, and the mirror goes on when it is back", async () => {
  await insertMany(db.sql, 100);
  await server.stop('fast');
  await server.start();
  await insertMany(db.sql, 100);
  await everyRowOnce();
});

test("after the server's crash, under load, every row is in the log once", async () => {
  for (let round = 0; round < 3; round += 1) {
    const writing = (async () => {
      for (;;) await insertMany(db.sql, 50);
    })().catch(() => {});
    await until(
      'some rows',
      async () =>
        (await db.sql`select from verification.sms_log limit ${round * 100 + 100}`).length >= round * 100 + 100,
    );
    await server.stop('immediate');
    await writing;
    await server.start();
  }
  await insertMany(db.sql, 10);
  await everyRowOnce();
});

test('a slot that really lost its WAL is made again once, and what passed is reconciled', async () => {
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await insertMany(db.sql, 100);
  await db.sql`create table filler (filler text)`;
  await until('the slot to be lost', async () => {
    await db.sql`insert into filler select repeat('x', 1000) from generate_series(1, 20000)`;
    await db.sql`checkpoint`;
    const [slot] = await db.sql`select wal_status from pg_replication_slots`;
    return slot?.['wal_status'] === 'lost';
  });
  mirror = startMirror(db);
  await mirror.streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  const [slot] =
    await db.sql`select wal_status, to_jsonb(s) ->> 'failover' as failover, current_setting('server_version_num')::int as version
                                from pg_replication_slots s`;
  expect(slot).toMatchObject({ wal_status: 'reserved', failover: slot?.['version'] >= 170_000 ? 'true' : null });
});

test('a slot whose WAL files somebody took away is made again once, and what passed is reconciled', async () => {
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await insertMany(db.sql, 10);
  const [slot] = await db.sql`select pg_walfile_name(restart_lsn) as file from pg_replication_slots`;
  await db.sql`select pg_switch_wal()`;
  rmSync(join(server.dataDirectory, 'pg_wal', slot?.['file'] as string));
  mirror = startMirror(db);
  await everyRowOnce();
  await mirror.streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
});
