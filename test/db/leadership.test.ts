/** The lease and its term: who leads, and that nobody else writes. */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { recountHours } from '../../src/figures/counters.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { createLeadership, declineFor, type Leadership } from '../../src/leader/lease.ts';
import { createRow, LEASE_MS } from '../../src/leader/row.ts';
import type { Standing } from '../../src/health.ts';
import { silentLog } from '../../src/log.ts';
import { openConnections, type Connections } from '../../src/postgres/connections.ts';
import { supervise } from '../../src/supervise.ts';
import { createDatabase, until, untilLocked, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';
import { difference, insertMany } from '../support/verifications.ts';

let db: TestDatabase;
let connections: Connections;
let stops: AbortController[];
let running: Promise<void>[];

beforeEach(async () => {
  db = await createDatabase();
  connections = openConnections(db.config());
  stops = [];
  running = [];
});
afterEach(async () => {
  for (const stop of stops) stop.abort();
  await Promise.allSettled(running);
  await connections.end();
  await db.drop();
});

function seek(
  holder: string,
  mirrors = true,
  through: Pick<Connections, 'control' | 'refresh'> = connections,
  log = silentLog,
  declineMs?: number,
): { leadership: Leadership; stood: Standing[]; die: () => void } {
  const stood: Standing[] = [];
  const onStanding = (standing: Standing) => stood.push(standing);
  const leadership = createLeadership({
    connections: through,
    slot: db.name,
    holder,
    mirrors,
    log,
    onStanding,
    ...(declineMs === undefined ? {} : { declineMs }),
  });
  const stop = new AbortController();
  stops.push(stop);
  running.push(leadership.run(stop.signal));
  return { leadership, stood, die: () => stop.abort() };
}
const leads = (leadership: Leadership) => until('it to lead', () => leadership.standing === 'leading');
const standsBy = (leadership: Leadership) => until('it to stand by', () => leadership.standing === 'standby');

/** How often the lease has got another holder, from now on. */
const changesOfHands = async () => {
  await db.sql.unsafe(`
    create sequence hands minvalue 0;
    select setval('hands', 0);
    create function hands() returns trigger language plpgsql security definer as $$ begin perform nextval('hands'); return null; end $$;
    create trigger inserted after insert on smslogd.leader for each row execute function hands();
    create trigger changed after update on smslogd.leader for each row
      when (new.holder is distinct from old.holder and new.holder is not null) execute function hands()`);
  return async () => Number((await db.sql`select last_value from hands`)[0]!['last_value']);
};

/** The lease of a daemon that is not here, which nobody may take. */
const leadsElsewhere = (slot: string) => db.sql`
  insert into smslogd.leader (slot_name, term, holder, mirrors, streaming, renewed_at, expires_at)
  values (${slot}, 1, 'elsewhere', true, false, now(), 'infinity')`;

test('of many daemons that start at once one leads, whoever has the lease of another slot', async () => {
  await leadsElsewhere('another');
  const all = Array.from({ length: 6 }, (_, i) => seek(`daemon ${i}`).leadership);
  await until('one to lead, and the others to stand by', () =>
    all.every(({ standing }) => standing !== 'unknown')
      ? all.filter(({ standing }) => standing === 'leading').length === 1
      : false,
  );
  expect(all.filter(({ term }) => term !== undefined)).toHaveLength(1);
});

test("one that died is replaced when its lease is over, by the standby's own clock where the database's was set back", async () => {
  const first = seek('first');
  await leads(first.leadership);
  const second = seek('second');
  await standsBy(second.leadership);
  first.die();
  await db.sql`update smslogd.leader set expires_at = now() + interval '1 hour', renewed_at = now() + interval '1 hour'`;
  const began = performance.now();
  await leads(second.leadership);
  expect(performance.now() - began).toBeGreaterThan(LEASE_MS / 2);
  expect(second.leadership.term).toBe(2n);
});

test('one that gives it back is replaced at once, and one that mirrors does not wait for one that only polls', async () => {
  const polls = seek('polls', false);
  await leads(polls.leadership);
  const mirrors = seek('mirrors');
  await leads(mirrors.leadership);
  await standsBy(polls.leadership);
  // what it has not it cannot give back
  await polls.leadership.release();
  expect([...(await db.sql`select holder from smslogd.leader`)]).toEqual([{ holder: 'mirrors' }]);
  mirrors.die();
  await mirrors.leadership.release();
  // and not when its lease is over
  expect((await db.sql`select holder from smslogd.leader`)[0]?.['holder']).not.toBe('mirrors');
  await leads(polls.leadership);
  expect(polls.leadership.term).toBe(3n);
});

const rowOf = (holder: string, mirrors = true) => createRow({ connections, slot: db.name, holder, mirrors });

test('a lease that its holder has renewed since somebody looked at it is not taken', async () => {
  const [first, second] = [rowOf('first'), rowOf('second')];
  await first.take(undefined);
  expect(await second.look()).toMatchObject({ free: false });
  await db.sql`update smslogd.leader set expires_at = clock_timestamp()`;
  const seen = await second.look();
  expect(seen).toMatchObject({ free: true });
  await first.renew(1n, true);
  expect(await second.take(seen)).toBeUndefined();
  expect(await second.take(await second.look())).toBe(2n);
});

test('the lease of one that only polls is free for one that mirrors, and for nobody else', async () => {
  expect(await rowOf('polls', false).take(undefined)).toBe(1n);
  expect(await rowOf('another', false).look()).toMatchObject({ free: false });
  const seen = await rowOf('mirrors').look();
  expect(seen).toMatchObject({ free: true });
  expect(await rowOf('mirrors').take(seen)).toBe(2n);
  expect(await rowOf('polls', false).look()).toMatchObject({ free: false });
  expect(await rowOf('another').look()).toMatchObject({ free: false });
});

test('a slot that nobody reads speaks against a leader that has said that it streams, and against none that has just begun', async () => {
  const [first, second] = [rowOf('first'), rowOf('second')];
  await first.take(undefined);
  expect(await second.look()).toMatchObject({ unread: false });
  await first.renew(1n, true);
  expect(await second.look()).toMatchObject({ unread: true });
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  expect(await second.look()).toMatchObject({ unread: true });
  expect(await first.raise()).toBe(2n);
  expect(await second.look()).toMatchObject({ unread: false });
  await first.renew(2n, true);
  await second.take(await second.look());
  expect(await first.look()).toMatchObject({ unread: false });
});

test('a leader whose slot nobody reads is replaced when that is seen twice in a row, and of one leader', async () => {
  await leadsElsewhere(db.name);
  let looks = 0;
  let one: 'now and then' | 'always another' | 'dead' = 'now and then';
  const unsafe = (text: string) => ({
    simple: async () => {
      if (text.includes('as unread')) {
        await db.sql`update smslogd.leader set streaming = ${one !== 'now and then' || looks % 2 === 0}, term = term + ${one === 'always another' ? 1 : 0},
                                               renewed_at = clock_timestamp()`;
        looks += 1;
      }
      return await connections.control.unsafe(text).simple();
    },
  });
  const watched = { control: { unsafe } as unknown as Connections['control'], refresh: () => {} };
  const standby = seek('standby', true, watched).leadership;
  for (const each of ['now and then', 'always another'] as const) {
    one = each;
    looks = 0;
    await until('it to look again and again', () => looks > 5);
    expect(standby.standing).toBe('standby');
  }
  one = 'dead';
  await leads(standby);
});

test('one that starts over or leads again does not say that it streams before it does', async () => {
  const { leadership } = seek('first');
  await leads(leadership);
  const says = async () => (await db.sql`select streaming from smslogd.leader`)[0]?.['streaming'] as boolean;
  leadership.streams(true);
  await until('it to say so', says);
  await leadership.raiseTerm();
  await renewal();
  expect(await says()).toBe(false);
  leadership.streams(true);
  await until('it to say so again', says);
  await db.sql`update smslogd.leader set holder = null`;
  await until('it to lead again', () => (leadership.term ?? 0n) > 2n);
  await renewal();
  expect(await says()).toBe(false);
});

test('one that cannot do its work leaves it to one that may; where none can, the last one keeps it until another one comes', async () => {
  const changes = await changesOfHands();
  const decline = 3_600_000;
  const [first, second] = [
    seek('first', true, connections, silentLog, decline),
    seek('second', true, connections, silentLog, decline),
  ];
  await until('one to lead', () => [first, second].some(({ leadership }) => leadership.standing === 'leading'));
  const [one, other] =
    first.leadership.standing === 'leading'
      ? [first.leadership, second.leadership]
      : [second.leadership, first.leadership];
  await standsBy(other);
  const before = await changes();
  one.giveUp();
  await leads(other);
  await standsBy(one);
  for (let times = 0; times < 3; times += 1) {
    other.giveUp();
    // longer than it is offered
    for (let renewals = 0; renewals < 3; renewals += 1) await renewal();
  }
  expect(await changes()).toBe(before + 1);
  expect(other.term).toBe(2n);
  const third = seek('third').leadership;
  await standsBy(third);
  other.giveUp(3_600_000);
  await renewal();
  await renewal();
  expect(third.standing).toBe('standby');
  other.giveUp();
  await leads(third);
});

/** `from` leads and cannot do its work, so that `to` leads. */
const passesOn = async (from: { leadership: Leadership }, to: { leadership: Leadership }) => {
  await leads(from.leadership);
  await standsBy(to.leadership);
  from.leadership.giveUp();
  await leads(to.leadership);
  await standsBy(from.leadership);
};

test('one that could not do its work takes the lease of one that died at once', async () => {
  const [first, second] = [seek('first', true, connections, silentLog, 3_600_000), seek('second')];
  await passesOn(first, second);
  second.die();
  await second.leadership.release();
  await leads(first.leadership);
  expect(first.leadership.term).toBe(3n);
});

test('one that could not do its work leaves the lease to none that only polls', async () => {
  const [first, second] = [seek('first', true, connections, silentLog, 3_600_000), seek('second')];
  await passesOn(first, second);
  second.die();
  // it was the quickest of those that saw it free
  await db.sql`update smslogd.leader set holder = 'polls', mirrors = false`;
  const { leadership } = seek('polls', false);
  await leads(leadership);
  await leads(first.leadership);
  await standsBy(leadership);
  expect(first.leadership.standing).toBe('leading');
});

test('daemons none of which can do it try in turns, each later every time, and tell of that once', async () => {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(line) });
  // each has a pause that is over when the other one offers the lease
  const [one, other] = ['one', 'other'].map((name) => seek(name, true, connections, log, 0).leadership) as [
    Leadership,
    Leadership,
  ];
  await until('one to lead', () => [one, other].some(({ standing }) => standing === 'leading'));
  const [from, to] = one.standing === 'leading' ? [one, other] : [other, one];
  /** Each leads, streams, and can do nothing with what comes. */
  const turn = async () => {
    await leads(from);
    await standsBy(to);
    from.streams(true);
    from.giveUp();
    await leads(to);
    await standsBy(from);
    to.giveUp();
  };
  await turn();
  await turn();
  expect(lines.filter((line) => line.includes('cannot do what the leader must'))).toHaveLength(2);
  const told = lines.length;
  await turn();
  expect(lines).toHaveLength(told);
  await leads(to);
  to.works();
  to.giveUp();
  expect(lines).toHaveLength(told + 1);
  expect([1, 2, 5, 50].map((failures) => declineFor(failures))).toEqual([5_000, 10_000, 80_000, 300_000]);
});

