/** Two daemons on one database: one works, the other waits for its turn; none writes behind the other. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { pace } from '../../src/demo/pace.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { difference, insertMany, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let leader: Daemon;
let second: Daemon;

const streams = (daemon: Daemon) => daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
const waits = (daemon: Daemon) =>
  daemon.line('it stands by', (line) => line.includes('standing by: another daemon leads'));
const everyRowOnce = () =>
  until('every row to be in the log', async () => {
    const { missing, surplus } = await difference(db.sql);
    return missing === 0 && surplus === 0;
  });

beforeEach(async () => {
  db = await createDatabase();
  leader = startDaemon(db.env({ LOOPS: 'mirror' }));
  await streams(leader);
  second = startDaemon(db.env({ LOOPS: 'mirror' }));
  await waits(second);
});
afterEach(async () => {
  for (const daemon of [leader, second]) {
    daemon.kill('SIGCONT');
    daemon.kill('SIGKILL');
  }
  await Promise.all([leader.exited, second.exited]);
  await db.drop();
});

for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
  test(`after the leader's ${signal} the second daemon takes over, and every row is in the log once`, async () => {
    await insertMany(db.sql, 200);
    leader.kill(signal);
    await insertMany(db.sql, 200);
    await streams(second);
    await insertMany(db.sql, 200);
    await everyRowOnce();
  });
}

test('a daemon that stands by while the other works under load touches neither slot nor checkpoint, and says once what it waits for', async () => {
  const lsn = async () => (await db.sql`select lsn from smslogd.checkpoint`)[0]?.['lsn'] as string | null;
  await insertVerification(db.sql);
  await until('a checkpoint', async () => (await lsn()) !== null);
  const renewed = async () => {
    const [row] = await db.sql`select term, renewed_at::text from smslogd.leader`;
    return row as unknown as { term: string; renewed_at: string };
  };
  const first = await renewed();
  const renewals = new Set<string>();
  await until('the lease to be renewed again and again', async () => {
    await insertMany(db.sql, 20);
    expect(await lsn()).not.toBeNull();
    renewals.add((await renewed()).renewed_at);
    return renewals.size > 8;
  });
  expect((await renewed()).term).toBe(first.term);
  expect(second.lines.filter((line) => line.includes('standing by'))).toHaveLength(1);
  expect(second.lines.filter((line) => !line.includes('"level":"info"'))).toEqual([]);
  await everyRowOnce();
});

test('a frozen leader cannot write behind its successor, and stands by when it thaws', async () => {
  await insertMany(db.sql, 200);
  leader.kill('SIGSTOP');
  await insertMany(db.sql, 200);
  await streams(second);
  await everyRowOnce();
  // what the frozen one may still hold must not come back into the log
  await db.sql`update verification.sms_log set body = 'checked'`;
  leader.kill('SIGCONT');
  await leader.line('it steps down', (line) => line.includes('this one steps down'));
  await insertVerification(db.sql);
  await everyRowOnce();
  const [row] = await db.sql`select count(*)::int as n from verification.sms_log where body <> 'checked'`;
  expect(row?.['n']).toBe(1);
});

test('an upgrade under traffic: a migration while both daemons run, each replaced after it, then a daemon that knows less than the schema', async () => {
  const traffic = new AbortController();
  const writing = pace({ perSecond: 50, limit: 1 }, () => insertMany(db.sql, 5), traffic.signal);
  // as a later version would: views that are made again, and one migration more
  await db.sql`drop view verification.sms_delivery_drop`;
  const steps: string[] = [];
  await migrate(db.owner.config(), { say: (line) => void steps.push(line) });
  expect(steps.join()).toContain('put back');
  await db.sql`insert into smslogd.migrations (name, run_on) values ('9999_later', now())`;

  second.kill('SIGTERM');
  expect(await second.exited).toBe(0);
  second = startDaemon(db.env({ LOOPS: 'mirror' }));
  await waits(second);
  leader.kill('SIGTERM');
  expect(await leader.exited).toBe(0);
  await streams(second);
  leader = startDaemon(db.env({ LOOPS: 'mirror' }));
  await waits(leader);
  traffic.abort();
  await writing;
  await everyRowOnce();
  expect([...second.lines, ...leader.lines].filter((line) => line.includes('"level":"error"'))).toEqual([]);
});
