/** What the acknowledged position is, to the byte, and what a crash at each durable step leaves. */
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Batch } from '../../src/mirror/batch.ts';
import { silentLog } from '../../src/log.ts';
import { openDirect } from '../../src/postgres/direct.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { formatLsn, type Lsn } from '../../src/postgres/lsn.ts';
import { createMetrics } from '../../src/metrics.ts';
import { retryWhileLocked } from '../../src/postgres/briefly.ts';
import { reconcile } from '../../src/reconcile/copy.ts';
import { createStore } from '../../src/mirror/store.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { batchOf, startMirror, type RunningMirror, nextTerm } from '../support/mirror.ts';
import { connect } from '../support/postgres.ts';
import { difference, insertMany, insertOneByOne, insertVerification } from '../support/verifications.ts';
import { keepalive, kindOf, positionAt, startWire, unknownKind, type Wire } from '../support/wire.ts';

let db: TestDatabase;
let mirrors: RunningMirror[];
let wire: Wire | undefined;

beforeEach(async () => {
  db = await createDatabase();
  mirrors = [];
});
afterEach(async () => {
  await Promise.all(mirrors.map((mirror) => mirror.stop()));
  await wire?.close();
  wire = undefined;
  await db.drop();
});

function start(options?: Parameters<typeof startMirror>[1]): RunningMirror {
  const mirror = startMirror(db, options);
  mirrors.push(mirror);
  return mirror;
}

const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const confirmed = async () =>
  (await db.sql`select confirmed_flush_lsn::text as lsn from pg_replication_slots where slot_name = ${db.name}`)[0]?.[
    'lsn'
  ] as string;
const checkpoint = async () =>
  (await db.sql`select lsn::text from smslogd.checkpoint where slot_name = ${db.name}`)[0]?.['lsn'] as string;

const due = (reason: string) => ({ reason, fresh: false, horizon: false });

/** Fails once, as if the process had died there; the supervisor's next life is the restart. */
function crashOnce(): { point: () => void; readonly crashed: boolean } {
  let crashed = false;
  return {
    point: () => {
      if (crashed) return;
      crashed = true;
      throw new Error('crash');
    },
    get crashed() {
      return crashed;
    },
  };
}

test('the confirmed position is exactly the durable end_lsn, with keepalives unanswered', async () => {
  const ends: string[] = [];
  const afterCommit = (batch: Batch) => {
    if (batch.end !== undefined) ends.push(formatLsn(batch.end));
  };
  const mirror = start({ failpoints: { answerKeepalives: false, afterCommit } });
  await mirror.streaming();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
  await until('the slot to be confirmed', async () => (await confirmed()) === (await checkpoint()));
  expect(ends.at(-1)).toBe(await checkpoint());
  // what the server shows of us carries our clock's time
  const [shown] = await db.sql`
    select reply_time between clock_timestamp() - interval '1 hour' and clock_timestamp() + interval '1 hour' as recent
      from pg_stat_replication where application_name like ${`%${db.name}`}`;
  expect(shown).toEqual({ recent: true });
});

