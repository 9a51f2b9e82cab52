/** What a running daemon does on SIGHUP and SIGUSR2. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { gatewayDate, reply, startGateway } from '../support/gateway.ts';

let db: TestDatabase;
let folder: string;
let daemon: Daemon | undefined;
let logins: string[];
const gateway = createServer((request, response) => {
  logins.push(Buffer.from(request.headers.authorization?.slice(6) ?? '', 'base64').toString());
  response.writeHead(401).end();
});

beforeEach(async () => {
  db = await createDatabase();
  folder = mkdtempSync(join(tmpdir(), 'smslogd-signals-'));
  logins = [];
  gateway.listen(0, '127.0.0.1');
  await once(gateway, 'listening');
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  await daemon?.exited;
  gateway.closeAllConnections();
  gateway.close();
  rmSync(folder, { recursive: true });
  await db.drop();
});

test('SIGHUP lets a gateway that is left alone be tried at once; a file that cannot be read is told, and all stays as it was', async () => {
  const address = join(folder, 'address');
  writeFileSync(address, db.url);
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, inserted_at)
               values ('+380000000001', 'text', 'g1', now() - interval '1 minute')`;
  const { DATABASE_URL: _, ...env } = db.env({
    LOOPS: 'poller',
    DATABASE_URL_FILE: address,
    IP2SMS_URL: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}/ip2sms/`,
  });
  daemon = startDaemon(env);
  await daemon.line('the breaker opens', (line) => line.includes('"gateway_unauthorized"'));
  // it would be left alone for a minute
  daemon.kill('SIGHUP');
  await until('another request', () => logins.length > 1, 30);
  await daemon.line('it says so', (line) => line.includes('read again'));

  rmSync(address);
  daemon.kill('SIGHUP');
  const line = await daemon.line('it complains', (each) => each.includes('"config_invalid"'));
  expect(JSON.parse(line)).toMatchObject({ level: 'error', signal: 'SIGHUP' });
  expect(line).toContain('no such file');
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
});

test('SIGUSR2 switches the log level to debug and back', async () => {
  daemon = startDaemon(db.env({ LOOPS: 'poller', LOG_LEVEL: 'warn' }));
  await until('it runs', () =>
    db.sql`select from smslogd.leader where holder is not null`.then((rows) => rows.length > 0),
  );
  daemon.kill('SIGUSR2');
  const changed = (level: string) =>
    daemon!.line(`level ${level}`, (line) => (JSON.parse(line) as { to?: string }).to === level);
  await changed('debug');
  daemon.kill('SIGUSR2');
  await changed('warn');
  daemon.kill('SIGTERM');
  expect(await daemon.exited).toBe(0);
  expect(daemon.lines.some((line) => line.includes('"msg":"stopped"'))).toBe(false);
});

test('a daemon that was suspended takes the answers that came meanwhile, and says of nobody that it was silent', async () => {
  let answer: (() => void) | undefined;
  const slow = await startGateway(
    ({ id }) => new Promise((resolve) => (answer = () => resolve(reply(id, 'Delivered', gatewayDate(new Date()))))),
  );
  daemon = startDaemon(db.env({ IP2SMS_URL: slow.url, IP2SMS_TIMEOUT_MS: '2000' }));
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id) values ('+380000000001', 'text', 'g1')`;
  await until('a request', () => answer !== undefined);
  daemon.kill('SIGSTOP');
  answer!();
  const [row] = await db.sql`select (clock_timestamp() + interval '3 seconds')::text as ends`;
  await until('it to have been suspended for long', async () => {
    const [now] = await db.sql`select clock_timestamp() > ${row?.['ends'] as string}::text::timestamptz as over`;
    return now?.['over'] === true;
  });
  daemon.kill('SIGCONT');
  await until('the answer to be written', async () => {
    const [sms] = await db.sql`select gateway_status from verification.sms_log`;
    return sms?.['gateway_status'] === 'Delivered';
  });
  expect(slow.asked).toHaveLength(1);
  expect(await (await fetch(`${await daemon.url()}/metrics`)).text()).not.toMatch(/result="(timeout|network)"\} [1-9]/);
  expect(
    daemon.lines.filter((line) => /"(gateway_unreachable|stream_stalled|database_unreachable)"/.test(line)),
  ).toEqual([]);
  await slow.close();
});
