/** What the mirror acknowledges is on disk, though the database's own commits don't wait for it; on a server that flushes nothing by itself. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/db.ts';
import type { Cluster } from '../../src/demo/cluster.ts';
import { parseLsn } from '../../src/lsn.ts';
import { createStore } from '../../src/mirror/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { createServer } from '../support/postgres.ts';
import { insertVerification } from '../support/verifications.ts';

let server: Cluster;
let db: TestDatabase;
let sql: Sql;

beforeAll(async () => {
  server = await createServer({ synchronous_commit: 'off', wal_writer_delay: '10s', autovacuum: 'off' });
  db = await createDatabase({ adminUrl: server.url('postgres') });
  sql = openDatabase(db.config(), { max: 1, name: 'test' });
});
afterAll(async () => {
  await sql.end({ timeout: 1 });
  await db.sql.end({ timeout: 1 });
  await server.remove();
});

const onDisk = async () =>
  (await db.sql`select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() as all`)[0]?.['all'] as boolean;

/** A row of the owner, which is not on disk yet. */
const hurried = async () => {
  await insertVerification(db.sql);
  expect(await onDisk()).toBe(false);
};

test('a batch with its checkpoint, and a chunk of a reconcile, are on disk when they are written', async () => {
  const store = createStore(sql, db.config());
  await store.read();
  const { epoch } = await store.acquire();
  const row = { phone: '+380000000001', code: '1', insertedAt: '2026-01-01 00:00:00', gatewayId: '1' };
  await hurried();
  await store.write(
    {
      rows: [{ ...row, id: randomUUID(), gatewayStatus: null }],
      end: parseLsn('0/10'),
      commitTimes: [0n],
      skipped: 0,
      unreadable: [],
    },
    ['Accepted'],
    epoch,
  );
  expect(await onDisk()).toBe(true);
  await hurried();
  const source = await describeSource(sql, db.config());
  expect(await store.reconcileChunk(source, undefined, 100)).toMatchObject({ inserted: 2 });
  expect(await onDisk()).toBe(true);
});