test.for([
  ['of which none finds its source', { SOURCE_TABLE: 'verification.nothing' }],
  ['of which each streams and may not write', {}],
] as const)('two mirrors %s do not hand the lease to each other for ever', async ([, env]) => {
  const changes = await changesOfHands();
  await db.sql`revoke insert on verification.sms_log from ${db.sql(DAEMON_ROLE)}`;
  const mirrors = [1, 2].map(() => startMirror(db, { env, declineMs: 3_600_000 }));
  await insertMany(db.sql, 5);
  const failures = mirrors.map(({ health }) => vi.spyOn(health, 'setMirrorState'));
  await until('each to have failed, and one to have tried again', () => {
    const times = failures.map(({ mock }) => mock.calls.filter(([state]) => state === 'stopped').length);
    return Math.min(...times) > 0 && Math.max(...times) > 3;
  });
  // to the first one, and to the other one
  expect(await changes()).toBe(2);
  for (const mirror of mirrors) await mirror.stop();
});

test('what a loop of the leader throws is a failure while this daemon leads, and none once another one does', async () => {
  const [first, second] = [seek('first'), seek('second')];
  await leads(first.leadership);
  await standsBy(second.leadership);
  const { signal } = new AbortController();
  const failing = first.leadership.whileLeading(async () => {
    throw new Error('made up');
  });
  await expect(failing(signal, () => {})).rejects.toThrow('made up');
  let begun = false;
  const fenced = first.leadership.whileLeading(async (ends) => {
    begun = true;
    await new Promise((resolve) => ends.addEventListener('abort', resolve));
    throw new Error('its term was no longer the latest one');
  })(signal, () => {});
  await until('it to begin', () => begun);
  first.leadership.giveUp();
  await leads(second.leadership);
  await expect(fenced).resolves.toBeUndefined();
});

