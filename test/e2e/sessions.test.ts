/** One daemon's sessions on the server are never more than it says, whatever becomes of its connections: those count, too, that the server has not ended yet. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DAEMON_CONNECTIONS, REPLICATION_CONNECTIONS } from '../../src/postgres/connections.ts';
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
/** of the replication role */
let streams: Proxy;
let daemon: Daemon;

beforeEach(async () => {
  server = await createServer();
  db = await createDatabase({ adminUrl: server.url('postgres') });
  gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  const url = new URL(db.url);
  proxy = await startProxy({ host: url.hostname, port: Number(url.port) });
  streams = await startProxy({ host: url.hostname, port: Number(url.port) });
  const addresses = {
    DATABASE_URL: through(db.url, proxy),
    DATABASE_REPLICATION_URL: through(db.replicationUrl, streams),
  };
  daemon = startDaemon(db.env({ ...addresses, IP2SMS_URL: gateway.url, RETENTION_DAYS: '30' }));
  await daemon.line('it streams', (line) => line.includes('the mirror streams'));
  await everyRowOnce();
});
/** The same address by way of a proxy. */
function through(address: string, { port }: Proxy): string {
  const url = new URL(address);
  url.port = String(port);
  url.searchParams.set('connect_timeout', '5');
  return url.href;
}
afterEach(async () => {
  daemon.kill('SIGKILL');
  await daemon.exited;
  await gateway.close();
  await proxy.close();
  await streams.close();
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

const stall = () => {
  proxy.stall();
  streams.stall();
};
/** Waits for another session like `pattern`. */
const another = async (pattern: string, work: () => void) => {
  const pids = async () =>
    (await db.sql`select pid from pg_stat_activity where application_name like ${pattern}`).map(
      ({ pid }) => pid as number,
    );
  const before = await pids();
  work();
  await until(`another session of ${pattern}`, async () => (await pids()).some((pid) => !before.includes(pid)), 90);
};
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
      stall();
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
        stall();
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
      for (let time = 0; time < 2; time += 1) await another('smslogd control %', stall);
      stall();
      proxy.delayMs = 0;
    },
  ],
  [
    'the path of the stream dies, and those of the sessions that are to terminate it, once the server has let them in',
    'smslogd % test_%',
    REPLICATION_CONNECTIONS,
    async () => {
      streams.delayMs = 200;
      for (let time = 0; time < 2; time += 1) await another(`smslogd % ${db.name}`, () => streams.stall());
      streams.stall();
      streams.delayMs = 0;
    },
  ],
])(
  'where %s',
  async (_, pattern, most, fault) => {
    const names = await mostSessions(db.superuser.url, pattern, async () => {
      await fault();
      await everyRowOnce();
    });
    expect(names).not.toEqual([]);
    expect(names.slice(most)).toEqual([]);
  },
  180_000,
);

test.each(['fast', 'immediate'] as const)(
  'what a daemon lost by restarts of the server (%s) keeps it from nothing, as the new server has none of it',
  async (mode) => {
    for (let time = 0; time < 3; time += 1) {
      await server.stop(mode);
      await server.start();
      await everyRowOnce();
    }
    const names = await mostSessions(db.superuser.url, 'smslogd %', everyRowOnce);
    expect(names).not.toEqual([]);
    expect(names.slice(DAEMON_CONNECTIONS)).toEqual([]);
    // how a login fails that waits for sessions that may be left
    expect(daemon.lines.filter((line) => line.includes('CONNECT_TIMEOUT'))).toEqual([]);
  },
  180_000,
);
