/** The Grafana dashboard as code: `npm run dashboard` writes ops/grafana/dashboards/smslogd.json from it; a test holds the two together. */
import { writeFileSync } from 'node:fs';

export const DASHBOARD_FILE = 'ops/grafana/dashboards/smslogd.json';

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const TYPE = 'type=~"$type"';

interface Panel {
  readonly title: string;
  readonly about: string;
  readonly kind: 'stat' | 'timeseries' | 'bargauge';
  readonly width: number;
  readonly unit: string;
  /** expression and legend of each query */
  readonly queries: readonly (readonly [string, string])[];
  readonly stacked?: true;
  /** red below the first, orange below the second */
  readonly bounds?: readonly [number, number];
  readonly max?: number;
  /** its values may be below zero */
  readonly signed?: true;
}

type Row = readonly [string, readonly Panel[]];

/** Figures of the database are the same in every daemon: max. Figures of a process: sum. */
const shared = (name: string, labels: string, by: string) => `max by (${by}) (smslogd_${name}{${labels}})`;
const today = (name: string, more = '') => shared(name, `${TYPE}, period="today"${more}`, 'type');
const rate = (name: string, labels: string, by: string) =>
  `sum by (${by}) (rate(smslogd_${name}{${labels}}[$__rate_interval]))`;
const quantile = (share: number, name: string, labels: string) =>
  `histogram_quantile(${share}, sum by (le) (rate(smslogd_${name}_bucket${labels}[$__rate_interval])))`;

