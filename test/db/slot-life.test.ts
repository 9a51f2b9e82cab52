/** What can happen to the slot and the checkpoint: said clearly, mended once, and every row is in the log once. */
import { Client } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createSlot, describeSlot, makersOf, terminate } from '../../src/mirror/slot.ts';
import { ZERO_LSN } from '../../src/postgres/lsn.ts';
import { openStream } from '../../src/replication/connection.ts';
import { describeServer } from '../../src/replication/server.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { openConnections } from '../../src/postgres/connections.ts';
import { directly, openDatabase } from '../../src/postgres/pools.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, untilConfirmed, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { connect, createServer } from '../support/postgres.ts';
import { startProxy } from '../support/proxy.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirrors: RunningMirror[];

beforeEach(async () => {
  db = await createDatabase();
  mirrors = [];
  lines = [];
});
afterEach(async () => {
  await Promise.all(mirrors.map((mirror) => mirror.stop()));
  await db.drop();
});

let lines: string[];
const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) });

async function streaming(
  env: Record<string, string> = {},
  often: { auditMs?: number; decodeTries?: number } = {},
): Promise<RunningMirror> {
  const mirror = startMirror(db, { env, log, ...often });
  mirrors.push(mirror);
  await mirror.streaming();
  return mirror;
}

const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });
const cut = () =>
  db.sql`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${db.name} and active`;
/** Who reads the slot; one who makes it does not. */
const reader = async () =>
  (
    await db.sql`select pid from pg_replication_slots join pg_stat_replication on pid = active_pid where slot_name = ${db.name}`
  )[0]?.['pid'] as number | undefined;
const slotFree = () =>
  until('the slot to be free', async () => {
    const [slot] = await db.sql`select active from pg_replication_slots where slot_name = ${db.name}`;
    return slot?.['active'] === false;
  });
/** Drops the slot under a running daemon. */
const takeSlotAway = () =>
  db.sql.begin(async (tx) => {
    await tx`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${db.name}`;
    for (;;) {
      const [slot] = await tx`select active from pg_replication_slots where slot_name = ${db.name}`;
      if (slot?.['active'] === false) break;
    }
    await tx`select pg_drop_replication_slot(${db.name})`;
  });
const due = async () =>
  (await db.sql`select reconcile_due from smslogd.checkpoint`)[0]?.['reconcile_due'] as string | null;

/** The codes of the warnings so far. */
const warnings = () => lines.map((line) => (JSON.parse(line) as { code: string }).code);
const rowsMissing = async (mirror: RunningMirror) => (await mirror.metrics.reconcileMissing.get()).values[0]?.value;

/** A daemon that has mirrored ten rows is gone, and its slot is free. */
const tenRowsThenDown = async () => {
  const mirror = await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await slotFree();
};

test('a slot dropped while the daemon is down is made again and what passed is reconciled', async () => {
  await tenRowsThenDown();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await insertMany(db.sql, 20);
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await until('the reconcile to be done', async () => (await due()) === null);
  // once, and by the reconcile that was due, not by what an audit finds
  expect(warnings()).toEqual(['slot_missing']);
});

test('a slot dropped while the daemon runs is made again and what passed is reconciled', async () => {
  const mirror = await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await takeSlotAway();
  await insertMany(db.sql, 20);
  await everyRowOnce();
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(warnings().filter((code) => code.startsWith('slot_') || code.startsWith('rows_'))).toEqual(['slot_missing']);
});

test('a slot that is gone again and again is made again once each time, ever less often, and what passed is reconciled', async () => {
  const mirror = await streaming();
  // a reconcile comes to no end meanwhile
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in share mode');
  for (let round = 0; round < 3; round += 1) {
    await takeSlotAway();
    await insertVerification(db.sql);
    await until('the slot to be read', async () => (await reader()) !== undefined);
  }
  // whole, though what it passed over is still due
  const before = await reader();
  await cut();
  await until('it to be read again', async () => ![before, undefined].includes(await reader()));
  await session.unsafe('rollback');
  session.release();
  await everyRowOnce();
  await mirror.streaming();
  expect(warnings().filter((code) => code.startsWith('slot_'))).toEqual(Array(3).fill('slot_missing'));
  // one row of failures: a life that did not last has not ended it, so that the waits have grown
  const firstOfARow = lines.filter((line) => (JSON.parse(line) as { failures?: number }).failures === 1);
  expect(firstOfARow.length).toBeLessThan(2);
});

