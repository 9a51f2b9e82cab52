/**
 * Under load nobody waits behind us: the owner writes, changes, truncates and locks his table and other services log SMS, while the mirror
 * streams and reconciles, audits run and `migrate` runs again. Every moment of it is looked at from outside: who waits for one of our sessions, and for
 * how long. `npm run soak:guest` is the same for longer.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/verify.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { lightAudit } from '../../src/reconcile/audit.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource } from '../../src/source.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror, type RunningMirror } from '../support/mirror.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

const SECONDS = Number(process.env['SMSLOGD_TEST_SECONDS'] ?? 3);
const LOOK_MS = 50;
/**
 * Looks, one each 50 ms: half a second, counted by looks because a loaded machine holds everybody up, the one who looks, too. Other test files
 * run beside the short form, so it takes three times as many; a statement of ours that waits for a lock without a limit is seen far longer.
 */
const MOST_LOOKS = SECONDS > 60 ? 10 : 30;
const ROWS = 15_000;
/** Between two rounds of each: an owner who does nothing else but this takes the processor from those who are looked at. */
const REST_MS = 10;

let db: TestDatabase;
let mirror: RunningMirror;

beforeAll(async () => {
  db = await createDatabase();
  await insertMany(db.sql, ROWS);
  mirror = startMirror(db);
});
afterAll(async () => {
  await mirror.stop();
  await db.drop();
});

interface Wait {
  looks: number;
  readonly waits: string;
  readonly holds: string;
}

test(
  'nobody is seen waiting behind a session of ours for more than half a second',
  async () => {
    const end = Date.now() + SECONDS * 1_000;
    let looks = 0;
    const waits = new Map<string, Wait>();
    // not before somebody did wait for us: else this test would see nothing at all
    const over = () => Date.now() > end && looks > MOST_LOOKS && waits.size > 0;
    const again = async (work: () => Promise<unknown>) => {
      let times = 0;
      for (; !over(); times += 1) {
        await work();
        await new Promise((resolve) => setTimeout(resolve, REST_MS));
      }
      return times;
    };
    const source = db.config().SOURCE_TABLE;
    const owner = [
      again(async () => {
        const { id } = await insertVerification(db.sql);
        await db.sql`update ${db.sql(source)} set active = false, status = 'canceled' where id = ${id}`;
      }),
      again(async () => {
        await db.sql`alter table ${db.sql(source)} add column extra text`;
        await db.sql`alter table ${db.sql(source)} drop column extra`;
        await db.sql`create index extra on ${db.sql(source)} (status)`;
        await db.sql`drop index verification.extra`;
        // longer than a statement of ours waits
        await db.sql.begin(async (tx) => {
          await tx`lock table ${tx(source)} in access exclusive mode`;
          await tx`select pg_sleep(0.6)`;
        });
        await db.sql`truncate ${db.sql(source)}`;
        await insertMany(db.sql, ROWS);
      }),
      again(
        () =>
          db.sql`insert into verification.sms_log (phone_number, type, body) values ('+380000000001', 'text', 'text')`,
      ),
    ];
    const own = openDatabase(db.config(), { max: 2, name: 'audit' });
    const audited = {
      sinceSeconds: 900,
      mirrorTimeoutMs: 100,
      share: 1,
      missing: async () => {},
      incomplete: async () => {},
    };
    const ours = [
      again(async () => {
        await db.sql`update smslogd.checkpoint set reconcile_due = 'by hand', reconcile_after = null`;
        await db.sql`select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${db.name} and active`;
        await until(
          'the reconcile',
          async () => (await db.sql`select from smslogd.checkpoint where reconcile_due is null`).length === 1,
          60,
        );
      }),
      again(async () => await command.run({ json: true }, { env: db.env(), print: () => {}, stdoutIsTerminal: false })),
      again(
        async () =>
          await lightAudit(
            own,
            db.config(),
            await describeSource(own, db.config()),
            audited,
            new AbortController().signal,
          ),
      ),
      again(async () => {
        // the views are made again, and so is the publication
        await db.sql`comment on schema smslogd is null`;
        await migrate(db.owner.config(), { say: () => {} });
      }),
    ];
    const look = async () => {
      looks += 1;
      const seen = await db.sql<{ key: string; waits: string; holds: string }[]>`
        select concat_ws(' ', w.pid, w.query_start, h.pid, h.query_start) as key, left(w.query, 80) as waits, h.application_name || ': ' || left(h.query, 400) as holds
          from pg_stat_activity w cross join unnest(pg_blocking_pids(w.pid)) b (pid) join pg_stat_activity h on h.pid = b.pid
         where w.datname = current_database() and w.application_name not like 'smslogd %' and h.application_name like 'smslogd %'`;
      for (const { key, ...who } of seen) {
        const wait = waits.get(key) ?? { looks: 0, ...who };
        wait.looks += 1;
        waits.set(key, wait);
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    };
    const looking = again(look);
    const times = await Promise.all([...owner, ...ours]);
    await looking;
    await own.end({ timeout: 1 });
    expect(Math.min(...times)).toBeGreaterThan(0);
    expect([...waits.values()].filter((wait) => wait.looks > MOST_LOOKS)).toEqual([]);
    if (SECONDS > 60) {
      const longest = Math.max(...[...waits.values()].map((wait) => wait.looks)) * LOOK_MS;
      process.stdout.write(
        `rounds ${times.join(', ')}; ${waits.size} waits seen in ${looks} looks, the longest about ${longest} ms\n`,
      );
    }
    await until('every row to be in the log', async () => (await difference(db.sql)).missing === 0);
  },
  120_000 + SECONDS * 1_000,
);
