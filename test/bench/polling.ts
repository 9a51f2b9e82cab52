/** The poller's queue without its gateway: open SMS, and claims and completions as the poller makes them. */
import type { Sql } from 'postgres';
import { openDatabase } from '../../src/postgres/pools.ts';
import { createLanes } from '../../src/poller/lanes.ts';
import type { Claimed } from '../../src/poller/queue.ts';
import type { Completion } from '../../src/poller/final-status.ts';
import { createPollerStore, type PollerStore } from '../../src/poller/store.ts';
import type { Status } from '../../src/status.ts';
import { until } from '../support/database.ts';
import { reply, startGateway } from '../support/gateway.ts';
import type { BenchDatabase, Stage } from './stage.ts';

/** The poller's own: a request's deadline and what surrounds it. */
const LEASE_MS = 18_000;
/** Claims are as large as IP2SMS_MAX_CONCURRENCY allows by default. */
export const CLAIM = 64;

export const CONNECTIONS = 6;

export interface Queue {
  readonly sql: Sql;
  readonly store: PollerStore;
  /** as the poller claims: shared among the lanes, from the floors on */
  claim(total?: number): Promise<Claimed[]>;
  close(): Promise<void>;
}

/** The poller's store over connections of its own. */
export async function openQueue(db: BenchDatabase): Promise<Queue> {
  const sql = openDatabase(db.config(), { max: CONNECTIONS, name: 'bench' });
  const store = createPollerStore(sql, LEASE_MS);
  await store.writeSettings(35, 4320);
  const lanes = createLanes();
  return {
    sql,
    store,
    claim: async (total = CLAIM) => {
      const wanted = lanes.share(total, total, Math.random());
      const { rows } = await store.claim(wanted, lanes.floors(performance.now()));
      lanes.claimed(rows, wanted, performance.now());
      return [...rows];
    },
    close: () => sql.end({ timeout: 1 }),
  };
}

/** SMS that other services insert, all due; their ids are random and their numbers scattered, as in the field. */
export async function insertOpen(sql: Sql, count: number): Promise<void> {
  await sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
            select '+38000' || lpad((n::bigint * 7919 % 10000000)::text, 7, '0'), 'verification', 'A text as long as they are: 1234',
                   (6614000000000 + n)::text, 'Accepted', now() - interval '5 seconds' from generate_series(1, ${count}::int) n`;
}

/** An answer for each row. */
export function answers(
  rows: readonly Claimed[],
  statusOf: (row: Claimed) => Status,
  gapMs = 0,
): readonly Completion[] {
  return rows.map((row) => ({
    id: row.id,
    attempt: row.attempt,
    gatewayId: row.gatewayId ?? '',
    result: 'ok',
    status: statusOf(row),
    date: Date.now(),
    gapMs,
  }));
}

/** Another open status at each attempt. */
export const news = ({ attempt }: Claimed): Status => (attempt % 2 === 0 ? 'Pending' : 'Enroute');

/** The daemon's peak memory in MiB while it asks for `open` SMS, each at least once. */
export async function memoryWithOpen(stage: Stage, open: number): Promise<number> {
  const db = await stage.database();
  await insertOpen(db.sql, open);
  const gateway = await startGateway(({ id }) => reply(id, 'Enroute'));
  const daemon = stage.daemon(
    db.env({ LOOPS: 'poller', IP2SMS_URL: gateway.url, IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'password' }),
  );
  await until(
    'every SMS to be asked for',
    async () => (await db.sql`select from smslogd.sms_poll where last_result is null limit 1`).length === 0,
    120,
  );
  const memory = daemon.peakMemory() / 1024 / 1024;
  daemon.kill('SIGKILL');
  await daemon.exited;
  await gateway.close();
  return memory;
}