test.each(['further on', 'further on while a reconcile was under way'])(
  'a slot recreated by someone else %s leaves no gap, and what it passed over is told of',
  async (how) => {
    await tenRowsThenDown();
    await db.sql`select pg_drop_replication_slot(${db.name})`;
    await insertMany(db.sql, 20);
    await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
    if (how !== 'further on')
      await db.sql`update smslogd.checkpoint set reconcile_due = 'by hand', reconcile_after = 'ffffffff-ffff-ffff-ffff-ffffffffffff'`;
    // the audit comes to no end meanwhile, and the stream goes on
    const hold = await db.sql.reserve();
    await hold.unsafe('begin; lock smslogd.sms_refused in access exclusive mode');
    const second = await streaming();
    await insertMany(db.sql, 5);
    await until('the new rows', async () => (await difference(db.sql)).missing === 20);
    // a second look, which a transaction that is open makes due, sets it to none again
    const found = vi.spyOn(second.metrics.reconcileMissing, 'set');
    await hold.unsafe('rollback');
    hold.release();
    await everyRowOnce();
    await until('it to be told', () => warnings().length > 0);
    expect(warnings()).toEqual(['rows_missing']);
    expect(found).toHaveBeenCalledWith(20);
  },
);

test('what a slot passed over that somebody advanced just before it was read is found at once', async () => {
  await tenRowsThenDown();
  // as where it was killed while it wrote: nothing tells of anything passed over
  await db.sql`update smslogd.checkpoint set audit_due = false, lsn = (select confirmed_flush_lsn from pg_replication_slots where slot_name = ${db.name})`;
  await insertMany(db.sql, 20);
  const beforeStream = vi.fn(async () => {
    if (beforeStream.mock.calls.length > 1) return;
    await db.sql`select pg_replication_slot_advance(${db.name}, pg_current_wal_lsn())`;
  });
  mirrors.push(startMirror(db, { log, failpoints: { beforeStream } }));
  await everyRowOnce();
  expect(beforeStream).toHaveBeenCalled();
});

test('what a slot recreated further on passed over is found at once by the next mirror, if this one ends before its audit', async () => {
  await tenRowsThenDown();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await insertMany(db.sql, 20);
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  const hold = await db.sql.reserve();
  await hold.unsafe('begin; lock smslogd.sms_refused in access exclusive mode');
  // under traffic the slot is no further than the checkpoint
  const second = startMirror(db, { log, failpoints: { answerKeepalives: false } });
  mirrors.push(second);
  await second.streaming();
  await insertMany(db.sql, 5);
  await until('the new rows', async () => (await difference(db.sql)).missing === 20);
  await second.stop();
  await hold.unsafe('rollback');
  hold.release();
  await streaming();
  await everyRowOnce();
});

test('an idle daemon audits itself again and again: what somebody deleted, and a gateway id that nobody waits for, it fills in', async () => {
  const mirror = await streaming({}, { auditMs: 300 });
  await insertMany(db.sql, 3);
  await everyRowOnce();
  const rows = await db.sql<{ id: string }[]>`select id from verification.verifications`;
  const whole = async () => {
    const same =
      await db.sql`select from verification.sms_log join verification.verifications v using (id, gateway_id, gateway_status)`;
    return same.length === 3;
  };
  const audited = async () =>
    (await db.sql`select audited_xid::text from smslogd.checkpoint`)[0]?.['audited_xid'] as string;
  for (const { id } of rows.slice(0, 2)) {
    await db.sql`delete from verification.sms_log where id = ${id}`;
    await until('the log to be whole', whole);
    await until('the next audit to find nothing', async () => (await rowsMissing(mirror)) === 0);
  }
  expect(warnings()).toEqual(['rows_missing', 'rows_missing']);
  await db.sql.begin(async (tx) => {
    await tx`update verification.sms_log set gateway_id = null, gateway_status = null where id = ${rows[2]!.id}`;
    await tx`delete from smslogd.sms_poll where id = ${rows[2]!.id}`;
  });
  await until('the log to be whole', whole);
  // the next one begins where this one ended
  const before = await audited();
  await insertVerification(db.sql);
  await until('the next audit', async () => BigInt(await audited()) > BigInt(before));
  expect(warnings()).toHaveLength(2);
});

