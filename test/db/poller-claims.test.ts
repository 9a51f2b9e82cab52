/** What a claim takes, also while others write to the same entries of the queue. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import type { Claimed, Floors, Wanted } from '../../src/poller/queue.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
let pools: Sql[];

beforeEach(async () => {
  db = await createDatabase();
  pools = [];
});
afterEach(async () => {
  await Promise.all(pools.map((sql) => sql.end({ timeout: 1 })));
  await db.drop();
});

function open(): Sql {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  pools.push(sql);
  return sql;
}

interface Entry {
  readonly lane?: 0 | 1 | 2;
  /** seconds since it was due; negative: it will be */
  readonly due: number;
  /** seconds until its lease ends */
  readonly leased?: number;
  /** minutes since it was sent */
  readonly age?: number;
}

/** Queues entries by name: a name is the gateway id. */
async function queue(entries: Readonly<Record<string, Entry>>): Promise<void> {
  for (const [name, { lane = 0, due, leased = 0, age = 1 }] of Object.entries(entries))
    await db.sql`
      insert into smslogd.sms_poll (id, gateway_id, lane, due_at, leased_until, sent_at, deadline_at, give_up_at)
      select gen_random_uuid(), ${name}, ${lane}, now() - make_interval(secs => ${due}), now() + make_interval(secs => ${leased}),
             now() - make_interval(mins => ${age}), now() + interval '1 hour', now() + interval '1 day'`;
}

const byName = (a: string, b: string) => a.localeCompare(b);

/** One entry after the other in a lane, the first one due for the longest. */
const inLane = (lane: 0 | 1 | 2, names: readonly string[]) =>
  Object.fromEntries(names.map((name, n) => [name, { lane, due: 30 - 10 * n }]));

/** What is claimed, by name, in the order of names. */
function claimer() {
  const store = createPollerStore(db.daemon, 20_000);
  return async (wanted: Wanted, floors: Floors = [null, null, null]) =>
    (await store.claim(wanted, floors)).rows.map(({ gatewayId }) => gatewayId ?? '').toSorted(byName);
}

test('a claim takes what is due and in nobody’s lease, what is due for the longest first, and nobody takes it again', async () => {
  await queue({ a: { due: 30 }, b: { due: 20 }, c: { due: 10 }, later: { due: -60 }, leased: { due: 40, leased: 60 } });
  const claim = claimer();
  expect(await claim({ total: 2, old: 0, past: 0 })).toEqual(['a', 'b']);
  expect(await claim({ total: 5, old: 1, past: 1 })).toEqual(['c']);
  expect(await claim({ total: 5, old: 1, past: 1 })).toEqual([]);
  const rows = await db.sql`
    select gateway_id, attempt, leased_until > now() + interval '10 seconds' as leased from smslogd.sms_poll where attempt > 0 order by 1`;
  expect([...rows]).toEqual(['a', 'b', 'c'].map((name) => ({ gateway_id: name, attempt: 1, leased: true })));
});

test('an SMS without a gateway id is claimed for its verdict once in a lease', async () => {
  await queue({ waiting: { due: 30 } });
  await db.sql`update smslogd.sms_poll set gateway_id = null`;
  const store = createPollerStore(db.daemon, 20_000);
  expect(await store.claimWithoutGatewayId(5)).toMatchObject([{ attempt: 1 }]);
  expect(await store.claimWithoutGatewayId(5)).toEqual([]);
});

test('old SMS have their places for sure, what a lane leaves the other takes, and past ones come after all that live', async () => {
  await queue(inLane(0, ['young1', 'young2', 'young3', 'young4']));
  await queue(inLane(1, ['old1', 'old2', 'old3', 'old4']));
  await queue(inLane(2, ['past1', 'past2', 'past3']));
  const claim = claimer();
  expect(await claim({ total: 4, old: 1, past: 3 })).toEqual(['old1', 'young1', 'young2', 'young3']);
  expect(await claim({ total: 3, old: 1, past: 3 })).toEqual(['old2', 'old3', 'young4']);
  expect(await claim({ total: 3, old: 0, past: 1 })).toEqual(['old4', 'past1']);
  expect(await claim({ total: 2, old: 2, past: 2 })).toEqual(['past2', 'past3']);
});