test('while a transaction is on its way, waits or is being written, nobody who asks is told of it; once it is written the slot is told its end', async () => {
  const path = (wire = await startWire((await db.withoutTls()).replicationUrl));
  const mirror = start({ env: { DATABASE_REPLICATION_URL: path.url }, senderTimeoutMs: 4_000 });
  await mirror.streaming();
  const locked = await db.sql.reserve();
  await locked.unsafe('begin; lock verification.sms_log in access exclusive mode');
  let commitLsn = 0n;
  let endLsn = 0n;
  let since = 0;
  path.pass = (message) => {
    switch (kindOf(message)) {
      case 'B':
        commitLsn = positionAt(message, 1);
        since = path.statuses.length;
        return [message];
      case 'I':
        return [message, keepalive(commitLsn, true)];
      case 'C':
        endLsn = positionAt(message, 10);
        return [message, keepalive(endLsn, true)];
      default:
        return [message];
    }
  };
  const told = () => path.statuses.slice(since);
  const asked = () => path.statuses.filter(({ asks }) => asks).length;
  try {
    await insertVerification(db.sql);
    await untilLocked('the write to wait', db.sql, 'verification.sms_log');
    path.send([keepalive(endLsn, true)]);
    await until('three answers', () => told().filter(({ asks }) => !asks).length >= 3);
    // four times take longer than the second after which the library's timer, were it on, would tell a position of its own
    const before = asked();
    await until('the timer to ask', () => asked() > Math.max(3, before));
    expect(told().filter(({ position }) => position >= commitLsn)).toEqual([]);
  } finally {
    await locked.unsafe('rollback');
    locked.release();
  }
  await until('the slot to be told', () => told().some(({ position }) => position >= commitLsn));
  expect(told().find(({ position }) => position >= commitLsn)?.position).toBe(endLsn);
  expect(await checkpoint()).toBe(formatLsn(endLsn as Lsn));
  const positions = path.statuses.map(({ position }) => position);
  expect(positions).toEqual(positions.toSorted((a, b) => Number(a - b)));
});

test('a message that cannot be read ends the stream, nothing behind it is acknowledged, and it comes again', async () => {
  const path = (wire = await startWire((await db.withoutTls()).replicationUrl));
  // a copy could bring what the stream has lost
  const mirror = start({ env: { DATABASE_REPLICATION_URL: path.url, SNAPSHOT: 'never' } });
  await mirror.streaming();
  const held: Buffer[] = [];
  let commits = 0;
  // the first row is spoiled, and the second transaction comes in one piece with it
  path.pass = (message) => {
    const kind = kindOf(message);
    if (commits === 2 || (held.length === 0 && kind !== 'B')) return [message];
    if (kind === 'C') commits += 1;
    held.push(kind === 'I' && commits === 0 ? unknownKind(message) : message);
    return commits === 2 ? held : [];
  };
  await insertVerification(db.sql);
  await insertVerification(db.sql);
  await until('both rows', async () => (await logged()) === 2);
  const commitLsn = positionAt(held[0]!, 1);
  expect(path.statuses.filter(({ connection, position }) => connection === 1 && position >= commitLsn)).toEqual([]);
});

test('a commit that touches the acknowledged one comes again after a restart', async () => {
  const path = (wire = await startWire((await db.withoutTls()).replicationUrl));
  const env = { DATABASE_REPLICATION_URL: path.url };
  const first = start({ env, failpoints: { answerKeepalives: false } });
  await first.streaming();
  let end = 0n;
  let touches = false;
  const begun: bigint[] = [];
  // from the commit that touches the one before nothing arrives
  path.pass = (message) => {
    const kind = kindOf(message);
    if (kind === 'B') touches ||= positionAt(message, 1) === end;
    if (touches) return [];
    if (kind === 'C') end = positionAt(message, 10);
    return [message];
  };
  const sessions = [await db.sql.reserve(), await db.sql.reserve()];
  for (let rows = 2; ; rows += 2) {
    for (const session of sessions) await session`begin`;
    for (const session of sessions) await insertVerification(session);
    await Promise.all(sessions.map((session) => session`commit`));
    await until('both commits to come', async () => touches || (await logged()) === rows);
    if (touches) break;
  }
  for (const session of sessions) session.release();
  await until('the one to be acknowledged', () => path.statuses.some(({ position }) => position >= end));
  await first.stop();
  path.pass = (message) => {
    if (kindOf(message) === 'B') begun.push(positionAt(message, 1));
    return [message];
  };
  await start({ env }).streaming();
  await until('the other to come', () => begun.includes(end));
  await until('every row', async () => (await difference(db.sql)).missing === 0);
});

