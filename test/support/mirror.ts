/** A mirror in this process, on a test's database. */
import { createHealth, type Health } from '../../src/health.ts';
import { createLeadership } from '../../src/leader/lease.ts';
import { silentLog, type Log } from '../../src/log.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import type { Batch } from '../../src/mirror/batch.ts';
import { watchWaits } from '../../src/mirror/locks.ts';
import { createMirror } from '../../src/mirror/mirror.ts';
import { Rows } from '../../src/mirror/rows.ts';
import type { Failpoints } from '../../src/mirror/apply-loop.ts';
import type { Sql } from '../../src/postgres/pools.ts';
import { openConnections } from '../../src/postgres/connections.ts';
import { supervise } from '../../src/supervise.ts';
import { until, type TestDatabase } from './database.ts';
import { tupleOf } from './pgoutput.ts';

/** A tenth of the daemon's: tests wait for what it finds. */
const WATCH_MS = 1_000;

export interface RunningMirror {
  readonly metrics: Metrics;
  readonly health: Health;
  /** waits until it streams and has copied what was there, with a second look where others' transactions made it take one */
  streaming(): Promise<void>;
  /** rejects when it fails for good */
  readonly done: Promise<void>;
  stop(): Promise<void>;
}

export function startMirror(
  db: TestDatabase,
  {
    failpoints,
    env = {},
    log = silentLog,
    now,
    declineMs,
    ...often
  }: {
    failpoints?: Failpoints;
    env?: Record<string, string>;
    log?: Log;
    /** the clock by which it is found whether the loop turns */
    now?: () => number;
    /** how long it leaves a lease that is offered, after a failure */
    declineMs?: number;
    auditMs?: number;
    giveUpMs?: number;
    decodeTries?: number;
    senderTimeoutMs?: number;
  } = {},
): RunningMirror {
  const config = db.config(env);
  const connections = openConnections(config, { lookMs: WATCH_MS, stallMs: 2_000 });
  const { tag } = connections;
  const metrics = createMetrics('test');
  const health = createHealth(metrics, ['mirror'], now);
  const controller = new AbortController();
  const { signal } = controller;
  const lead = createLeadership({
    connections,
    slot: config.SLOT_NAME,
    holder: tag,
    mirrors: true,
    log,
    onStanding: (standing) => health.stand(standing),
    ...(declineMs === undefined ? {} : { declineMs }),
  });
  const mirror = createMirror({
    config,
    connections,
    lead,
    metrics,
    log,
    health,
    watchMs: WATCH_MS,
    reconcileMs: WATCH_MS,
    ...(failpoints === undefined ? {} : { failpoints }),
    ...often,
  });
  const done = supervise({ name: 'mirror', log }, lead.whileLeading(mirror), signal);
  done.catch(() => {});
  const beside = [
    supervise({ name: 'leader', log }, (until, works) => lead.run(until, works), signal),
    connections.watch(signal),
    watchWaits({ ...connections, config, log, metrics }, signal),
  ];
  return {
    metrics,
    health,
    done,
    // a new slot waits for every transaction that is open on the server
    streaming: () =>
      until(
        'the mirror to stream and its copy to end',
        async () => {
          if (health.mirrorState !== 'streaming') return false;
          const [row] =
            await db.sql`select reconcile_due from smslogd.checkpoint where slot_name = ${config.SLOT_NAME}`;
          return row?.['reconcile_due'] === null;
        },
        60,
      ),
    stop: async () => {
      controller.abort();
      await done.catch(() => {});
      await Promise.allSettled(beside);
      await lead.release();
      await connections.end();
    },
  };
}

/** A later term than any that has written: as a daemon takes it that has just become the leader. */
export async function nextTerm(sql: Sql): Promise<bigint> {
  const [row] = await sql<
    { term: string }[]
  >`select (coalesce(max(term), 0) + 1)::text as term from smslogd.checkpoint`;
  return BigInt(row!.term);
}

/** A batch of rows with these ids, whose transaction ends at 0/10. */
export function batchOf(...ids: string[]): Batch {
  const rows = new Rows(false);
  const values = { phone: '+380000000001', code: '1', insertedAt: '2026-01-01 00:00:00', gatewayId: '1' };
  for (const id of ids) rows.add(tupleOf({ id, ...values, gatewayStatus: null }), 'Accepted');
  const none = { large: [], skipped: 0, partial: [], unreadable: [] };
  return { rows, end: parseLsn('0/10'), commitTimes: [0n], oldestCommit: 0n, ...none };
}