test('an entry that somebody holds is not waited for, and keeps no other from being claimed', async () => {
  for (const lane of [0, 1, 2] as const) await queue(inLane(lane, [`held ${lane}`, `free ${lane}`]));
  await queue(inLane(0, ['held without id', 'without id']));
  await db.sql`update smslogd.sms_poll set gateway_id = null, last_result = gateway_id where gateway_id like '%without id'`;
  const impatient = open();
  await impatient`set lock_timeout = '5s'`;
  const store = createPollerStore(impatient, 20_000);
  await db.sql.begin(async (sql) => {
    await sql`select from smslogd.sms_poll where gateway_id like 'held%' or last_result like 'held%' for update`;
    const [judged, ...others] = await store.claimWithoutGatewayId(9);
    expect(others).toEqual([]);
    const { rows: claimed } = await store.claim({ total: 9, old: 1, past: 9 }, [null, null, null]);
    expect(claimed.map(({ gatewayId }) => gatewayId ?? '').toSorted(byName)).toEqual(['free 0', 'free 1', 'free 2']);
    expect(await sql`select last_result from smslogd.sms_poll where id = ${judged!.id}`).toEqual([
      { last_result: 'without id' },
    ]);
  });
});

test('a claim scans each lane from its floor on', async () => {
  for (const lane of [0, 1, 2] as const) await queue(inLane(lane, [`${lane} below`, `${lane} above`]));
  const [row] = await db.sql<{ floor: number }[]>`
    with due as (update smslogd.sms_poll set due_at = now() - case when gateway_id like '%below' then interval '30 s' else interval '20 s' end)
    select extract(epoch from now())::float8 * 1000 - 25000 as floor`;
  const { floor } = row!;
  const claim = claimer();
  expect(await claim({ total: 9, old: 1, past: 9 }, [floor, floor, floor])).toEqual(['0 above', '1 above', '2 above']);
});

test('a claim says when the next SMS is due that it leaves, whatever is due by then and in somebody’s lease', async () => {
  const store = createPollerStore(db.daemon, 20_000);
  const claim = () => store.claim({ total: 1, old: 0, past: 1 }, [null, null, null]);
  expect(await claim()).toEqual({ rows: [], nextMs: null });
  await queue({
    leased: { due: 1, leased: 60 },
    young: { due: -90 },
    old: { lane: 1, due: -60 },
    past: { lane: 2, due: -120 },
  });
  const empty = await claim();
  expect(empty.rows).toEqual([]);
  expect(Math.round(empty.nextMs! / 60_000)).toBe(1);
  await db.sql`update smslogd.sms_poll set due_at = clock_timestamp() where gateway_id = 'old'`;
  const { rows, nextMs } = await claim();
  expect(rows.map(({ gatewayId }) => gatewayId)).toEqual(['old']);
  expect(Math.round(nextMs! / 30_000)).toBe(3);
});

test('an SMS is old from ten minutes on', async () => {
  await queue({ young: { due: 1, age: 9 }, old: { due: 1, age: 11 } });
  const { rows } = await createPollerStore(db.daemon, 20_000).claim({ total: 2, old: 0, past: 0 }, [null, null, null]);
  expect(Object.fromEntries(rows.map(({ gatewayId, lane }) => [gatewayId, lane]))).toEqual({ young: 0, old: 1 });
});

const WANTED = { total: 12, old: 4, past: 2 };
const CLAIMS = 150;

test.each(['nestloop', 'hashjoin', 'mergejoin'])(
  'a claim that meets writers takes no more than it wants of any lane, whatever the plan: %s',
  async (join) => {
    for (const other of ['nestloop', 'hashjoin', 'mergejoin'])
      if (other !== join) await db.sql.unsafe(`alter database ${db.name} set enable_${other} = off`);
    await db.sql`
      insert into smslogd.sms_poll (id, gateway_id, lane, due_at, sent_at, deadline_at, give_up_at)
      select gen_random_uuid(), (7000000 + i)::text, i % 3, now() - i * interval '1 ms', now() + interval '1 hour', now() + interval '2 hours', now() + interval '1 day'
        from generate_series(1, 3000) i`;
    await db.sql`analyze smslogd.sms_poll`;
    const over = new AbortController();
    const writer = open();
    const write = async () => {
      while (!over.signal.aborted)
        await writer`
          update smslogd.sms_poll set due_at = now() - random() * interval '1 s'
           where id in (select id from smslogd.sms_poll order by due_at limit 60)`;
    };
    const claim = async () => {
      // a lease that is over at once: young ones never run out
      const store = createPollerStore(open(), 0);
      const claims: (readonly Claimed[])[] = [];
      while (claims.length < CLAIMS) claims.push((await store.claim(WANTED, [null, null, null])).rows);
      return claims;
    };
    const writing = write();
    const claims = (await Promise.all([claim(), claim()]).finally(() => over.abort())).flat();
    await writing;
    for (const rows of claims) {
      expect(rows.length).toBeLessThanOrEqual(WANTED.total);
      expect(rows.filter(({ lane }) => lane === 2).length).toBeLessThanOrEqual(WANTED.past);
      expect(rows.filter(({ lane }) => lane === 1).length).toBeLessThanOrEqual(WANTED.old);
      expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
    }
  },
);