test.for([
  ['SOURCE_TABLE', 'verification.nothing'],
  ['DATABASE_REPLICATION_URL', 'postgres://nobody:wrong@localhost:1/app'],
])('a leader with a wrong %s of its own leaves the log to a daemon that has it right', async ([name, value]) => {
  const wrong = startMirror(db, { env: { [name!]: value!, SNAPSHOT: 'never' }, giveUpMs: 0 });
  const leader = async () =>
    (await db.sql`select holder from smslogd.leader where holder is not null`)[0]?.['holder'] as string | undefined;
  await until('it to lead', async () => (await leader()) !== undefined);
  const right = startMirror(db, { env: { SNAPSHOT: 'never' } });
  await right.streaming();
  await insertMany(db.sql, 5);
  await until('the rows', async () => (await db.sql`select from verification.sms_log`).length === 5);
  const { mirrorLagSeconds } = wrong.metrics;
  await until('the other one to tell of no lag of its own', async () => {
    return wrong.health.mirrorState === 'standby' && (await mirrorLagSeconds.get()).values[0]?.value === 0;
  });
  await wrong.stop();
  await right.stop();
});

test('of three mirrors one streams, and whichever dies another one goes on', async () => {
  const mirrors = [1, 2, 3].map(() => startMirror(db));
  const states = () => mirrors.map(({ health }) => health.mirrorState);
  for (let left = 3; left > 0; left -= 1) {
    await until(
      'one to stream and the others to stand by',
      () => states().sort().join() === [...Array<string>(left - 1).fill('standby'), 'streaming'].join(),
    );
    const lines = left * 5;
    await insertMany(db.sql, lines);
    const at = states().indexOf('streaming');
    await until('all to be in the log', async () => (await difference(db.sql)).missing === 0);
    await mirrors.splice(at, 1)[0]!.stop();
  }
  expect((await difference(db.sql)).surplus).toBe(0);
});

