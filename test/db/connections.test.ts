/** The daemon's connections: a lock is told from a dead connection, and a dead connection from a dead path. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { DAEMON_CONNECTIONS, openConnections, type Connections } from '../../src/postgres/connections.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { mostSessions } from '../support/sessions.ts';

let db: TestDatabase;
let proxy: Proxy;
let connections: Connections;
let stop: AbortController;
let watching: Promise<void>;

beforeEach(async () => {
  db = await createDatabase();
  const url = new URL(db.url);
  proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  url.searchParams.set('connect_timeout', '2');
  connections = openConnections(db.config({ DATABASE_URL: url.href }), { lookMs: 100, stallMs: 3_000 });
  stop = new AbortController();
  watching = Promise.resolve();
});
afterEach(async () => {
  stop.abort();
  await watching;
  await connections.end();
  await proxy.close();
  await db.drop();
});

/** One for each purpose. */
const STANDING = DAEMON_CONNECTIONS - 3;

const watch = () => {
  watching = connections.watch(stop.signal);
};
const pidOf = async (name: 'control' | 'upkeep' | 'complete' | 'claim') =>
  (await connections[name]`select pg_backend_pid() as pid`)[0]?.['pid'] as number;
const sinkPid = async () => Number((await connections.apply.row('select pg_backend_pid()', []))[0]);
const sessions = async () =>
  await db.sql<{ pid: number; name: string }[]>`
    select pid, split_part(application_name, ' ', 2) as name from pg_stat_activity
     where datname = ${db.name} and application_name like ${`smslogd % ${connections.tag}`}`;

test('what is cancelled for nobody needs its result any more is nothing that begins later', async () => {
  const holder = await db.sql.reserve();
  await holder`select pg_advisory_lock(1), pg_advisory_lock(2)`;
  const [before, task] = [connections.control, connections.copy].map((sql, n) =>
    sql`select pg_advisory_lock(${n + 1}::int8)`.execute(),
  );
  await until('both to wait', async () => {
    const waiting = await db.sql`
      select from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`;
    return waiting.length === 2;
  });
  vi.useFakeTimers({ toFake: ['setInterval'] });
  const over = vi.fn<() => void>();
  const settled = connections.settled([task!]).then(over);
  // the cancel is sent, and waits on its connection
  vi.runOnlyPendingTimers();
  vi.useRealTimers();
  await holder`select pg_advisory_unlock(2)`;
  await task;
  await connections.copy`select`;
  expect(over).not.toHaveBeenCalled();
  await holder`select pg_advisory_unlock(1)`;
  holder.release();
  await Promise.all([before, settled]);
});

test('a statement that waits for a lock is left alone, however long that takes', async () => {
  const control = await pidOf('control');
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const waits = connections.upkeep`select count(*)::int as n from verification.sms_log`;
  // sent behind it on the same connection
  const behind = connections.upkeep`select 1 as one`;
  const answers = Promise.all([waits, behind]);
  watch();
  const began = performance.now();
  await until('it to have been looked for several times', () => performance.now() - began > 7_000);
  expect(await pidOf('control')).toBe(control);
  await session.unsafe('rollback');
  session.release();
  expect(await answers).toEqual([[{ n: 0 }], [{ one: 1 }]]);
});

test.each<readonly [string, number, string, () => void]>([
  ['nothing answers and the next address is tried', 3, '4', () => proxy.stall()],
  ['nothing answers and the watch cuts them', 1, '60', () => proxy.stall()],
  ['a machine between resets them', 1, '60', () => proxy.leave('reset')],
  ['a machine between ends them', 1, '60', () => proxy.leave('end')],
])(
  'of logins of control that the server has let in when %s it has two at most',
  async (_, addresses, timeout, lose) => {
    await connections.end();
    const hosts = Array.from({ length: addresses }, () => `localhost:${proxy.port}`).join(',');
    const url = db.url.replace(/@[^/]+/, `@${hosts}`).replace('?', `?connect_timeout=${timeout}&`);
    connections = openConnections(db.config({ DATABASE_URL: url }), { lookMs: 100, stallMs: 3_000 });
    expect(await loginsLost(lose, (letIn, waits) => waits || letIn > 2)).toBeLessThanOrEqual(2);
  },
);

const controlAnswers = async () =>
  await connections.control`select`.then(
    () => true,
    () => false,
  );

