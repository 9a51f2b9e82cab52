import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command as verify } from '../../src/commands/verify.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilConfirmed, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { startProxy } from '../support/proxy.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirrors: RunningMirror[];

beforeEach(async () => {
  db = await createDatabase();
  mirrors = [];
});
afterEach(async () => {
  await Promise.all(mirrors.map((mirror) => mirror.stop()));
  await db.drop();
});

function start(options?: Parameters<typeof startMirror>[1]): RunningMirror {
  const mirror = startMirror(db, options);
  mirrors.push(mirror);
  return mirror;
}

const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;

test('a new verification becomes one log row with its text and its time to the microsecond', async () => {
  const mirror = start();
  await mirror.streaming();
  const row = await insertVerification(db.sql, { code: 4321, inserted_at: '2026-07-01 12:00:00.000001' });
  await until('the row', async () => (await logged()) === 1);
  const [found] = await db.sql`select id, phone_number, type, body, gateway_id, gateway_status, status_changed_at,
                                      inserted_at = '2026-07-01 12:00:00.000001+00'::timestamptz as exact from verification.sms_log`;
  expect(found).toEqual({
    id: row.id,
    phone_number: row.phone_number,
    type: 'verification',
    body: 'Код авторизації дій в системі eHealth: 4321',
    gateway_id: row.gateway_id,
    gateway_status: 'Accepted',
    status_changed_at: null,
    exact: true,
  });
});

test('while a write is under way no more is read than the next batches: the rest of a backlog waits on the server', async () => {
  const url = new URL(db.replicationUrl);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) }, { keeps: true });
  url.port = String(proxy.port);
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const mirror = start({ env: { DATABASE_REPLICATION_URL: url.href }, failpoints: { beforeWrite: () => held } });
  await mirror.streaming();
  // 30 MB
  await db.sql`
    insert into verification.verifications
      (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
    select gen_random_uuid(), repeat('є', 250), 1, 'new', 1234, now(), false, repeat('є', 250), 'Accepted', now() from generate_series(1, 30000)`;
  let [read, same] = [0, 0];
  await until('nothing more to be read', () => {
    const now = proxy.received().length;
    // but keepalives
    same = now - read < 1_000 && now > 1_000_000 ? same + 1 : 0;
    read = now;
    return same === 20;
  });
  release();
  expect(read).toBeLessThan(20_000_000);
  await until('all rows', async () => (await logged()) === 30_000);
  await proxy.close();
});

test('rows from before the first start are copied once, beside the stream', async () => {
  await insertMany(db.sql, 12_000);
  const mirror = start();
  const live = await insertVerification(db.sql);
  await mirror.streaming();
  await until('all rows', async () => (await logged()) === 12_001);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
  // by a copy, not by mending what an audit misses
  expect((await mirror.metrics.errors.get()).values.filter(({ value }) => value > 0)).toEqual([]);
  const [row] = await db.sql`select gateway_status from verification.sms_log where id = ${live.id}`;
  expect(row?.['gateway_status']).toBe('Accepted');
});

test('with SNAPSHOT=never rows from before the first start are not copied and not missed by an audit, new ones are', async () => {
  await insertMany(db.sql, 10);
  const mirror = start({ env: { SNAPSHOT: 'never' } });
  await mirror.streaming();
  await insertMany(db.sql, 1);
  await until('the new row', async () => (await logged()) === 1);
  for (const flags of [{}, { since: '1h' }]) {
    const lines: string[] = [];
    const print = (line: string) => void lines.push(line);
    await verify.run({ json: true, ...flags }, { env: db.env(), print, stdoutIsTerminal: false });
    expect(JSON.parse(lines.join(''))).toMatchObject({ source: 1, log: 1, missing: 0, settled: true });
  }
});

