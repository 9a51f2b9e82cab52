/** One daemon's sessions on the server are never more than it says, whatever becomes of its connections: those count, too, that the server has not ended yet. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DAEMON_CONNECTIONS } from '../../src/postgres/connections.ts';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { reply, startGateway, type TestGateway } from '../support/gateway.ts';
import { createServer } from '../support/postgres.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { mostSessions } from '../support/sessions.ts';
import { difference, insertMany } from '../support/verifications.ts';

let server: Awaited<ReturnType<typeof createServer>>;
let db: TestDatabase;
let gateway: TestGateway;
let proxy: Proxy;
let daemon: Daemon;

beforeEach(async () => {
  server = await createServer();
  db = await createDatabase({ adminUrl: server.url('postgres') });
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  const url = new URL(db.url);
  proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  url.port = String(proxy.port);
  url.searchParams.set('connect_timeout', '5');
  daemon = startDaemon(db.env({ DATABASE_URL: url.href, IP2SMS_URL: gateway.url, RETENTION_DAYS: '30' }));
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  await everyRowOnce();
});
afterEach(async () => {
  daemon.kill('SIGKILL');
  await daemon.exited;
  await gateway.close();
  await proxy.close();
  await server.remove();
});

/** Whatever stands between, the rows of this moment come into the log, and the slot is read. */
async function everyRowOnce(): Promise<void> {
  await insertMany(db.sql, 200);
  await until(
    'every row to be in the log, and the slot to be read',
    async () => {
      const { missing, surplus } = await difference(db.sql);
      const [slot] = await db.sql`select active from pg_replication_slots where slot_name = ${db.name}`;
      return missing === 0 && surplus === 0 && slot?.['active'] === true;
    },
    90,
  );
}

const controls = async () =>
  (await db.sql`select pid from pg_stat_activity where application_name like 'smslogd control %'`).map(
    ({ pid }) => pid as number,
  );
const attempt = () => {
  const before = proxy.connections;
  return until('an attempt', () => proxy.connections > before, 60);
};

test.each<readonly [string, string, number, () => Promise<void>]>([
  [
    'all its paths die while it is suspended',
    'smslogd %',
    DAEMON_CONNECTIONS,
    async () => {
      daemon.kill('SIGSTOP');
      proxy.stall();
      await insertMany(db.sql, 10);
      daemon.kill('SIGCONT');
    },
  ],
  [
    'each new path dies, too',
    'smslogd %',
    DAEMON_CONNECTIONS,
    async () => {
      for (let time = 0; time < 3; time += 1) {
        proxy.stall();
        await attempt();
      }
    },
  ],
  [
    'each new path dies once the server has let it in, before it hears of that',
    'smslogd control %',
    2,
    async () => {
      // the last piece of a login is under way long enough to be met
      proxy.delayMs = 200;
      for (let time = 0; time < 2; time += 1) {
        const before = await controls();
        proxy.stall();
        await until(
          'another session of control',
          async () => (await controls()).some((pid) => !before.includes(pid)),
          60,
        );
      }
      proxy.stall();
      proxy.delayMs = 0;
    },
  ],
])(
  'where %s',
  async (_, pattern, most, fault) => {
    const names = await mostSessions(db.superuser.url, pattern, async () => {
      await fault();
      await everyRowOnce();
    });
    expect(names.slice(most)).toEqual([]);
  },
  180_000,
);