test('a slot recreated by someone else further on under a running daemon leaves no gap, whatever time the rows say', async () => {
  const mirror = await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  // the daemon gets no further than its checkpoint, so that it does not make the slot itself
  const hold = await db.sql.reserve();
  await hold.unsafe('begin; lock smslogd.checkpoint in exclusive mode');
  await cut();
  await slotFree();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await insertMany(db.sql, 20);
  await insertVerification(db.sql, { inserted_at: '2001-01-01 00:00:00' });
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await hold.unsafe('commit');
  hold.release();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await until('it to stream again', () => mirror.health.mirrorState === 'streaming');
});

test.for(['while the source is busy', 'while the source is idle', 'while the daemon is down'])(
  'a checkpoint row that is deleted by hand %s is told of, and made again',
  async (when) => {
    const first = await streaming();
    await insertMany(db.sql, 10);
    await everyRowOnce();
    if (when === 'while the daemon is down') {
      await first.stop();
      await slotFree();
    }
    await db.sql`delete from smslogd.checkpoint`;
    if (when === 'while the source is busy') await insertMany(db.sql, 20);
    if (when === 'while the daemon is down') await streaming();
    await until('it to be told', () => warnings().length > 0);
    await insertMany(db.sql, 5);
    await everyRowOnce();
    await until('the reconcile to be done', async () => (await due()) === null);
    expect(warnings()).toEqual(['checkpoint_missing']);
  },
);

test('after a removal that kept the log and the slot the next installation warns of nothing', async () => {
  await (await streaming()).stop();
  await insertMany(db.sql, 10);
  await slotFree();
  await db.owner.sql.unsafe('drop schema smslogd cascade; drop view verification.sms_log_masked');
  await migrate(db.owner.config(), { role: DAEMON_ROLE, say: () => {} });
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(warnings()).toEqual([]);
});

test('a reconcile that a daemon has marked which no longer leads, in a checkpoint row that was made again, is not left undone while the source is idle', async () => {
  await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await db.sql`update smslogd.checkpoint set term = term - 1, reconcile_due = 'by the former leader'`;
  await until('the reconcile to be done', async () => (await due()) === null);
});

test('a checkpoint in the future is forgotten and the log is reconciled', async () => {
  await tenRowsThenDown();
  await db.sql`update smslogd.checkpoint set lsn = pg_current_wal_lsn() + 1073741824`;
  await insertMany(db.sql, 20);
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(warnings()).toEqual(['checkpoint_future']);
});

test('a log filled from another database is reconciled', async () => {
  const first = await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await first.stop();
  await db.sql`update smslogd.checkpoint set system_id = '1'`;
  // the slot has passed them
  await db.sql`truncate verification.sms_log`;
  await streaming();
  await everyRowOnce();
  expect(warnings()).toEqual(['database_changed']);
  const [noted] =
    await db.sql`select system_id = (select system_identifier::text from pg_control_system()) as so from smslogd.checkpoint`;
  expect(noted).toEqual({ so: true });
});

test('another SOURCE_TIMEZONE than the one that the log was filled with is refused', async () => {
  const first = await streaming();
  await first.stop();
  const second = startMirror(db, { env: { SOURCE_TIMEZONE: 'Europe/Kyiv' } });
  await expect(second.done).rejects.toMatchObject({ code: 'source_timezone' });
  await second.stop();
});

test('after teardown the daemon idles until migrate, then goes on, though nobody ended its stream and the source is idle', async () => {
  const mirror = await streaming();
  await db.sql`update smslogd.checkpoint set removed_at = now()`;
  await until('it to idle', () => mirror.health.mirrorState === 'stopped');
  await slotFree();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await insertVerification(db.sql);
  await db.sql`update smslogd.checkpoint set removed_at = null`;
  await everyRowOnce();
});

