/**
 * The metrics that come from the database: read from the views, so that they agree with them, when /metrics is scraped. The database is asked
 * at most every five seconds, once at a time and with a time limit; a scrape never fails for it: the last values stay and the failure is counted.
 */
import type { Config } from '../config.ts';
import type { Sql } from '../db.ts';
import { toSmslogdError } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import { GROUPS, SLOT_WAL_STATUSES, type Metrics } from '../metrics.ts';
import { SMS_TYPES, STATUSES, type SmsType } from '../status.ts';
import { pause } from '../supervise.ts';
import { readFacts, type Facts } from './store.ts';

export interface Figures {
  /** Brings the gauges up to date where they are older than five seconds. Never rejects, and returns within the time limit. */
  refresh(): Promise<void>;
  /** what was read last; undefined until the database has answered once */
  readonly facts: Facts | undefined;
}

export interface FiguresDeps {
  readonly config: Pick<Config, 'SLOT_NAME'>;
  readonly sql: Sql;
  readonly metrics: Metrics;
  readonly log: Log;
  /** milliseconds for which values are fresh */
  readonly maxAgeMs?: number;
  /** milliseconds that a scrape waits, and that PostgreSQL may take */
  readonly limitMs?: number;
}

export function createFigures({ config, sql, metrics, log, maxAgeMs = 5_000, limitMs = 2_000 }: FiguresDeps): Figures {
  const apply = applier(metrics);
  let facts: Facts | undefined;
  let running: Promise<void> | undefined;
  let asked = -Infinity;
  let failing = false;

  const read = async () => {
    try {
      facts = await readFacts(sql, config.SLOT_NAME, limitMs);
      apply(facts);
      failing = false;
    } catch (error) {
      const problem = toSmslogdError(error);
      metrics.errors.inc({ code: problem.code });
      // said once for a row of failures
      if (!failing) logProblem(log, 'warn', problem, { part: 'figures' });
      failing = true;
    } finally {
      asked = performance.now();
      running = undefined;
    }
  };

  return {
    refresh: async () => {
      if (running === undefined && performance.now() - asked < maxAgeMs) return;
      running ??= read();
      const limit = new AbortController();
      await Promise.race([running, pause(limitMs, limit.signal)]);
      limit.abort();
    },
    get facts() {
      return facts;
    },
  };
}

/** Puts facts into the metrics. A figure that is not there has no series; a counter never goes back, whatever is deleted from the log. */
function applier(metrics: Metrics): (facts: Facts) => void {
  const counted = new Map<SmsType, number>();
  for (const gauge of [metrics.slotRetained, metrics.slotSafe, metrics.checkpointTimestamp]) gauge.remove();

  return ({ periods, backlog, totals, due, checkpoint, slot }) => {
    for (const row of periods) {
      const { type, period } = row;
      if (period === 'yesterday_same_time') continue;
      for (const status of STATUSES) {
        metrics.periodSms.set({ type, period, status }, row[status.toLowerCase() as Lowercase<typeof status>]);
      }
      metrics.periodSms.set({ type, period, status: 'untracked' }, row.untracked);
      for (const group of GROUPS) metrics.periodDelivered.set({ type, period, group }, row[group]);
      setOrRemove(metrics.periodSuccess, { type, period }, row.success_ratio);
      setOrRemove(metrics.periodKnown, { type, period }, row.known_ratio);
      setOrRemove(metrics.periodOnTime, { type, period }, row.on_time_ratio);
    }
    for (const { type, status, open } of backlog) metrics.open.set({ type, status }, open);
    for (const type of SMS_TYPES) {
      const ages = backlog.filter((row) => row.type === type).map((row) => row.oldest_age ?? 0);
      metrics.oldestOpenAge.set({ type }, Math.max(0, ...ages));
    }
    for (const { type, sms, last_delivered: lastDelivered } of totals) {
      const before = counted.get(type) ?? 0;
      if (sms > before) {
        metrics.smsTotal.inc({ type }, sms - before);
        counted.set(type, sms);
      }
      if (lastDelivered !== null) metrics.lastDelivered.set({ type }, lastDelivered);
    }
    metrics.pollDue.set(due);
    setOrRemove(metrics.checkpointTimestamp, {}, checkpoint);
    setOrRemove(metrics.slotRetained, {}, slot?.retained ?? null);
    setOrRemove(metrics.slotSafe, {}, slot?.safe ?? null);
    for (const status of SLOT_WAL_STATUSES) metrics.slotWalStatus.set({ status }, slot?.wal_status === status ? 1 : 0);
  };
}

interface LabelledGauge<L extends string> {
  set(labels: Partial<Record<L, string>>, value: number): void;
  remove(labels: Partial<Record<L, string>>): void;
}

function setOrRemove<L extends string>(
  gauge: LabelledGauge<L>,
  labels: Partial<Record<L, string>>,
  value: number | null,
): void {
  if (value === null) gauge.remove(labels);
  else gauge.set(labels, value);
}
