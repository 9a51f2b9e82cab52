/** What an administrator may have set for other programs, and a database in another encoding: smslogd works as ever, or says what is wrong. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command } from '../../src/commands/doctor.ts';
import type { Result } from '../../src/doctor/check.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { runRetention } from '../../src/figures/retention.ts';
import { silentLog } from '../../src/log.ts';
import { repairQueue } from '../../src/poller/requeue.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startMirror } from '../support/mirror.ts';

let db: TestDatabase;
beforeEach(async () => {
  db = await createDatabase({ empty: true });
});
afterEach(() => db.drop());

async function doctor(env: Record<string, string> = {}): Promise<(check: string) => Result | undefined> {
  const lines: string[] = [];
  const print = (line: string) => void lines.push(line);
  await command.run({ json: true }, { env: db.env({ LOOPS: 'mirror', ...env }), print, stdoutIsTerminal: false });
  const { checks } = JSON.parse(lines.join('\n')) as { checks: Result[] };
  return (check) => checks.find(({ name }) => name === check);
}

test.each([
  {
    changes: 'how values are read and shown',
    settings: [
      'quote_all_identifiers = on',
      'standard_conforming_strings = off',
      `DateStyle = 'SQL, DMY'`,
      'IntervalStyle = sql_standard',
      'bytea_output = escape',
      'extra_float_digits = -15',
      'array_nulls = off',
      `TimeZone = 'Asia/Kathmandu'`,
      'transform_null_equals = on',
      'backslash_quote = off',
      'client_encoding = SQL_ASCII',
    ],
  },
  {
    changes: 'where names are looked for and how statements are planned',
    settings: [
      'search_path = nowhere',
      'check_function_bodies = off',
      'row_security = off',
      'enable_seqscan = off',
      'plan_cache_mode = force_generic_plan',
      'default_toast_compression = pglz',
      'client_min_messages = error',
    ],
  },
  {
    changes: 'how transactions run',
    settings: [
      `search_path = ''`,
      'default_transaction_isolation = serializable',
      'default_transaction_deferrable = on',
      'synchronous_commit = off',
      'session_replication_role = origin',
      'lock_timeout = 10',
      'idle_in_transaction_session_timeout = 1000',
    ],
  },
  { changes: 'what transactions see', settings: ['default_transaction_isolation = "repeatable read"'] },
])('a database that sets $changes: it migrates, mirrors and compares as ever', async ({ settings }) => {
  await db.owner.sql.unsafe(SOURCE_DDL);
  for (const setting of settings) await db.sql.unsafe(`alter database ${db.name} set ${setting}`);
  await migrate(db.owner.config(), { role: DAEMON_ROLE, say: () => {} });
  const said: string[] = [];
  await migrate(db.owner.config(), { role: DAEMON_ROLE, say: (line) => said.push(line) });
  expect(said).toEqual([]);
  const mirror = startMirror(db);
  await mirror.streaming();
  await db.sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, inserted_at)
               values (gen_random_uuid(), '+380000000001', 1, 'verified', 1234, '2026-02-03 04:05:06', '2026-02-03 04:05:06.789012')`;
  await until('the row', async () => (await db.sql`select from verification.sms_log`).length === 1);
  const [row] =
    await db.sql`select body, inserted_at = '2026-02-03 04:05:06.789012+00' as exact from verification.sms_log`;
  expect(row).toEqual({ body: 'Код авторизації дій в системі eHealth: 1234', exact: true });
  await mirror.stop();
  const found = await doctor();
  expect(found('installed objects')).toMatchObject({ level: 'ok' });
  expect(found('session settings')).toMatchObject({ level: 'ok' });
});

// before PostgreSQL 18 its own IST is read as that of another zone
test.each(['UTC', 'Asia/Kolkata'])(
  'where a pooler keeps us from setting how times are written, in %s the lease changes hands, the queue is repaired and retention removes',
  async (zone) => {
    await db.owner.sql.unsafe(SOURCE_DDL);
    await migrate(db.owner.config({ RETENTION_DAYS: '7' }), { role: DAEMON_ROLE, say: () => {} });
    await db.sql.unsafe(
      `alter database ${db.name} set DateStyle = 'SQL, DMY'; alter database ${db.name} set TimeZone = '${zone}'`,
    );
    await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
                 select '+380000000001', 'text', '1234567', now() - days * interval '1 day' from unnest('{0,9}'::int[]) days`;
    await db.sql`delete from smslogd.sms_poll`;
    const config = db.config({ DATABASE_POOLED: 'true', RETENTION_DAYS: '7' });
    for (let times = 1; times <= 2; times += 1) {
      const mirror = startMirror(db, { env: { DATABASE_POOLED: 'true' } });
      await mirror.streaming();
      await mirror.stop();
    }
    const sql = openDatabase(config, { max: 1, name: 'test' });
    const repaired = new AbortController();
    await repairQueue({ sql, log: silentLog, works: () => repaired.abort() }, repaired.signal);
    expect(await db.sql`select from smslogd.sms_poll`).toHaveLength(2);
    const retained = new AbortController();
    await runRetention({ config, sql, log: silentLog, works: () => retained.abort() }, retained.signal);
    expect(await db.sql`select from verification.sms_log`).toHaveLength(1);
    await sql.end();
  },
);

test.each([
  ['LATIN1', {}, 'FAIL'],
  ['LATIN1', { OTP_CODE_TEXT: 'Your code: ' }, 'warn'],
  ['SQL_ASCII', {}, 'warn'],
  ['UTF8', {}, 'ok'],
] as const)('doctor foresees what a database in %s does with %o', async (encoding, env, level) => {
  await db.sql.unsafe(
    `create database ${db.name}_other template template0 encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`,
  );
  const other = new URL(db.url);
  other.pathname += '_other';
  const found = await doctor({ DATABASE_URL: other.href, ...env });
  await db.sql.unsafe(`drop database ${db.name}_other with (force)`);
  expect(found('encoding')).toMatchObject({ level, says: expect.stringContaining(encoding) });
});
