/** Claims while others write to the same entries of the queue. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/db.ts';
import { createPollerStore, type Claimed } from '../../src/poller/store.ts';
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
      const claims: Claimed[][] = [];
      while (claims.length < CLAIMS) claims.push(await store.claim(WANTED, [null, null, null]));
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