test.for(['insert', 'insert, update, delete, truncate'])(
  'where the publication has %s, updates of attempts_count and mass updates write nothing, not even the checkpoint',
  async (publish) => {
    await db.sql.unsafe(`alter publication smslogd set (publish = '${publish}')`);
    const mirror = start();
    await mirror.streaming();
    await insertMany(db.sql, 1000);
    await until('the rows', async () => (await logged()) === 1000);
    const state = async () => await db.sql`select xmin::text, * from smslogd.checkpoint`;
    const before = await state();
    await db.sql`update verification.verifications set attempts_count = attempts_count + 1`;
    await db.sql`update verification.verifications set active = false, status = 'expired'`;
    await untilConfirmed(db.sql, db.name);
    expect(await state()).toEqual(before);
    const [row] =
      await db.sql`select count(*)::int as n, count(*) filter (where updated_at > inserted_at + interval '1 hour')::int as late from verification.sms_log`;
    expect(row).toEqual({ n: 1000, late: 0 });
  },
);

test('status words of the source that nobody knows are counted and logged once each, whether they come by a copy, the stream or later', async () => {
  for (const gateway_status of ['Levitating', 'Levitating', ' UNKNOWN ', 'sent', '+380000000001'])
    await insertVerification(db.sql, { gateway_status });
  const lines: string[] = [];
  const mirror = start({ log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }) });
  const counted = async () => (await mirror.metrics.unknownWords.get()).values[0]?.value;
  await mirror.streaming();
  expect(await counted()).toBe(3);
  await insertVerification(db.sql, { gateway_status: 'Hovering' });
  await insertVerification(db.sql, { gateway_status: 'Levitating' });
  await until('those of the stream', async () => (await counted()) === 5);
  const late = await insertVerification(db.sql, { gateway_id: null, gateway_status: null });
  await until('all rows', async () => (await logged()) === 8);
  await db.sql`update verification.verifications set gateway_id = '1234567', gateway_status = 'Landing' where id = ${late.id}`;
  await until('the late one', async () => (await counted()) === 6);
  const said = lines.map((line) => JSON.parse(line) as { code?: string; msg: string; id?: string });
  const words = said
    .filter(({ code, id }) => code === 'unknown_status_word' && id !== undefined)
    .map(({ msg }) => msg.replace('the source used the status word ', ''));
  expect(words.toSorted()).toEqual(['"Hovering"', '"Landing"', '"Levitating"', 'that is not a plain word']);
});

test('a gateway id that comes by a later update completes the row once', async () => {
  const mirror = start();
  await mirror.streaming();
  const row = await insertVerification(db.sql, { gateway_id: null, gateway_status: null });
  await until('the row', async () => (await logged()) === 1);
  await db.sql`update verification.verifications set gateway_id = '1234567', gateway_status = 'ENROUTE' where id = ${row.id}`;
  const found = async () => (await db.sql`select gateway_id, gateway_status from verification.sms_log`)[0];
  await until('the gateway id', async () => (await found())?.['gateway_id'] === '1234567');
  expect(await found()).toEqual({ gateway_id: '1234567', gateway_status: 'Enroute' });
  await db.sql`update verification.verifications set gateway_id = '7654321' where id = ${row.id}`;
  await insertVerification(db.sql);
  await until('the next row', async () => (await logged()) === 2);
  const [kept] = await db.sql`select gateway_id from verification.sms_log where id = ${row.id}`;
  expect(kept?.['gateway_id']).toBe('1234567');
});

test('insert and update of one verification in one transaction become one complete row', async () => {
  const mirror = start();
  await mirror.streaming();
  await db.sql.begin(async (tx) => {
    const row = await insertVerification(tx, { gateway_id: null, gateway_status: null });
    await tx`update verification.verifications set gateway_id = '1234567', gateway_status = 'Accepted' where id = ${row.id}`;
  });
  await until(
    'the row to be complete',
    async () => (await db.sql`select from verification.sms_log where gateway_id is not null`).length === 1,
  );
  const [found] = await db.sql`select gateway_id, gateway_status from verification.sms_log`;
  expect(found).toEqual({ gateway_id: '1234567', gateway_status: 'Accepted' });
});

test('deletes and truncate of the source change nothing in the log, even where the publication has them', async () => {
  await db.sql`alter publication smslogd set (publish = 'insert, update, delete, truncate')`;
  const mirror = start();
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await until('the rows', async () => (await logged()) === 5);
  await db.sql`delete from verification.verifications where id in (select id from verification.verifications limit 2)`;
  await db.sql`truncate verification.verifications`;
  await insertVerification(db.sql);
  await until('the next row', async () => (await logged()) === 6);
});

