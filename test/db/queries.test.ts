/** Each query of docs/queries.md gives an answer, to the role that the page names, and those of one SMS find it by an index. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';

const sections = readFileSync('docs/queries.md', 'utf8').split(/^## /m).slice(1);
const queries = sections.flatMap((section) =>
  [...section.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => ({
    sql: sql!.replaceAll(/\s+/g, ' ').trim(),
    role: section.startsWith('One SMS') ? 'sms_dba' : 'sms_reader',
  })),
);

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
  await migrate(db.owner.config(), { say: () => {} });
  // eight days: all well but today, where some fail
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
    select '+38067' || lpad((g % 500)::text, 7, '0'), 'verification', '7654321',
           case when g < 200 and g % 3 = 0 then 'Enroute' when g < 200 and g % 3 = 1 then 'Rejected' else 'Delivered' end, at + interval '5 seconds', at
      from (select g, now() - g * interval '3 minutes' as at from generate_series(1, 4000) g) s`;
  await db.sql`
    insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, inserted_at)
    select id, phone_number, 1, 'verified', 1, inserted_at at time zone 'UTC' + interval '5 minutes', false, inserted_at at time zone 'UTC' from verification.sms_log`;
  await db.sql`
    insert into verification.sms_log (id, phone_number, type, gateway_id, gateway_status, inserted_at)
    values ('00000000-0000-0000-0000-000000000001', '+380000000001', 'text', '1234567', 'Accepted', now() - interval '10 minutes')`;
  await db.sql`analyze verification.sms_log`;
});
afterAll(() => db.drop());

const as = (role: string, sql: string, zone = 'UTC') =>
  db.sql.begin(async (tx) => {
    await tx.unsafe(`set local role ${role}; set local timezone = '${zone}'`);
    return await tx.unsafe(sql);
  });

test.for(queries)('$role: $sql', async ({ sql, role }) => {
  expect((await as(role, sql)).length).toBeGreaterThan(0);
});

const ofDays = queries.filter(({ sql }) => sql.includes('date'));
test.for(ofDays)("its days are not those of the session's time zone: $sql", async ({ sql, role }) => {
  // in one of the two it is another day than in Kyiv, whatever the time
  const answers = [await as(role, sql, 'Etc/GMT+12'), await as(role, sql, 'Pacific/Kiritimati')];
  expect(JSON.stringify(answers[0])).toBe(JSON.stringify(answers[1]));
});

test.for(queries.filter(({ role }) => role === 'sms_dba'))('by an index: $sql', async ({ sql, role }) => {
  expect(JSON.stringify(await as(role, `explain ${sql}`))).toMatch(/Index Scan using|Bitmap Index Scan on/);
});

test('every view that readers have is in a query, and a reader sees no row of the log', async () => {
  const views = await db.sql<{ view: string }[]>`select smslogd.views()::text as view`;
  const text = queries.map(({ sql }) => sql).join('\n');
  expect(views.map(({ view }) => view).filter((view) => !text.includes(view))).toEqual([]);
  for (const { sql } of queries.filter((each) => / from verification\.sms_log /.test(each.sql)))
    await expect(as('sms_reader', sql)).rejects.toMatchObject({ code: '42501' });
});
