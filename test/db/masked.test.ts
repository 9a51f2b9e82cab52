/** SMS_BODY=masked keeps the code out of the replication stream: what the server sends is captured on its way. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { insertVerification } from '../support/verifications.ts';

const CODE = 73_918_465;
/** as the server sends it */
const SENT = Buffer.alloc(4);
SENT.writeInt32BE(CODE);
let db: TestDatabase;
let url: URL;
let proxy: Proxy;
beforeEach(async () => {
  db = await createDatabase();
  url = new URL((await db.withoutTls()).replicationUrl);
  proxy = await startProxy({ host: url.hostname, port: Number(url.port) }, { keeps: true });
});
afterEach(async () => {
  await proxy.close();
  await db.drop();
});

/** What the server sent over the replication connection while an SMS was inserted and changed; and the text in the log. */
async function captured(mode: 'full' | 'masked'): Promise<{ stream: string; body: string }> {
  url.port = String(proxy.port);
  await migrate(db.owner.config({ SMS_BODY: mode }), { say: () => {} });
  const mirror = startMirror(db, { env: { SMS_BODY: mode, DATABASE_REPLICATION_URL: url.href } });
  await mirror.streaming();
  const { id, phone_number: phone } = await insertVerification(db.sql, {
    code: CODE,
    gateway_id: '5556667778889',
  });
  await db.sql`update verification.verifications set attempts_count = 1 where id = ${id}`;
  await until('the row', async () => (await db.sql`select from verification.sms_log`).length === 1);
  await mirror.stop();
  const stream = proxy.received().toString('latin1');
  // what was captured is the stream, and it is not encrypted
  expect(stream).toContain(phone);
  expect(stream).toContain('5556667778889');
  const [row] = await db.sql<{ body: string }[]>`select body from verification.sms_log`;
  return { stream, body: row!.body };
}

test('with SMS_BODY=full the code is in the stream and in the log', async () => {
  const { stream, body } = await captured('full');
  expect(stream).toContain(SENT.toString('latin1'));
  expect(body).toContain(String(CODE));
});

test('with SMS_BODY=masked the code is neither in the stream nor in the log', async () => {
  const { stream, body } = await captured('masked');
  expect(stream).not.toContain(String(CODE));
  expect(stream).not.toContain(SENT.toString('latin1'));
  expect(body).toMatch(/\*\*\*\*$/);
  expect(body).not.toContain(String(CODE));
});