const ROWS: readonly Row[] = [
  [
    'The SMS channel',
    [
      {
        title: 'On time today',
        about: 'Delivered within 2 minutes, of all SMS at least 2 minutes old. The first figure to look at.',
        kind: 'stat',
        width: 6,
        unit: 'percentunit',
        bounds: [0.5, 0.8],
        queries: [[today('period_on_time_ratio'), '{{type}}']],
      },
      {
        title: 'Success today',
        about: 'Delivered, of all that left Accepted and Enroute. Blind to SMS that are stuck.',
        kind: 'stat',
        width: 6,
        unit: 'percentunit',
        bounds: [0.5, 0.9],
        queries: [[today('period_success_ratio'), '{{type}}']],
      },
      {
        title: 'Fate known today',
        about: 'SMS with a final status, of all.',
        kind: 'stat',
        width: 6,
        unit: 'percentunit',
        queries: [[today('period_known_ratio'), '{{type}}']],
      },
      {
        title: 'Since the last delivery',
        about: 'By the date of the latest Delivered SMS.',
        kind: 'stat',
        width: 6,
        unit: 's',
        queries: [[`time() - ${shared('sms_last_delivered_timestamp_seconds', TYPE, 'type')}`, '{{type}}']],
      },
      {
        title: 'On time, SMS of 2 to 12 minutes ago',
        about: 'What the alerts look at; SMS that nobody can follow are left out.',
        kind: 'timeseries',
        width: 12,
        unit: 'percentunit',
        max: 1,
        queries: [
          [
            `max by (type) (smslogd_recent_sms{${TYPE}, outcome="on_time"}) / (sum by (type) (max by (type, outcome) (smslogd_recent_sms{${TYPE}, outcome!="untracked"})) > 0)`,
            '{{type}}',
          ],
        ],
      },
      {
        title: 'SMS by type',
        about: 'SMS that come into the log, a second.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        stacked: true,
        queries: [[`max by (type) (rate(smslogd_sms_total{${TYPE}}[$__rate_interval]))`, '{{type}}']],
      },
      {
        title: 'Time to delivery',
        about: 'As the daemons learn of deliveries.',
        kind: 'timeseries',
        width: 12,
        unit: 's',
        queries: [
          [quantile(0.5, 'sms_delivery_seconds', `{${TYPE}}`), 'half within'],
          [quantile(0.95, 'sms_delivery_seconds', `{${TYPE}}`), '95 of 100 within'],
        ],
      },
      {
        title: 'Delivered today by time taken',
        about: "The mission's groups.",
        kind: 'bargauge',
        width: 6,
        unit: 'short',
        queries: [[shared('period_delivered', `${TYPE}, period="today"`, 'type, group'), '{{type}} {{group}}']],
      },
      {
        title: 'Today by status',
        about: 'All SMS of today.',
        kind: 'bargauge',
        width: 6,
        unit: 'short',
        queries: [
          [`sum by (status) (${shared('period_sms', `${TYPE}, period="today"`, 'type, status')})`, '{{status}}'],
        ],
      },
      {
        title: 'Today against yesterday, on time',
        about: 'Yesterday as a whole.',
        kind: 'timeseries',
        width: 12,
        unit: 'percentunit',
        max: 1,
        queries: [[shared('period_on_time_ratio', TYPE, 'type, period'), '{{type}} {{period}}']],
      },
      {
        title: 'Final statuses',
        about: 'SMS that got their final status, a second; not of those that came into the log long past their life.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        stacked: true,
        queries: [[rate('sms_final_total', TYPE, 'status'), '{{status}}']],
      },
      {
        title: 'Open SMS',
        about: 'Without a final status now.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        stacked: true,
        queries: [[shared('sms_open', TYPE, 'type, status'), '{{type}} {{status}}']],
      },
      {
        title: 'Age of the oldest open SMS',
        about: 'An SMS lives 35 minutes; past that its next answer is the last.',
        kind: 'timeseries',
        width: 12,
        unit: 's',
        queries: [[shared('sms_oldest_open_age_seconds', TYPE, 'type'), '{{type}}']],
      },
      {
        title: 'Rejected by reason',
        about: "The gateway's reasons.",
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        queries: [[rate('gateway_rejects_total', '', 'reason'), '{{reason}}']],
      },
      {
        title: 'Latency source',
        about: "Whose time the gateway's dates are: unconfirmed until somebody settles it (LATENCY_SOURCE).",
        kind: 'stat',
        width: 12,
        unit: 'none',
        queries: [['max by (source) (smslogd_latency_source) == 1', '{{source}}']],
      },
    ],
  ],
  [
    'The machinery',
    [
      {
        title: 'Daemons',
        about: 'That answer Prometheus, and their versions.',
        kind: 'stat',
        width: 6,
        unit: 'none',
        queries: [['count by (version) (smslogd_build_info)', '{{version}}']],
      },
      {
        title: 'Mirror',
        about: 'How many daemons are in which state.',
        kind: 'stat',
        width: 6,
        unit: 'none',
        queries: [['sum by (state) (smslogd_mirror_state) > 0', '{{state}}']],
      },
      {
        title: 'Rows found missing',
        about: 'By the last light audit, and filled. Should be 0 for ever.',
        kind: 'stat',
        width: 6,
        unit: 'none',
        queries: [['max(smslogd_reconcile_missing_rows)', 'missing']],
      },
      {
        title: 'Figures are',
        about: 'old: since the database was last read.',
        kind: 'stat',
        width: 6,
        unit: 's',
        queries: [['time() - max(smslogd_figures_timestamp_seconds)', 'age']],
      },
      {
        title: 'Mirror lag',
        about: 'From the commit at the source to the log, now.',
        kind: 'timeseries',
        width: 12,
        unit: 's',
        queries: [
          ['max(smslogd_mirror_lag_seconds)', 'lag'],
          [quantile(0.95, 'mirror_latency_seconds', ''), '95 of 100 within'],
        ],
      },
      {
        title: 'Slot',
        about:
          'WAL that it keeps, and what may still be written before it is in danger (absent without max_slot_wal_keep_size).',
        kind: 'timeseries',
        width: 12,
        unit: 'decbytes',
        queries: [
          ['max(smslogd_slot_retained_wal_bytes)', 'kept'],
          ['min(smslogd_slot_safe_wal_bytes)', 'till it is in danger'],
          ['max(smslogd_mirror_lag_bytes)', 'not yet confirmed'],
        ],
      },
      {
        title: 'Slot read by a daemon',
        about: '1 while one reads it.',
        kind: 'timeseries',
        width: 12,
        unit: 'none',
        max: 1,
        queries: [
          ['max(smslogd_slot_active)', 'active'],
          ['max by (status) (smslogd_slot_wal_status)', '{{status}}'],
        ],
      },
      {
        title: 'Mirrored',
        about: 'Source transactions, repeats that were skipped, rows of a reconcile, new connections, a second.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        queries: [
          ['sum(rate(smslogd_mirror_transactions_total[$__rate_interval]))', 'transactions'],
          ['sum(rate(smslogd_mirror_duplicates_skipped_total[$__rate_interval]))', 'skipped'],
          ['sum(rate(smslogd_reconcile_rows_total[$__rate_interval]))', 'reconciled rows'],
          ['sum(rate(smslogd_mirror_reconnects_total[$__rate_interval]))', 'reconnects'],
        ],
      },
      {
        title: 'Requests to the gateway',
        about: 'By how they ended, a second.',
        kind: 'timeseries',
        width: 12,
        unit: 'reqps',
        stacked: true,
        queries: [[rate('poll_requests_total', '', 'result'), '{{result}}']],
      },
      {
        title: 'Duration of requests',
        about: 'To the gateway.',
        kind: 'timeseries',
        width: 12,
        unit: 's',
        queries: [
          [quantile(0.5, 'poll_request_duration_seconds', ''), 'half within'],
          [quantile(0.99, 'poll_request_duration_seconds', ''), '99 of 100 within'],
        ],
      },
      {
        title: 'Limits',
        about: 'Requests under way and how many may be; SMS that are due to be asked for.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        queries: [
          ['sum(smslogd_poll_concurrency_limit)', 'limit'],
          ['sum(smslogd_poll_in_flight)', 'under way'],
          ['max(smslogd_poll_due)', 'due'],
        ],
      },
      {
        title: 'Gateway left alone',
        about: 'Daemons whose breaker is open; seconds since the last answer.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        queries: [
          ['sum(smslogd_poll_breaker_open)', 'breakers open'],
          ['time() - max(smslogd_poll_last_success_timestamp_seconds > 0)', 'seconds since an answer'],
        ],
      },
      {
        title: 'Oddities',
        about:
          "Unknown status words, broken dates, negative latencies, a second; the offset of the gateway's clock in seconds.",
        kind: 'timeseries',
        signed: true,
        width: 12,
        unit: 'short',
        queries: [
          ['sum(rate(smslogd_poll_unknown_status_words_total[$__rate_interval]))', 'unknown words'],
          ['sum(rate(smslogd_poll_bad_dates_total[$__rate_interval]))', 'bad dates'],
          ['sum(rate(smslogd_sms_negative_latency_total[$__rate_interval]))', 'negative latencies'],
          ['smslogd_gateway_clock_offset_seconds', 'clock offset {{instance}}'],
        ],
      },
      {
        title: 'Failures by code',
        about: 'Each code has its heading in docs/runbook.md.',
        kind: 'timeseries',
        width: 12,
        unit: 'short',
        queries: [[rate('errors_total', '', 'code'), '{{code}}']],
      },
    ],
  ],
];