test('a crash after the commit and before the acknowledgement writes every row once', async () => {
  const crash = crashOnce();
  // a first copy that goes on in the next life could write the second row before the stream
  const mirror = start({ failpoints: { afterCommit: crash.point }, env: { SNAPSHOT: 'never' } });
  await mirror.streaming();
  await insertVerification(db.sql);
  await until('the crash', () => crash.crashed);
  await insertVerification(db.sql);
  await until('both rows', async () => (await logged()) === 2);
  await until('the first one to be counted as skipped', async () => {
    const skipped = (await mirror.metrics.mirrorDuplicates.get()).values[0]?.value;
    return skipped === 1;
  });
});

test('a crash in the middle of a big transaction writes every row once', async () => {
  const crash = crashOnce();
  let written = 0;
  const beforeWrite = (batch: Batch) => {
    written += batch.rows.length;
    if (written > 12_000) crash.point();
  };
  const mirror = start({ failpoints: { beforeWrite } });
  await mirror.streaming();
  await insertMany(db.sql, 20_000);
  await until('the crash', () => crash.crashed);
  await insertVerification(db.sql);
  await until('every row', async () => (await logged()) === 20_001);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('a crash between the parts of a batch of which a row is refused leaves the checkpoint behind all of them', async () => {
  const ids = [randomUUID(), randomUUID(), randomUUID()].toSorted();
  await db.sql.unsafe(`alter table verification.sms_log add constraint no check (id <> '${ids[1]}')`);
  const direct = openDirect(db.config(), { name: 'test' });
  const row: typeof direct.row = async (text, parameters) => {
    if ((await logged()) > 0) throw new Error('crash');
    return await direct.row(text, parameters);
  };
  const write = async (sink?: { row: typeof row }) => {
    const store = createStore(db.daemon, db.config(), sink);
    await store.read();
    const { term } = await store.acquire(await nextTerm(db.sql));
    return await store.write(batchOf(...ids), term);
  };
  await expect(write({ row })).rejects.toThrow('crash');
  expect([await logged(), await checkpoint()]).toEqual([1, null]);
  expect(await write()).toMatchObject({ inserted: 1, duplicates: 1, refused: [ids[1]] });
  expect([await logged(), await checkpoint()]).toEqual([2, '0/10']);
});

const stepsDown = (work: Promise<unknown>) => expect(work).rejects.toMatchObject({ code: 'stepped_down' });

test('an older daemon cannot write behind its successor: not the checkpoint, nor what the source is like, and no row', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const older = await store.acquire(await nextTerm(db.sql));
  const newer = await store.acquire(await nextTerm(db.sql));
  await stepsDown(store.acquire(older.term));
  await stepsDown(store.write(batchOf(randomUUID()), older.term));
  await stepsDown(store.saveReconcilePosition(undefined, undefined, older.term));
  expect(await logged()).toBe(0);
  expect(await checkpoint()).toBeNull();
  const row = () => db.sql`select * from smslogd.checkpoint`;
  const before = await row();
  await store.identify('of the older one', older.term);
  await store.markAudit(older.term);
  await store.saveAuditedXid('1', older.term);
  expect(await row()).toEqual(before);
  const source = { ...(await describeSource(sql, db.config())), tracksGateway: false };
  const tracked = async () => (await db.sql`select tracked_since::text as since from smslogd.settings`)[0]!['since'];
  await store.noteSource(source, older.term);
  expect(await tracked()).toBe('-infinity');
  await store.noteSource(source, newer.term);
  expect(await tracked()).toBe('infinity');
  const known = randomUUID();
  await store.write(batchOf(known), newer.term);
  expect(await logged()).toBe(1);
  expect(await checkpoint()).toBe('0/10');
  await stepsDown(store.write(batchOf(known), older.term));
  await sql.end();
});

test('an older daemon copies and completes nothing behind its successor, and keeps no row aside', async () => {
  const { id } = await insertVerification(db.sql);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const next = createStore(db.daemon, db.config());
  await next.acquire(await nextTerm(db.sql));
  const copied = () => stepsDown(store.reconcileChunk(source, undefined, 10, { term }));
  await copied();
  expect(await logged()).toBe(0);
  await db.sql`insert into verification.sms_log (id, phone_number, type) values (${id}, '+380000000001', 'verification')`;
  await copied();
  await stepsDown(store.fillGatewayIds(source, [id], term));
  expect(await db.sql`select from verification.sms_log where gateway_id is not null`).toHaveLength(0);

  // the successor comes between a refusal and what is made of it
  const overtaken = createStore(
    new Proxy(sql, {
      apply: (target, self, call: Parameters<typeof sql>) => {
        const work = () => Reflect.apply(target, self, call) as Promise<unknown>;
        return call[0].join('').includes('insert into smslogd.sms_refused')
          ? nextTerm(db.sql)
              .then((term) => next.acquire(term))
              .then(work)
          : work();
      },
    }),
    db.config(),
  );
  const mine = async () => (await store.acquire(await nextTerm(db.sql))).term;
  await db.sql`delete from verification.sms_log`;
  await db.sql.unsafe(`
    create function pass_over() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger pass_over before insert on verification.sms_log for each row execute function pass_over()`);
  await stepsDown(overtaken.write(batchOf(randomUUID()), await mine()));
  await db.sql`drop trigger pass_over on verification.sms_log`;
  await db.sql`alter table verification.sms_log add constraint none check (phone_number = '')`;
  await stepsDown(overtaken.write(batchOf(randomUUID()), await mine()));
  await stepsDown(overtaken.reconcileChunk(source, undefined, 1, { term: await mine() }));
  expect(await db.sql`select from smslogd.sms_refused`).toHaveLength(0);
  await sql.end();
});

test("only a verification's row says that a mirror has written into the log", async () => {
  const store = createStore(db.daemon, db.config());
  const log = async (type: string) =>
    await db.sql`insert into verification.sms_log (id, phone_number, type) values (${randomUUID()}, '+380000000001', ${type})`;
  expect(await store.hasMirroredRows()).toBe(false);
  await log('medication_request');
  expect(await store.hasMirroredRows()).toBe(false);
  await log('verification');
  expect(await store.hasMirroredRows()).toBe(true);
});

test('stream and reconcile write in id order, so that two statements never wait for each other in a circle', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const ids = Array.from({ length: 9 }, () => randomUUID()).toSorted();
  const backwards = ids.toReversed();
  const many = batchOf(...backwards);
  const written = async (table: string) =>
    (await db.sql`select id from ${db.sql(table)} order by ctid`).map(({ id }) => id as string);
  await store.write(many, term);
  expect(await written('verification.sms_log')).toEqual(ids);
  await db.sql`truncate verification.sms_log`;
  for (const id of backwards) await insertVerification(db.sql, { id });
  await store.reconcileChunk(source, undefined, 100, { term });
  expect(await written('verification.sms_log')).toEqual(ids);
  await db.sql`truncate verification.sms_log`;
  await db.sql.unsafe(`
    create function pass_over() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger pass_over before insert on verification.sms_log for each row execute function pass_over()`);
  await store.write(many, term);
  expect(await written('smslogd.sms_refused')).toEqual(ids);
  await sql.end();
});