test('a row that a constraint of the log refuses is kept aside and counted, and blocks nobody, on the stream and in a reconcile', async () => {
  await db.sql`alter table verification.sms_log add constraint no_zeros check (phone_number not like '%0000666')`;
  const refused = '+380000000666';
  await insertMany(db.sql, 20);
  const old = await insertVerification(db.sql, { phone_number: refused });
  const mirror = start();
  await mirror.streaming();
  await db.sql`update verification.verifications set active = false where id = ${old.id}`;
  const live = await db.sql.begin(async (tx) => {
    await insertMany(tx, 3);
    return await insertVerification(tx, { phone_number: refused });
  });
  await until('the other rows', async () => (await logged()) === 23);
  await until('both to be aside', async () => (await db.sql`select from smslogd.sms_refused`).length === 2);
  const aside = await db.sql`select id, sqlstate, reason from smslogd.sms_refused order by refused_at`;
  expect([...aside]).toEqual([
    { id: old.id, sqlstate: '23514', reason: 'no_zeros' },
    { id: live.id, sqlstate: '23514', reason: 'no_zeros' },
  ]);
  // the copied row and the streamed one; while other transactions are open a second pass of the copy follows
  await until('both to be counted', async () => {
    const counted = (await mirror.metrics.errors.get()).values.find(({ labels }) => labels.code === 'row_refused');
    return counted?.value === 2 || counted?.value === 3;
  });
});

/** What the log lacks to the eyes of the audit that the daemon runs every few minutes: more than 0 makes it reconcile. */
async function lacking(): Promise<number> {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  const options = {
    sinceSeconds: 1e9,
    mirrorTimeoutMs: 20_000,
    share: 1,
    missing: async () => {},
    incomplete: async () => {},
  };
  const { missing } = await lightAudit(sql, db.config(), source, options, new AbortController().signal);
  await sql.end();
  return missing;
}
const aside = async () => [...(await db.sql`select id, reason from smslogd.sms_refused order by refused_at`)];

test('a row that a trigger of the log passes over is kept aside and counted, on the stream and in a copy, and what comes twice is not', async () => {
  await db.sql.unsafe(`
    create function pass_over() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger pass_over before insert on verification.sms_log for each row when (new.phone_number like '%0000666') execute function pass_over()`);
  await insertMany(db.sql, 3);
  const old = await insertVerification(db.sql, { phone_number: '+380000000666' });
  const mirror = start();
  await mirror.streaming();
  await db.sql`update verification.verifications set active = false where id = ${old.id}`;
  const gone = await db.sql.begin(async (tx) => {
    await insertMany(tx, 3);
    return await insertVerification(tx, { phone_number: '+380000000666' });
  });
  await until('the other rows', async () => (await logged()) === 6);
  await until('both to be aside', async () => (await aside()).length > 1);
  expect(await aside()).toEqual([
    { id: old.id, reason: 'a trigger' },
    { id: gone.id, reason: 'a trigger' },
  ]);
  const { errors } = mirror.metrics;
  const told = async () => (await errors.get()).values.find(({ labels }) => labels.code === 'row_refused')?.value ?? 0;
  await until('both to be told', async () => (await told()) > 1);
  expect(await lacking()).toBe(0);
});

test('a row without a time is kept aside, one without an id is told of, and both block nobody, on the stream and in a copy', async () => {
  await db.sql`alter table verification.verifications drop constraint verifications_pkey, alter inserted_at drop not null`;
  await db.sql`alter table verification.verifications alter id drop not null`;
  const insertBoth = async () => {
    await insertVerification(db.sql, { id: null as unknown as string });
    return await insertVerification(db.sql, { inserted_at: null as unknown as string });
  };
  const old = await insertBoth();
  await insertMany(db.sql, 3);
  const mirror = start();
  await mirror.streaming();
  const live = await insertBoth();
  await insertMany(db.sql, 3);
  await until('the other rows', async () => (await logged()) === 6);
  expect(await aside()).toEqual([old, live].map(({ id }) => ({ id, reason: 'inserted_at' })));
  await until('all to be counted', async () => {
    const counted = (await mirror.metrics.errors.get()).values.find(({ labels }) => labels.code === 'row_refused');
    return (counted?.value ?? 0) > 2;
  });
  expect(await lacking()).toBe(0);
  const lines: string[] = [];
  await verify.run(
    { json: true },
    { env: db.env(), print: (line: string) => void lines.push(line), stdoutIsTerminal: false },
  );
  expect(JSON.parse(lines.join(''))).toMatchObject({ missing: 2, refused: 2 });
});

