/** What PostgreSQL's own log shows of the daemon, where the server logs each statement with all it can. */
import type { Sql } from 'postgres';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cluster } from '../../src/demo/cluster.ts';
import { DAEMON_ROLE } from '../../src/demo/roles.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { createServer } from '../support/postgres.ts';

let server: Cluster;
let said: string[];
let db: TestDatabase;
let sql: Sql;
let gateway: Simulator;
let daemon: Daemon | undefined;
beforeEach(async () => {
  said = [];
  server = await createServer(
    {
      log_line_prefix: '%u|',
      log_statement: 'all',
      log_min_duration_statement: 0,
      log_parameter_max_length_on_error: -1,
      shared_preload_libraries: 'auto_explain',
      'auto_explain.log_min_duration': 0,
      'auto_explain.log_verbose': 'on',
      'auto_explain.log_nested_statements': 'on',
    },
    { onLine: (line) => said.push(line) },
  );
  db = await createDatabase({ adminUrl: server.url('postgres') });
  ({ sql } = db);
  gateway = await startSimulator({ login: 'login', password: 'password' });
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  await gateway.close();
  await db.drop();
  await server.remove();
});

const PHONE = '+380009876543';
const CODE = 73918465;
const GATEWAY_ID = '5556667778889';
const LATE_ID = '5556667779990';
const MARKS = /9876543|73918465|555666777/;

/** What the server has logged of the sessions of `user`, each entry with the lines that belong to it. */
const logged = (user: string) =>
  said
    .join('\n')
    .split(/^(?=\w*\|)/m)
    .filter((entry) => entry.startsWith(`${user}|`));

const insert = (gatewayId: string | null) => sql`
  insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
  values (gen_random_uuid(), ${PHONE}, 1, 'new', ${CODE}, now() at time zone 'UTC', false, ${gatewayId}, 'Accepted', now() at time zone 'UTC')`;

test('no phone number, code or gateway id of what the daemon writes, is refused or asks for is in it', async () => {
  gateway.load(GATEWAY_ID, [{ status: 'Delivered', at: Date.now() }]);
  const env = db.env({ IP2SMS_URL: gateway.url });
  await insert(GATEWAY_ID);
  daemon = startDaemon(env);
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  await insert(GATEWAY_ID);
  await insert(null);
  await until('all to be logged and two to be delivered', async () => {
    const [row] = await sql`
      select count(*)::int as sms, (count(*) filter (where gateway_status = 'Delivered'))::int as delivered from verification.sms_log`;
    return row?.['sms'] === 3 && row['delivered'] === 2;
  });
  await sql`update verification.verifications set gateway_id = ${LATE_ID} where gateway_id is null`;
  await until('the late gateway id', async () => {
    return (await sql`select from verification.sms_log where gateway_id = ${LATE_ID}`).length === 1;
  });
  await sql.unsafe(
    `alter table verification.sms_log add constraint strict check (phone_number <> '${PHONE}') not valid`,
  );
  await insert(GATEWAY_ID);
  await until('a refusal', async () => (await sql`select from smslogd.sms_refused`).length === 1);
  await sql`alter table verification.sms_log drop constraint strict`;
  await sql`delete from verification.sms_log where gateway_id = ${LATE_ID}`;
  expect(await startProcess(['verify', '--repair'], env).exited).toBe(0);
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);

  const entries = logged(DAEMON_ROLE);
  // they are there: statements, the refusal, and plans
  for (const part of ['insert into verification.sms_log', 'violates check constraint "strict"', 'Insert on sms_log'])
    expect(entries.some((entry) => entry.includes(part))).toBe(true);
  expect(entries.filter((entry) => MARKS.test(entry))).toEqual([]);
  // and who takes no such care is seen
  expect(logged('postgres').some((entry) => MARKS.test(entry))).toBe(true);
});
