import { afterAll, beforeAll, expect, test } from 'vitest';
import { command } from '../../src/commands/send.ts';
import { startSimulator } from '../../src/simulator/simulator.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { reply, startGateway, type Script } from '../support/gateway.ts';
import { startProxy } from '../support/proxy.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

const flags = { to: '+380000000001', text: 'Тест <1>', type: undefined };

async function send(url: string, given: Record<string, string | undefined> = flags, more: Record<string, string> = {}) {
  const lines: string[] = [];
  const env = db.env({ IP2SMS_URL: url, ...more });
  const code = await command
    .run(given, { env, print: (line) => void lines.push(line), stdoutIsTerminal: false })
    .catch((error: unknown) => error as { code: string; message: string });
  return { code, output: lines.join('\n') };
}

/** The latest SMS of the log. */
async function latest() {
  const [row] = await db.sql`select l.*, p.id is not null as queued, p.gateway_id as queued_gateway_id
                               from verification.sms_log l left join smslogd.sms_poll p using (id) order by l.updated_at desc limit 1`;
  return row;
}

async function withGateway<T>(script: Script, work: (url: string) => Promise<T>): Promise<T> {
  const gateway = await startGateway(script);
  try {
    return await work(gateway.url);
  } finally {
    await gateway.close();
  }
}

test.each(['xml', 'json'])(
  'sends through the gateway in %s, logs the SMS and prints its id and status, not the number',
  async (format) => {
    const simulator = await startSimulator({ login: 'login', password: 'password' });
    try {
      const { code, output } = await send(simulator.url, { ...flags, type: '2FA' }, { IP2SMS_FORMAT: format });
      expect(code).toBe(0);
      const row = await latest();
      expect(row).toMatchObject({
        phone_number: '+380000000001',
        type: '2FA',
        body: 'Тест <1>',
        gateway_status: 'Accepted',
        queued: true,
      });
      expect(row?.['queued_gateway_id']).toBe(row?.['gateway_id']);
      expect(simulator.fate(String(row?.['gateway_id']))).toBeDefined();
      expect(output).toContain(String(row?.['id']));
      expect(output).toContain('Accepted');
      expect(output).not.toMatch(/38000|Тест/);
    } finally {
      await simulator.close();
    }
  },
);

test('a refused SMS is logged as Rejected, and the reason is of the closed list', async () => {
  const body = `<status date=''><state error='Invalid abonent number'>Rejected</state></status>`;
  const { code } = await withGateway(
    () => ({ body }),
    (url) => send(url),
  );
  expect(code).toMatchObject({ code: 'sms_rejected', message: 'the gateway rejected the SMS: invalid_number' });
  expect(await latest()).toMatchObject({ gateway_id: null, gateway_status: 'Rejected', type: 'text', queued: false });
});

test.each([
  ['Delivered', 0],
  ['Undeliverable', 1],
  ['Unaccepted', 1],
])('the exit code for an SMS that is %s at once is %d', async (status, expected) => {
  const { code, output } = await withGateway(() => reply('7654320', status), send);
  expect(code).toBe(expected);
  expect(output).toContain(`status  ${status}`);
});

test.each([
  ['Accepted', 'Do not send the SMS again'],
  ['Rejected', 'The SMS does not arrive'],
])('an answer %s that the database does not take is told of, with the row and what it means', async (status, hint) => {
  await db.sql`create function full_disk() returns trigger language plpgsql as $$ begin raise sqlstate '53100'; end $$`;
  await db.sql`create trigger full_disk before update on verification.sms_log execute function full_disk()`;
  const { code, output } = await withGateway(() => reply('7654323', status), send);
  await db.sql`drop function full_disk cascade`;
  expect(code).toMatchObject({
    code: 'disk_full',
    message: expect.stringMatching(`^the gateway answered ${status}, which could not be logged: `),
    hint: expect.stringContaining(hint),
  });
  expect(output).toBe(`id      ${String((await latest())?.['id'])}`);
});

test('an SMS whose fate is not learned stays in the log, without a status', async () => {
  const faults: [Script, string][] = [
    [() => 'reset', 'gateway_unreachable'],
    [({ body }) => ({ body: `Request not recognized - xml parse failed. Request text: ${body}` }), 'gateway_protocol'],
  ];
  for (const [script, expected] of faults) {
    const { code } = await withGateway(script, (url) => send(url));
    expect(code).toMatchObject({ code: expected });
    expect(JSON.stringify(code)).not.toMatch(/38000|Тест/);
    expect(await latest()).toMatchObject({ gateway_id: null, gateway_status: null, queued: true });
  }
});

test.each([401, 200])(
  'an SMS that the gateway refuses to take with HTTP %d is Unaccepted, and waits for nothing',
  async (status) => {
    const { code } = await withGateway(
      () => ({ status, body: '401 Unauthorized' }),
      (url) => send(url),
    );
    expect(code).toMatchObject({ code: 'gateway_unauthorized' });
    expect(await latest()).toMatchObject({ gateway_id: null, gateway_status: 'Unaccepted', queued: false });
  },
);

test('an answer that comes when the SMS is final already leaves its status, and is told so', async () => {
  const { output } = await withGateway(
    async () => {
      await db.sql`update verification.sms_log set gateway_status = 'Unaccepted', status_changed_at = 'epoch' where gateway_status is null`;
      return reply('7654321', 'Accepted');
    },
    (url) => send(url),
  );
  expect(output).toContain('status  Unaccepted');
  expect(await latest()).toMatchObject({
    gateway_id: '7654321',
    gateway_status: 'Unaccepted',
    status_changed_at: new Date(0),
    queued: false,
  });
});

test('an answer that comes while the server takes no connections is written when it does', async () => {
  const url = new URL(db.url);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  const limit = async (connections: number) =>
    db.sql.unsafe(`alter database ${db.name} connection limit ${connections}`);
  const { code } = await withGateway(
    async () => {
      await limit(0);
      proxy.cut();
      const before = proxy.connections;
      // the second try: the first one was refused
      void until('two tries', () => proxy.connections > before + 1).then(() => limit(-1));
      return reply('7654322', 'Accepted');
    },
    (gateway) => send(gateway, flags, { DATABASE_URL: url.href }),
  );
  await proxy.close();
  expect(code).toBe(0);
  expect(await latest()).toMatchObject({
    gateway_id: '7654322',
    gateway_status: 'Accepted',
    queued_gateway_id: '7654322',
  });
});

test('wrong flags are told before anything is done', async () => {
  for (const wrong of [{ to: 'me' }, { to: '380000000' }, { text: '' }, { type: 'letter' }])
    expect((await send('http://127.0.0.1:9/', { ...flags, ...wrong })).code).toMatchObject({ code: 'usage' });
});
