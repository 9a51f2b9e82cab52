import { connect as connectTo, createServer, type AddressInfo } from 'node:net';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { codeOf } from '../../src/errors.ts';
import { addressOf } from '../../src/postgres/address.ts';
import { briefly } from '../../src/postgres/briefly.ts';
import { openDirect } from '../../src/postgres/direct.ts';
import { Answers } from '../../src/postgres/last-word.ts';
import { logIn, mayBeLetIn } from '../../src/postgres/login.ts';
import { directly, dropConnections, openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { rereadableConfig } from '../../src/settings.ts';
import { startProxy } from '../support/proxy.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await createDatabase();
});
afterAll(() => db.drop());

test('connections that are cut in the middle of their work fail what waits on them and nothing else', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  await sql`select 1`;
  const waiting = Promise.allSettled([sql`select 1`]);
  // it is on its way, and not written yet; an error that nobody listens for would end the process, and this run with it
  await new Promise((resolve) => process.nextTick(resolve));
  dropConnections(sql);
  expect(await waiting).toMatchObject([{ status: 'rejected', reason: { code: 'CONNECTION_CLOSED' } }]);
  // what it had not sent is not in the way of what comes after it
  expect(await sql`select 2 as two`).toEqual([{ two: 2 }]);
  await sql.end({ timeout: 1 });
});