test('a leader that was suspended while it was about to make the slot makes none once another one leads', async () => {
  const config = db.config();
  const connections = openConnections(config);
  let resume!: () => void;
  const suspended = vi.fn(async () => await new Promise<void>((resolve) => (resume = resolve)));
  const creation = createSlot(
    connections,
    config,
    await describeServer(connections.control),
    { log, before: suspended },
    new AbortController().signal,
  ).then(
    () => undefined,
    (error: unknown) => error,
  );
  await until('it to be suspended', () => suspended.mock.calls.length > 0);
  const mirror = await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await mirror.stop();
  await slotFree();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  resume();
  expect(await creation).toMatchObject({ code: 'stepped_down' });
  expect(await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).toHaveLength(0);
  await connections.end();
});

test('a daemon that is stopped just before it makes the slot makes none, and leaves no session that would', async () => {
  const connections = openConnections(db.config());
  const stop = new AbortController();
  const before = async () => stop.abort();
  const server = await describeServer(connections.control);
  await expect(createSlot(connections, db.config(), server, { log, before }, stop.signal)).rejects.toMatchObject({
    name: 'AbortError',
  });
  expect(await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).toHaveLength(0);
  await until('its session to end', async () => (await makersOf(db.sql, db.name)).length === 0);
  await connections.end();
});

test('a leader that was suspended while it was about to drop an unusable slot drops none once another one leads, also where the reconcile was marked before', async () => {
  await tenRowsThenDown();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput', false, true)`;
  await db.sql`update smslogd.checkpoint set system_id = '1'`;
  const url = new URL(db.replicationUrl);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  proxy.holds = true;
  mirrors.push(startMirror(db, { env: { DATABASE_REPLICATION_URL: url.href } }));
  await until('it to be about to drop the slot', () => proxy.connections === 1);
  expect(await due()).toBe('another database');
  await db.sql`update smslogd.checkpoint set term = term + 1`;
  proxy.newcomers = 'ignored';
  proxy.holds = false;
  await until('it to try again', () => proxy.connections === 2);
  expect(await db.sql`select from pg_replication_slots where slot_name = ${db.name} and two_phase`).toHaveLength(1);
  await proxy.close();
});

