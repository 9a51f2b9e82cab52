/** What the documents tell people to run in the database works there. */
import { readFileSync } from 'node:fs';
import type { TransactionSql } from 'postgres';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.ts';

const PAGES = ['README.md', 'docs/runbook.md', 'docs/operations.md', 'docs/design.md'];
const read = (page: string) => readFileSync(page, 'utf8');

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

/** The SQL of a page that can be pasted: blocks, and what stands within a line and ends like a statement or calls a function. */
function statementsOf(page: string): string[] {
  const text = read(page);
  const blocks = [...text.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql ?? '');
  const spans = [
    ...text.replaceAll(/```.*?```/gs, '').matchAll(/`((?:select|alter|grant|drop|update|insert)\s[^`]*[;)])`/g),
  ].map(([, sql]) => sql ?? '');
  return [...blocks, ...spans].map((sql) => sql.replaceAll(/--.*$/gm, '').replaceAll(/\s+/g, ' ').trim());
}

async function ownerOfSource(): Promise<string> {
  const [row] =
    await db.sql`select relowner::regrole::text as owner from pg_class where oid = 'verification.verifications'::regclass`;
  return row!['owner'] as string;
}

/** Runs statements and takes them back. */
async function tryOut<T>(sql: string, look: (tx: TransactionSql) => Promise<T>): Promise<T> {
  const undo = new Error('undo');
  let seen: T;
  await db.sql
    .begin(async (tx) => {
      await tx.unsafe(sql);
      seen = await look(tx);
      throw undo;
    })
    .catch((error: unknown) => {
      if (error !== undo) throw error;
    });
  return seen!;
}

const statements = PAGES.flatMap((page) => statementsOf(page).map((sql) => [page, sql] as const));
/** What cannot be tried here: it is about the whole server, about what a reader has to name, or its own test's. */
const ELSEWHERE = /alter system|NAME|OWNER|…|drop role/;

test('the documents have SQL to be tried', () => {
  expect(statements.filter(([, sql]) => !ELSEWHERE.test(sql)).length).toBeGreaterThan(12);
});

test.each(statements.filter(([, sql]) => !ELSEWHERE.test(sql)))('%s: %s', async (_, sql) => {
  expect(await tryOut(sql.replaceAll('PID', '0'), async () => 'works')).toBe('works');
});

test('the README names every view, and none that is gone', async () => {
  const views = await db.sql`
    select relname::text as name from pg_class where relnamespace = 'verification'::regnamespace and relkind = 'v'
    union all select proname::text from pg_proc where pronamespace = 'verification'::regnamespace order by 1`;
  const named = [...read('README.md').matchAll(/^\| `sms_.*?\|/gm)].flatMap(([cell]) =>
    [...cell.matchAll(/`(sms_\w+)/g)].map((row) => row[1]!),
  );
  expect(named.sort()).toEqual(views.map((row) => row['name'] as string));
});

test('after the removal nothing but the log is left, and it takes SMS', async () => {
  const [owners, administrators] = ['drop schema smslogd cascade', 'drop role'].map(
    (word) => statements.find(([page, sql]) => page === 'docs/operations.md' && sql.includes(word))![1],
  );
  // as who the text names; other databases of this server know the roles
  const sql = `set local role ${await ownerOfSource()}; ${owners} reset role; ${administrators!.replace(/drop role [^;]*;/, '')}`;
  const left = await tryOut(sql, async (tx) => {
    await tx`insert into verification.sms_log (phone_number, type) values ('+380000000000', 'text')`;
    await tx`update verification.sms_log set gateway_id = '1234567'`;
    await tx`delete from verification.sms_log`;
    return await tx`
      select relname as name from pg_class where relnamespace in (select oid from pg_namespace where nspname in ('verification', 'smslogd')) and relkind in ('r', 'v')
      union all select proname from pg_proc where pronamespace in (select oid from pg_namespace where nspname in ('verification', 'smslogd'))
      order by 1`;
  });
  expect(left.map(({ name }) => name as string)).toEqual(['sms_log', 'verifications']);
});
