import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { command, teardown } from '../../src/commands/teardown.ts';
import { pgConfig } from '../../src/postgres/clients.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());
beforeEach(() => migrate(db.owner.config(), { say: () => {} }));

const makeSlot = () => db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
const slots = () => db.sql`select slot_name, active from pg_replication_slots where slot_name = ${db.name}`;
const publications = () => db.sql`select pubname from pg_publication`;
const run = async (): Promise<string[]> => {
  const said: string[] = [];
  await teardown(db.sql, db.config(), (line) => said.push(line));
  return said;
};

/** Streams from the slot; resolves with the checkpoint's mark as it is when the server ends the stream. */
async function startReader(): Promise<{ markWhenEnded: Promise<unknown> }> {
  const reader = new Client(await pgConfig(db.replicationUrl, { name: 'reader', replication: true }));
  reader.on('error', () => {});
  await reader.connect();
  // a stream's query ends only with its connection
  const ended = reader
    .query(`START_REPLICATION SLOT ${db.name} LOGICAL 0/0 (proto_version '1', publication_names 'smslogd')`)
    .catch(() => {});
  await until('the slot to be read', async () => (await slots())[0]?.['active'] === true);
  const markWhenEnded = (async () => {
    await ended;
    const [row] = await db.sql`select removed_at from smslogd.checkpoint where slot_name = ${db.name}`;
    await reader.end().catch(() => {});
    return row?.['removed_at'];
  })();
  return { markWhenEnded };
}

test('teardown marks the checkpoint before it ends the reader, drops slot and publication, and keeps the log', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type) values ('+380000000001', 'text')`;
  await makeSlot();
  const reader = await startReader();
  const said = await run();
  expect(await reader.markWhenEnded).toBeInstanceOf(Date);
  expect(await slots()).toHaveLength(0);
  expect(await publications()).toHaveLength(0);
  expect(await db.sql`select from verification.sms_log`).toHaveLength(1);
  expect(said).toEqual([
    'checkpoint: marked as removed; running daemons become idle',
    `slot ${db.name}: ending its reader`,
    `slot ${db.name}: dropped`,
    'publication smslogd: dropped',
  ]);
});

test('a publication that somebody is changing is not waited for in a row with others, and dropped afterwards', async () => {
  const session = await db.sql.reserve();
  await session.unsafe(`begin; comment on publication smslogd is 'held'`);
  const said: string[] = [];
  const done = teardown(db.sql, db.config(), (line) => said.push(line));
  await until('it to try again', () => said.includes('a table is locked by another session; trying again'));
  await session.unsafe('rollback');
  session.release();
  await done;
  expect(await publications()).toHaveLength(0);
});

test('a second teardown finds nothing to drop and is no failure; migrate clears the mark', async () => {
  await run();
  expect(await run()).toEqual([
    'checkpoint: marked as removed; running daemons become idle',
    `slot ${db.name}: not there`,
    'publication smslogd: not there',
  ]);
  await migrate(db.owner.config(), { say: () => {} });
  const [row] = await db.sql`select removed_at from smslogd.checkpoint where slot_name = ${db.name}`;
  expect(row?.['removed_at']).toBeNull();
  expect(await publications()).toHaveLength(1);
});

test('a slot of a former SLOT_NAME, which holds WAL as well, is named with what drops it', async () => {
  const [former, lines] = [`${db.name}_former`, [] as string[]];
  await db.sql`select pg_create_logical_replication_slot(${former}, 'pgoutput')`;
  const io = (more: Record<string, string>) => ({
    env: { ...db.env(), DATABASE_URL: db.owner.url, ...more },
    print: (line: string) => void lines.push(line),
    stdoutIsTerminal: false,
  });
  await db.sql`insert into smslogd.checkpoint (slot_name) values (${former})`;
  expect(await command.run({}, io({}))).toBe(0);
  expect(lines.at(-1)).toBe(`slot ${former}: holds WAL, too; drop it by: SLOT_NAME=${former} smslogd teardown`);
  expect(await command.run({}, io({ SLOT_NAME: former }))).toBe(0);
  expect(lines.at(-1)).toBe('nothing of smslogd holds WAL any more; the log is kept');
});

test('a slot of another database is left alone, and nothing else is done', async () => {
  const other = await createDatabase({ empty: true });
  try {
    await other.sql`select pg_create_logical_replication_slot(${other.name}, 'pgoutput')`;
    await expect(teardown(db.sql, db.config({ SLOT_NAME: other.name }), () => {})).rejects.toMatchObject({
      code: 'config_invalid',
    });
    expect(await publications()).toHaveLength(1);
    const [mark] = await db.sql`select from smslogd.checkpoint where slot_name = ${other.name}`;
    expect(mark).toBeUndefined();
  } finally {
    await other.drop();
  }
});

test('what the role may not drop comes as SQL for the one who may', async () => {
  const role = `${db.name}_owner`;
  await db.sql.unsafe(`create role ${role} login password 'x' in role pg_signal_backend;
    grant usage on schema smslogd to ${role}; grant all on smslogd.checkpoint to ${role}`);
  await makeSlot();
  const url = db.url.replace(/postgres:\/\/[^@]+@/, `postgres://${role}:x@`);
  const io = { env: db.env({ DATABASE_URL: url }), print: () => {}, stdoutIsTerminal: false };
  await expect(command.run({}, io)).rejects.toMatchObject({
    code: 'privilege_missing',
    hint: expect.stringContaining(`select pg_drop_replication_slot('${db.name}');`),
  });
  await run();
  await db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
});

