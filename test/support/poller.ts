/** A poller over a test database and a scripted gateway, and the SMS that it is to ask for. */
import { openConnections } from '../../src/postgres/connections.ts';
import { silentLog, type Log } from '../../src/log.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import { createPoller } from '../../src/poller/poller.ts';
import { repairQueue } from '../../src/poller/requeue.ts';
import { supervise } from '../../src/supervise.ts';
import { until, type TestDatabase } from './database.ts';

export interface Running {
  readonly metrics: Metrics;
  /** beats of the loop */
  beats: number;
  /** as SIGHUP does */
  tryNow: () => void;
  /** as SIGTERM does; resolves when the poller has returned */
  readonly stop: () => Promise<void>;
}

export interface LogRow {
  readonly id: string;
  readonly gateway_id: string | null;
  readonly gateway_status: string | null;
  readonly status_changed_at: Date | null;
  readonly updated_at: Date;
  readonly inserted_at: Date;
}

/** Starts a poller with connections of its own; resolves when it has written its settings. */
export async function startPoller(
  db: TestDatabase,
  env: Record<string, string>,
  log: Log = silentLog,
  { everyMs }: { everyMs?: number } = {},
): Promise<Running> {
  const config = db.config(env);
  const connections = openConnections(config, { lookMs: 500, stallMs: 2_000 });
  const metrics = createMetrics('test');
  const abort = new AbortController();
  const running: Running = { metrics, beats: 0, tryNow: () => {}, stop };
  const onReload = (tryNow: () => void) => void (running.tryNow = tryNow);
  const health = { beat: () => void (running.beats += 1), waits: () => {}, pollerProblem: undefined };
  const done = createPoller({ config, connections, metrics, log, health, onReload, longestIdleMs: 500 })(abort.signal);
  const beside = [
    connections.watch(abort.signal),
    supervise(
      { name: 'queue', log },
      (signal) => repairQueue({ sql: connections.upkeep, log, ...(everyMs === undefined ? {} : { everyMs }) }, signal),
      abort.signal,
    ),
  ];
  done.catch(() => {});
  let stopped: Promise<void> | undefined;
  async function stop(): Promise<void> {
    abort.abort();
    stopped ??= (async () => {
      try {
        await done;
      } finally {
        await Promise.allSettled(beside);
        await connections.end();
      }
    })();
    await stopped;
  }
  await until('the poller to turn', () => running.beats > 0);
  return running;
}

export interface Sms {
  readonly gatewayId?: string | null;
  /** an interval */
  readonly age?: string;
  readonly type?: string;
  readonly status?: string | null;
}

/** Inserts an SMS as another service does; returns its id. */
export async function insertSms(
  db: TestDatabase,
  { gatewayId = null, age = '3 seconds', type = 'medication_request', status }: Sms,
): Promise<string> {
  const written = status === undefined ? (gatewayId === null ? null : 'Accepted') : status;
  const [row] = await db.sql<{ id: string }[]>`
    insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
    values ('+380000000001', ${type}, 'text', ${gatewayId}, ${written}, now() - ${age}::text::interval)
    returning id`;
  return row?.id ?? '';
}

export async function readSms(db: TestDatabase, id: string): Promise<LogRow | undefined> {
  const [row] = await db.sql<LogRow[]>`select * from verification.sms_log where id = ${id}`;
  return row;
}

/** Waits until the SMS has `status`; returns it. */
export async function statusBecomes(db: TestDatabase, id: string, status: string): Promise<LogRow> {
  let row: LogRow | undefined;
  await until(`status ${status}`, async () => {
    row = await readSms(db, id);
    return row?.gateway_status === status;
  });
  return row as LogRow;
}

/** How many SMS are queued. */
export async function queueSize(db: TestDatabase): Promise<number> {
  const [row] = await db.sql<{ n: number }[]>`select count(*)::int as n from smslogd.sms_poll`;
  return row?.n ?? -1;
}

/** The value of one series as /metrics shows it; undefined where there is none. */
export async function series(metrics: Metrics, name: string): Promise<number | undefined> {
  const line = (await metrics.registry.metrics()).split('\n').find((each) => each.startsWith(`${name} `));
  return line === undefined ? undefined : Number(line.slice(name.length + 1));
}
