/** A copy by a daemon that is killed in the middle of it, or before it. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { difference, insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let daemon: Daemon;

beforeEach(async () => {
  db = await createDatabase({ asOwner: 'the daemon makes the publication again' });
});
afterEach(async () => {
  daemon.kill('SIGKILL');
  await daemon.exited;
  await db.drop();
});

test('a copy that was killed goes on where it stopped, and every row is in the log once', async () => {
  await insertMany(db.sql, 20_000);
  // the daemon's own would wait for the transaction that holds the copy
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  const holds = await db.sql.reserve();
  await holds.unsafe(`
    begin;
    insert into verification.sms_log (id, phone_number, type, body, inserted_at)
    select id, phone_number, 'verification', 'text', now() from verification.verifications order by id offset 10000 limit 1`);
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  await until('the copy to be under way', async () => {
    const [row] = await db.sql`select reconcile_after is not null as so from smslogd.checkpoint`;
    return row?.['so'] === true;
  });
  daemon.kill('SIGKILL');
  await daemon.exited;
  await holds.unsafe('rollback');
  holds.release();
  await until('its last statements to end', async () => {
    const left = await db.sql`
      select from pg_stat_activity where datname = current_database() and application_name like 'smslogd %'`;
    return left.length === 0;
  });
  const [row] = await db.sql<{ passed: number; copied: number }[]>`
    select count(*) filter (where v.id <= c.reconcile_after)::int as passed, count(l.id)::int as copied
      from smslogd.checkpoint c, verification.verifications v left join verification.sms_log l using (id)`;
  const { passed, copied } = row!;
  expect(passed).toBeGreaterThan(0);
  expect(copied).toBeGreaterThanOrEqual(passed);
  expect(copied).toBeLessThan(20_000);
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  await daemon.line('the copy to go on', (line) => line.includes('"reconcile resumed'));
  const done = await daemon.line('the copy to end', (line) => line.includes('"reconcile done"'));
  // what was copied before is not looked at again, but by the second pass, as a transaction was open when the first one began
  expect(JSON.parse(done)).toMatchObject({ scanned: 20_000 - passed + 20_000, inserted: 20_000 - copied });
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('a daemon that is killed while its slot is made anew leaves the reconcile due, and the next one does it though the slot is there', async () => {
  await insertMany(db.sql, 10);
  await db.sql`insert into smslogd.checkpoint (slot_name, system_id, source_timezone, lsn)
               select ${db.name}, system_identifier::text, 'UTC', pg_current_wal_lsn() from pg_control_system()`;
  await db.sql`drop publication smslogd`;
  const open = await db.sql.reserve();
  await open.unsafe('begin; select pg_current_xact_id()');
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  const slot = async () =>
    (
      await db.sql`select active, confirmed_flush_lsn is not null as whole from pg_replication_slots where slot_name = ${db.name}`
    )[0];
  await until('the slot to be in the making', async () => (await slot()) !== undefined);
  daemon.kill('SIGKILL');
  await daemon.exited;
  const due = async () =>
    (await db.sql`select reconcile_due from smslogd.checkpoint`)[0]?.['reconcile_due'] as string | null;
  expect(await due()).toBe('slot missing');
  // publication, slot, reconcile: in this order
  expect(await db.sql`select from pg_publication_tables where pubname = 'smslogd'`).toHaveLength(1);
  expect(await db.sql`select from verification.sms_log`).toHaveLength(0);
  await open.unsafe('commit');
  open.release();
  await until('the slot to be there and free', async () => {
    const found = await slot();
    return found?.['whole'] === true && found?.['active'] === false;
  });
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  await daemon.line(
    'the reconcile to begin',
    (line) => line.includes('"reconcile started') && line.includes('"slot missing"'),
  );
  await daemon.line('it to end', (line) => line.includes('"reconcile done"'));
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
  await until('nothing to be due', async () => (await due()) === null);
});
