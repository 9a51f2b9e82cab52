/** The shapes that the source has in the field, and what its owner does to it under a running daemon. Nothing of ours may make that fail. */
import { randomUUID } from 'node:crypto';
import type { TransactionSql } from 'postgres';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDatabase } from '../../src/postgres/pools.ts';
import { FULL, type Batch } from '../../src/mirror/batch.ts';
import { createStore } from '../../src/mirror/store.ts';
import { lackingPrivileges } from '../../src/doctor/privileges.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describePublication, publicationStatements } from '../../src/schema/publication.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilConfirmed, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { OWNER } from '../support/postgres.ts';
import { insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirror: RunningMirror | undefined;

beforeEach(async () => {
  db = await createDatabase({ empty: true });
});
afterEach(async () => {
  await mirror?.stop();
  mirror = undefined;
  await db.drop();
});

const STANDARD = `
create schema if not exists verification;
create table verification.verifications (
  id uuid primary key, phone_number varchar(255) not null, check_digit integer not null default 1, status varchar(255) not null default 'new',
  code integer not null, code_expired_at timestamp not null default now(), active boolean default true, gateway_id varchar(255),
  gateway_status varchar(255), attempts_count integer default 0, inserted_at timestamp not null)`;

/** Makes the source by `ddl`, migrates, and starts the mirror. */
async function begin(
  ddl: string,
  env: Record<string, string> = {},
  options: Parameters<typeof startMirror>[1] = {},
): Promise<void> {
  await db.owner.sql.unsafe(ddl);
  await migrate(db.owner.config(env), { role: DAEMON_ROLE, say: () => {} });
  mirror = startMirror(db, { env, ...options });
  await mirror.streaming();
}

const rows = async () =>
  [
    ...(await db.owner
      .sql`select id, phone_number, body, gateway_id, gateway_status, inserted_at = '2026-01-02 03:04:05.678901+00' as exact
                      from verification.sms_log order by inserted_at, id`),
  ].map((row) => ({ ...row }));
const logged = async () =>
  (await db.owner.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const has = (count: number) => until(`${count} rows`, async () => (await logged()) === count);
const expected = (id: string, over: object = {}) => ({
  id,
  phone_number: '+380000000001',
  body: 'Код авторизації дій в системі eHealth: 1234',
  gateway_id: null,
  gateway_status: null,
  exact: true,
  ...over,
});

test('without gateway columns rows are logged with a null status, copied and streamed, and not queued', async () => {
  const copied = randomUUID();
  const streamed = randomUUID();
  const table = `create table verification.verifications (id uuid primary key, phone_number text not null, code integer not null, inserted_at timestamp not null)`;
  const insert = (id: string) =>
    db.owner
      .sql`insert into verification.verifications values (${id}, '+380000000001', 1234, '2026-01-02 03:04:05.678901')`;
  await db.owner.sql.unsafe(`create schema verification; ${table}`);
  await insert(copied);
  await begin('select 1');
  await insert(streamed);
  await has(2);
  expect(await rows()).toEqual([copied, streamed].sort().map((id) => expected(id)));
  // the first one was copied before the daemon had noted the shape: it must not be judged either
  expect([
    ...(await db.owner.sql`select publish_update from (select pubupdate as publish_update from pg_publication) p`),
  ]).toEqual([{ publish_update: false }]);
  expect(await db.owner.sql`select from smslogd.sms_poll`).toHaveLength(0);
});

test('a timestamptz column, a text code with leading zeros and a bigint code are taken as they are', async () => {
  const id = randomUUID();
  await begin(`create schema verification; create table verification.verifications
                 (inserted_at timestamptz not null, code text not null, phone_number text not null, id uuid primary key)`);
  await db.owner
    .sql`insert into verification.verifications values ('2026-01-02 05:04:05.678901+02', '0042', '+380000000001', ${id})`;
  await has(1);
  expect(await rows()).toEqual([expected(id, { body: 'Код авторизації дій в системі eHealth: 0042' })]);
  const other = randomUUID();
  await db.owner.sql`alter table verification.verifications alter column code type bigint using code::bigint`;
  await db.owner
    .sql`insert into verification.verifications values ('2026-01-02 05:04:05.678901+02', 12345678901, '+380000000001', ${other})`;
  await has(2);
  expect(await rows()).toContainEqual(expected(other, { body: 'Код авторизації дій в системі eHealth: 12345678901' }));
});

test.for([
  ['UTC', '2026-01-02 03:04:05.678901'],
  ['Europe/Kyiv', '2026-01-02 05:04:05.678901'],
] as const)('a database with odd date settings changes no instant, with SOURCE_TIMEZONE %s', async ([zone, local]) => {
  await db.sql.unsafe(
    `alter database ${db.name} set datestyle = 'SQL, DMY'; alter database ${db.name} set timezone = 'Asia/Tokyo'`,
  );
  const copied = randomUUID();
  const streamed = randomUUID();
  const insert = (id: string) =>
    db.owner.sql`insert into verification.verifications (id, phone_number, code, inserted_at)
           values (${id}, '+380000000001', 1234, ${local}::text::timestamp)`;
  await db.owner.sql.unsafe(STANDARD);
  await insert(copied);
  await begin('select 1', { SOURCE_TIMEZONE: zone });
  await insert(streamed);
  await has(2);
  await db.owner.sql.unsafe(
    `alter table verification.verifications alter column inserted_at type timestamptz using inserted_at at time zone '${zone}'`,
  );
  const withZone = randomUUID();
  await db.owner.sql`insert into verification.verifications (id, phone_number, code, inserted_at)
               values (${withZone}, '+380000000001', 1234, timestamptz '2026-01-02 03:04:05.678901+00')`;
  await has(3);
  expect(await rows()).toEqual([copied, streamed, withZone].sort().map((id) => expected(id)));
});

test('a copy whose owner changes the type of inserted_at in the middle falsifies no instant', async () => {
  await db.sql.unsafe(`alter database ${db.name} set timezone = 'Asia/Tokyo'`);
  await db.owner.sql.unsafe(STANDARD);
  await migrate(db.owner.config(), { role: DAEMON_ROLE, say: () => {} });
  for (const SOURCE_TIMEZONE of ['UTC', 'Europe/Kyiv']) {
    const sql = openDatabase(db.config(), { max: 1, name: 'copy' });
    const store = createStore(sql, db.config({ SOURCE_TIMEZONE }));
    for (const type of ['timestamptz', 'timestamp']) {
      const asBegun = await describeSource(sql, db.config());
      await db.owner.sql.unsafe(
        `alter table verification.verifications alter column inserted_at type ${type} using inserted_at at time zone '${SOURCE_TIMEZONE}'`,
      );
      const id = randomUUID();
      const local = `timestamp '2026-01-02 03:04:05.678901' at time zone 'UTC' at time zone '${SOURCE_TIMEZONE}'`;
      await db.owner.sql.unsafe(
        `insert into verification.verifications (id, phone_number, code, inserted_at)
         values ('${id}', '+380000000001', 1234, ${local}${type === 'timestamptz' ? ` at time zone '${SOURCE_TIMEZONE}'` : ''})`,
      );
      await store.reconcileChunk(asBegun, undefined, 10);
      expect(await rows()).toContainEqual(expected(id));
    }
    await sql.end();
  }
});

test('columns of a fixed length are logged without the spaces at their end, and others with theirs, copied and streamed', async () => {
  const ids = [randomUUID(), randomUUID()].toSorted();
  const insert = (id: string) =>
    db.owner
      .sql`insert into verification.verifications values (${id}, '+380000000001', '1234 ', '1234567', 'Accepted', '2026-01-02 03:04:05.678901')`;
  await db.owner.sql.unsafe(`create schema verification;
    create table verification.verifications (id uuid primary key, phone_number char(20) not null, code text not null,
      gateway_id char(25), gateway_status char(20), inserted_at timestamp not null)`);
  await insert(ids[0]!);
  await begin('select 1');
  await insert(ids[1]!);
  await has(2);
  const body = `${expected('').body} `;
  expect(await rows()).toEqual(
    ids.map((id) => expected(id, { body, gateway_id: '1234567', gateway_status: 'Accepted' })),
  );
});

test.each([
  ['My App', 'Verifi.cations$1'],
  ['otp.v2', 'verifications'],
  ['схема', 'таблиця'],
  ['a"b', `it's "quoted"`],
  ['$$', '$&$q$'],
  ['back\\slash', 'select'],
])('a source of an odd name is found, granted, mirrored and looked up: %s.%s', async (schema, name) => {
  const id = randomUUID();
  const quoted = `"${schema.replaceAll('"', '""')}"."${name.replaceAll('"', '""')}"`;
  const role = `odd_${randomUUID().slice(0, 8)}`;
  await db.sql.unsafe(`create role ${role} login password 'made-up'`);
  const env = { SOURCE_TABLE: quoted, PUBLICATION_NAME: 'My "Pub"' };
  await begin(
    `create schema "${schema.replaceAll('"', '""')}"; create table ${quoted} (id uuid primary key, phone_number text not null, code integer not null, inserted_at timestamp not null)`,
    env,
  );
  await migrate(db.owner.config(env), { role, say: () => {} });
  const [may] = await db.owner.sql`select has_table_privilege(${role}, ${quoted}, 'select') as reads`;
  expect(may).toEqual({ reads: true });
  const source = await describeSource(db.owner.sql, db.config(env));
  const daemon = new URL(db.url);
  [daemon.username, daemon.password] = [role, 'made-up'];
  const sql = openDatabase(db.config({ ...env, DATABASE_URL: daemon.href }), { max: 1, name: 'test' });
  expect(await lackingPrivileges(sql, source)).toEqual([]);
  await sql.end();
  await db.owner.sql.unsafe(
    `insert into ${quoted} values ('${id}', '+380000000001', 1234, '2026-01-02 03:04:05.678901')`,
  );
  await has(1);
  expect(await rows()).toEqual([expected(id)]);
  const [codes] = await db.owner.sql`select matched from smslogd.otp_conversion('2026-01-02', '2026-01-02')`;
  expect(codes).toEqual({ matched: '1' });
  await mirror?.stop();
  mirror = undefined;
  await db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
});

test.each(['full', 'masked'])('rows of tables that inherit from the source are streamed, SMS_BODY=%s', async (mode) => {
  await db.owner.sql.unsafe(`${STANDARD};
    create table verification.v_2025 (note text) inherits (verification.verifications);
    create table verification.v_2026 () inherits (verification.verifications);
    create table verification.v_2026_01 () inherits (verification.v_2026);
    create table verification.another (id uuid)`);
  const said: string[] = [];
  const config = db.owner.config({ SMS_BODY: mode });
  await migrate(config, { role: DAEMON_ROLE, say: () => {} });
  await db.owner.sql`alter publication smslogd add table verification.another`;
  await migrate(config, { role: DAEMON_ROLE, say: (line) => said.push(line) });
  expect(said).toContain('publication smslogd');
  // no audit within this test
  mirror = startMirror(db, { env: { SMS_BODY: mode }, auditMs: 3_600_000 });
  await mirror.streaming();
  const insert = async (table: string) =>
    db.owner.sql.unsafe(
      `insert into verification.${table} (id, phone_number, code, inserted_at) values (gen_random_uuid(), '+380000000001', 1234, now())`,
    );
  for (const table of ['verifications', 'v_2025', 'v_2026', 'v_2026_01']) await insert(table);
  await has(4);
  // one that comes later
  await db.owner.sql.unsafe('create table verification.v_2027 () inherits (verification.verifications)');
  const sql = openDatabase(config, { max: 1, name: 'test' });
  const source = await describeSource(sql, config);
  const statements = publicationStatements(config, source, await describePublication(sql, config, source));
  expect(statements).toEqual([expect.stringContaining('add table only verification.v_2027')]);
  await migrate(config, { role: DAEMON_ROLE, say: () => {} });
  expect(publicationStatements(config, source, await describePublication(sql, config, source), true)).toEqual([]);
  await sql.end();
  await mirror.stop();
  mirror = startMirror(db, { env: { SMS_BODY: mode }, auditMs: 3_600_000 });
  await mirror.streaming();
  await insert('v_2027');
  await has(5);
});

test('a table that comes to inherit from the source, and is published at once, is streamed by the daemon that runs', async () => {
  // no audit within this test
  await begin(STANDARD, {}, { auditMs: 3_600_000 });
  await db.owner.sql.unsafe(`
    create table verification.v_2027 () inherits (verification.verifications);
    alter publication smslogd add table only verification.v_2027`);
  await until('a row of it', async () => {
    await db.owner.sql`insert into verification.v_2027 (id, phone_number, code, inserted_at)
                       values (gen_random_uuid(), '+380000000001', 1234, now())`;
    return (await logged()) > 0;
  });
});

test("types and casts of the source's owner are read, and no function of his runs", async () => {
  await begin(`create schema verification;
    create type verification.state as enum ('new', 'verified');
    create type verification.outcome as enum ('Delivered');
    create domain verification.phone as text;
    create function verification.planted(verification.state) returns text language plpgsql as $$ begin raise exception 'it ran'; end $$;
    create function verification.planted(verification.outcome) returns text language plpgsql as $$ begin raise exception 'it ran'; end $$;
    create cast (verification.state as text) with function verification.planted(verification.state) as implicit;
    create cast (verification.outcome as text) with function verification.planted(verification.outcome) as implicit;
    create table verification.verifications (id uuid primary key, phone_number verification.phone not null, status verification.state, code integer not null,
      gateway_id text, gateway_status verification.outcome, inserted_at timestamp not null);
    insert into verification.verifications values (gen_random_uuid(), '+380000000001', 'verified', 1234, '1234567', 'Delivered', '2026-01-02 03:04:05.678901')`);
  await db.owner
    .sql`insert into verification.verifications values (gen_random_uuid(), '+380000000001', 'verified', 1234, '1234567', 'Delivered', '2026-01-02 03:04:05.678901')`;
  await has(2);
  expect((await rows()).map((row) => row['gateway_status'])).toEqual(['Delivered', 'Delivered']);
  const [codes] = await db.owner.sql`select matched, verified from smslogd.otp_conversion('2026-01-02', '2026-01-02')`;
  expect(codes).toEqual({ matched: '2', verified: '2' });
});

test('what codes came to is read from no view that was put in the place of the source, and from no table of another owner', async () => {
  await begin(STANDARD);
  const role = `other_${randomUUID().slice(0, 8)}`;
  await insertMany(db.owner.sql, 1);
  await has(1);
  const matched = async () =>
    (await db.owner.sql`select sum(matched)::int as n from verification.sms_otp_conversion`)[0]?.['n'] as number;
  expect(await matched()).toBe(1);
  await db.sql.unsafe(`create role ${role}; alter table verification.verifications owner to ${role}`);
  expect(await matched()).toBe(0);
  await db.sql.unsafe(`alter table verification.verifications owner to ${OWNER}; drop role ${role};
    alter table verification.verifications rename to elsewhere;
    create view verification.verifications as select * from verification.elsewhere`);
  expect(await matched()).toBe(0);
});

test('a partitioned source is mirrored through its root, whatever partition a row is in', async () => {
  await begin(`create schema verification;
    create table verification.verifications (id uuid not null, phone_number text not null, code integer not null, gateway_id text, inserted_at timestamp not null, primary key (id, inserted_at)) partition by range (inserted_at);
    create table verification.v_old partition of verification.verifications for values from ('2000-01-01') to ('2026-01-01');
    create table verification.v_new partition of verification.verifications for values from ('2026-01-01') to ('2030-01-01')`);
  for (const year of ['2025', '2026']) {
    await db.owner
      .sql`insert into verification.verifications values (${randomUUID()}, '+380000000001', 1234, null, ${`${year}-06-01 00:00:00`}::text::timestamp)`;
  }
  await has(2);
  await db.owner
    .sql`create table verification.v_next partition of verification.verifications for values from ('2030-01-01') to ('2040-01-01')`;
  await db.owner
    .sql`insert into verification.verifications values (${randomUUID()}, '+380000000001', 1234, null, '2031-01-01')`;
  await has(3);
  await db.owner.sql`update verification.verifications set gateway_id = '1234567' where inserted_at > '2030-01-01'`;
  await until(
    'the gateway id',
    async () => (await db.owner.sql`select from verification.sms_log where gateway_id = '1234567'`).length === 1,
  );
  const [codes] = await db.owner.sql`select matched from smslogd.otp_conversion('2026-06-01', '2026-06-01')`;
  expect(codes).toEqual({ matched: '1' });
});

test('a partition that comes with rows, which nothing streams, has them copied by the next audit, however old they are', async () => {
  await db.owner.sql.unsafe(`create schema verification;
    create table verification.verifications (id uuid not null, phone_number text not null, code integer not null, inserted_at timestamp not null, primary key (id, inserted_at)) partition by range (inserted_at);
    create table verification.v_old (like verification.verifications including all);
    insert into verification.v_old select gen_random_uuid(), '+380000000001', 1234, '2020-01-01' from generate_series(1, 3)`);
  await begin('select 1', {}, { auditMs: 300 });
  const audited = async () =>
    (await db.owner.sql`select audited_xid::text as xid from smslogd.checkpoint`)[0]?.['xid'] as string;
  const before = await audited();
  await db.owner.sql`select pg_current_xact_id()`;
  await until('an audit that has passed them', async () => BigInt(await audited()) > BigInt(before));
  await db.owner
    .sql`alter table verification.verifications attach partition verification.v_old for values from ('2000-01-01') to ('2026-01-01')`;
  await has(3);
});

test('columns that are added, dropped, renamed and reordered under a running daemon do not stop it', async () => {
  await begin(STANDARD);
  await insertVerification(db.owner.sql);
  await db.owner.sql`alter table verification.verifications add column channel text default 'sms'`;
  await insertVerification(db.owner.sql);
  await db.owner.sql`alter table verification.verifications drop column active`;
  await insertVerification(db.owner.sql);
  await db.owner.sql`alter table verification.verifications rename column attempts_count to tries`;
  await insertVerification(db.owner.sql);
  await db.owner.sql`alter table verification.verifications alter column phone_number type text`;
  await insertVerification(db.owner.sql);
  await db.owner.sql`alter table verification.verifications drop column gateway_status, add column gateway_status text`;
  await insertVerification(db.owner.sql);
  await has(6);
});

test('a needed column that goes is named, and the mirror goes on when it is back', async () => {
  await begin(STANDARD);
  await insertVerification(db.owner.sql);
  await has(1);
  await db.owner.sql`alter table verification.verifications rename column phone_number to phone`;
  const row = randomUUID();
  await db.owner
    .sql`insert into verification.verifications (id, phone, code, inserted_at) values (${row}, '+380000000001', 1234, '2026-01-02 03:04:05.678901')`;
  await until('the failure', () => mirror!.health.mirrorState === 'stopped');
  await db.owner.sql`alter table verification.verifications rename column phone to phone_number`;
  await until('the reconciled row', async () => (await logged()) === 2);
});

test.each(['code', 'phone_number', 'inserted_at'])(
  'where %s is a generated column each SMS is read from the source by its key, and no reconcile of the whole follows',
  async (generated) => {
    const columns = { phone_number: 'text', code: 'integer', inserted_at: 'timestamp' };
    const written = Object.keys(columns).map((name) => (name === generated ? 'raw' : name));
    const ddl = Object.entries(columns).map(([name, type]) =>
      name === generated ? `raw ${type}, ${name} ${type} generated always as (raw) stored` : `${name} ${type}`,
    );
    await begin(
      `create schema verification; create table verification.verifications (id uuid primary key, ${ddl.join()})`,
    );
    const term = async () => (await db.sql`select term::text from smslogd.checkpoint`)[0]?.['term'] as string;
    const before = await term();
    const ids = Array.from({ length: 12 }, () => randomUUID());
    for (const id of ids) {
      await db.sql.unsafe(`insert into verification.verifications (id, ${written.join()})
                           values ('${id}', '+380000000001', 1234, '2026-01-02 03:04:05.678901')`);
    }
    await has(12);
    expect(await rows()).toEqual(ids.toSorted().map((id) => expected(id)));
    // no life of the mirror ended for it
    expect(await term()).toBe(before);
    expect(await db.sql`select from smslogd.checkpoint where reconcile_due is not null`).toHaveLength(0);
  },
);

const WITHOUT_KEY = `create schema verification;
  create table verification.verifications (id uuid, phone_number text, code integer, inserted_at timestamp)`;
/** The stream lacks a column of what is written here. */
const writeNotWhole = (work: (tx: TransactionSql) => Promise<void>) =>
  db.owner.sql.begin(async (tx) => {
    await tx`alter table verification.verifications rename column code to otp`;
    await work(tx);
    await tx`alter table verification.verifications rename column otp to code`;
  });
const checkpoint = async () => {
  const [row] = await db.sql`select term::text, lsn::text, reconcile_due as due from smslogd.checkpoint`;
  return { ...row } as { term: string; lsn: string | null; due: string | null };
};

test('a transaction of several batches with a row that the stream has not whole, and that is gone, is passed, and its other rows are logged', async () => {
  await begin(WITHOUT_KEY);
  await writeNotWhole(async (tx) => {
    await tx`insert into verification.verifications
             select gen_random_uuid(), '+380000000001', 1234, now() from generate_series(1, ${FULL + 500}::int)`;
    await tx`delete from verification.verifications where ctid = (select min(ctid) from verification.verifications)`;
  });
  await untilConfirmed(db.sql, db.name);
  await until('the reconcile to be done', async () => (await checkpoint()).due === null);
  expect(await logged()).toBe(FULL + 499);
});

test('a stop while a row that the stream has not whole is looked for makes no reconcile due, and does not pass the row', async () => {
  let taken = false;
  const beforeWrite = ({ partial }: Batch) => {
    taken ||= partial.length > 0;
  };
  await begin(WITHOUT_KEY, {}, { failpoints: { beforeWrite } });
  const before = await checkpoint();
  await writeNotWhole(async (tx) => {
    await tx`insert into verification.verifications values (gen_random_uuid(), '+380000000001', 1234, now())`;
    await tx`delete from verification.verifications`;
  });
  await until('the row to be taken', () => taken);
  await mirror!.stop();
  expect(await checkpoint()).toEqual(before);
});

test('a row without an id is told of where the stream has it not whole, too, and no reconcile follows', async () => {
  await begin(WITHOUT_KEY);
  const { term } = await checkpoint();
  await writeNotWhole(async (tx) => {
    await tx`insert into verification.verifications select id, '+380000000001', 1234, now() from unnest(array[null, gen_random_uuid()]) id`;
  });
  await has(1);
  await until('it to be told', async () => {
    const { values } = await mirror!.metrics.errors.get();
    return values.some(({ labels, value }) => labels.code === 'row_refused' && value === 1);
  });
  expect(await checkpoint()).toMatchObject({ term, due: null });
});

const insertInto = (tx: TransactionSql, table: string, code: string) =>
  tx.unsafe(`insert into verification.${table} (id, phone_number, ${code}, inserted_at)
             values (gen_random_uuid(), '+380000000001', 1234, '2026-01-02 03:04:05.678901')`);

test('a table or a column that is renamed for a moment loses no row and no text', async () => {
  await begin(STANDARD);
  await db.owner.sql.begin(async (tx) => {
    await tx`alter table verification.verifications rename to aside`;
    await insertInto(tx, 'aside', 'code');
    await tx`alter table verification.aside rename to verifications`;
  });
  await has(1);
  await db.owner.sql.begin(async (tx) => {
    await tx`alter table verification.verifications rename column code to otp`;
    await insertInto(tx, 'verifications', 'otp');
    await tx`alter table verification.verifications rename column otp to code`;
  });
  await has(2);
  const bodies = (await rows()).map((row) => (row as { body?: string }).body);
  expect(bodies).toEqual(Array.from({ length: 2 }, () => 'Код авторизації дій в системі eHealth: 1234'));
});

test('for a row of which the stream lacks a column, and that cannot be read, a reconcile is due under a term of its own before the checkpoint passes it', async () => {
  const seen: Awaited<ReturnType<typeof checkpoint>>[] = [];
  const afterCommit = async ({ partial }: Batch) => {
    if (partial.length > 0) seen.push(await checkpoint());
  };
  await begin(STANDARD, {}, { failpoints: { afterCommit } });
  await until('the first reconcile to be done', async () => (await checkpoint()).due === null);
  const { term } = await checkpoint();
  // a crash may follow each write
  await db.owner.sql.unsafe(`
    create table verification.noted (term text, due text);
    create function verification.note_due() returns trigger language plpgsql security definer as $$
    begin
      insert into verification.noted select term, reconcile_due from smslogd.checkpoint;
      return null;
    end $$;
    create trigger note_due after insert on verification.sms_log for each row execute function verification.note_due()`);
  await db.owner.sql.begin(async (tx) => {
    await tx`alter table verification.verifications rename column code to otp`;
    await insertInto(tx, 'verifications', 'otp');
    // as if it were not seen yet
    await tx`delete from verification.verifications`;
    await tx`alter table verification.verifications rename column otp to code`;
    await insertInto(tx, 'verifications', 'code');
  });
  await until('the batch', () => seen.length > 0);
  // whoever still reconciles in the life's first term can save no position any more, and so passes over no mark
  const noted = { term: seen[0]!.term, due: 'a needed column was gone' };
  expect(seen[0]).toMatchObject(noted);
  expect([...(await db.owner.sql`select * from verification.noted`)]).toEqual([noted]);
  expect(noted.term).not.toBe(term);
});

const withIdentity = (identity: string) => `
  create unique index other on verification.verifications (id);
  alter table verification.verifications replica identity ${identity}`;

for (const masked of [false, true]) {
  for (const identity of ['default', 'nothing', 'full', 'using index other'] as const) {
    if (masked && identity === 'full') continue; // refused by migrate: see below
    test(`${masked ? 'masked' : 'full'}: the owner's DML works with REPLICA IDENTITY ${identity}`, async () => {
      await db.owner.sql.unsafe(`${STANDARD}; ${withIdentity(identity)}`);
      await begin('select 1', masked ? { SMS_BODY: 'masked' } : {});
      await insertMany(db.owner.sql, 3);
      await db.owner.sql`update verification.verifications set attempts_count = 1, gateway_id = '1234567'`;
      await db.owner
        .sql`delete from verification.verifications where id = (select min(id::text)::uuid from verification.verifications)`;
      await db.owner
        .sql`insert into verification.verifications (id, phone_number, code, inserted_at) values (${randomUUID()}, '+380000000001', 4321, now())`;
      await has(4);
      const bodies = await db.owner
        .sql`select distinct right(body, 4) as code from verification.sms_log where phone_number = '+380000000001' and gateway_id is null`;
      expect([...bodies]).toEqual([{ code: masked ? '****' : '4321' }]);
    });
  }
}

test('the owner takes the replica identity and the key away under a running daemon, and every statement of his works on', async () => {
  await begin(STANDARD);
  await insertMany(db.owner.sql, 3);
  for (const ddl of ['replica identity nothing', 'drop constraint verifications_pkey', 'replica identity full']) {
    await db.owner.sql.unsafe(`alter table verification.verifications ${ddl}`);
    await insertVerification(db.owner.sql, { gateway_id: null, gateway_status: null });
    await db.owner.sql`update verification.verifications set attempts_count = attempts_count + 1`;
    await db.owner.sql`update verification.verifications set gateway_id = '1234567' where gateway_id is null`;
    await db.owner
      .sql`delete from verification.verifications where ctid = (select min(ctid) from verification.verifications)`;
  }
  await has(6);
  await until(
    'the late gateway ids',
    async () => (await db.owner.sql`select from verification.sms_log where gateway_id is null`).length === 0,
  );
});

test('the owner can drop and alter any column, and drop the table itself', async () => {
  await begin(STANDARD);
  await insertVerification(db.owner.sql);
  await has(1);
  for (const column of [
    'check_digit',
    'status',
    'code_expired_at',
    'active',
    'gateway_id',
    'gateway_status',
    'attempts_count',
    'code',
    'phone_number',
    'inserted_at',
  ]) {
    await db.owner.sql.unsafe(
      `alter table verification.verifications alter column ${column} type text using ${column}::text`,
    );
    await db.owner.sql.unsafe(`alter table verification.verifications drop column ${column}`);
  }
  await db.owner.sql`drop table verification.verifications`;
  expect(await logged()).toBe(1);
});

test('masked mode is refused with REPLICA IDENTITY FULL, before anything is created', async () => {
  await db.owner.sql.unsafe(`${STANDARD}; alter table verification.verifications replica identity full`);
  await expect(migrate(db.owner.config({ SMS_BODY: 'masked' }), { say: () => {} })).rejects.toMatchObject({
    code: 'config_invalid',
  });
  expect(await db.owner.sql`select from pg_publication`).toHaveLength(0);
});

test('a source whose id is no uuid is refused with the column and its type', async () => {
  await db.owner.sql.unsafe(
    'create schema verification; create table verification.verifications (id bigint primary key, phone_number text, code int, inserted_at timestamp)',
  );
  await expect(migrate(db.owner.config(), { say: () => {} })).rejects.toMatchObject({
    code: 'source_column',
    message: 'the column id of verification.verifications is bigint, it must be uuid',
  });
});