test('control is back before a lost login must have ended, where the server itself ended the session before it', async () => {
  const pid = await pidOf('control');
  proxy.delayMs = 100;
  await db.sql`select pg_terminate_backend(${pid}, 5000)`;
  await until('the server to have let another one in', async () => {
    void controlAnswers();
    return (await sessions()).some((session) => session.name === 'control' && session.pid !== pid);
  });
  proxy.leave('reset');
  proxy.delayMs = 0;
  // beside another one the lost login would let nobody in for 15 s
  await until('an answer', controlAnswers, 14);
  expect((await sessions()).filter(({ name }) => name === 'control')).toHaveLength(1);
});

test('a session of control that was lost in the middle of a statement counts for as long as the server waits for the rest', async () => {
  const pid = await pidOf('control');
  proxy.delayMs = 1_000;
  // its parameters are sent when the server has told their types
  const statement = connections.control`select ${1}::int`.catch(() => {});
  await until('the server to wait for them', async () => {
    const waiting = await db.sql`
      select from pg_stat_activity where pid = ${pid} and state = 'active' and wait_event = 'ClientRead'`;
    return waiting.length === 1;
  });
  proxy.stall();
  const most = await mostSessions(db.superuser.url, `smslogd control ${connections.tag}`, async () => {
    await loginsLost(
      () => proxy.stall(),
      (letIn) => letIn > 2,
    );
  });
  await statement;
  expect(most).toHaveLength(2);
});

