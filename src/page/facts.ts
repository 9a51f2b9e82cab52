/** The facts of the page and of /status.json, gathered from the database's figures and from what this process knows of itself. */
import type { Config } from '../settings.ts';
import type { Figures } from '../figures/gauges.ts';
import type { ErrorCode } from '../errors.ts';
import type { Facts, Hour, Leader, Overdue, Period, Recent, Slot } from '../figures/readings.ts';
import type { Health, LoopName, Standing } from '../health.ts';
import { GATEWAY_TROUBLES, type GatewayTrouble, type Metrics, type MirrorState } from '../metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, type OpenStatus, type SmsType } from '../status.ts';
import type { Dates, RecentRequests, Requests } from './requests.ts';
import type { Settling } from './settling.ts';
import { judge, type Verdict } from './verdict.ts';

/** What is known, before it is judged. Ages and lags are seconds, times ISO 8601. */
export interface Known {
  readonly version: string;
  /** the daemon, which knows what it does itself; or the database alone, as `smslogd status` sees it */
  readonly seen_from: 'daemon' | 'database';
  readonly ready: boolean;
  /** why it is not ready */
  readonly reason: string | null;
  readonly loops: readonly LoopName[];
  readonly silent_loops: readonly LoopName[];
  readonly mirror: MirrorState;
  /** why it is stopped; a code of docs/runbook.md */
  readonly mirror_problem: ErrorCode | null;
  /** why the database does not answer now; likewise */
  readonly database_problem: ErrorCode | null;
  /** does this daemon lead? */
  readonly standing: Standing;
  /** when the database was read; null: not yet */
  readonly read_at: string | null;
  /** how long ago that was */
  readonly read_age: number | null;
  readonly timezone: string | null;
  readonly latency_source: Config['LATENCY_SOURCE'];
  /** false: the source has no gateway ids, its SMS are logged and not judged */
  readonly source_tracked: boolean | null;
  readonly periods: readonly Period[];
  /** SMS sent 2 to 12 minutes ago by what became of them */
  readonly recent: readonly Recent[];
  /** the last 24 hours by hour (Unix seconds) and type */
  readonly hours: readonly Hour[];
  /** SMS without a final status now */
  readonly open: readonly OpenCount[];
  /** the oldest SMS past its life of each type; those that came into the log past it are asked last, and are not among them */
  readonly overdue: readonly Overdue[];
  /** SMS whose next status request is due */
  readonly poll_due: number | null;
  /** of these, SMS of the past: they were past their life when they came into the log, and are asked for slowly */
  readonly history_due: number | null;
  /** minutes in which these are asked for, at the rate of the last minute; null: not known */
  readonly history_minutes: number | null;
  /** hours that are shown as they were counted before, as too many wait to be counted; never of today or yesterday */
  readonly hours_behind: number | null;
  /** source rows that the log refuses: they are set aside until the cause is gone */
  readonly refused_rows: number | null;
  /** who leads, by the lease in the database; null: nobody ever did */
  readonly leader: Leader | null;
  readonly slot: Slot | null;
  readonly pipeline: Pipeline;
  readonly gateway: Gateway;
}

export interface StatusFacts extends Known {
  readonly verdict: Verdict;
}

export interface OpenCount {
  readonly type: SmsType;
  readonly status: OpenStatus;
  readonly sms: number;
  readonly oldest_age: number | null;
}

interface Pipeline {
  /** null: only the daemon that streams knows */
  readonly lag_seconds: number | null;
  readonly lag_bytes: number | null;
  /** source rows that the last light audit found missing in the log, and filled; null: only the daemon knows */
  readonly missing_rows: number | null;
  readonly checkpoint_at: string | null;
}

interface Gateway {
  /** this process leaves the gateway alone for a while; by the database alone: requests fail, and none has brought news for a minute */
  readonly breaker_open: boolean;
  /** null: only the daemon knows */
  readonly concurrency_limit: number | null;
  readonly in_flight: number | null;
  /** the last answer that could be read, by this process; by the database alone: the last one that brought news */
  readonly last_success_at: string | null;
  readonly last_success_age: number | null;
  /** requests of this process in the last 20 minutes; by the database alone: the last ones for the SMS that are open */
  readonly requests: Requests;
  /** the newest trouble with the gateway; null: it answers */
  readonly trouble: GatewayTrouble | null;
  /** the gateway's clock minus ours by its last reply; null where none told */
  readonly clock_offset: number | null;
  /** what the dates of its answers say of its clock, in the last 20 minutes */
  readonly dates: Dates;
}