test.each(['40P01', '40001'])(
  'a statement of the mirror that loses with %s is done again a little later',
  async (sqlstate) => {
    const { id } = await insertVerification(db.sql);
    // each second time
    await db.sql.unsafe(`
    create sequence tries;
    grant usage on sequence tries to public;
    create function lose() returns trigger language plpgsql as $$ begin
      if nextval('tries') % 2 = 1 then raise exception 'lost' using errcode = '${sqlstate}'; end if;
      return null; end $$;
    create trigger lose before insert or update on verification.sms_log for each statement execute function lose()`);
    const tries = async () => Number((await db.sql`select last_value from tries`)[0]?.['last_value']);
    const sql = openDatabase(db.config(), { max: 1, name: 'test' });
    const store = createStore(sql, db.config());
    const source = await describeSource(sql, db.config());
    await store.read();
    const { term } = await store.acquire(await nextTerm(db.sql));
    expect(await store.write(batchOf(randomUUID()), term)).toMatchObject({ inserted: 1 });
    expect(await tries()).toBe(2);
    expect(await store.reconcileChunk(source, undefined, 100, { term })).toMatchObject({ inserted: 1 });
    expect(await tries()).toBe(4);
    await db.sql
      .unsafe(`alter table verification.sms_log disable trigger lose; update verification.sms_log set gateway_id = null;
    alter table verification.sms_log enable trigger lose`);
    expect(await store.fillGatewayIds(source, [id], term)).toMatchObject({ completed: 1 });
    expect(await tries()).toBe(6);
    await sql.end();
  },
);

