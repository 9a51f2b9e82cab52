/**
 * Every metric of the contract, on a registry of its own. Names and label values are from closed lists. HELP says whose figure it is: "database":
 * the same in every daemon, take the max, and absent until it was read, and where it was not for long; "process": this process's own, sum them where
 * nothing else is said; every series with a closed list of labels exists at 0 from the start.
 */
import { Counter, Gauge, Histogram, Registry, type OpenMetricsContentType } from 'prom-client';
import { LATENCY_SOURCES } from './settings.ts';
import { ERROR_CODES, type ErrorCode } from './errors.ts';
import { isFinal, OPEN_STATUSES, SMS_TYPES, STATUSES } from './status.ts';

export const MIRROR_STATES = ['starting', 'snapshot', 'streaming', 'standby', 'repairing', 'stopped'] as const;
export type MirrorState = (typeof MIRROR_STATES)[number];

export const POLL_RESULTS = [
  'ok',
  'unchanged',
  'timeout',
  'network',
  'http_4xx',
  'http_5xx',
  'unauthorized',
  'protocol',
  'mismatch',
] as const;
export type PollResult = (typeof POLL_RESULTS)[number];

/** Fixed list for smslogd_gateway_rejects_total{reason}; any other reason is `other`. */
export const REJECT_REASONS = [
  'uniq_key_dupe',
  'unknown_operator',
  'no_text',
  'invalid_number',
  'prepaid_limit',
  'prepaid_bill',
  'text_not_in_templates',
  'two_numbers_required',
  'invalid_source',
  'other',
] as const;
export type RejectReason = (typeof REJECT_REASONS)[number];

/** Why the gateway is left alone: codes of errors.ts. */
export const GATEWAY_TROUBLES = [
  'gateway_unauthorized',
  'gateway_unreachable',
  'gateway_busy',
] as const satisfies readonly ErrorCode[];
export type GatewayTrouble = (typeof GATEWAY_TROUBLES)[number];

export const PERIODS = ['today', 'yesterday'] as const;
export const GROUPS = ['le_2m', 'm2_5', 'm5_30', 'gt_30m'] as const;
/** What became of an SMS of the last minutes; untracked: no gateway id, and the source had none to tell. */
export const OUTCOMES = ['on_time', 'late', 'undelivered', 'waiting', 'untracked'] as const;
export const SLOT_WAL_STATUSES = ['reserved', 'extended', 'unreserved', 'lost'] as const;

/** The tables of smslogd's that grow: the log and those of the schema smslogd that the daemon writes all the time. */
export const TABLES = ['sms_log', 'sms_poll', 'checkpoint', 'changed_hour', 'sms_hourly', 'sms_refused'] as const;