test('a slot that an administrator makes just before the daemon does is no failure', async () => {
  const connections = openConnections(db.config());
  const made = createSlot(
    connections,
    db.config(),
    await describeServer(connections.control),
    { log, before: async () => void (await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`) },
    new AbortController().signal,
  );
  await expect(made).resolves.toBeUndefined();
  await connections.end();
});

test('who makes another slot is no maker of this one, and a session of no daemon is neither a reader of ours nor terminated', async () => {
  const config = db.config();
  const connections = openConnections(config);
  const { control } = connections;
  const making = openConnections(db.config({ SLOT_NAME: `${db.name}_2` }));
  const maker = openDatabase(directly(config), { max: 1, ...making.replication('maker') });
  const [{ pid } = { pid: 0 }] = await maker<{ pid: number }[]>`select pg_backend_pid() as pid`;
  expect(await makersOf(control, db.name)).toEqual([]);
  expect(await makersOf(control, `${db.name}_2`)).toEqual([pid]);

  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  const other = new Client(await pgConfig(db.replicationUrl, { name: 'test', replication: true }));
  await other.connect();
  await other.query(`set application_name = 'other'`);
  const read = `START_REPLICATION SLOT "${db.name}" LOGICAL 0/0 (proto_version '1', publication_names 'smslogd')`;
  const reading = other.query(read).catch(() => {});
  await until('it to be read', async () => (await reader()) !== undefined);
  const described = (await describeSlot(control, db.name))!.reader!;
  expect(described.ours).toBe(false);
  expect(await terminate(connections, described.pid)).toBe(false);
  expect(await reader()).toBe(described.pid);
  expect(await terminate(connections, pid)).toBe(true);
  await other.end();
  await reading;
  await maker.end();
  await Promise.all([connections.end(), making.end()]);
});

test('a teardown that comes while the slot is being made leaves none behind', async () => {
  const other = await db.sql.reserve();
  await other`begin`;
  await other`select pg_current_xact_id()`;
  const mirror = startMirror(db);
  await until(
    'the slot to wait for the open transaction',
    async () => (await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).length === 1,
  );
  // a teardown's first step; its second, which drops the slot, may have ended before the slot was there
  await db.sql`update smslogd.checkpoint set removed_at = now()`;
  await other`commit`;
  other.release();
  await until('it to idle', () => mirror.health.mirrorState === 'stopped');
  expect(await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).toHaveLength(0);
  await mirror.stop();
});

test('a replication connection that is cut comes back, by a new object of the library', async () => {
  const subscribe = vi.spyOn(LogicalReplicationService.prototype, 'subscribe');
  const mirror = await streaming();
  for (let round = 0; round < 3; round += 1) {
    await cut();
    await insertMany(db.sql, 5);
    await everyRowOnce();
    await until('it to stream', () => mirror.health.mirrorState === 'streaming');
  }
  const connections = subscribe.mock.contexts;
  subscribe.mockRestore();
  expect(connections.length).toBeGreaterThan(3);
  expect(new Set(connections).size).toBe(connections.length);
});

async function insertUnsendable(): Promise<void> {
  // what a server without an encoding takes as it comes, and then refuses to send as UTF-8
  await db.sql`update pg_database set encoding = 0 where datname = current_database()`;
  const latin = connect(db.superuser.url, { max: 1, connection: { client_encoding: 'SQL_ASCII' }, fetch_types: false });
  await latin.unsafe(String.raw`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, inserted_at)
    values (gen_random_uuid(), '+380000000001', 1, E'\xe9', 1234, now(), false, now())`);
  await latin.end();
}

test('a row that the server cannot send stops nobody: after some tries the slot is made again behind it, and it is copied', async () => {
  await tenRowsThenDown();
  await insertUnsendable();
  await insertMany(db.sql, 20);
  await streaming({}, { decodeTries: 3 });
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(warnings()).toEqual(['decoding_failed', 'slot_lost']);
});

test('a slot that somebody makes again in the place of one that could not be read is left as it is', async () => {
  await tenRowsThenDown();
  await insertUnsendable();
  let unpublished: Promise<unknown> | undefined;
  const beforeStream = async () => {
    unpublished ??= db.sql`alter publication smslogd drop table verification.verifications`.execute();
    await unpublished;
  };
  const mirror = startMirror(db, { log, decodeTries: 1, failpoints: { beforeStream } });
  mirrors.push(mirror);
  await until('it to reconcile', () => mirror.health.mirrorState === 'repairing');
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await db.sql`alter publication smslogd add table verification.verifications`;
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(warnings()).toContain('decoding_failed');
  expect(warnings()).not.toContain('slot_lost');
});

test.for([
  ['initial', 8],
  ['never', 0],
] as const)('a slot that somebody made beforehand is taken as it is, with SNAPSHOT=%s', async ([snapshot, before]) => {
  await insertMany(db.sql, 5);
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await insertMany(db.sql, 3);
  const mirror = await streaming({ SNAPSHOT: snapshot });
  const row = await insertVerification(db.sql);
  await until(
    'the new row',
    async () => (await db.sql`select from verification.sms_log where id = ${row.id}`).length === 1,
  );
  expect(mirror.health.mirrorState).toBe('streaming');
  // where the server has failover slots
  expect(
    await db.sql`select coalesce((to_jsonb(s) ->> 'failover')::bool, true) as failover from pg_replication_slots s where slot_name = ${db.name}`,
  ).toEqual([{ failover: true }]);
  expect(await db.sql`select count(*)::int as rows from verification.sms_log where id <> ${row.id}`).toEqual([
    { rows: before },
  ]);
  const counted = (await mirror.metrics.errors.get()).values.filter(({ value }) => value > 0);
  expect(counted).toEqual([]);
});

test('a slot that somebody made to send prepared transactions before their commit is made again, which leaves a first start what it is', async () => {
  await insertMany(db.sql, 5);
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput', false, true)`;
  await streaming({ SNAPSHOT: 'never' });
  await insertMany(db.sql, 3);
  await until('the new rows', async () => (await db.sql`select from verification.sms_log`).length === 3);
  expect(await db.sql`select two_phase from pg_replication_slots where slot_name = ${db.name}`).toEqual([
    { two_phase: false },
  ]);
});

test('a first start that is tried again keeps the horizon of SNAPSHOT=never', async () => {
  await db.sql`insert into smslogd.checkpoint (slot_name, horizon) values (${db.name}, '2026-01-01')`;
  await insertVerification(db.sql, { inserted_at: '2025-12-31 23:59:59' });
  const later = await insertVerification(db.sql, { inserted_at: '2026-01-01 00:00:00' });
  await streaming({ SNAPSHOT: 'never' });
  await until('one row', async () => (await db.sql`select from verification.sms_log`).length === 1);
  expect((await db.sql`select id from verification.sms_log`)[0]).toEqual({ id: later.id });
});

test('a first start with SNAPSHOT=never leaves out also what a slot that is older has from before it', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await insertMany(db.sql, 3);
  await streaming({ SNAPSHOT: 'never' });
  const later = await insertVerification(db.sql);
  await untilConfirmed(db.sql, db.name);
  expect([...(await db.sql`select id from verification.sms_log`)]).toEqual([{ id: later.id }]);
});

test('a slot of another database is left alone even while it is read, and told of', async () => {
  const other = await createDatabase();
  const reader = startMirror(other);
  await reader.streaming();
  const mirror = startMirror(db, { env: { SLOT_NAME: other.name }, log });
  await until('it to be told', () => warnings().includes('slot_foreign'));
  // the log is kept all the same
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await mirror.stop();
  await reader.stop();
  await other.drop();
});

test('a slot of our name with a foreign plugin is left alone, and the log is kept by reconciling until that slot is gone', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'test_decoding')`;
  const mirror = startMirror(db, { log });
  mirrors.push(mirror);
  await until('it to be told', () => warnings().length > 0);
  expect(warnings()).toEqual(['slot_foreign']);
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await insertMany(db.sql, 5);
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await mirror.streaming();
  await everyRowOnce();
});

test('where nothing can be streamed, what somebody deletes from the log comes back, too', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'test_decoding')`;
  mirrors.push(startMirror(db, { auditMs: 200 }));
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await until('audits to have passed these rows', async () => {
    const newest = db.sql`(select max(xmin::text::int8) from verification.verifications)`;
    return (await db.sql`select from smslogd.checkpoint where audited_xid::text::int8 > ${newest}`).length > 0;
  });
  await db.sql`delete from verification.sms_log`;
  await everyRowOnce();
});