/** Loses each login of control that the server has let in, until it is `over`; returns how many there were. */
async function loginsLost(lose: () => void, over: (letIn: number, waits: boolean) => boolean): Promise<number> {
  const letIn = new Set((await sessions()).map(({ pid }) => pid));
  const standing = letIn.size;
  let waits = false;
  const isOver = () => over(letIn.size - standing, waits);
  // the last piece of a login is under way long enough to be met
  proxy.delayMs = 100;
  watch();
  const asking = (async () => {
    while (!isOver()) {
      await connections.control`select`.catch((error: Error) => {
        waits = [error, error.cause].some((each) => String(each).includes('two sessions left'));
      });
      // a refusal comes at once: without a rest this loop would take a whole core
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  const enough = async () => {
    const before = letIn.size;
    for (const { pid, name } of await sessions()) if (name === 'control') letIn.add(pid);
    if (letIn.size > before) lose();
    return isOver();
  };
  await until('enough logins', enough);
  await connections.end();
  await asking;
  return letIn.size - standing;
}

test.each([
  ['', 'on'],
  [' on a server that does not track what sessions do', 'off'],
])(
  'of some connections those whose path died are cut, their sessions end, and the other stays%s',
  async (_, tracks) => {
    await db.sql.unsafe(`alter database ${db.name} set track_activities = ${tracks}`);
    const dead = [await pidOf('claim'), await sinkPid()];
    proxy.stall();
    const control = await pidOf('control');
    watch();
    const waiting = await Promise.allSettled([connections.claim`select 1`, connections.apply.row('select 1', [])]);
    expect(waiting).toMatchObject(waiting.map(() => ({ reason: { code: 'CONNECTION_CLOSED' } })));
    expect(await pidOf('control')).toBe(control);
    expect(dead).not.toContain(await pidOf('claim'));
    expect(dead).not.toContain(await sinkPid());
    await until('the sessions of the dead connections to end', async () =>
      (await sessions()).every(({ pid }) => !dead.includes(pid)),
    );
  },
);

test('however many statements wait, there are no more sessions than it says', async () => {
  const purposes = ['control', 'copy', 'claim', 'complete', 'figures', 'upkeep'] as const;
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const waiting = purposes.flatMap((purpose) =>
    [1, 2, 3, 4].map(async () => await connections[purpose]`select from verification.sms_log`),
  );
  const sinks = [1, 2].map(() => connections.apply.row('select count(*) from verification.sms_log', []));
  await untilLocked('them to wait', db.sql);
  await session.unsafe('rollback');
  session.release();
  await Promise.all([...waiting, ...sinks]);
  expect(await sessions()).toHaveLength(STANDING);
});

test('where every connection is reset while its statement waits for a lock, the server has ended its session before the next one begins', async () => {
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const pids = async () => {
    const rows = await db.sql<{ pid: number }[]>`
      select pid from pg_stat_activity where application_name like ${`smslogd % ${connections.tag}`} and wait_event_type = 'Lock'`;
    return rows.map(({ pid }) => pid);
  };
  await pidOf('control');
  watch();
  const statements = [
    again(() => connections.apply.row('select from verification.sms_log', [])),
    ...(['copy', 'claim', 'complete', 'figures', 'upkeep'] as const).map(async (purpose) => {
      await again(async () => await connections[purpose]`select from verification.sms_log`);
    }),
  ];
  let before: readonly number[] = [];
  const most = await mostSessions(db.superuser.url, `smslogd % ${connections.tag}`, async () => {
    for (let time = 0; time < 4; time += 1) {
      await until('all to wait on new sessions', async () => {
        const now = (await pids()).filter((pid) => !before.includes(pid));
        return now.length === statements.length;
      });
      before = await pids();
      proxy.cut();
    }
  });
  await session.unsafe('rollback');
  session.release();
  await Promise.all(statements);
  // another one of control, which nobody else can ask for
  expect(most.slice(STANDING + 1)).toEqual([]);
});

test('while the server takes no writes, control is opened again at once each time that a session is found read only', async () => {
  const readOnly = await db.daemon`set transaction read only; create table nothing ()`
    .simple()
    .catch((error: unknown) => error);
  let pid = await pidOf('control');
  for (let times = 0; times < 4; times += 1) {
    connections.refresh(readOnly);
    await until('another session', async () => {
      const now = await pidOf('control');
      const another = now !== pid;
      pid = now;
      return another;
    });
  }
  expect((await sessions()).filter(({ name }) => name === 'control').length).toBeLessThanOrEqual(2);
});

test('a server that refuses for a while, as one that restarts, costs nothing that has come back', async () => {
  const [claim, control] = [await pidOf('claim'), await pidOf('control')];
  proxy.newcomers = 'refused';
  watch();
  const before = proxy.connections;
  await db.sql`select pg_terminate_backend(${control})`;
  await until('the watch to be refused several times', () => proxy.connections >= before + 3);
  proxy.newcomers = 'forwarded';
  let again: number | undefined;
  await until('the control connection to be back', async () => {
    again = await pidOf('control').catch(() => undefined);
    return again !== undefined;
  });
  const back = performance.now();
  await until('the watch to have looked again', () => performance.now() - back > 500);
  expect(await pidOf('control')).toBe(again);
  expect(await pidOf('claim')).toBe(claim);
});

test('where the whole path dies, what its sessions wait for on the server is ended before others take their place', async () => {
  await pidOf('control');
  expect(await sessionsAfter(() => proxy.stall())).toMatchObject([{ name: 'control' }]);
});

test('a path that dies while there is no control connection is found dead by the attempts to make one', async () => {
  const control = await pidOf('control');
  const left = await sessionsAfter(async () => {
    proxy.newcomers = 'ignored';
    const before = proxy.connections;
    await db.sql`select pg_terminate_backend(${control})`;
    await until('an attempt', () => proxy.connections > before);
    proxy.stall();
    await until('another one', () => proxy.connections > before + 1);
    proxy.newcomers = 'forwarded';
  });
  expect(left).toMatchObject([{ name: 'control' }]);
});

/** Lets a statement wait on the server while the path dies. Returns the sessions that are left once those from before have ended. */
async function sessionsAfter(die: () => void | Promise<void>): Promise<unknown> {
  const dead = [await pidOf('upkeep'), await pidOf('complete'), await pidOf('claim'), await sinkPid()];
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  const lost = connections.upkeep`select from verification.sms_log`.then(
    () => undefined,
    (error: unknown) => error,
  );
  await untilLocked('it to wait', db.sql);
  watch();
  await die();
  expect(await lost).toMatchObject({ code: 'CONNECTION_CLOSED' });
  await until('their sessions to end', async () => (await sessions()).every(({ pid }) => !dead.includes(pid)));
  const left = await sessions();
  expect(await pidOf('claim')).toBeGreaterThan(0);
  await session.unsafe('rollback');
  session.release();
  return left;
}

/** Until it is answered, as the loops do. */
async function again(statement: () => Promise<unknown>): Promise<void> {
  for (;;) {
    const answered = await statement().then(
      () => true,
      () => false,
    );
    if (answered) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
