/** Nothing waits behind us: whatever our statements wait for themselves, the owner of the source gets his locks within half a second. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command } from '../../src/commands/verify.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { createStore } from '../../src/mirror/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilConfirmed, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirror: RunningMirror | undefined;

beforeEach(async () => {
  db = await createDatabase();
});
afterEach(async () => {
  await mirror?.stop();
  mirror = undefined;
  await db.drop();
});

const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });

/** A session that holds what `statement` takes, until it is released. */
async function hold(statement: string): Promise<() => Promise<void>> {
  const session = await db.sql.reserve();
  await session.unsafe(`begin; ${statement}`);
  return async () => {
    await session.unsafe('rollback');
    session.release();
  };
}

/** Fails where a lock is not to be had; far more than half a second, which a loaded machine may take for other reasons. */
async function ownersDdl(): Promise<void> {
  await db.sql.begin(async (tx) => {
    await tx`set local lock_timeout = '4s'`;
    await tx`alter table verification.verifications add column extra text`;
    await tx`alter table verification.verifications drop column extra`;
  });
}

const waitsForALock = (what: string, pattern: string) =>
  until(`${what} to wait for a lock`, async () => {
    const waiting =
      await db.sql`select from pg_stat_activity where datname = ${db.name} and application_name like 'smslogd%'
                                    and wait_event_type = 'Lock' and query ~ ${pattern}`;
    return waiting.length > 0;
  });

test('a reconcile that waits for the log lets the owner change his table, and goes on afterwards', async () => {
  await insertMany(db.sql, 100);
  const release = await hold('lock verification.sms_log in share mode');
  mirror = startMirror(db);
  await waitsForALock('the reconcile', 'with durable');
  await ownersDdl();
  await ownersDdl();
  await release();
  await everyRowOnce();
});

test('a look at a log that somebody has locked gives up soon', async () => {
  const { id } = await insertVerification(db.sql);
  const store = createStore(db.daemon, db.config());
  const release = await hold('lock verification.sms_log in access exclusive mode');
  for (const look of [() => store.hasMirroredRows(), () => store.absent([id])])
    await expect(look()).rejects.toMatchObject({ code: '55P03' });
  await release();
  expect(await store.hasMirroredRows()).toBe(false);
  expect(await store.absent([id])).toEqual([id]);
});

test('a row of the log that somebody holds delays the copy alone: it tells how far it is, and new rows come in', async () => {
  await insertMany(db.sql, 12_000);
  const [middle] =
    await db.sql`select id, phone_number, inserted_at from verification.verifications order by id offset 6000 limit 1`;
  await db.sql`insert into verification.sms_log (id, phone_number, type, inserted_at)
               values (${middle?.['id']}, ${middle?.['phone_number']}, 'verification', ${middle?.['inserted_at']})`;
  // a row lock at once would keep the slot from being made
  const releaseLog = await hold('lock verification.sms_log in share mode');
  mirror = startMirror(db);
  // until then audits copy
  const made = async () =>
    await db.sql`select from pg_replication_slots where slot_name = ${db.config().SLOT_NAME} and confirmed_flush_lsn is not null`;
  await until('the slot', async () => (await made()).length > 0);
  await waitsForALock('the reconcile', 'with durable');
  const release = await hold('select from verification.sms_log for update');
  await releaseLog();
  const { reconcileProgress } = mirror.metrics;
  const progress = async () => (await reconcileProgress.get()).values[0]!.value;
  await until('the copy to come to that row', async () => {
    const share = await progress();
    const [row] = await db.sql`
      select from pg_locks join pg_stat_activity using (pid) where datname = ${db.name} and locktype = 'transactionid' and not granted`;
    return row !== undefined && share > 0 && share < 1;
  });
  const live = await insertVerification(db.sql);
  await until(
    'the new row',
    async () => (await db.sql`select from verification.sms_log where id = ${live.id}`).length === 1,
  );
  await ownersDdl();
  const share = await progress();
  expect(share).toBeGreaterThan(0.01);
  expect(share).toBeLessThan(0.51);
  await release();
  await everyRowOnce();
  await mirror.streaming();
  // transactions of others that were open when it began make it look a second time
  await until('the reconcile to end', async () => (await progress()) === 1);
  expect((await mirror.metrics.reconcileLooked.get()).values[0]?.value).toBeGreaterThanOrEqual(12_000);
  // many short transactions, not one long one
  const [row] = await db.sql`select count(distinct xmin::text)::int as transactions from verification.sms_log`;
  expect(row?.['transactions']).toBeGreaterThan(3);
});

test('the look for a row that the log refuses gives up soon, too, where the owner holds his table', async () => {
  // refused once the owner has come for his lock, which he gets before that look
  await db.sql.unsafe(`
    create view here as select l.* from pg_locks l join pg_database d on d.oid = l.database
     where d.datname = current_database() and l.relation = 'verification.verifications'::regclass;
    grant select on here to public;
    create function refuse() returns trigger language plpgsql as $$ begin
      loop exit when exists (select from here where not granted); end loop;
      raise exception 'no'; end $$;
    create trigger refuse before insert on verification.sms_log for each row execute function refuse()`);
  await insertMany(db.sql, 1);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  const chunk = createStore(sql, db.config()).reconcileChunk(source, undefined, 1);
  chunk.catch(() => {});
  await until('the chunk to be at it', async () => (await db.sql`select from here`).length > 0);
  const release = await hold('lock verification.verifications in access exclusive mode');
  await expect(chunk).rejects.toMatchObject({ code: '55P03' });
  await release();
  await sql.end();
});

