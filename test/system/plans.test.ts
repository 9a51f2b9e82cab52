/**
 * No plan of ours depends on a table's having been analyzed, as none is after pg_restore, and smslogd.settings with its one row never: on Debian's
 * PostgreSQL, which compiles plans that it takes for dear (jit), no view and no statement of the daemon, of its triggers or its functions is compiled, and no
 * view is expected to give many more rows than it does. With 100,000 SMS and a tenth of the usual jit_above_cost it is as with a million.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Sql } from 'postgres';
import type { Cluster } from '../../src/demo/cluster.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon } from '../support/daemon.ts';
import { debianBinaries } from '../support/debian.ts';
import { fillChannel } from '../support/filled.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany } from '../support/verifications.ts';

const ROWS = 100_000;
let cluster: Cluster;
let db: TestDatabase;
let gateway: Simulator;
/** as a DBA's session, which has no settings of ours */
let sql: Sql;
/** as the daemon's, in which nothing is compiled: what the test looks at is no matter of it */
let watch: Sql;
/** the server's log: every plan that was run, with the plans that functions and triggers ran */
let lines: string[] = [];

beforeAll(async () => {
  cluster = await createServer(
    {
      autovacuum: 'off',
      jit_above_cost: 10_000,
      session_preload_libraries: 'auto_explain',
      'auto_explain.log_analyze': 'on',
      'auto_explain.log_nested_statements': 'on',
      'auto_explain.log_timing': 'off',
    },
    { binaries: debianBinaries(), onLine: (line) => lines.push(line) },
  );
  db = await createDatabase({ adminUrl: cluster.url('postgres') });
  ({ sql } = db);
  watch = openDatabase(db.superuser.config(), { max: 2, name: 'test' });
  await fillChannel(watch, ROWS, 60);
  // from here on in every session that begins
  await watch`alter system set auto_explain.log_min_duration = 0`;
  await watch`select pg_reload_conf()`;
  gateway = await startSimulator({ login: 'login', password: 'password' });
}, 120_000);
afterAll(async () => {
  await gateway.close();
  await watch.end({ timeout: 1 });
  await db.drop();
  await cluster.remove();
});

/** The statements whose plans were compiled. */
async function compiled(): Promise<string[]> {
  const done = `done ${Math.random()}`;
  await sql.unsafe(`select '${done}'`);
  await until('the log to be read', () => lines.some((line) => line.includes(done)));
  const found = new Set<string>();
  let text = '';
  for (const line of lines) {
    if (line.includes('Query Text: ')) text = line.slice(line.indexOf('Query Text: ') + 12);
    if (/^\s*JIT:/.test(line)) found.add(text.trim());
  }
  lines = [];
  return [...found];
}

test('no view is compiled, and none is expected to give many more rows than it does', async () => {
  expect(await sql`show jit`).toEqual([{ jit: 'on' }]);
  const views = await sql<{ view: string }[]>`
    select oid::regclass::text as view from pg_class where relkind = 'v' and relnamespace in ('verification'::regnamespace, 'smslogd'::regnamespace)`;
  expect(views.length).toBeGreaterThan(14);
  const wrong: object[] = [];
  for (const counted of [false, true]) {
    for (const { view } of views.filter((each) => !each.view.endsWith('sms_log_masked'))) {
      const [row] = await sql.unsafe<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }[]>(
        `explain (analyze, timing off, format json) select * from ${view}`,
      );
      const plan = row!['QUERY PLAN'][0].Plan;
      if (plan['Plan Rows']! > 1_000 + 100 * plan['Actual Rows']!)
        wrong.push({ view, counted, plan: plan['Plan Rows'], rows: plan['Actual Rows'] });
    }
    expect(await compiled()).toEqual([]);
    await refreshHourly(sql);
  }
  expect(wrong).toEqual([]);
});

test('nothing that the daemon runs is compiled, while it copies, mirrors, asks, counts and tells its figures', async () => {
  await watch`delete from verification.sms_log where inserted_at > now() - interval '1 day'`;
  // as through a pooler, which refuses start-up options: nothing may need these
  const daemon = startDaemon(db.env({ DATABASE_POOLED: 'true', IP2SMS_URL: gateway.url }));
  try {
    await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
    await insertMany(watch, 2_000);
    await until('all to be logged', async () => (await difference(watch)).missing === 0);
    const url = await daemon.url();
    for (const path of ['metrics', 'status.json', '']) expect((await fetch(`${url}/${path}`)).status).toBe(200);
    await until(
      'the queue to be asked for',
      async () => (await watch`select from smslogd.sms_poll where attempt > 0`).length > 0,
    );
  } finally {
    daemon.kill('SIGTERM');
    await daemon.exited;
  }
  expect(await compiled()).toEqual([]);
});
