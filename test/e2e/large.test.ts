/** Rows with values of tens of megabytes: they are set aside, they hold nobody up, and they are in nobody's memory. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { insertVerification } from '../support/verifications.ts';

const MEMORY = 256 * 1024 * 1024;
const REASON = 'a value of more than 64 KiB';

let db: TestDatabase;
let daemon: Daemon | undefined;

beforeEach(async () => {
  db = await createDatabase();
  for (const column of ['phone_number', 'code', 'gateway_id', 'gateway_status'])
    await db.sql.unsafe(`alter table verification.verifications alter column ${column} type text`);
  await db.sql`alter table verification.verifications add column picture text`;
  // an index takes no such value
  await db.sql`drop index verification.verifications_phone_number_idx, verification.verifications_phone_number_inserted_at_idx`;
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  await db.drop();
});

const streams = async () => {
  daemon = startDaemon(db.env({ LOOPS: 'mirror', LOG_LEVEL: 'debug' }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  return daemon;
};
/** A row with a value of 60 MB in `column`; returns its id. */
async function insertLarge(column: string): Promise<string> {
  const id = crypto.randomUUID();
  const values = {
    id,
    phone_number: '+380000000001',
    check_digit: 1,
    status: 'new',
    code: '1',
    code_expired_at: 'now',
  };
  const row = { ...values, inserted_at: 'now', [column]: undefined };
  const names = Object.keys(row);
  const of = (name: string) =>
    name === column ? "repeat(md5('x'), 1900000)" : `'${String(row[name as keyof typeof row])}'`;
  await db.sql.unsafe(
    `insert into verification.verifications (${names.join(', ')}) values (${names.map(of).join(', ')})`,
  );
  return id;
}
const logged = async () => (await db.sql`select id from verification.sms_log`).map((row) => row['id'] as string).sort();
const refused = async () =>
  (await db.sql`select id, reason from smslogd.sms_refused order by id`).map(
    ({ id, reason }) => [id, reason] as string[],
  );

test('in the stream, those of needed columns are set aside one by one, and those of others are logged', async () => {
  const running = await streams();
  const rows = [(await insertVerification(db.sql)).id];
  const large: string[] = [];
  for (const column of ['code', 'phone_number', 'gateway_id', 'gateway_status']) large.push(await insertLarge(column));
  rows.push(await insertLarge('picture'), (await insertVerification(db.sql)).id);
  await until('the rows', async () => (await logged()).length === rows.length);
  expect(await logged()).toEqual(rows.sort());
  expect(await refused()).toEqual(large.sort().map((id) => [id, REASON]));
  for (const id of large)
    await running.line('it to be told', (text) => text.includes('row_refused') && text.includes(id));
  expect(running.lines.filter((text) => text.includes('row_refused') && !text.includes('"times"'))).toHaveLength(
    large.length,
  );
  expect(await (await fetch(`${await running.url()}/metrics`)).text()).toContain(
    'smslogd_errors_total{code="row_refused"} 4',
  );
  expect(running.peakMemory()).toBeLessThan(MEMORY);
});

test('in a copy they are set aside, an audit knows them, and they come once they are smaller', async () => {
  const rows = [(await insertVerification(db.sql)).id, await insertLarge('picture')];
  const large = [await insertLarge('code'), await insertLarge('gateway_id')].sort();
  const running = await streams();
  await running.line('the copy', (text) => text.includes('"reconcile done"'));
  expect(await logged()).toEqual(rows.sort());
  expect(await refused()).toEqual(large.map((id) => [id, REASON]));
  const verify = startProcess(['verify', '--json'], db.env());
  expect(await verify.exited).toBe(1);
  expect(JSON.parse(verify.lines.join('\n'))).toMatchObject({ missing: 2, refused: 2, differing: 0 });
  expect(running.peakMemory()).toBeLessThan(MEMORY);
  await db.sql`update verification.verifications set code = '1', gateway_id = '1'`;
  expect(await startProcess(['verify', '--repair'], db.env()).exited).toBe(0);
  expect(await refused()).toEqual([]);
});

test('a row that is in the log and grew later is told by verify, and changes nothing', async () => {
  const { id } = await insertVerification(db.sql);
  await streams();
  await until('the row', async () => (await logged()).length === 1);
  await db.sql`update verification.verifications set code = repeat('1', 60000000), gateway_id = repeat('1', 60000000)`;
  const verify = startProcess(['verify', '--json', '--repair'], db.env());
  expect(await verify.exited).toBe(0);
  expect(JSON.parse(verify.lines.at(-1)!)).toMatchObject({ missing: 0, refused: 0, differing: 1 });
  expect(await logged()).toEqual([id]);
  expect(await refused()).toEqual([]);
});