function panelOf(
  { title, about, kind, unit, queries, stacked, bounds, max, signed }: Panel,
  id: number,
  gridPos: object,
) {
  const steps =
    bounds === undefined
      ? [{ color: 'blue', value: null }]
      : [
          { color: 'red', value: null },
          { color: 'orange', value: bounds[0] },
          { color: 'green', value: bounds[1] },
        ];
  return {
    id,
    type: kind,
    title,
    description: about,
    datasource: DATASOURCE,
    gridPos,
    fieldConfig: {
      defaults: {
        unit,
        ...(signed !== true && (unit === 'percentunit' || max !== undefined || kind !== 'stat') ? { min: 0 } : {}),
        ...(max === undefined ? {} : { max }),
        thresholds: { mode: 'absolute', steps },
        color: { mode: kind === 'timeseries' ? 'palette-classic' : 'thresholds' },
        ...(kind === 'timeseries'
          ? {
              custom: {
                fillOpacity: stacked === true ? 40 : 8,
                lineWidth: 2,
                stacking: { mode: stacked === true ? 'normal' : 'none' },
              },
            }
          : {}),
      },
      overrides: [],
    },
    options:
      kind === 'timeseries'
        ? { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } }
        : {
            reduceOptions: { calcs: ['lastNotNull'] },
            ...(kind === 'stat'
              ? { textMode: 'value_and_name', graphMode: 'none' }
              : { orientation: 'horizontal', displayMode: 'basic' }),
          },
    targets: queries.map(([expr, legendFormat], i) => ({
      refId: 'ABCD'[i]!,
      expr,
      legendFormat,
      datasource: DATASOURCE,
      ...(kind === 'timeseries' ? { range: true } : { instant: true }),
    })),
  };
}

/** The dashboard as Grafana imports it. */
export function dashboard() {
  const panels: object[] = [];
  let y = 0;
  for (const [title, row] of ROWS) {
    panels.push({
      id: panels.length + 1,
      type: 'row',
      title,
      collapsed: false,
      gridPos: { x: 0, y, w: 24, h: 1 },
      panels: [],
    });
    y += 1;
    let x = 0;
    let height = 0;
    for (const panel of row) {
      if (x + panel.width > 24) {
        x = 0;
        y += height;
        height = 0;
      }
      const h = panel.kind === 'stat' ? 4 : 8;
      panels.push(panelOf(panel, panels.length + 1, { x, y, w: panel.width, h }));
      x += panel.width;
      height = Math.max(height, h);
    }
    y += height;
  }
  const variable = { hide: 0, skipUrlSync: false };
  return {
    uid: 'smslogd',
    title: 'SMS channel (smslogd)',
    tags: ['smslogd'],
    timezone: 'browser',
    schemaVersion: 39,
    refresh: '15s',
    time: { from: 'now-6h', to: 'now' },
    templating: {
      list: [
        { ...variable, name: 'datasource', label: 'Prometheus', type: 'datasource', query: 'prometheus', current: {} },
        {
          ...variable,
          name: 'type',
          label: 'Type',
          type: 'query',
          datasource: DATASOURCE,
          query: { query: 'label_values(smslogd_sms_total, type)', refId: 'type' },
          refresh: 2,
          includeAll: true,
          multi: true,
          allValue: '.*',
          current: { text: 'All', value: '$__all' },
        },
      ],
    },
    panels,
  };
}

export const dashboardText = () => `${JSON.stringify(dashboard(), null, 2)}\n`;

if (process.argv[1]?.endsWith('ops/grafana/dashboard.ts') === true) writeFileSync(DASHBOARD_FILE, dashboardText());
