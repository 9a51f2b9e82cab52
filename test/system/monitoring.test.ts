/** A real Prometheus scrapes the demo's daemon: every series of the contract, the rules, and each expression of the dashboard. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DASHBOARD_FILE } from '../../ops/grafana/dashboard.ts';
import { freePort } from '../../src/demo/cluster.ts';
import { until } from '../support/database.ts';
import { PROGRAM } from '../support/program.ts';

/** The contract's metrics, by the labels that tell its series apart. */
const CONTRACT: Readonly<Record<string, readonly string[]>> = {
  sms_total: ['type'],
  sms_status_transitions_total: ['type', 'from', 'to'],
  sms_final_total: ['type', 'status'],
  sms_delivery_seconds_bucket: ['type', 'le'],
  period_sms: ['type', 'period', 'status'],
  period_delivered: ['type', 'period', 'group'],
  period_success_ratio: ['type', 'period'],
  period_known_ratio: ['type', 'period'],
  period_on_time_ratio: ['type', 'period'],
  sms_open: ['type', 'status'],
  sms_oldest_open_age_seconds: ['type'],
  sms_last_delivered_timestamp_seconds: ['type'],
  mirror_lag_seconds: [],
  mirror_lag_bytes: [],
  mirror_latency_seconds_bucket: ['le'],
  mirror_transactions_total: [],
  mirror_duplicates_skipped_total: [],
  mirror_reconnects_total: [],
  mirror_state: ['state'],
  slot_retained_wal_bytes: [],
  slot_safe_wal_bytes: [],
  slot_wal_status: ['status'],
  table_bytes: ['table'],
  checkpoint_timestamp_seconds: [],
  reconcile_missing_rows: [],
  reconcile_rows_total: [],
  poll_requests_total: ['result'],
  poll_request_duration_seconds_bucket: ['le'],
  poll_concurrency_limit: [],
  poll_in_flight: [],
  poll_breaker_open: [],
  poll_due: [],
  poll_last_success_timestamp_seconds: [],
  poll_unknown_status_words_total: [],
  poll_bad_dates_total: [],
  gateway_rejects_total: ['reason'],
  gateway_clock_offset_seconds: [],
  sms_negative_latency_total: [],
  errors_total: ['code'],
  build_info: ['version', 'node'],
};

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

let directory: string;
let demo: ChildProcess;
let prometheus: ChildProcess;
let output = '';
let web: string;
let api: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'smslogd-monitoring-'));
  // as root the demo's server runs as another user
  chmodSync(directory, 0o755);
  demo = spawn(process.execPath, [...PROGRAM, 'demo', '--history', '2000'], {
    env: { ...process.env, TMPDIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [demo.stdout!, demo.stderr!]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  await until('the demo to say its address', () => /status page +\S+/.test(output), 60);
  web = /status page +(http:\/\/\S+)\//.exec(output)![1]!;
  const port = await freePort();
  writeFileSync(
    join(directory, 'prometheus.yml'),
    JSON.stringify({
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [resolve('ops/alerts.yml')],
      scrape_configs: [{ job_name: 'smslogd', static_configs: [{ targets: [web.replace('http://', '')] }] }],
    }),
  );
  prometheus = spawn(
    'prometheus',
    [
      `--config.file=${join(directory, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(directory, 'prometheus')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=error',
    ],
    { stdio: 'ignore' },
  );
  prometheus.on('error', () => {});
  api = `http://127.0.0.1:${port}/api/v1`;
  await until('live traffic', () => output.includes('live       '), 60);
}, 150_000);

afterAll(async () => {
  for (const child of [prometheus, demo]) {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGINT');
    await once(child, 'exit');
  }
  rmSync(directory, { recursive: true, force: true });
}, 60_000);

async function ask<T>(path: string): Promise<T> {
  const response = await fetch(`${api}/${path}`);
  const answer = (await response.json()) as { status: string; error?: string; data: T };
  if (answer.status !== 'success') throw new Error(`${path}: ${answer.error}`);
  return answer.data;
}

async function query(expression: string): Promise<readonly Series[]> {
  const { result } = await ask<{ result: Series[] }>(`query?query=${encodeURIComponent(expression)}`);
  return result.filter(({ value }) => Number.isFinite(Number(value[1])));
}

/** Waits until each of `expressions` has had a value once; returns those that never had. */
async function withoutData(expressions: readonly string[]): Promise<string[]> {
  const waiting = new Set(expressions);
  await until(
    'every expression to have a value',
    async () => {
      for (const expression of waiting) if ((await query(expression)).length > 0) waiting.delete(expression);
      return waiting.size === 0;
    },
    45,
  ).catch(() => {});
  return [...waiting];
}

test('promtool finds nothing to say about the metrics', async () => {
  const text = await (await fetch(`${web}/metrics`)).text();
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  expect(stdout + stderr).toBe('');
  expect(status).toBe(0);
});

test('Prometheus takes every series of the contract, as OpenMetrics', async () => {
  expect(await withoutData(['up{job="smslogd"} == 1'])).toEqual([]);
  const accept = 'application/openmetrics-text;version=1.0.0';
  expect((await fetch(`${web}/metrics`, { headers: { accept } })).headers.get('content-type')).toContain(
    accept.slice(0, 28),
  );
  expect(await withoutData(Object.keys(CONTRACT).map((name) => `smslogd_${name}`))).toEqual([]);
  for (const [name, labels] of Object.entries(CONTRACT)) {
    const [one] = await query(`smslogd_${name}`);
    const own = Object.keys(one!.metric).filter((label) => !['__name__', 'job', 'instance'].includes(label));
    expect(`${name} ${own.sort().join(' ')}`).toBe(`${name} ${labels.toSorted().join(' ')}`);
  }
});

test('every rule can be evaluated, and no alert fires in a demo that is well', async () => {
  interface Rule {
    readonly name: string;
    readonly health: string;
    readonly state?: string;
  }
  let rules: Rule[] = [];
  await until('every rule to be evaluated', async () => {
    const { groups } = await ask<{ groups: { rules: Rule[] }[] }>('rules');
    rules = groups.flatMap((group) => group.rules);
    return rules.length > 15 && rules.every(({ health }) => health !== 'unknown');
  });
  expect(rules.filter(({ health }) => health !== 'ok')).toEqual([]);
  expect(rules.filter(({ state }) => state === 'firing')).toEqual([]);
  // those of a gateway that fails are nothing here
  const recorded = rules.filter(({ state, name }) => state === undefined && !name.startsWith('smslogd:gateway_'));
  expect(await withoutData(recorded.map(({ name }) => name))).toEqual([]);
});

test('every query of the dashboard has data', async () => {
  const { panels } = JSON.parse(readFileSync(DASHBOARD_FILE, 'utf8')) as { panels: { targets?: { expr: string }[] }[] };
  const expressions = panels
    .flatMap(({ targets }) => targets ?? [])
    .map(({ expr }) => expr.replaceAll('$__rate_interval', '20s').replaceAll('$type', '.*'));
  expect(expressions.length).toBeGreaterThan(30);
  expect(expressions.filter((expression) => expression.includes('$'))).toEqual([]);
  expect(await withoutData(expressions)).toEqual([]);
});