test('an audit that waits for the log lets the owner change his table, and ends with the right counts', async () => {
  await insertMany(db.sql, 100);
  for (const since of [{}, { since: '1h' }]) {
    const release = await hold('lock verification.sms_log in access exclusive mode');
    const lines: string[] = [];
    const io = { env: db.env(), print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
    const verified = command.run({ json: true, ...since }, io);
    await waitsForALock('verify', 'with chunk');
    await ownersDdl();
    await release();
    expect(await verified).toBe(1);
    expect(JSON.parse(lines.join(''))).toMatchObject({ source: 100, missing: 100 });
  }
});

test('verify of the recent past counts each row where the owner wrote his table anew meanwhile, in another order', async () => {
  await insertMany(db.sql, 100);
  const release = await hold('lock verification.sms_log in access exclusive mode');
  const lines: string[] = [];
  const io = { env: db.env(), print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
  const verified = command.run({ json: true, since: '1h' }, io);
  await waitsForALock('verify', 'with chunk');
  // now a hundred are on the pages that it knows of, but others than before
  await insertMany(db.sql, 1_000);
  await db.sql`cluster verification.verifications using verifications_pkey`;
  await release();
  expect(await verified).toBe(1);
  expect(JSON.parse(lines.join(''))).toMatchObject({ source: 1_100, missing: 1_100 });
});

test.each(['light audit', 'verify'])('a %s calls nothing missing that is on its way', async (kind) => {
  let inHand = false;
  let letGo!: () => void;
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const beforeWrite = () => {
    inHand = true;
    return held;
  };
  // a light audit reads no page that was not there when it began
  await insertMany(db.sql, 10);
  mirror = startMirror(db, { failpoints: { beforeWrite } });
  await mirror.streaming();
  const sql = openDatabase(db.config(), { max: 1, name: 'audit' });
  const source = await describeSource(sql, db.config());
  const audit = async () => {
    const options = {
      sinceSeconds: 900,
      mirrorTimeoutMs: 60_000,
      share: 1,
      missing: async () => {},
      incomplete: async () => {},
    };
    if (kind === 'light audit')
      return await lightAudit(sql, db.config(), source, options, new AbortController().signal);
    const lines: string[] = [];
    const io = { env: db.env(), print: (line: string) => void lines.push(line), stdoutIsTerminal: false };
    await command.run({ json: true }, io);
    const { missing, settled } = JSON.parse(lines.join('')) as { missing: number; settled: boolean };
    return { missing, auditedXid: settled ? 'all' : undefined };
  };
  // the row comes once the audit has begun, and before its look
  const release = await hold('lock verification.sms_log in access exclusive mode');
  let over = false;
  const audited = audit().finally(() => {
    over = true;
  });
  await waitsForALock('the audit', 'with chunk');
  await db.sql`select pg_logical_emit_message(true, 'test', '')`;
  await untilConfirmed(db.sql, db.name);
  await insertMany(db.sql, 1);
  await until('the mirror to have it in hand', () => inHand);
  await release();
  await until('the audit to have seen it and to wait for the mirror', async () => {
    const waiting =
      await db.sql`select from pg_stat_activity where datname = ${db.name} and query ~ 'confirmed_flush_lsn >='
                                  and application_name ~ '^smslogd (audit|verify)'`;
    return over || waiting.length > 0;
  });
  letGo();
  expect(await audited).toEqual({ missing: 0, auditedXid: expect.any(String) });
  await everyRowOnce();
  await sql.end();
});

test.each([
  ['does not call the log whole where the owner wrote his table anew meanwhile', 'vacuum full', false],
  ['calls it whole where he only cleaned it', 'vacuum', true],
])('a light audit %s', async (_, statement, whole) => {
  await insertMany(db.sql, 100);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const source = await describeSource(sql, db.config());
  const release = await hold('lock verification.sms_log in access exclusive mode');
  const options = {
    sinceSeconds: 900,
    mirrorTimeoutMs: 1_000,
    share: 1,
    missing: async () => {},
    incomplete: async () => {},
  };
  const audited = lightAudit(sql, db.config(), source, options, new AbortController().signal);
  await waitsForALock('the audit', 'with chunk');
  await db.sql.unsafe(`${statement} verification.verifications`);
  await release();
  expect((await audited).auditedXid !== undefined).toBe(whole);
  await sql.end();
});

test('the mirror mends the publication without anybody waiting behind it', async () => {
  await db.sql`drop publication smslogd`;
  // as an index that is being built holds it; another one may be built at once, but not past one who waits for the publication
  const release = await hold('lock verification.verifications in share mode');
  mirror = startMirror(db, { env: { DATABASE_URL: db.superuser.url } });
  await waitsForALock('the mend', 'publication');
  await db.sql.begin(async (tx) => {
    await tx`set local lock_timeout = '4s'`;
    await tx`lock verification.verifications in share mode`;
  });
  await release();
  await insertMany(db.sql, 10);
  await everyRowOnce();
});