test('a batch is one statement: its rows, their entries in the queue and the checkpoint', async () => {
  const statements: string[] = [];
  const sql = connect(db.url, { max: 1, fetch_types: false, debug: (_, text) => void statements.push(text) });
  const direct = openDirect(db.config(), { name: 'test' });
  const row: typeof direct.row = async (text, parameters) => {
    statements.push(text);
    return await direct.row(text, parameters);
  };
  const store = createStore(sql, db.config(), { row });
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const before = statements.length;
  await store.write(batchOf(randomUUID(), randomUUID(), randomUUID()), term);
  expect(statements.slice(before)).toHaveLength(1);
  expect(await db.sql`select from smslogd.sms_poll`).toHaveLength(3);
  const written =
    await db.sql`select xmin::text from verification.sms_log union select xmin::text from smslogd.checkpoint`;
  expect(written).toHaveLength(1);
  await sql.end();
});

test('many transactions of the source are written in a few of ours', async () => {
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const mirror = start({ failpoints: { beforeWrite: () => held } });
  await mirror.streaming();
  await insertOneByOne(db.sql, 1_000);
  const [end] = await db.sql`select pg_current_wal_insert_lsn()::text as lsn`;
  await until('all to be sent', async () => {
    const sent = await db.sql`
      select from pg_stat_replication
       where application_name like ${`%${db.name}`} and sent_lsn >= ${end?.['lsn']}::text::pg_lsn`;
    return sent.length === 1;
  });
  release();
  await until('every row', async () => (await logged()) === 1_000);
  const [row] = await db.sql`select count(distinct xmin::text)::int as transactions from verification.sms_log`;
  expect(row?.['transactions']).toBeLessThan(100);
});

test('rows that are there already stop no batch, although rows are inserted without looking first', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const known = randomUUID();
  expect(await store.write(batchOf(known), term)).toMatchObject({ inserted: 1, duplicates: 0 });
  for (let i = 0; i < 10; i += 1) await store.write(batchOf(randomUUID()), term);
  const written = await store.write(batchOf(randomUUID(), known, randomUUID()), term);
  expect(written).toMatchObject({ inserted: 2, duplicates: 1, refused: [] });
  expect(await logged()).toBe(13);
  await sql.end();
});

