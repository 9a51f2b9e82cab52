import { expect, test } from 'vitest';
import { createMetrics } from '../../src/metrics.ts';

const text = await createMetrics('test').registry.metrics();
const help = new Map(
  [...text.matchAll(/^# HELP smslogd_(\S+) (.*)$/gm)].map(([, name = '', about = '']) => [name, about]),
);
const shown = (name: string) =>
  text.split('\n').filter((line) => new RegExp(`^smslogd_${name}(_count|_bucket)?[{ ]`).test(line)).length;

test('HELP says of every metric whose figure it is, and how those of several daemons go together', () => {
  expect(help.size).toBeGreaterThan(45);
  const wrong = [...help].filter(
    ([, about]) => !/ \((database|process|process: (take|each)[^()]+|setting)\)$/.test(about),
  );
  expect(wrong).toEqual([]);
});

test("what is not known yet has no series: the database's figures before they were read, the gateway's clock", () => {
  const ofDatabase = [...help].filter(([, about]) => about.endsWith('(database)')).map(([name]) => name);
  expect(ofDatabase.length).toBeGreaterThan(15);
  expect(
    [...ofDatabase, 'figures_timestamp_seconds', 'gateway_clock_offset_seconds'].filter((name) => shown(name) > 0),
  ).toEqual([]);
});

test('every other series with a closed list of labels exists from the start, at 0', () => {
  const own = [...help].filter(
    ([name, about]) => !about.endsWith('(database)') && !/^(figures_timestamp|gateway_clock)/.test(name),
  );
  expect(own.filter(([name]) => shown(name) === 0).map(([name]) => name)).toEqual([]);
  const lists = [
    'sms_status_transitions_total',
    'sms_final_total',
    'poll_requests_total',
    'gateway_rejects_total',
    'errors_total',
    'mirror_state',
    'gateway_trouble',
  ];
  expect(lists.map((name) => [name, shown(name)])).toEqual([
    ['sms_status_transitions_total', 4 * (11 + 4 * 10)],
    ['sms_final_total', 4 * 7],
    ['poll_requests_total', 9],
    ['gateway_rejects_total', 10],
    ['errors_total', expect.any(Number)],
    ['mirror_state', 6],
    ['gateway_trouble', 3],
  ]);
  // the buckets too
  expect(text).toContain('smslogd_sms_delivery_seconds_bucket{le="120",type="2FA"} 0');
  expect(text).toContain('smslogd_mirror_latency_seconds_bucket{le="+Inf"} 0');
  expect(text).toContain('smslogd_poll_request_duration_seconds_bucket{le="+Inf"} 0');
});
