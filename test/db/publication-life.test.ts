/** What can happen to the publication: said clearly, mended once, and every row is in the log once. */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createStore } from '../../src/mirror/store.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { writtenSince } from '../../src/postgres/transactions.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { OWNER } from '../support/postgres.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let mirrors: RunningMirror[];

beforeEach(async () => {
  db = await createDatabase({ asOwner: 'the daemon may change the publication' });
  mirrors = [];
  lines = [];
});
afterEach(async () => {
  await Promise.all(mirrors.map((mirror) => mirror.stop()));
  await db.drop();
});

let lines: string[];
const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) });

async function streaming(env: Record<string, string> = {}): Promise<RunningMirror> {
  const mirror = startMirror(db, { env, log });
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

test('a publication dropped while the daemon is down is made again and what passed is reconciled', async () => {
  const first = await streaming();
  await insertMany(db.sql, 10);
  await everyRowOnce();
  await first.stop();
  await db.sql`drop publication smslogd`;
  await insertMany(db.sql, 20);
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  // by the reconcile that is due, not by what an audit finds
  const codes = lines.map((line) => (JSON.parse(line) as { code: string }).code);
  expect(codes).toContain('publication_missing');
  expect(codes).not.toContain('rows_missing');
});

test('a first start without a publication tells of that alone', async () => {
  await db.sql`drop publication smslogd`;
  await insertMany(db.sql, 5);
  await streaming();
  await everyRowOnce();
  expect(lines.map((line) => (JSON.parse(line) as { code: string }).code)).toEqual(['publication_missing']);
});

test.each([
  ['seldom', 3_600_000],
  ['again and again', 100],
])(
  'without a stream each look is at what was written since the last one; all young rows are compared %s',
  async (_, auditMs) => {
    await db.sql`drop publication smslogd`;
    await db.sql.unsafe(`revoke create on database ${db.name} from public, ${OWNER}`);
    const mirror = startMirror(db, { log, auditMs });
    mirrors.push(mirror);
    await insertMany(db.sql, 5);
    await everyRowOnce();
    const done = async () => await db.sql`select from smslogd.checkpoint where reconcile_due is null`;
    await until('the first copy to be done', async () => (await done()).length === 1);
    const { id } = await insertVerification(db.sql, { inserted_at: new Date().toISOString() });
    await everyRowOnce();
    await db.sql`delete from verification.sms_log where id = ${id}`;
    const isLogged = async (each: string) =>
      (await db.sql`select from verification.sms_log where id = ${each}`).length === 1;
    if (auditMs === 100) await until('it to be found', () => isLogged(id));
    else {
      for (let look = 0; look < 3; look += 1) {
        const added = await insertVerification(db.sql);
        await until('the new row', () => isLogged(added.id));
      }
    }
    expect(await isLogged(id)).toBe(auditMs === 100);
  },
);

test('a publication dropped under a running daemon is made again and what passed is reconciled', async () => {
  await streaming();
  await db.sql`drop publication smslogd`;
  await insertMany(db.sql, 20);
  await everyRowOnce();
  await insertMany(db.sql, 5);
  await everyRowOnce();
});

test('a table taken out of the publication under a running daemon is put back and what passed is reconciled, without a new slot', async () => {
  await streaming();
  // it keeps a slot from being made
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await insertMany(db.sql, 20);
  await everyRowOnce();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await old.unsafe('commit');
  old.release();
});

test('a table that is taken out of the publication for a moment has what passed looked for at once, under a running daemon and one that is down', async () => {
  const forAMoment = async () => {
    await db.sql`alter publication smslogd drop table verification.verifications`;
    // older than what an audit of the recent past looks at
    await insertVerification(db.sql, { inserted_at: '2026-01-01 00:00:00' });
    await db.sql`alter publication smslogd add table verification.verifications`;
  };
  const first = await streaming();
  // it is told after the rows were copied
  const told = (times: number) => until('it to be told', () => lines.length >= times);
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await forAMoment();
  await everyRowOnce();
  await told(1);
  await first.streaming();
  await first.stop();
  await forAMoment();
  await streaming();
  await everyRowOnce();
  await told(2);
  expect(lines.map((line) => (JSON.parse(line) as { code: string }).code)).toEqual(['rows_missing', 'rows_missing']);
});

test.each([
  ['the table', 'drop table verification.verifications', 'add table verification.verifications'],
  ['inserts', "set (publish = 'delete')", "set (publish = 'insert')"],
])(
  '%s missing from the publication for a moment: what passed is looked for also where the slot stands just where the log does',
  async (_, lose, mend) => {
    // an answer to a keepalive would move the slot on: then it is looked for anyway
    const first = startMirror(db, { failpoints: { answerKeepalives: false }, auditMs: 100 });
    mirrors.push(first);
    await first.streaming();
    await insertMany(db.sql, 5);
    await everyRowOnce();
    await until(
      'no audit to be due',
      async () => (await db.sql`select from smslogd.checkpoint where not audit_due`).length === 1,
    );
    await first.stop();
    const [stands] = await db.sql`
    select confirmed_flush_lsn = lsn as there from pg_replication_slots join smslogd.checkpoint using (slot_name)`;
    expect(stands).toEqual({ there: true });
    await db.sql.unsafe(`alter publication smslogd ${lose}`);
    // older than what an audit of the recent past looks at
    await insertVerification(db.sql, { inserted_at: '2026-01-01 00:00:00' });
    await db.sql.unsafe(`alter publication smslogd ${mend}`);
    await streaming();
    await everyRowOnce();
  },
);

test('a row of a transaction that is still open when what a publication lacked is looked for comes with its end, not with the next regular audit', async () => {
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  const open = await db.sql.reserve();
  await open`begin`;
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await insertVerification(open, { inserted_at: '2026-01-01 00:00:00' });
  await insertVerification(db.sql);
  await db.sql`alter publication smslogd add table verification.verifications`;
  await everyRowOnce();
  await until('an audit to be over', async () => {
    const rows = await db.sql`select from smslogd.checkpoint where not audit_due`;
    return rows.length > 0 && lines.some((line) => line.includes('rows_missing'));
  });
  await open`commit`;
  open.release();
  await everyRowOnce();
});

/** A mirror whose role owns nothing; `gone` stops it and drops the role. */
async function streamingAsGuest(): Promise<{ mirror: RunningMirror; gone: () => Promise<void> }> {
  const role = `daemon_${db.name}`;
  await db.sql.unsafe(`create role ${role} login replication password 'made-up'`);
  await migrate(db.owner.config(), { role, say: () => {} });
  const url = new URL(db.url);
  url.username = role;
  url.password = 'made-up';
  const mirror = startMirror(db, { env: { DATABASE_URL: url.href }, log });
  mirrors.push(mirror);
  await mirror.streaming();
  const gone = async () => {
    await mirror.stop();
    await db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  };
  return { mirror, gone };
}

test('where the role may not mend the publication, the SQL is said and the log is kept by reconciling', async () => {
  const { mirror, gone } = await streamingAsGuest();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  const { reconcileMissing } = mirror.metrics;
  reconcileMissing.set(2);
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await insertMany(db.sql, 20);
  await everyRowOnce();
  await until('the SQL to be said', () =>
    lines.join('').includes('alter publication \\"smslogd\\" add table \\"verification\\".\\"verifications\\"'),
  );
  // what is copied now was never to come by the stream
  await until('none to be missing', async () => (await reconcileMissing.get()).values[0]?.value === 0);
  await db.sql`alter publication smslogd add table verification.verifications`;
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await gone();
});

test.each([
  [
    'waits for a lock that somebody holds for long, as VACUUM does',
    'begin; lock table verification.verifications in share update exclusive mode',
    'rollback',
  ],
  [
    'is refused by code of somebody',
    `create function no_ddl() returns event_trigger language plpgsql as $$ begin raise 'not during the day'; end $$;
     create event trigger no_ddl on ddl_command_start when tag in ('CREATE PUBLICATION') execute function no_ddl()`,
    'drop event trigger no_ddl',
  ],
])('where the repair of the publication %s, the log is kept by reconciling', async (_, prevent, allow) => {
  await db.sql`drop publication smslogd`;
  const somebody = await db.sql.reserve();
  await somebody.unsafe(prevent);
  const mirror = startMirror(db, { log });
  mirrors.push(mirror);
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(lines.join('')).toContain('the publication cannot be repaired');
  await somebody.unsafe(allow);
  somebody.release();
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
});

test('what is published in excess and cannot be taken out keeps nobody from streaming', async () => {
  const mirror = await streaming();
  await db.sql.unsafe(`
    create function no_ddl() returns event_trigger language plpgsql as $$ begin raise 'not during the day'; end $$;
    alter table verification.verifications replica identity nothing;
    alter publication smslogd set (publish = 'insert, update');
    create event trigger no_ddl on ddl_command_start when tag in ('ALTER PUBLICATION') execute function no_ddl()`);
  const tried = async () =>
    (await mirror.metrics.errors.get()).values.some(
      ({ labels, value }) => labels.code === 'publication_missing' && value > 0,
    );
  await until('it to be tried', tried);
  await insertMany(db.sql, 5);
  await everyRowOnce();
  expect(mirror.health.mirrorState).toBe('streaming');
  await mirror.stop();
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.sql`drop event trigger no_ddl`;
});

test('what an audit has found where nothing can be streamed is copied at once, and not lost where the audit is cut short', async () => {
  await db.owner.sql`alter table verification.verifications set (fillfactor = 10)`;
  await insertMany(db.sql, 1_000);
  const source = await describeSource(db.daemon, db.config());
  await createStore(db.daemon, db.config()).read();
  const stop = new AbortController();
  let found = 0;
  const missing = async (ids: readonly string[]) => {
    found += ids.length;
    stop.abort();
  };
  const options = { sinceSeconds: 900, mirrorTimeoutMs: undefined, share: 1, missing, incomplete: async () => {} };
  await lightAudit(db.daemon, db.config(), source, options, stop.signal);
  expect(found).toBeGreaterThan(0);
  expect(found).toBeLessThan(1_000);
});

test('where nothing can be streamed, an old transaction for which the reconcile waits keeps no new row from the log, nor the mirror from streaming again', async () => {
  const { mirror, gone } = await streamingAsGuest();
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await insertMany(db.sql, 20);
  await everyRowOnce();
  for (const rows of [5, 6]) {
    await insertMany(db.sql, rows);
    await everyRowOnce();
  }
  await db.sql`alter publication smslogd add table verification.verifications`;
  await until('it to stream', () => mirror.health.mirrorState === 'streaming');
  await old.unsafe('commit');
  old.release();
  await mirror.streaming();
  await gone();
});

test('a repair that our role may not make marks no reconcile, and one that somebody reverts at once is not made again and again', async () => {
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.sql.unsafe(`
    create function revert() returns event_trigger language plpgsql as $$ begin
      if pg_trigger_depth() = 0 and exists (select from pg_publication_tables where pubname = 'smslogd') then
        alter publication smslogd drop table verification.verifications;
      end if;
    end $$;
    create event trigger revert_${db.name} on ddl_command_end when tag in ('ALTER PUBLICATION') execute function revert()`);
  await db.sql`alter publication smslogd set table verification.verifications`;
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await until('it to reconcile', () => mirrors[0]!.health.mirrorState === 'repairing');
  await db.sql.unsafe(
    `drop event trigger revert_${db.name}; alter publication smslogd add table verification.verifications`,
  );
  await mirrors[0]!.streaming();
});

test('a publication with a row filter is mended and what passed is reconciled', async () => {
  await streaming();
  await db.sql`alter publication smslogd set table verification.verifications where (check_digit > 5)`;
  await insertVerification(db.sql);
  await until(
    'the filter to be gone',
    async () => (await db.sql`select from pg_publication_rel where prqual is not null`).length === 0,
  );
  await everyRowOnce();
});

test('a daemon that stands by leaves the publication to the one that works, who reconciles what passed', async () => {
  await streaming();
  const second = startMirror(db);
  mirrors.push(second);
  await until('the second to stand by', () => second.health.mirrorState === 'standby');
  await db.sql`alter publication smslogd drop table verification.verifications`;
  // older than what a light audit looks at
  await insertVerification(db.sql, { inserted_at: '2026-01-01 00:00:00' });
  await everyRowOnce();
});

test('while a reconcile waits for an old transaction the publication is watched all the same', async () => {
  const mirror = await streaming();
  await db.sql`create table other (id int)`;
  const old = await db.sql.reserve();
  await old.unsafe('begin; insert into other values (1)');
  await db.sql`update smslogd.checkpoint set reconcile_due = 'by hand'`;
  await cut();
  await until('the reconcile to wait', async () => {
    const [row] = await db.sql`select term > 1 as next from smslogd.checkpoint`;
    return row?.['next'] === true && mirror.health.mirrorState === 'streaming';
  });
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await until('the publication to be mended', async () => (await db.sql`select from pg_publication_rel`).length === 1);
  await old.unsafe('commit');
  old.release();
});

test('after another table was put in the place of the source, its rows are mirrored and the former one is no longer published', async () => {
  await streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.owner.sql.unsafe(`
    alter table verification.verifications rename to former;
    create table verification.verifications (like verification.former including all);
    insert into verification.verifications select * from verification.former`);
  await insertMany(db.sql, 5);
  await until('the publication to be mended', async () => {
    const tables = await db.sql`select tablename from pg_publication_tables where pubname = 'smslogd'`;
    return tables.map(({ tablename }) => tablename as string).join() === 'verifications';
  });
  await insertMany(db.sql, 5);
  await everyRowOnce();
});

test('a table that is put in the place of the source while nothing can be streamed is streamed once it is published', async () => {
  const { mirror, gone } = await streamingAsGuest();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await db.sql`alter publication smslogd drop table verification.verifications`;
  await until('it to reconcile', () => mirror.health.mirrorState === 'repairing');
  await db.owner.sql.unsafe(`
    alter table verification.verifications rename to former;
    create table verification.verifications (like verification.former including all);
    insert into verification.verifications select * from verification.former;
    grant select on verification.verifications to daemon_${db.name};
    alter publication smslogd add table verification.verifications`);
  await mirror.streaming();
  await insertMany(db.sql, 5);
  await everyRowOnce();
  await gone();
});

test('a light audit in which the source is rewritten, which moves its rows, counts for nothing', async () => {
  await insertVerification(db.sql);
  const source = await describeSource(db.daemon, db.config());
  const audited = async (missing: () => Promise<unknown>) => {
    const options = { sinceSeconds: 900, mirrorTimeoutMs: undefined, share: 1, incomplete: async () => {} };
    const done = { ...options, missing: async () => void (await missing()) };
    return (await lightAudit(db.daemon, db.config(), source, done, new AbortController().signal)).auditedXid;
  };
  expect(await audited(async () => {})).toBeDefined();
  expect(await audited(() => db.sql`vacuum full verification.verifications`)).toBeUndefined();
});

test('a light audit counts for nothing and copies nothing while the stream may still have to deliver what it found', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await insertVerification(db.sql);
  const source = await describeSource(db.daemon, db.config());
  let copied = 0;
  const options = {
    sinceSeconds: 900,
    mirrorTimeoutMs: 0,
    share: 1,
    missing: async (ids: readonly string[]) => void (copied += ids.length),
    incomplete: async () => {},
  };
  const audited = await lightAudit(db.daemon, db.config(), source, options, new AbortController().signal);
  expect({ ...audited, copied }).toEqual({ missing: 1, auditedXid: undefined, copied: 0 });
});