test('a stop while the slot waits for an old transaction leaves no half-made slot behind', async () => {
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  const mirror = startMirror(db);
  const slots = async () => (await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).length;
  await until('the slot to be in the making', async () => (await slots()) === 1);
  await mirror.stop();
  await until('the slot to be gone', async () => (await slots()) === 0);
  await old.unsafe('rollback');
  old.release();
});

test("a transaction_timeout of the role that replicates does not end the slot's wait for an old transaction", async ({
  skip,
}) => {
  const [known] = await db.sql`select from pg_settings where name = 'transaction_timeout'`;
  skip(known === undefined, 'this server does not know it');
  const role = `maker_${db.name}`;
  await db.sql.unsafe(
    `create role ${role} replication login password 'made-up'; alter role ${role} set transaction_timeout = '500ms'`,
  );
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  const env = { DATABASE_REPLICATION_URL: db.url.replace(/[^/]+@/, `${role}:made-up@`) };
  const mirror = startMirror(db, { env, log });
  mirrors.push(mirror);
  const waits = () =>
    db.sql`select from pg_stat_activity where usename = ${role} and xact_start < clock_timestamp() - interval '1 second'`;
  await until('it to wait for longer', async () => (await waits()).length > 0);
  await old.unsafe('rollback');
  old.release();
  await mirror.streaming();
  expect(warnings()).toEqual([]);
  await mirror.stop();
  await db.sql.unsafe(`drop role ${role}`);
});

test('while the slot waits for an old transaction new rows are logged all the same', async () => {
  const first = await streaming();
  await first.stop();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  const mirror = startMirror(db);
  mirrors.push(mirror);
  await until(
    'the slot to be in the making',
    async () => (await db.sql`select from pg_replication_slots where slot_name = ${db.name}`).length === 1,
  );
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(await reader()).toBeUndefined();
  await old.unsafe('rollback');
  old.release();
  await mirror.streaming();
});