test.each([false, true])(
  'a session that the server ends tells its statements why, and the next session nothing: pool for transactions %j',
  async (transactions) => {
    const sql = openDatabase(db.config(), { max: 1, name: 'ended', transactions });
    const one = async () => [...(await sql`select ${1}::int as one`)];
    const sessions = async () =>
      await db.sql`select pid, state from pg_stat_activity where datname = ${db.name} and application_name = 'smslogd ended'`;
    // its parameters' types are asked for first, or known, or there are none
    for (const sleep of [
      async () => await sql`select pg_sleep(${600})`,
      async () => await sql`select pg_sleep(${600})`,
      async () => await sql`select pg_sleep(600)`,
    ]) {
      await expect(sql`select 1 / 0`).rejects.toMatchObject({ code: '22012' });
      const waiting = Promise.allSettled([sleep()]);
      await until('it to run', async () => (await sessions()).some(({ state }) => state === 'active'));
      await db.sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'smslogd ended'`;
      expect(await waiting).toMatchObject([{ status: 'rejected', reason: { code: '57P01', severity: 'FATAL' } }]);
      expect(await one()).toEqual([{ one: 1 }]);
    }
    await expect(sql`select pg_terminate_backend(pg_backend_pid(), ${0})`).rejects.toMatchObject({ code: '57P01' });
    expect(await Promise.all([one(), one()])).toEqual([[{ one: 1 }], [{ one: 1 }]]);
    // nobody waits
    const [{ pid } = {}] = await sessions();
    await db.sql`select pg_terminate_backend(${pid}, 5000)`;
    await until('a new session', async () => (await one().catch(() => undefined)) !== undefined);
    expect(await one()).toEqual([{ one: 1 }]);
    await sql.end({ timeout: 1 });
  },
);

test.each([
  ['an error', 'E', async (sql: Sql) => await sql`select ${1}::int / ${0}::int`, '22012'],
  ['an error of a statement that is known', 'E', async (sql: Sql) => await sql.unsafe('select 1 / 0'), '22012'],
  ['some of the rows', 'D', async (sql: Sql) => await sql`select generate_series(1, 9)`, 'CONNECTION_CLOSED'],
] as const)('of a path that dies after %s the next session has nothing left', async (_, letter, ask, code) => {
  const { url: target } = await db.withoutTls();
  const [to, url] = [new URL(target), new URL(target)];
  let letters: string = '';
  const path = createServer((client) => {
    const server = connectTo(Number(to.port), to.hostname);
    const said = new Answers();
    client.pipe(server);
    for (const [one, other] of [[client, server] as const, [server, client] as const])
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
    server.on('data', (bytes: Buffer) => {
      const whole = said.take(bytes);
      for (let at = 0; at < whole.length && !server.destroyed; at += 1 + whole.readUInt32BE(at + 1)) {
        const message = whole.subarray(at, at + 1 + whole.readUInt32BE(at + 1));
        client.write(message);
        if (!letters.includes(message.toString('latin1', 0, 1))) continue;
        letters = '';
        client.end();
        server.destroy();
      }
    });
  });
  await new Promise<void>((resolve) => path.listen(0, '127.0.0.1', resolve));
  url.port = String((path.address() as AddressInfo).port);
  const sql = openDatabase(db.config({ DATABASE_URL: url.href }), { max: 1, name: 'cut' });
  await sql`select 1`;
  letters = letter;
  await expect(ask(sql)).rejects.toMatchObject({ code });
  expect([...(await sql`select ${1}::int as one`)]).toEqual([{ one: 1 }]);
  await sql.end({ timeout: 1 });
  path.close();
});

test.each([
  ["the server's request for a password, which it need not ask for", 10, true],
  ["the server's part of the proof", 11, false],
  ["the server's own proof", 12, true],
])('a login whose path dies before %s is heard may have been let in or not: %j', async (_, request, mayBe) => {
  const { url: target } = await db.withoutTls();
  const [to, url] = [new URL(target), new URL(target)];
  const path = createServer((client) => {
    const server = connectTo(Number(to.port), to.hostname);
    client.on('error', () => {}).pipe(server);
    server
      .on('error', () => {})
      .on('data', (bytes: Buffer) => {
        if (bytes.readInt32BE(5) === request) for (const socket of [client, server]) socket.resetAndDestroy();
        else client.write(bytes);
      });
  });
  await new Promise<void>((resolve) => path.listen(0, '127.0.0.1', resolve));
  url.port = String((path.address() as AddressInfo).port);
  const failed = await logIn(addressOf(url.href), {}, {}).catch((error: unknown) => error);
  expect([codeOf(failed), mayBeLetIn(failed)]).toEqual(['ECONNRESET', mayBe]);
  path.close();
});

test.each([false, true])(
  'after an error in the middle of a result the next statement has its own rows alone: transactions %j',
  async (transactions) => {
    const sql = openDatabase(db.config(), { max: 1, name: 'test', transactions });
    const one = async () => [...(await sql`select ${1}::int as one`)];
    for (const ask of [
      // its parameters' types are asked for first, or known, or there are none, or it is one of several
      async () => await sql`select 1 / (${3}::int - i) from generate_series(1, 5) i`,
      async () => await sql`select 1 / (${3}::int - i) from generate_series(1, 5) i`,
      async () => await sql.unsafe('select 1 / (3 - i) from generate_series(1, 5) i'),
      async () => await sql.unsafe('select 1; select 1 / (3 - i) from generate_series(1, 5) i').simple(),
    ]) {
      await expect(ask()).rejects.toMatchObject({ code: '22012' });
      expect(await one()).toEqual([{ one: 1 }]);
      await expect(ask()).rejects.toMatchObject({ code: '22012' });
      expect([...(await sql.unsafe('select 1 as one').simple())]).toEqual([{ one: 1 }]);
    }
    await sql.end({ timeout: 1 });
  },
);

test('a time limit that is over just as its statement ends fails that statement, never the next one of the session', async () => {
  const sql = openDatabase(db.config({ DATABASE_URL: db.superuser.url }), { max: 1, name: 'test' });
  // PostgreSQL does not look at the time while it waits for the end of this
  const busy = `create temporary table said (line text); copy said from program $$trap '' INT; sleep 0.6$$`;
  const limited = briefly(sql, busy, [], true).then(
    () => 'done',
    (error: unknown) => codeOf(error),
  );
  const next = [limited, ...[1, 2, 3].map((n) => limited.then(() => sql`select ${n}::int as n`))];
  expect(await Promise.all(next)).toEqual(['57014', [{ n: 1 }], [{ n: 2 }], [{ n: 3 }]]);
  await sql.end({ timeout: 1 });
});

const ask = (name: string) => `select setting::int from pg_settings where name = 'tcp_keepalives_${name}'`;
test('of a client whose machine vanishes the server ends the sessions within two minutes', async () => {
  const sql = openDatabase(db.config(), { max: 1, name: 'test' });
  const [idle, interval, count] = await Promise.all(
    ['idle', 'interval', 'count'].map(async (name) => (await sql.unsafe(ask(name)))[0]!['setting'] as number),
  );
  expect(idle! + interval! * count!).toBeLessThanOrEqual(120);
  await sql.end({ timeout: 1 });
  const direct = openDirect(db.config(), { name: 'test' });
  expect(await direct.row(ask('idle'), [])).toEqual([String(idle)]);
  direct.end();
});

test('an address where nobody listens is the failure of each query', async () => {
  const nobody = new URL(db.url);
  nobody.port = '1';
  for (const [url, code] of [
    [nobody.href, 'ECONNREFUSED'],
    ['postgres://nobody@localhost/none?host=/nowhere', 'database_unreachable'],
  ] as const) {
    const sql = openDatabase(db.config({ DATABASE_URL: url }), { max: 1, name: 'test' });
    for (let tries = 0; tries < 3; tries += 1) await expect(sql`select 1`).rejects.toMatchObject({ code });
    await sql.end({ timeout: 1 });
  }
});

test('a direct connection takes bytes as they are, tells why a statement failed, and goes on after each failure', async () => {
  const direct = openDirect(db.config(), { name: 'test' });
  const say = async (text: string) =>
    await direct.row('select $1::bytea = $2::text::bytea, $3::text', [Buffer.from(text), text, null]);
  expect(await say('a')).toEqual(['t', null]);
  const check = `insert into verification.sms_log (phone_number, type) values ('+380000000001', 'none')`;
  await expect(direct.row(check, [])).rejects.toMatchObject({
    code: '23514',
    severity: 'ERROR',
    constraint_name: 'sms_log_type_check',
  });
  // a transaction pooler that nobody found forgets what was prepared
  await direct.row('deallocate all', []);
  const both = await Promise.all([say('b'), say('c')]);
  expect(both).toEqual([
    ['t', null],
    ['t', null],
  ]);
  const end = direct.row('select pg_terminate_backend(pg_backend_pid())', []);
  await expect(end).rejects.toMatchObject({ code: '57P01', severity: 'FATAL' });
  expect(await say('d')).toEqual(['t', null]);
  const cut = direct.row('select pg_sleep(600)', []);
  await until(
    'it to be sent',
    async () =>
      (await db.sql`select from pg_stat_activity where wait_event = 'PgSleep' and datname = ${db.name}`).length > 0,
  );
  direct.drop();
  await expect(cut).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
  expect(await say('e')).toEqual(['t', null]);
  direct.end();
});

test('an address that is read again is that of the next connection', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'smslogd-pools-'));
  const file = join(folder, 'address');
  writeFileSync(file, db.url.replace(/:[^:@]+@/, ':wrong@'));
  const { config, reread } = rereadableConfig({ DATABASE_URL_FILE: file }, ['database']);
  const pools = [
    openDatabase(config, { max: 1, name: 'test' }),
    openDatabase(directly(config), { max: 1, name: 'test' }),
  ];
  try {
    for (const sql of pools) await expect(sql`select 1`).rejects.toMatchObject({ code: '28P01' });
    writeFileSync(file, db.url);
    reread();
    for (const sql of pools) expect(await sql`select 1 as one`).toEqual([{ one: 1 }]);
  } finally {
    for (const sql of pools) await sql.end({ timeout: 1 });
    rmSync(folder, { recursive: true });
  }
});

test('a statement that is sent at once where another one failed with its connection is answered, or fails', async () => {
  const url = new URL(db.url);
  const proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  const sql = openDatabase(db.config({ DATABASE_URL: url.href }), { max: 1, name: 'reset' });
  const one = async () => await sql<{ one: number }[]>`select 1 as one`.catch(() => [{ one: 1 }]);
  for (let time = 0; time < 10; time += 1) {
    const slow = sql`select pg_sleep(600)`.catch(one);
    await until('it to run', async () => {
      const rows = await db.sql`
        select from pg_stat_activity where application_name = 'smslogd reset' and wait_event = 'PgSleep'`;
      return rows.length === 1;
    });
    proxy.cut();
    // postgres.js forgot it, and told it as done, without rows, once it had connected for another one
    expect(await slow).toEqual([{ one: 1 }]);
    await db.sql`
      select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'smslogd reset' and wait_event = 'PgSleep'`;
  }
  await sql.end({ timeout: 1 });
  await proxy.close();
});
