/**
 * The metrics that come from the database: read from the views, so that they agree with them, when /metrics is scraped (at most every five
 * seconds). A scrape never fails for it: the failure is counted, and the last values stay for a few minutes, but no longer, as they would hide what other daemons
 * read by now. Beside them the last hours, which only the page asks for.
 */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { toSmslogdError, type ErrorCode } from '../errors.ts';
import { logProblem, type Log } from '../log.ts';
import { GROUPS, OUTCOMES, SLOT_WAL_STATUSES, TABLES, type Metrics } from '../metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, STATUSES, type SmsType } from '../status.ts';
import { createReading } from './coalesced.ts';
import { countInThisDatabase, verificationsEntered } from './counters.ts';
import { readFacts, readHours, type Facts, type Hour } from './readings.ts';

/** What the page shows of the past: this hour and those before it. */
export const HOURS = 24;

export interface Figures {
  /** Brings the gauges up to date where they are older than five seconds. Never rejects, and returns within the time limit. */
  refresh(): Promise<void>;
  /** what was read last; undefined until the database has answered once */
  readonly facts: Facts | undefined;
  /** how long ago that was; infinite before the first time */
  readonly ageSeconds: number;
  /** The last 24 hours by hour and type, only what there is any of; undefined until the database has answered once. */
  hours(): Promise<readonly Hour[] | undefined>;
}

export interface FiguresReader extends Figures {
  /**
   * To be done before anything is written: what entered the log is counted in this database from then on. Returns how many verification SMS that were so far, undefined
   * where the database cannot tell. Never rejects, and returns within the time limit; beside `refresh` it takes next to no time.
   */
  begin(): Promise<number | undefined>;
}

export interface FiguresDeps {
  readonly config: Pick<Config, 'SLOT_NAME'>;
  readonly sql: Sql;
  readonly metrics: Metrics;
  readonly log: Log;
  /** milliseconds for which values are fresh at the least */
  readonly maxAgeMs?: number;
  /** milliseconds that a scrape waits; a slower reading goes on and serves the next one */
  readonly waitMs?: number;
  /** milliseconds after which PostgreSQL gives a reading up */
  readonly limitMs?: number;
  /** milliseconds for which values that cannot be read again are shown */
  readonly keepMs?: number;
}

export function createFigures({
  config,
  sql,
  metrics,
  log,
  maxAgeMs = 5_000,
  waitMs = 2_000,
  limitMs = 30_000,
  keepMs = 300_000,
}: FiguresDeps): FiguresReader {
  const apply = applier(metrics);
  let facts: Facts | undefined;
  let hours: readonly Hour[] | undefined;
  let readAt = -Infinity;
  let said: ErrorCode | undefined;
  const onFailure = (error: unknown, first: boolean) => {
    const problem = toSmslogdError(error);
    metrics.errors.inc({ code: problem.code });
    // said once for a row of failures of one kind
    if (first || problem.code !== said) logProblem(log, 'warn', problem, { part: 'figures' });
    said = problem.code;
  };
  const options = { maxAgeMs, waitMs, onFailure };
  let entered: number | undefined;
  const begin = createReading(async () => {
    await countInThisDatabase(sql, limitMs);
    entered = await verificationsEntered(sql, limitMs);
  }, options);
  const read = createReading(async () => {
    if (facts === undefined) await countInThisDatabase(sql, limitMs);
    facts = await readFacts(sql, config.SLOT_NAME, limitMs);
    readAt = performance.now();
    apply(facts);
  }, options);
  const refreshHours = createReading(async () => {
    hours = await readHours(sql, HOURS, limitMs);
  }, options);
  return {
    begin: async () => {
      await begin();
      return entered;
    },
    refresh: async () => {
      await read();
      if (performance.now() - readAt > keepMs) metrics.forgetFigures();
    },
    get facts() {
      return facts;
    },
    get ageSeconds() {
      return Math.round(performance.now() - readAt) / 1000;
    },
    hours: async () => {
      await refreshHours();
      return hours;
    },
  };
}

/**
 * Puts facts into the metrics; before the first of them there are none. A figure that is not there has no series; a counter grows by what the
 * database's own grows, and does not go back with a database that is older.
 */
function applier(metrics: Metrics): (facts: Facts) => void {
  const counted = new Map<SmsType, number>();
  const { slotRetained, slotSafe, slotActive, checkpointTimestamp, figuresTimestamp } = metrics;

  return ({ at, periods, recent, open, delivered, entered, overdue, due, behind, tables, checkpoint, slot }) => {
    figuresTimestamp.set(at);
    for (const table of TABLES) metrics.tableBytes.set({ table }, tables[table]);
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
    for (const type of SMS_TYPES) {
      for (const outcome of OUTCOMES) {
        const row = recent.find((each) => each.type === type && each.outcome === outcome);
        metrics.recent.set({ type, outcome }, row?.sms ?? 0);
      }
      const counts = open.filter((row) => row.type === type);
      for (const status of OPEN_STATUSES) {
        metrics.open.set({ type, status }, counts.find((row) => row.status === status)?.sms ?? 0);
      }
      metrics.oldestOpenAge.set({ type }, Math.max(0, ...counts.map((row) => row.oldest_age)));
      const total = entered[type] ?? 0;
      metrics.smsTotal.inc({ type }, Math.max(0, total - (counted.get(type) ?? 0)));
      counted.set(type, total);
      metrics.overdueAge.set({ type }, overdue.find((row) => row.type === type)?.age ?? 0);
      setOrRemove(metrics.lastDelivered, { type }, delivered[type] ?? null);
    }
    metrics.pollDue.set(due);
    metrics.hoursBehind.set(behind);
    setOrRemove(checkpointTimestamp, {}, checkpoint);
    setOrRemove(slotRetained, {}, slot?.retained ?? null);
    setOrRemove(slotSafe, {}, slot?.safe ?? null);
    slotActive.set(slot?.active === true ? 1 : 0);
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