test('a row that the stream writes while a reconcile does so too is written once', async () => {
  await insertMany(db.sql, 20);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  const write = async (nth: number, gatewayId: string | null, status: string) => {
    const session = await db.sql.reserve();
    await session`begin`;
    const [row] = await session`
      insert into verification.sms_log (id, phone_number, type, gateway_id, gateway_status)
      select id, phone_number, 'verification', ${gatewayId}, ${status} from verification.verifications order by id limit 1 offset ${nth}
      returning pg_current_xact_id()::text as xid`;
    return async () => {
      await until('the reconcile to wait for it', async () => {
        const waiting =
          await db.sql`select from pg_locks where locktype = 'transactionid' and not granted and transactionid::text = ${row?.['xid'] as string}`;
        return waiting.length > 0;
      });
      await session`commit`;
      session.release();
    };
  };
  // one waits for its gateway id though it was judged, one comes with another
  const commits = [await write(0, null, 'Unaccepted'), await write(1, '7777777', 'Delivered')];
  const chunk = retryWhileLocked(new AbortController().signal, () => store.reconcileChunk(source, undefined, 100));
  for (const commit of commits) await commit();
  expect(await chunk).toMatchObject({ scanned: 20, inserted: 18, completed: 1 });
  expect(await logged()).toBe(20);
  const [first, second] = await db.sql`select gateway_id, gateway_status from verification.sms_log order by id limit 2`;
  expect(first?.['gateway_id']).toMatch(/^66140/);
  expect(first?.['gateway_status']).toBe('Unaccepted');
  expect(second).toEqual({ gateway_id: '7777777', gateway_status: 'Delivered' });
  await sql.end();
});

test('a copy says how far it is, in the log and as a metric', async () => {
  await insertMany(db.sql, 5_000);
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  const metrics = createMetrics('test');
  const shares: number[] = [];
  const log = pino(
    { level: 'info' },
    {
      write: (line) => {
        const { msg, share, scanned } = JSON.parse(line) as { msg: string; share: number; scanned: number };
        if (msg === 'reconcile in progress') shares.push(share, scanned / 5_000);
      },
    },
  );
  const progress: (number | undefined)[] = [];
  const watched = {
    ...store,
    saveReconcilePosition: async (...position: Parameters<typeof store.saveReconcilePosition>) => {
      progress.push((await metrics.reconcileProgress.get()).values[0]?.value);
      await store.saveReconcilePosition(...position);
    },
  };
  await reconcile(
    { store: watched, source, term, reason: 'test', log, metrics, progressMs: 0 },
    new AbortController().signal,
  );
  expect(progress[0]).toBe(0);
  // ids are spread evenly
  const [share, looked] = shares;
  expect(Math.abs(share! - looked!)).toBeLessThan(0.1);
  expect(shares.at(-2)).toBe(1);
  expect(progress[1]).toBeCloseTo(share!, 2);
  expect((await metrics.reconcileProgress.get()).values[0]?.value).toBe(1);
  await sql.end();
});

