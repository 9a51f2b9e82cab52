/** Two daemons whose role owns nothing, and no publication: one of them leads, whatever works or does not, and the log is kept. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { difference, insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let daemons: Daemon[];

beforeEach(async () => {
  db = await createDatabase();
  daemons = [];
});
afterEach(async () => {
  for (const daemon of daemons) {
    daemon.kill('SIGCONT');
    daemon.kill('SIGKILL');
  }
  await Promise.all(daemons.map(({ exited }) => exited));
  await db.drop();
});

function start(more: Record<string, string> = {}): Daemon {
  const daemon = startDaemon(db.env(more));
  daemons.push(daemon);
  return daemon;
}

const lease = async () => {
  const [row] = await db.sql<{ term: string; holder: string | null }[]>`select term::text, holder from smslogd.leader`;
  return { term: row?.term, pid: Number(row?.holder?.split(' ')[1]) };
};
const leader = async () => {
  const { pid } = await lease();
  return daemons.find(({ child }) => child.pid === pid);
};
const everyRowOnce = () =>
  until(
    'every row to be in the log',
    async () => {
      const { missing, surplus } = await difference(db.sql);
      return missing === 0 && surplus === 0;
    },
    60,
  );
const count = (daemon: Daemon, word: string) => daemon.lines.filter((line) => line.includes(word)).length;

test('with the publication gone one daemon reconciles under one term, the other says once that it stands by, and each takes over from the other', async () => {
  await insertMany(db.sql, 20_000);
  await db.sql`drop publication smslogd`;
  start();
  start();
  await everyRowOnce();
  const { term } = await lease();
  const first = (await leader())!;
  const second = daemons.find((each) => each !== first)!;
  await until('the other to stand by', () => count(second, 'standing by') === 1);
  await insertMany(db.sql, 50);
  await everyRowOnce();
  expect(await lease()).toEqual({ term, pid: first.child.pid });
  // said by the one that leads, once, with what to run; the other has nothing to say
  expect(count(first, 'create publication')).toBe(1);
  expect(count(second, 'create publication')).toBe(0);
  expect(count(second, 'standing by')).toBe(1);

  // a frozen leader is replaced when its lease is over
  first.kill('SIGSTOP');
  await insertMany(db.sql, 50);
  await everyRowOnce();
  expect(await leader()).toBe(second);
  first.kill('SIGCONT');
  await until('it to step down', () => count(first, 'this one steps down') === 1);
  expect(await leader()).toBe(second);

  // and so is one that is gone without a word
  second.kill('SIGKILL');
  await insertMany(db.sql, 50);
  await everyRowOnce();
  expect(await leader()).toBe(first);
  expect(first.lines.filter((line) => line.includes('"level":"error"'))).toEqual([]);
});

test('without a publication at the first start SNAPSHOT=never copies nothing from before, and the new rows', async () => {
  await db.sql`drop publication smslogd`;
  await insertMany(db.sql, 1_000);
  const daemon = start({ SNAPSHOT: 'never' });
  await daemon.line('it reconciles', (line) => line.includes('it reconciles instead'));
  await insertMany(db.sql, 7);
  await until('the new rows', async () => (await db.sql`select from verification.sms_log`).length === 7);
  expect(await db.sql`select from smslogd.checkpoint where horizon is not null and system_id is not null`).toHaveLength(
    1,
  );
});

test('a daemon that only polls leads while no other does, and leaves it to one that mirrors', async () => {
  const polls = start({ LOOPS: 'poller' });
  await polls.line('it leads', (line) => line.includes('this daemon leads'));
  const mirrors = start();
  await mirrors.line('it leads', (line) => line.includes('this daemon leads'));
  await polls.line('it stands by', (line) => line.includes('this one steps down'));
  await insertMany(db.sql, 5);
  await everyRowOnce();
  mirrors.kill('SIGTERM');
  await mirrors.exited;
  await until('it to lead again', async () => (await leader()) === polls);
});