test('a database that smslogd never saw has nothing to tear down', async () => {
  const other = await createDatabase({ empty: true });
  try {
    const said: string[] = [];
    await teardown(other.sql, other.config(), (line) => said.push(line));
    expect(said[0]).toContain('no schema');
  } finally {
    await other.drop();
  }
});

test("with the daemon's two roles it marks the checkpoint as the one and drops the slot as the other, and says who drops the publication", async () => {
  const other = await createDatabase();
  const [daemon, replication] = ['daemon', 'replication'].map((name) => `${name}_${other.name}`);
  await other.sql.unsafe(
    `create role ${daemon} login password 'made-up'; create role ${replication} login replication password 'made-up'`,
  );
  await migrate(other.owner.config(), { role: daemon!, say: () => {} });
  await other.sql`select pg_create_logical_replication_slot(${other.name}, 'pgoutput')`;
  const as = (role: string) => {
    const url = new URL(other.url);
    [url.username, url.password] = [role, 'made-up'];
    return url.href;
  };
  const env = other.env({ DATABASE_URL: as(daemon!), DATABASE_REPLICATION_URL: as(replication!) });
  const lines: string[] = [];
  const io = { env, print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
  await expect(command.run({}, io)).rejects.toMatchObject({
    code: 'privilege_missing',
    hint: expect.stringContaining('drop publication if exists "smslogd"'),
  });
  expect(lines).toEqual(expect.arrayContaining([`slot ${other.name}: dropped`]));
  expect(await other.sql`select from smslogd.checkpoint where removed_at is not null`).toHaveLength(1);
  await other.sql.unsafe(`drop owned by ${daemon}, ${replication}; drop role ${daemon}, ${replication}`);
  await other.drop();
});

test('teardown with a replication address of another database does nothing and says so', async () => {
  const other = await createDatabase();
  await makeSlot();
  const lines: string[] = [];
  const io = {
    env: db.env({ DATABASE_REPLICATION_URL: other.replicationUrl }),
    print: (line: string) => void lines.push(line),
    stdoutIsTerminal: false,
  };
  await expect(command.run({}, io)).rejects.toMatchObject({
    code: 'slot_foreign',
    message: 'DATABASE_URL and DATABASE_REPLICATION_URL lead to different databases',
    hint: `Use the database ${db.name} in DATABASE_REPLICATION_URL.`,
  });
  expect(lines).toEqual([]);
  expect(await slots()).toHaveLength(1);
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await other.drop();
});