test('what a light audit has compared is not compared again for one that began before it; what no transaction of this server was does not count', async () => {
  const store = createStore(db.daemon, db.config());
  const { term } = await store.read();
  const [now] =
    await db.sql`select pg_snapshot_xmin(pg_current_snapshot())::text as now, (pg_snapshot_xmin(pg_current_snapshot())::text::int8 - 1)::text as before`;
  const saved = async (xid: string) => {
    await store.saveAuditedXid(xid, term);
    return (await db.sql`select audited_xid::text as xid from smslogd.checkpoint`)[0]?.['xid'] as string;
  };
  const { before, now: latest } = now as { before: string; now: string };
  expect(await saved(before)).toBe(before);
  expect(await saved(latest)).toBe(latest);
  await db.sql`update smslogd.checkpoint set audit_due = true`;
  expect(await saved(before)).toBe(latest);
  expect(await db.sql`select from smslogd.checkpoint where audit_due`).toHaveLength(0);
  await db.sql`update smslogd.checkpoint set audited_xid = '1000000000000'`;
  expect(await saved(before)).toBe(before);
});

test('a row is of a later transaction where its own lies between that one and now, and not where it is so old that its age is negative', async () => {
  // a frozen row keeps its xmin
  await insertVerification(db.sql);
  await db.sql`vacuum (freeze) verification.verifications`;
  const [frozen] = await db.sql`select age(xmin) < 1000 as keeps from verification.verifications`;
  expect(frozen).toEqual({ keeps: true });
  const rows = await db.sql.unsafe(`
    select behind::float8 as behind, age(x) < 0 as negative, ${writtenSince('x', 'since')} as later
      from (select behind, mod(now - behind + 4294967296, 4294967296)::text::xid as x, (now - 9)::text::xid as since
              from (select mod(pg_snapshot_xmax(pg_current_snapshot())::text::int8, 4294967296) as now) n, unnest('{1, 9, 10, 2147484000}'::int8[]) behind) b`);
  expect([...rows]).toEqual([
    { behind: 1, negative: false, later: true },
    { behind: 9, negative: false, later: true },
    { behind: 10, negative: false, later: false },
    { behind: 2_147_484_000, negative: true, later: false },
  ]);
});
