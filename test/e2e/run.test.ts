/** The daemon as a process: start, stop, crash and what it says. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { pace } from '../../src/demo/pace.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import { createDatabase, until, untilConfirmed, untilLocked, type TestDatabase } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon } from '../support/daemon.ts';
import { difference, insertMany, insertOneByOne, insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let gateway: Simulator;
let daemons: Daemon[];

beforeEach(async () => {
  db = await createDatabase();
  gateway = await startSimulator({ login: 'login', password: 'password' });
  daemons = [];
});
afterEach(async () => {
  for (const daemon of daemons) daemon.kill('SIGKILL');
  await Promise.all(daemons.map((daemon) => daemon.exited));
  await gateway.close();
  await db.drop();
});

function start(env: Record<string, string> = {}): Daemon {
  const daemon = startDaemon(db.env({ IP2SMS_URL: gateway.url, ...env }));
  daemons.push(daemon);
  return daemon;
}

const streams = (daemon: Daemon) => daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const now = () => new Date().toISOString().replace('T', ' ').replace('Z', '');

test('an SMS goes the whole way: source, log, gateway, final status, metric', async () => {
  const daemon = start();
  const url = await daemon.url();
  await streams(daemon);
  const phone = '+380000000042';
  const id = 'fate-of-one-1234567';
  gateway.load(id, [
    { status: 'Accepted', at: Date.now() - 5000 },
    { status: 'Delivered', at: Date.now() - 1000 },
  ]);
  await insertVerification(db.sql, { phone_number: phone, gateway_id: id, inserted_at: now() });
  await until('it to be delivered', async () => {
    const [row] = await db.sql`select gateway_status from verification.sms_log`;
    return row?.['gateway_status'] === 'Delivered';
  });
  await until('the counter', async () =>
    (await (await fetch(`${url}/metrics`)).text()).includes(
      'smslogd_sms_final_total{type="verification",status="Delivered"} 1',
    ),
  );
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  await until('it to be ready', async () => (await fetch(`${url}/readyz`)).status === 200);
  const said = daemon.lines.join('\n');
  expect(said).not.toContain(phone.slice(1));
  expect(said).not.toContain(id);
});

test('a row that another service inserts is asked for and finished', async () => {
  const daemon = start();
  await streams(daemon);
  gateway.load('7654321', [{ status: 'Undeliverable', at: Date.now() - 1000 }]);
  await db.sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status)
               values ('+380000000043', 'medication_request', 'text', '7654321', 'Accepted')`;
  await until('its status', async () => {
    const [row] = await db.sql`select gateway_status from verification.sms_log`;
    return row?.['gateway_status'] === 'Undeliverable';
  });
});

test('SIGTERM ends it with 0, and slot and lease are free', async () => {
  const daemon = start();
  await streams(daemon);
  await insertMany(db.sql, 500);
  await until('the rows', async () => (await logged()) === 500);
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  const [slot] = await db.sql`select active from pg_replication_slots where slot_name = ${db.name}`;
  expect(slot?.['active']).toBe(false);
  // it waits a second for the answer: a busy server may give it later
  const free = async () => (await db.sql`select from smslogd.leader where holder is null`).length === 1;
  await until('the lease to be given back', free);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('SIGTERM ends it with 0 even before it is up', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-test-'));
  const pipe = join(directory, 'password');
  execFileSync('sh', ['-c', 'mkfifo "$0"', pipe]);
  const daemon = startProcess(['run'], db.env({ IP2SMS_PASSWORD_FILE: pipe }));
  // opens once the daemon reads its settings
  const writing = await open(pipe, 'w');
  daemon.kill('SIGTERM');
  await writing.write('password');
  await writing.close();
  expect(await daemon.exited).toBe(0);
  rmSync(directory, { recursive: true });
});

test('SIGTERM ends it with 0 although the log is locked, and what was in hand comes again', async () => {
  const daemon = start({ LOOPS: 'mirror' });
  await streams(daemon);
  const locked = await db.sql.reserve();
  await locked.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertVerification(db.sql);
  await untilLocked('the write to wait', db.sql);
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  await locked.unsafe('rollback');
  locked.release();
  await streams(start({ LOOPS: 'mirror' }));
  await until('the row', async () => (await logged()) === 1);
});

test('a second signal ends it at once', async () => {
  // the log is locked: the write in hand cannot be finished
  const daemon = start({ LOOPS: 'mirror' });
  await streams(daemon);
  const locked = await db.sql.reserve();
  await locked.unsafe('begin; lock verification.sms_log in access exclusive mode');
  await insertVerification(db.sql);
  await untilLocked('the write to wait', db.sql);
  daemon.kill('SIGTERM');
  await daemon.line('it stops', (line) => line.includes('"stopping'));
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(1);
  await locked.unsafe('rollback');
  locked.release();
});

test('killed again and again under load, every verification is in the log once', async () => {
  const load = new AbortController();
  const writer = pace({ perSecond: 250, limit: 4 }, async () => void (await insertVerification(db.sql)), load.signal);
  for (let round = 0; round < 4; round += 1) {
    const daemon = start();
    await streams(daemon);
    const before = await logged();
    await until('some rows', async () => (await logged()) > before + 50);
    daemon.kill('SIGKILL');
    expect(await daemon.exited).toBe('SIGKILL');
  }
  load.abort();
  await writer;
  const last = start();
  await streams(last);
  await until('nothing to be missing', async () => (await difference(db.sql)).missing === 0);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('memory stays bounded under a 20,000-row transaction and a backlog of 40,000 transactions', async () => {
  const first = start({ LOOPS: 'mirror' });
  await streams(first);
  first.kill('SIGTERM');
  await first.exited;
  await insertMany(db.sql, 20_000);
  await insertOneByOne(db.sql, 40_000);
  const daemon = start({ LOOPS: 'mirror' });
  await streams(daemon);
  await untilConfirmed(db.sql, db.name);
  // 80 MiB is usual, of which the modules are most; unbounded, the backlog alone is 50 MiB
  expect(daemon.peakMemory()).toBeLessThan(120 * 1024 * 1024);
  expect(await difference(db.sql)).toEqual({ missing: 0, surplus: 0 });
});

test('a database without the schema is refused with the command to run', async () => {
  const empty = await createDatabase({ empty: true });
  const daemon = startProcess(['run'], empty.env());
  expect(await daemon.exited).toBe(1);
  expect(daemon.stderr()).toContain('smslogd migrate');
  await empty.drop();
});

test('wrong settings are named, all of them, without their values', async () => {
  const daemon = startProcess(['run'], {
    DATABASE_URL: 'mysql://user:hunter2@host/db',
    HTTP_PORT: 'ninety',
    IP2SMS_LOGIN: 'x',
  });
  expect(await daemon.exited).toBe(1);
  const said = daemon.stderr();
  for (const name of ['DATABASE_URL', 'HTTP_PORT', 'IP2SMS_URL', 'IP2SMS_PASSWORD']) expect(said).toContain(name);
  expect(said).not.toContain('hunter2');
});

test('SIGUSR1, by which Node.js opens its inspector, opens nothing', async () => {
  const daemon = start({ LOOPS: 'mirror', NODE_OPTIONS: '--inspect-port=0' });
  await streams(daemon);
  daemon.kill('SIGUSR1');
  await insertVerification(db.sql);
  await until('the row', async () => (await logged()) === 1);
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  expect(daemon.stderr()).not.toContain('Debugger');
});

const encoded = (script: string) => `data:text/javascript,${encodeURIComponent(script)}`;

test('it loads its libraries from its own files, and none that only another command needs', async () => {
  // names each module on stderr
  const hook = 'export async function resolve(s,c,n){const r=await n(s,c);process._rawDebug(r.url);return r}';
  const register = `import{register}from"node:module";register(${JSON.stringify(encoded(hook))})`;
  const daemon = start({ LOOPS: 'mirror', NODE_OPTIONS: `--import=${encoded(register)}` });
  await streams(daemon);
  expect(daemon.stderr()).toContain('/dist/run-');
  expect(daemon.stderr()).not.toMatch(/node_modules|dist\/(?:doctor|migrate|poller)-/);
});

test.for([['run'], ['verify'], ['migrate'], ['migrate', '--dry-run'], ['doctor']])(
  '%s refuses a time zone that PostgreSQL takes for an abbreviation, with the nearest zone',
  async (words) => {
    const refused = startProcess(words, db.env({ IP2SMS_URL: gateway.url, SOURCE_TIMEZONE: 'EET' }));
    expect(await refused.exited).toBe(1);
    expect(refused.stderr() + refused.lines.join('\n')).toMatch(/SOURCE_TIMEZONE: .*the nearest is Europe\/Kyiv/);
  },
);