test('a lease that came with a dump, of a daemon that is not here, is over within its time', async () => {
  await db.sql`insert into smslogd.leader (slot_name, term, holder, mirrors, streaming, renewed_at, expires_at)
               values (${db.name}, 7, 'elsewhere', true, false, now() + interval '1 day', now() + interval '1 day')`;
  await db.sql`insert into smslogd.checkpoint (slot_name, term, lsn, system_id) values (${db.name}, 9, 'FF/0', '1')`;
  await insertMany(db.sql, 5);
  const mirror = startMirror(db);
  await mirror.streaming();
  await until('the rows', async () => (await db.sql`select from verification.sms_log`).length === 5);
  const [row] = await db.sql`select term::int from smslogd.leader where slot_name = ${db.name}`;
  expect(row?.['term']).toBeGreaterThan(9);
  await mirror.stop();
});

const count = async (fence: string) => await recountHours(connections.upkeep, { wait: false, most: 10, fence });

test('what an older term began writes nothing, and neither does what nobody leads', async () => {
  const first = seek('first');
  await leads(first.leadership);
  const fence = first.leadership.fence();
  await db.sql`insert into smslogd.changed_hour values ('2026-01-01 10:00+00')`;
  await first.leadership.raiseTerm();
  expect(await count(fence)).toBeUndefined();
  expect(await count(first.leadership.fence())).toMatchObject({ hours: 1 });
  await db.sql`update smslogd.leader set holder = 'another', term = term + 1`;
  expect(await count(first.leadership.fence())).toBeUndefined();
  await standsBy(first.leadership);
  expect(first.leadership.fence()).toBe('false');
  await expect(first.leadership.raiseTerm()).rejects.toMatchObject({ code: 'stepped_down' });
});