export interface FactsDeps {
  readonly config: Pick<Config, 'LATENCY_SOURCE'>;
  readonly version: string;
  readonly health: Health;
  readonly figures: Figures;
  readonly metrics: Metrics;
  readonly requests: RecentRequests;
  readonly settling: Settling;
  readonly readiness: () => Promise<string | undefined>;
}

/** Brings the figures up to date and gathers all; never rejects for the database. */
export async function gatherFacts(deps: FactsDeps): Promise<StatusFacts> {
  const { version, health, figures, metrics, requests } = deps;
  const [notReady, hours] = await Promise.all([deps.readiness(), figures.hours(), figures.refresh()]);
  const { facts } = figures;
  const lastSuccess = await valueOf(metrics.pollLastSuccess);
  const recent = await requests.read();
  const troubles = (await metrics.gatewayTrouble.get()).values;
  const known: Known = {
    version,
    seen_from: 'daemon',
    ready: notReady === undefined,
    reason: notReady ?? null,
    loops: health.loops,
    silent_loops: health.silentLoops(),
    mirror: health.mirrorState,
    mirror_problem: health.mirrorProblem ?? null,
    database_problem: health.databaseProblem ?? null,
    standing: health.standing,
    latency_source: deps.config.LATENCY_SOURCE,
    ...figuresOf(facts, facts === undefined ? null : figures.ageSeconds, hours),
    history_minutes: facts === undefined ? null : deps.settling.minutes(facts.history_due, facts.at),
    pipeline: {
      lag_seconds: await valueOf(metrics.mirrorLagSeconds),
      lag_bytes: await valueOf(metrics.mirrorLagBytes),
      missing_rows: await valueOf(metrics.reconcileMissing),
      checkpoint_at: checkpointAt(facts),
    },
    gateway: {
      breaker_open: (await valueOf(metrics.pollBreaker)) === 1,
      concurrency_limit: await valueOf(metrics.pollLimit),
      in_flight: await valueOf(metrics.pollInFlight),
      last_success_at: lastSuccess === 0 ? null : isoTime(lastSuccess),
      last_success_age: lastSuccess === 0 ? null : Math.max(0, Date.now() - Math.round(1000 * lastSuccess)) / 1000,
      requests: recent.requests,
      trouble:
        GATEWAY_TROUBLES.find((code) => troubles.some((row) => row.labels.code === code && row.value === 1)) ?? null,
      clock_offset: (await metrics.clockOffset.get()).values[0]?.value ?? null,
      dates: recent.dates,
    },
  };
  return { ...known, verdict: judge(known) };
}

/** What is known by the database's figures, whoever reads them. */
export function figuresOf(facts: Facts | undefined, readAge: number | null, hours: readonly Hour[] | undefined) {
  return {
    read_at: facts === undefined ? null : isoTime(facts.at),
    read_age: readAge,
    timezone: facts?.timezone ?? null,
    source_tracked: facts?.tracks ?? null,
    periods: facts?.periods ?? [],
    recent: facts?.recent ?? [],
    hours: hours ?? [],
    open: facts === undefined ? [] : openCounts(facts),
    overdue: facts?.overdue ?? [],
    poll_due: facts?.due ?? null,
    history_due: facts?.history_due ?? null,
    hours_behind: facts?.behind ?? null,
    refused_rows: facts?.refused ?? null,
    leader: facts?.leader ?? null,
    slot: facts?.slot ?? null,
  } satisfies Partial<Known>;
}

export function checkpointAt(facts: Facts | undefined): string | null {
  return facts?.checkpoint === undefined || facts.checkpoint === null ? null : isoTime(facts.checkpoint);
}

function openCounts({ open }: Facts): OpenCount[] {
  return SMS_TYPES.flatMap((type) =>
    OPEN_STATUSES.map((status) => {
      const row = open.find((each) => each.type === type && each.status === status);
      return { type, status, sms: row?.sms ?? 0, oldest_age: row?.oldest_age ?? null };
    }),
  );
}

export const isoTime = (seconds: number) => new Date(seconds * 1000).toISOString();

/** A gauge without labels. */
async function valueOf(gauge: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await gauge.get()).values[0]?.value ?? 0;
}