test('a refused replication login is told once, keeps no new row from the log, and resets no reconcile', async () => {
  const first = await streaming();
  await first.stop();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  const url = new URL(db.env()['DATABASE_REPLICATION_URL']!);
  url.password = 'wrong';
  const mirror = startMirror(db, { env: { DATABASE_REPLICATION_URL: url.href }, log });
  mirrors.push(mirror);
  for (let round = 0; round < 3; round += 1) {
    await insertMany(db.sql, 5);
    await everyRowOnce();
  }
  expect(warnings()).toEqual(['database_auth']);
  expect(await db.sql`select from smslogd.checkpoint where reconcile_due is not null`).toHaveLength(0);
});

test('where the server has no slot left that is told once, keeps no new row from the log, and resets no reconcile', async () => {
  const first = await streaming();
  await first.stop();
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`select pg_create_physical_replication_slot('others_' || n)
                 from generate_series((select count(*) + 1 from pg_replication_slots), current_setting('max_replication_slots')::int) n`;
  try {
    const mirror = startMirror(db, { log });
    mirrors.push(mirror);
    const tries = async () => (await db.sql`select term::int from smslogd.checkpoint`)[0]?.['term'] as number;
    const before = await tries();
    await until('a few tries', async () => (await tries()) > before + 2);
    await insertMany(db.sql, 5);
    await everyRowOnce();
    expect(warnings()).toEqual(['slots_exhausted']);
    expect(await db.sql`select from smslogd.checkpoint where reconcile_due is not null`).toHaveLength(0);
  } finally {
    await db.sql`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like 'others_%'`;
  }
});

test('while the disk is full the mirror tries ever less often, and goes on when there is space again', async () => {
  const mirror = await streaming();
  await db.sql.unsafe(`
    create function full_disk() returns trigger language plpgsql as $$ begin raise exception 'no space' using errcode = '53100'; end $$;
    create trigger full_disk before insert on verification.sms_log execute function full_disk()`);
  const term = async () => (await db.sql`select term::int from smslogd.checkpoint`)[0]?.['term'] as number;
  const before = await term();
  await insertMany(db.sql, 5);
  await until('a few tries', async () => (await term()) >= before + 2);
  // a row of failures is said once; one that began anew with each try would be said, and tried again, as soon as the first one
  expect(warnings()).toEqual(['disk_full']);
  await db.sql`drop trigger full_disk on verification.sms_log`;
  await everyRowOnce();
  await until('it to stream', () => mirror.health.mirrorState === 'streaming');
});

/** A mirror that streams as a role of its own; `gone` stops it and drops the role. */
async function streamingAsAnother(): Promise<{ mirror: RunningMirror; role: string; gone: () => Promise<void> }> {
  const role = `stream_${db.name}`;
  await db.sql.unsafe(`create role ${role} replication login password 'made-up'`);
  const url = new URL(db.url);
  url.username = role;
  url.password = 'made-up';
  const mirror = await streaming({ DATABASE_REPLICATION_URL: url.href });
  const gone = async () => {
    await mirror.stop();
    await db.sql.unsafe(`drop role ${role}`);
  };
  return { mirror, role, gone };
}

test('a mirror whose replication connection is refused is behind by what it has not reconciled, not by all the time without a stream', async () => {
  const { mirror, role, gone } = await streamingAsAnother();
  const began = performance.now();
  await db.sql.unsafe(`alter role ${role} nologin`);
  await cut();
  // it is 0 again as soon as the next reconcile has ended
  const told = vi.spyOn(mirror.metrics.mirrorLagSeconds, 'set');
  const lag = () => Math.max(...told.mock.calls.map(([seconds]) => seconds));
  const term = async () => Number((await db.sql`select term from smslogd.checkpoint`)[0]?.['term']);
  const first = await term();
  // each attempt, and each reconcile between two of them, is a life with a term of its own
  await until('it to be refused again and again', async () => (await term()) >= first + 7, 90);
  await until('it to say how far it is behind', () => lag() > 0);
  expect(lag()).toBeLessThan((performance.now() - began) / 2_000);
  await gone();
});

test('an old transaction for which the reconcile waits keeps nobody from streaming again once the replication login is no longer refused', async () => {
  const { mirror, role, gone } = await streamingAsAnother();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  await db.sql`update smslogd.checkpoint set reconcile_due = 'by hand'`;
  await db.sql.unsafe(`alter role ${role} nologin`);
  await cut();
  await until('it to reconcile', () => mirror.health.mirrorState === 'repairing');
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.sql.unsafe(`alter role ${role} login`);
  await until('it to stream', () => mirror.health.mirrorState === 'streaming');
  await old.unsafe('commit');
  old.release();
  await mirror.streaming();
  await gone();
});