test('a lock on the table of the lease holds the control connection up for a second at most', async () => {
  const first = seek('first');
  await leads(first.leadership);
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock smslogd.leader in access exclusive mode');
  await untilLocked('a renewal to wait', db.sql);
  // behind that renewal, on the same connection
  expect(await connections.control`select 1 as one`).toEqual([{ one: 1 }]);
  await session.unsafe('rollback');
  session.release();
  expect(first.leadership.standing).toBe('leading');
});

test('a lock on the row of the lease is told of once by a standby, and not at each try to take it', async () => {
  const first = seek('first');
  await leads(first.leadership);
  const session = await db.sql.reserve();
  await session.unsafe('begin; select from smslogd.leader for update');
  first.die();
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  const second = createLeadership({ connections, slot: db.name, holder: 'second', mirrors: true, log });
  const stop = new AbortController();
  stops.push(stop);
  let failures = 0;
  const onProblem = () => void (failures += 1);
  running.push(
    supervise({ name: 'leader', log, onProblem }, (signal, works) => second.run(signal, works), stop.signal),
  );
  await until('it to have tried several times', () => failures > 3);
  await session.unsafe('rollback');
  session.release();
  await leads(second);
  expect(lines.filter((line) => line.includes('database_busy'))).toHaveLength(1);
});

test('one whose row of the lease was deleted does not say that another one leads', async () => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) });
  const alone = createLeadership({ connections, slot: db.name, holder: 'alone', mirrors: true, log });
  const stop = new AbortController();
  stops.push(stop);
  running.push(alone.run(stop.signal));
  await leads(alone);
  await db.sql`delete from smslogd.leader`;
  await until('it to lead again', () => lines.filter((line) => line.includes('this daemon leads')).length === 2);
  expect(lines.filter((line) => line.includes('another daemon leads'))).toEqual([]);
  expect(lines.filter((line) => line.includes('this one steps down'))).toHaveLength(1);
});

test('a row of the lease that somebody deleted is made again, under a term that no writer has had', async () => {
  await db.sql`insert into smslogd.checkpoint (slot_name, term) values (${db.name}, 41)`;
  const first = seek('first');
  await leads(first.leadership);
  expect(first.leadership.term).toBe(42n);
  await db.sql`update smslogd.checkpoint set term = 50`;
  await db.sql`delete from smslogd.leader`;
  await until('it to lead again', () => (first.leadership.term ?? 0n) > 50n);
});

test('a term that somebody changed in the row of the lease keeps the leader from nothing for longer than a renewal', async () => {
  const first = seek('first', false);
  await leads(first.leadership);
  await first.leadership.raiseTerm();
  await db.sql`insert into smslogd.changed_hour values ('2026-01-01 10:00+00')`;
  for (const other of ['term - 1', 'term + 10']) {
    const before = first.leadership.term!;
    await db.sql.unsafe(`update smslogd.leader set term = ${other}`);
    await until('its fence to hold again', async () => (await count(first.leadership.fence())) !== undefined);
    expect(first.leadership.term).toBeGreaterThanOrEqual(before);
  }
});