/** Seconds; 120, 300 and 1800 are the bounds of the mission's groups. */
export const DELIVERY_BUCKETS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600];

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics(version: string) {
  const registry = new Registry();
  const openMetrics = new Registry<OpenMetricsContentType>();
  openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  const registers = [registry, openMetrics as unknown as Registry];

  // prom-client takes _total off the names of its counters when it writes OpenMetrics, for ever: the text form puts it back (names are read at once)
  const counterNames: [{ name: string }, string][] = [];
  const writeText = registry.metrics.bind(registry);
  registry.metrics = () => {
    for (const [each, name] of counterNames) each.name = name;
    return writeText();
  };
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) => {
    const made = new Counter<L>({ name: `smslogd_${name}`, help, labelNames, registers });
    counterNames.push([made as unknown as { name: string }, `smslogd_${name}`]);
    return made;
  };
  const figures: (() => void)[] = [];
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) => {
    const made = new Gauge<L>({ name: `smslogd_${name}`, help, labelNames, registers });
    if (help.endsWith('(database)')) figures.push(() => (labelNames.length === 0 ? made.remove() : made.reset()));
    return made;
  };
  const histogram = <L extends string>(name: string, help: string, buckets: number[], labelNames: readonly L[] = []) =>
    new Histogram<L>({ name: `smslogd_${name}`, help, buckets, labelNames, registers });

  const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300];

  const metrics = {
    registry,
    openMetrics,
    /** Takes away every gauge that comes from the database, until it is set again. Counters stay: one that went would come back as a reset. */
    forgetFigures: () => {
      for (const forget of figures) forget();
    },

    smsTotal: counter(
      'sms_total',
      'SMS that entered the log, with those that were removed since; in a restored database, since the restore (database)',
      ['type'],
    ),
    transitions: counter(
      'sms_status_transitions_total',
      'Status changes written by this process, without SMS that entered the log past their life; from is none if there was no status (process)',
      ['type', 'from', 'to'],
    ),
    final: counter(
      'sms_final_total',
      'Final statuses that this process learned or decided, without SMS that entered the log past their life or final (process)',
      ['type', 'status'],
    ),
    delivery: histogram(
      'sms_delivery_seconds',
      'Delivered SMS: status_changed_at - inserted_at, as this process wrote them (process)',
      DELIVERY_BUCKETS,
      ['type'],
    ),
    negativeLatency: counter(
      'sms_negative_latency_total',
      'Delivered SMS whose status_changed_at is before inserted_at; the latency counts as 0 s (process)',
    ),

    periodSms: gauge(
      'period_sms',
      'SMS of the day by status; Accepted includes those that wait for a gateway id; untracked: the source had no gateway ids (database)',
      ['type', 'period', 'status'],
    ),
    periodDelivered: gauge('period_delivered', 'Delivered SMS of the day by latency group (database)', [
      'type',
      'period',
      'group',
    ]),
    periodSuccess: gauge('period_success_ratio', 'Delivered / all whose status is not Accepted or Enroute (database)', [
      'type',
      'period',
    ]),
    periodKnown: gauge('period_known_ratio', 'SMS with a final status / all (database)', ['type', 'period']),
    periodOnTime: gauge('period_on_time_ratio', 'Delivered within 2 minutes / all at least 2 minutes old (database)', [
      'type',
      'period',
    ]),
    open: gauge('sms_open', 'SMS without a final status now (database)', ['type', 'status']),
    oldestOpenAge: gauge('sms_oldest_open_age_seconds', 'Age of the oldest SMS without a final status (database)', [
      'type',
    ]),
    overdueAge: gauge(
      'sms_overdue_age_seconds',
      'Age of the oldest SMS that is past its life by a minute and has no final status, 0 if there is none; without SMS that entered the log past their life (database)',
      ['type'],
    ),
    lastDelivered: gauge(
      'sms_last_delivered_timestamp_seconds',
      'Latest status_changed_at of a Delivered SMS; absent for a type without any (database)',
      ['type'],
    ),
    recent: gauge(
      'recent_sms',
      'SMS sent 2 to 12 minutes ago by outcome; on_time: Delivered within 2 minutes (database)',
      ['type', 'outcome'],
    ),
    latencySource: gauge(
      'latency_source',
      "1 for the value of LATENCY_SOURCE: what the gateway's dates are the time of (setting)",
      ['source'],
    ),
    hoursBehind: gauge(
      'counters_behind',
      'Hours of the log that changed and are not counted again yet; today and yesterday are always current (database)',
    ),
    figuresTimestamp: gauge(
      'figures_timestamp_seconds',
      'Time of the last successful read of the figures from the database; absent before the first (process: take the max)',
    ),

    mirrorLagSeconds: gauge(
      'mirror_lag_seconds',
      'Delay from source commit to log, now; 0 when caught up (process: take the max)',
    ),
    mirrorLagBytes: gauge(
      'mirror_lag_bytes',
      "WAL between the server's position and the confirmed one (process: take the max)",
    ),
    mirrorLatency: histogram(
      'mirror_latency_seconds',
      'Delay from source commit to log commit (process)',
      latencyBuckets,
    ),
    mirrorTransactions: counter('mirror_transactions_total', 'Source transactions written into the log (process)'),
    mirrorDuplicates: counter(
      'mirror_duplicates_skipped_total',
      'Rows and transactions that were sent again and skipped (process)',
    ),
    mirrorReconnects: counter('mirror_reconnects_total', 'Replication connections opened after the first (process)'),
    mirrorState: gauge('mirror_state', '1 for the current state of the mirror (process: each its own)', ['state']),
    slotRetained: gauge('slot_retained_wal_bytes', 'WAL that the slot retains on the server (database)'),
    slotSafe: gauge(
      'slot_safe_wal_bytes',
      'WAL that can still be written before the slot may be lost; absent without max_slot_wal_keep_size (database)',
    ),
    slotWalStatus: gauge('slot_wal_status', '1 for the wal_status of the slot (database)', ['status']),
    slotActive: gauge('slot_active', '1 while a daemon reads the slot; 0 also if there is no slot (database)'),
    tableBytes: gauge('table_bytes', 'Size of a table of smslogd with its indexes (database)', ['table']),
    checkpointTimestamp: gauge('checkpoint_timestamp_seconds', 'Time of the last write of the checkpoint (database)'),
    reconcileMissing: gauge(
      'reconcile_missing_rows',
      'Rows that the last light audit found missing and filled in (process: take the max)',
    ),
    reconcileProgress: gauge(
      'reconcile_progress_ratio',
      'Share of the source that the running reconcile has compared; 1 if none runs (process: take the min)',
    ),
    reconcileLooked: counter('reconcile_looked_rows_total', 'Source rows that reconciles compared (process)'),
    reconcileRows: counter('reconcile_rows_total', 'Rows that reconciles wrote (process)'),

    pollRequests: counter('poll_requests_total', 'Status requests by result (process)', ['result']),
    pollDuration: histogram(
      'poll_request_duration_seconds',
      'Duration of status requests (process)',
      [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 4, 8],
    ),
    pollLimit: gauge('poll_concurrency_limit', 'Current limit of concurrent requests (process)'),
    pollInFlight: gauge('poll_in_flight', 'Requests in flight (process)'),
    pollBreaker: gauge(
      'poll_breaker_open',
      '1 while polling is paused because the gateway fails (process: each its own)',
    ),
    gatewayTrouble: gauge(
      'gateway_trouble',
      '1 for the latest problem with the gateway; none: it answers (process: each its own)',
      ['code'],
    ),
    pollDue: gauge('poll_due', 'SMS whose next request is due now (database)'),
    pollLastSuccess: gauge(
      'poll_last_success_timestamp_seconds',
      'Time of the last answered status request (process: take the max)',
    ),
    unknownWords: counter(
      'poll_unknown_status_words_total',
      'Unknown status words, stored as the status Unknown (process)',
    ),
    badDates: counter('poll_bad_dates_total', 'Replies with an empty or invalid date (process)'),
    futureDates: counter(
      'poll_future_dates_total',
      "Replies with a date more than half a minute in the future by this process's clock (process)",
    ),
    rejects: counter('gateway_rejects_total', 'Rejected SMS by reason (process)', ['reason']),
    clockOffset: gauge(
      'gateway_clock_offset_seconds',
      "The gateway's clock minus the local clock, from the HTTP Date of its replies; absent before the first (process: each its own)",
    ),

    logLinesLost: counter('log_lines_lost_total', 'Log lines that could not be written to stdout (process)'),
    errors: counter('errors_total', 'Failures by code (process)', ['code']),
    buildInfo: gauge('build_info', 'Always 1, with the versions of smslogd and of Node.js (process: each its own)', [
      'version',
      'node',
    ]),
  };

  // what is not known yet has no series: a figure of the database before it was read, the gateway's clock before a reply
  const unknown = [
    'pollDue',
    'hoursBehind',
    'slotRetained',
    'slotSafe',
    'slotActive',
    'checkpointTimestamp',
    'figuresTimestamp',
    'clockOffset',
  ] as const;
  for (const name of unknown) metrics[name].remove();
  for (const type of SMS_TYPES) {
    metrics.delivery.zero({ type });
    for (const from of ['none', ...OPEN_STATUSES]) {
      for (const to of STATUSES) if (from !== to) metrics.transitions.inc({ type, from, to }, 0);
    }
    for (const status of STATUSES) if (isFinal(status)) metrics.final.inc({ type, status }, 0);
  }
  for (const source of LATENCY_SOURCES) metrics.latencySource.set({ source }, 0);
  metrics.reconcileProgress.set(1);
  for (const result of POLL_RESULTS) metrics.pollRequests.inc({ result }, 0);
  for (const code of GATEWAY_TROUBLES) metrics.gatewayTrouble.set({ code }, 0);
  for (const reason of REJECT_REASONS) metrics.rejects.inc({ reason }, 0);
  for (const code of ERROR_CODES) metrics.errors.inc({ code }, 0);
  metrics.buildInfo.set({ version, node: process.versions.node }, 1);
  for (const state of MIRROR_STATES) metrics.mirrorState.set({ state }, 0);
  return metrics;
}