test.for(['there is no slot yet', 'the slot is there', 'a slot of our name is on the other cluster'] as const)(
  'a replication address that leads elsewhere while %s is told of once, nothing is made or changed there, and the log is kept',
  async (when) => {
    if (when === 'the slot is there') await tenRowsThenDown();
    const server =
      when === 'a slot of our name is on the other cluster' ? await createServer({}, { unrelated: true }) : undefined;
    const other = await createDatabase(server && { adminUrl: server.url('postgres') });
    if (server !== undefined) {
      await tenRowsThenDown();
      await other.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
      await insertMany(other.sql, 3);
    }
    const slots = async () => [
      await db.sql`select slot_name, database, confirmed_flush_lsn from pg_replication_slots where slot_name = ${db.name}`,
      await other.sql`select slot_name, database, confirmed_flush_lsn from pg_replication_slots where slot_name = ${db.name}`,
    ];
    const before = await slots();
    const mirror = startMirror(db, { env: { DATABASE_REPLICATION_URL: other.replicationUrl }, log });
    mirrors.push(mirror);
    for (let round = 0; round < 3; round += 1) {
      await insertMany(db.sql, 5);
      await everyRowOnce();
    }
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
      expect.objectContaining({
        code: 'slot_foreign',
        msg: `DATABASE_URL and DATABASE_REPLICATION_URL lead to different ${server === undefined ? 'databases' : 'clusters'}`,
      }),
    ]);
    expect(await slots()).toEqual(before);
    await mirror.stop();
    if (server === undefined) await other.drop();
    else {
      await other.sql.end();
      await server.remove();
    }
  },
);

test('a slot that cannot be streamed for another reason than lost WAL is told of in the words of the server', async () => {
  await db.sql`select pg_create_physical_replication_slot(${db.name})`;
  const config = db.config();
  const handlers = { message() {}, keepalive() {} };
  const server = await describeServer(db.sql);
  await expect(
    openStream(config, { name: 'mirror' }, { server, durable: ZERO_LSN, senderTimeoutMs: 0, binary: false, handlers }),
  ).rejects.toMatchObject({
    code: 'database_failed',
    // each version has its own
    message: expect.stringMatching(
      /\(55000\): cannot (?:use physical replication slot|read from logical replication slot)/,
    ),
  });
  await db.sql`select pg_drop_replication_slot(${db.name})`;
});

test('another SLOT_NAME for a log that is filled is told of as what is known, and every row is in the log once', async () => {
  await tenRowsThenDown();
  await streaming({ SLOT_NAME: `${db.name}_2` });
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
    expect.objectContaining({
      code: 'checkpoint_missing',
      msg: 'there is no checkpoint for this SLOT_NAME, though the log has mirrored rows: it is created',
      hint: expect.stringContaining('SLOT_NAME is new, or its row was deleted'),
    }),
  ]);
});

test('while every write fails the mirror tells it once, and once that it streams again', async () => {
  const told: { level: number; msg: string; code?: string }[] = [];
  const all = pino({ level: 'info' }, { write: (line) => void told.push(JSON.parse(line) as (typeof told)[0]) });
  const mirror = startMirror(db, { log: all });
  mirrors.push(mirror);
  await mirror.streaming();
  await db.sql`alter table verification.sms_log rename column body to text`;
  await insertMany(db.sql, 5);
  await until('a few tries', async () => ((await mirror.metrics.mirrorReconnects.get()).values[0]?.value ?? 0) >= 3);
  const streams = () => told.filter(({ msg }) => msg === 'the mirror streams').length;
  expect(told.filter(({ level }) => level === 40).map(({ code }) => code)).toEqual(['object_missing']);
  expect(streams()).toBe(1);
  await db.sql`alter table verification.sms_log rename column text to body`;
  await everyRowOnce();
  await until('it to tell that it streams', () => streams() > 1);
  expect(streams()).toBe(2);
  await cut();
  await until('it to tell that, too', () => streams() > 2);
  expect(told.filter(({ level }) => level === 40).map(({ code }) => code)).toEqual([
    'object_missing',
    'database_session_ended',
  ]);
});