test('a copy that was interrupted goes on where it was, and takes the second look that it had begun to need', async () => {
  await insertMany(db.sql, 5_000);
  const old = await db.sql.reserve();
  await old.unsafe('begin; select pg_current_xact_id()');
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  const source = await describeSource(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  await store.markReconcile(term, due('test'));
  const stop = new AbortController();
  const interrupted = {
    ...store,
    saveReconcilePosition: async (...position: Parameters<typeof store.saveReconcilePosition>) => {
      await store.saveReconcilePosition(...position);
      stop.abort();
    },
  };
  const copied: string[] = [];
  const metrics = createMetrics('test');
  const copy = async (through: typeof store, signal: AbortSignal) =>
    await reconcile(
      {
        store: through,
        source,
        term,
        reason: 'test',
        log: silentLog,
        metrics,
        copied: () => void copied.push('all'),
      },
      signal,
    );
  expect(await copy(interrupted, stop.signal)).toEqual({ resumed: false });
  // none is under way
  expect((await metrics.reconcileProgress.get()).values[0]?.value).toBe(1);
  expect(await logged()).toBeLessThan(5_000);
  expect(copied).toEqual([]);
  // commits behind the position, as a transaction that was open before
  await db.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, inserted_at)
               values ('00000000-0000-0000-0000-000000000001', '+380000000001', 1, 'new', 1234, now(), now())`;
  await old.unsafe('commit');
  old.release();
  expect(await copy(store, new AbortController().signal)).toEqual({ resumed: true });
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
  expect(copied).toEqual(['all']);
  expect([...(await db.sql`select reconcile_due, reconcile_after, reconcile_xid from smslogd.checkpoint`)]).toEqual([
    { reconcile_due: null, reconcile_after: null, reconcile_xid: null },
  ]);
  await sql.end();
});

test('a daemon whose connection was cut in the middle of a write steps down when another has taken over', async () => {
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let holding = false;
  const old = start({
    failpoints: {
      beforeWrite: () => {
        holding = true;
        return held;
      },
    },
  });
  await old.streaming();
  await insertVerification(db.sql);
  await until('the old daemon to hold a batch', () => holding);
  const [lease] = await db.sql<{ holder: string }[]>`select holder from smslogd.leader`;
  await db.sql`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${db.name}`;
  const successor = start();
  // as if the old one were cut off from its lease, too
  await until('the successor to lead', async () => {
    await db.sql`update smslogd.leader set holder = null where holder = ${lease!.holder}`;
    return successor.health.standing === 'leading';
  });
  await successor.streaming();
  await until('the row', async () => (await logged()) === 1);
  release();
  await until('the old daemon to stand by', () => old.health.mirrorState === 'standby');
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('after a teardown a daemon that goes on writes, copies and completes nothing', async () => {
  const { id } = await insertVerification(db.sql);
  const store = createStore(db.daemon, db.config());
  const source = await describeSource(db.daemon, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  await db.sql`update smslogd.checkpoint set removed_at = now()`;
  await stepsDown(store.write(batchOf(id), term));
  await stepsDown(store.reconcileChunk(source, undefined, 10, { term }));
  await stepsDown(store.copyRows(source, [id], term));
  await db.sql`insert into smslogd.sms_refused (id, sqlstate) values (${id}, '23514')`;
  await stepsDown(store.copyRows(source, [id], term, true));
  await store.forget([id], term);
  expect(await db.sql`select from smslogd.sms_refused`).toHaveLength(1);
  expect(await logged()).toBe(0);
  await db.sql`insert into verification.sms_log (id, phone_number, type) values (${id}, '+380000000001', 'verification')`;
  await stepsDown(store.fillGatewayIds(source, [id], term));
  expect(await db.sql`select from verification.sms_log where gateway_id is not null`).toHaveLength(0);
  // nor one that knows where the marked row is
  const next = await store.acquire(await nextTerm(db.sql));
  await stepsDown(store.write(batchOf(randomUUID()), next.term));
  expect(await logged()).toBe(1);
});

test('two daemons: one streams, the other stands by and takes over when the first stops', async () => {
  const first = start();
  await first.streaming();
  const second = start();
  await until('the second to stand by', () => second.health.mirrorState === 'standby');
  await first.stop();
  await second.streaming();
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
});

test('a reconcile that is under way keeps no position and forgets no set-aside row once another one is due', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const store = createStore(sql, db.config());
  await store.read();
  const { term } = await store.acquire(await nextTerm(db.sql));
  await store.markReconcile(term, due('by the one who works'));
  await store.saveReconcilePosition(randomUUID(), undefined, term);
  const next = await nextTerm(db.sql);
  await store.markReconcile(next, due('by the next one'));
  await stepsDown(store.saveReconcilePosition(randomUUID(), undefined, term));
  await stepsDown(store.markReconcile(term, due('by the former one, late')));
  await stepsDown(store.clearReconcile(term));
  await store.saveAuditedXid('1', term);
  const { id } = await insertVerification(db.sql);
  await db.sql`insert into smslogd.sms_refused (id, sqlstate) values (${id}, '23514')`;
  await store.forget([id], term);
  expect(await db.sql`select from smslogd.sms_refused`).toHaveLength(1);
  const [kept] =
    await db.sql`select reconcile_due, reconcile_after, audited_xid > '1' as audited from smslogd.checkpoint`;
  expect(kept).toEqual({ reconcile_due: 'by the next one', reconcile_after: null, audited: true });
  // without its mark no slot may be made
  await db.sql`delete from smslogd.checkpoint`;
  await stepsDown(store.markReconcile(next, due('slot missing')));
  await sql.end();
});
