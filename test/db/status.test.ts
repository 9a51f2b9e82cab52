/** `smslogd status` against a database, with and without a daemon's marks in it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.ts';
import type { StatusFacts } from '../../src/page/facts.ts';
import { createDatabase, type TestDatabase } from '../support/database.ts';
import { startProcess } from '../support/daemon.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

async function status(words: string[] = [], env: Record<string, string> = {}, stdoutIsTerminal = false) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await commandLine(['status', ...words], {
    env: db.env(env),
    print: (line) => out.push(line),
    complain: (line) => err.push(line),
    stdoutIsTerminal,
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

test('where no daemon runs it says so, with the figures, and exits 1', async () => {
  const { code, out } = await status();
  expect(code).toBe(1);
  expect(out).toContain('? No daemon leads: channel status unknown.\n');
  expect(out).toMatch(/^Leader +none$/m);
  expect(out).toMatch(/^SMS +0 /m);
  expect(out).not.toContain('\u001b');
});

test('with a leader, a stream and SMS that arrive it is well and exits 0, in colour on a terminal that wants it', async () => {
  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await db.sql`insert into smslogd.leader (slot_name, term, holder, mirrors, renewed_at, expires_at)
               values (${db.name}, 7, 'db-host 4711 ab12', true, now(), now() + interval '1 hour')`;
  await db.sql`insert into smslogd.checkpoint (slot_name, reconcile_due) values (${db.name}, 'first start')`;
  const copying = await status();
  expect(copying.code).toBe(0);
  expect(copying.out).toContain('✓ The first copy of the source is under way.\n');
  expect(copying.out).toContain('Copying history: figures of past days settle as the gateway answers.');

  await db.sql`update smslogd.checkpoint set reconcile_due = null`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, status_changed_at, inserted_at)
               select '+380000000001', 'text', 'g' || i, 'Delivered', now() - interval '4 minutes', now() - interval '5 minutes'
                 from generate_series(1, 40) i`;
  const { code, out } = await status([], {}, true);
  expect(out).toContain('\u001b[1;33m! The SMS channel works, with trouble.\u001b[0m\n');
  expect(out).toContain('100.0 % of the 40 SMS sent 2 to 12 minutes ago arrived within 2 minutes.');
  expect(out).toMatch(/^Leader +db-host, process 4711, term 7, renewed \d+ s ago$/m);
  // nobody reads the slot
  expect(code).toBe(1);
  expect((await status([], { NO_COLOR: '1' }, true)).out).not.toContain('\u001b');
});

test('--json has the facts as /status.json has them', async () => {
  const { code, out } = await status(['--json']);
  const facts = JSON.parse(out) as StatusFacts;
  expect(code).toBe(1);
  expect(facts).toMatchObject({
    seen_from: 'database',
    mirror: 'repairing',
    leader: { holder: 'db-host 4711 ab12', term: 7, leads: true },
    slot: { active: false },
    pipeline: { lag_seconds: null },
    verdict: { level: 'impaired' },
  });
  expect(facts.slot!.behind).toBeGreaterThanOrEqual(0);
  expect(out).not.toContain('+38000');
});

test('source rows that the log refuses are told of, as long as there are any', async () => {
  await db.sql`insert into smslogd.sms_refused (id, sqlstate) select gen_random_uuid(), '23514' from generate_series(1, 3)`;
  const { code, out } = await status();
  expect(code).toBe(1);
  expect(out).toMatch(
    /The log refuses 3 rows of the source; they are set aside\.\s+\(docs\/runbook\.md,\s+row_refused\)/,
  );
  await db.sql`delete from smslogd.sms_refused`;
  expect((await status()).out).not.toContain('refuses');
});

test('what the queue tells of the gateway is the cause where no news comes', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
               select '+380000000002', 'text', 'q' || i, now() - interval '20 minutes' from generate_series(1, 9) i`;
  await db.sql`update verification.sms_log set updated_at = now() - interval '20 minutes', status_changed_at = now() - interval '21 minutes' where gateway_id like 'g%'`;
  await db.sql`update smslogd.sms_poll set attempt = 3, last_result = 'unauthorized', due_at = now() - interval '1 minute'`;
  const { code, out } = await status();
  expect(out).toContain('? The gateway refuses the login: channel status unknown.\n');
  expect(out).toContain('9 unauthorized');
  expect(code).toBe(1);
  // what the daemon decides by itself is no answer
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status, status_changed_at, inserted_at)
               values ('+380000000003', 'text', 'Unaccepted', now(), now() - interval '35 minutes'), ('+380000000003', 'text', 'Terminated', now(), now() - interval '40 minutes')`;
  expect((await status()).out).toContain('? The gateway refuses the login: channel status unknown.\n');
});

test('a database that refuses the login is the verdict, with what to do, also as JSON', async () => {
  const wrong = { DATABASE_URL: db.url.replace(/:[^:@]+@/, ':wrong@') };
  const { code, out, err } = await status([], wrong);
  expect({ code, err }).toEqual({ code: 1, err: '' });
  expect(out).toContain('? PostgreSQL refused the login: channel status unknown.\n');
  expect(out).toContain('Try: Check the user and the password');
  expect(JSON.parse((await status(['--json'], wrong)).out)).toMatchObject({
    database_problem: 'database_auth',
    read_at: null,
  });
});

test('--watch looks again and again, and ends at Ctrl-C with the exit code of the last look', async () => {
  const watching = startProcess(['status', '--watch', '--json'], db.env());
  await watching.line('a second look', () => watching.lines.length > 1);
  watching.kill('SIGINT');
  expect(await watching.exited).toBe(1);
  expect(watching.lines.every((line) => (JSON.parse(line) as StatusFacts).verdict.level === 'unknown')).toBe(true);
});