test('a mirror that waits for a lock is alive, one whose own turn does not end is not', async () => {
  let now = 0;
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let block = false;
  const mirror = startMirror(db, { now: () => now, failpoints: { afterCommit: () => (block ? held : undefined) } });
  await mirror.streaming();
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertMany(db.sql, 5);
  await untilLocked('the write to wait', db.sql);
  now += 3_600_000;
  expect(mirror.health.silentLoops()).toEqual([]);
  block = true;
  await session.unsafe('rollback');
  session.release();
  await until('the write', async () => (await db.sql`select from verification.sms_log`).length === 5);
  now += 3_600_000;
  await until('it to be found', () => mirror.health.silentLoops().length === 1);
  release();
  await until('it to turn again', () => mirror.health.silentLoops().length === 0);
  await mirror.stop();
});

const renewed = async () => (await db.sql`select renewed_at::text as at from smslogd.leader`)[0]?.['at'] as string;
const renewal = async () => {
  const before = await renewed();
  await until('a renewal', async () => (await renewed()) !== before);
};

test('a leader that renews its lease keeps it, and leaves nothing behind on a signal that lives as long as the daemon', async () => {
  const first = seek('first');
  await leads(first.leadership);
  await standsBy(seek('second').leadership);
  const any = vi.spyOn(AbortSignal, 'any');
  // longer than a lease
  for (let times = 0; times < 4; times += 1) await renewal();
  expect(first.leadership.term).toBe(1n);
  expect(any).not.toHaveBeenCalled();
  any.mockRestore();
});

test('a leader that lost its stream while a write waits for a lock goes on leading', async () => {
  const mirror = startMirror(db);
  await mirror.streaming();
  const leader = async () => (await db.sql`select holder from smslogd.leader`)[0]?.['holder'] as string;
  const reader = async () =>
    (await db.sql`select active_pid as pid from pg_replication_slots where slot_name = ${db.name}`)[0]?.[
      'pid'
    ] as number;
  const mine = await leader();
  await standsBy(seek('second').leadership);
  expect(await rowOf('second').look()).toMatchObject({ unread: false });
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertMany(db.sql, 5);
  await untilLocked('the write to wait', db.sql);
  const ended = await reader();
  await db.sql`select pg_terminate_backend(${ended})`;
  await until('it to stream again', async () => ((await reader()) ?? ended) !== ended);
  await session.unsafe('rollback');
  session.release();
  expect(await leader()).toBe(mine);
  await mirror.stop();
});

test('one that fails as soon as it leads is not behind by the time for which it stood by', async () => {
  await leadsElsewhere(db.name);
  const mirror = startMirror(db, { env: { SOURCE_TABLE: 'verification.nothing' } });
  const { health } = mirror;
  const stand = health.stand.bind(health);
  let led = Infinity;
  vi.spyOn(health, 'stand').mockImplementation((standing) => {
    if (standing === 'leading') led = performance.now();
    stand(standing);
  });
  const behind = vi.spyOn(mirror.metrics.mirrorLagSeconds, 'set');
  // for the time of a lease it stands by
  const lags = () => behind.mock.calls.map(([seconds]) => seconds).filter((seconds) => seconds > 0);
  await until('it to fail', () => lags().length > 0);
  expect(lags()[0]).toBeLessThan((performance.now() - led) / 1_000 + 0.1);
  await mirror.stop();
});

test('one that stands by has no lag of its own, whatever it had when it led', async () => {
  const mirror = startMirror(db);
  await mirror.streaming();
  const lag = async () => (await mirror.metrics.mirrorLagSeconds.get()).values[0]?.value ?? 0;
  const session = await db.sql.reserve();
  await session.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertMany(db.sql, 5);
  await until('it to lag', async () => (await lag()) > 1);
  await db.sql`update smslogd.leader set holder = 'another', term = term + 1`;
  await leads(seek('another').leadership);
  await until('it to stand by', () => mirror.health.mirrorState === 'standby');
  await until('its lag to end', async () => (await lag()) === 0);
  await session.unsafe('rollback');
  session.release();
  await mirror.stop();
});