test('a row that a trigger of the log gives another id is kept aside as soon as it is missed, and not copied again and again', async () => {
  await db.sql.unsafe(`
    create function change_id() returns trigger language plpgsql as $$ begin new.id := gen_random_uuid(); return new; end $$;
    create trigger change_id before insert on verification.sms_log for each row when (new.phone_number like '%0000666') execute function change_id()`);
  const mirror = start();
  await mirror.streaming();
  const { id } = await insertVerification(db.sql, { phone_number: '+380000000666' });
  await insertMany(db.sql, 3);
  await until('them to be in the log', async () => (await logged()) === 4);
  expect(await lacking()).toBe(1);
  await db.sql`delete from verification.sms_log where phone_number not like '%0000666'`;
  await verify.run({ repair: true }, { env: db.env(), print: () => {}, stdoutIsTerminal: false });
  expect(await logged()).toBe(4);
  expect(await aside()).toEqual([{ id, reason: 'a trigger' }]);
  expect(await lacking()).toBe(0);
});

test('a role that was made read only is waited for, and found as it is once that is undone', async () => {
  await insertMany(db.sql, 5);
  await db.sql.unsafe(`alter database ${db.name} set default_transaction_read_only = on`);
  const lines: string[] = [];
  start({ log: pino({ level: 'warn' }, { write: (line) => void lines.push(line) }) });
  await until('it to be told', () => lines.some((line) => line.includes('database_read_only')));
  await db.sql.begin('read write', (tx) => tx.unsafe(`alter database ${db.name} reset default_transaction_read_only`));
  await until('the rows', async () => (await logged()) === 5);
});

test('a gateway id that comes after the verdict is filled in, and the verdict stays', async () => {
  const mirror = start();
  await mirror.streaming();
  const row = await insertVerification(db.sql, { gateway_id: null, gateway_status: null });
  await until('the row', async () => (await logged()) === 1);
  await db.sql`update verification.sms_log set gateway_status = 'Unaccepted', status_changed_at = now()`;
  await db.sql`update verification.verifications set gateway_id = '1234567', gateway_status = 'Accepted' where id = ${row.id}`;
  await until(
    'the gateway id',
    async () => (await db.sql`select from verification.sms_log where gateway_id is not null`).length === 1,
  );
  const [found] = await db.sql`select gateway_id, gateway_status from verification.sms_log`;
  expect(found).toEqual({ gateway_id: '1234567', gateway_status: 'Unaccepted' });
});

test('a row that a trigger of the log refuses, or an index as too long, blocks nobody either', async () => {
  await db.sql.unsafe(`
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = tg_argv[0]; end $$;
    create trigger refuse before insert on verification.sms_log for each row when (new.phone_number like '%0000666') execute function refuse('P0001');
    create trigger refuse_too before insert on verification.sms_log for each row when (new.phone_number like '%0000667') execute function refuse('SM001');
    alter table verification.verifications alter phone_number type text;
    drop index verification.verifications_phone_number_idx, verification.verifications_phone_number_inserted_at_idx`);
  const mirror = start();
  await mirror.streaming();
  await insertVerification(db.sql, { phone_number: '+380000000666' });
  await insertVerification(db.sql, { phone_number: '+380000000667' });
  const [{ digits }] = (await db.sql`
    select string_agg(md5(n::text), '') as digits from generate_series(1, 300) n`) as unknown as [{ digits: string }];
  await insertVerification(db.sql, { phone_number: digits });
  await insertVerification(db.sql);
  await until('the good row', async () => (await logged()) === 1);
  const aside = await db.sql`select sqlstate from smslogd.sms_refused order by refused_at`;
  expect(aside.map((row) => row['sqlstate'] as string)).toEqual(['P0001', 'SM001', '54000']);
});
