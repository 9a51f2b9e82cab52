import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Known } from '../../src/page/facts.ts';
import { WAL_AT_RISK } from '../../src/mirror/slot-health.ts';
import { CLOCK_SECONDS, LAG_SECONDS, ON_TIME, OPEN_SECONDS, SILENCE_SECONDS } from '../../src/page/thresholds.ts';
import { judge, type Level } from '../../src/page/verdict.ts';
import { age, bytes, latency, percent } from '../../src/page/wording.ts';

const NO_REQUESTS = {
  ok: 500,
  unchanged: 0,
  timeout: 0,
  network: 0,
  http_4xx: 0,
  http_5xx: 0,
  unauthorized: 0,
  protocol: 0,
  mismatch: 0,
};
const WELL: Known = {
  version: '1.2.3',
  seen_from: 'daemon',
  ready: true,
  reason: null,
  loops: ['mirror', 'poller'],
  silent_loops: [],
  mirror: 'streaming',
  mirror_problem: null,
  database_problem: null,
  standing: 'leading',
  read_at: '2026-05-28T20:26:40.000Z',
  read_age: 2,
  timezone: 'Europe/Kyiv',
  latency_source: 'change',
  source_tracked: true,
  periods: [{ type: 'verification', period: 'today', total: 500, untracked: 0 } as Known['periods'][number]],
  recent: [
    { type: 'verification', outcome: 'on_time', sms: 95 },
    { type: 'verification', outcome: 'late', sms: 5 },
  ],
  hours: [],
  open: [{ type: 'verification', status: 'Accepted', sms: 3, oldest_age: 1_200 }],
  overdue: [],
  poll_due: 4,
  history_due: 0,
  history_minutes: null,
  leader: { holder: 'host 1 a', term: 1, mirrors: true, streaming: true, renewed_age: 0.3, leads: true },
  hours_behind: 0,
  refused_rows: 0,
  slot: { active: true, wal_status: 'reserved', retained: 1e6, safe: 1e9, behind: 0 },
  pipeline: { lag_seconds: 0, lag_bytes: 0, missing_rows: 0, checkpoint_at: null },
  gateway: {
    breaker_open: false,
    concurrency_limit: 64,
    in_flight: 3,
    last_success_at: null,
    last_success_age: 1,
    requests: NO_REQUESTS,
    trouble: null,
    clock_offset: 0.4,
    dates: { answers: 500, future: 0, delivered: 400, negative: 3 },
  },
};
const recent = (onTime: number, waiting: number): Known['recent'] => [
  { type: 'verification', outcome: 'on_time', sms: onTime },
  { type: 'verification', outcome: 'waiting', sms: waiting },
];
const hour = (at: string, due: number, onTime: number) =>
  ({ hour: Date.parse(at) / 1000, type: 'verification', due, on_time: onTime }) as Known['hours'][number];
const gateway = (more: Partial<Known['gateway']>) => ({ gateway: { ...WELL.gateway, ...more } });
const pipeline = (more: Partial<Known['pipeline']>) => ({ pipeline: { ...WELL.pipeline, ...more } });
const slot = (more: Partial<NonNullable<Known['slot']>>) => ({ slot: { ...WELL.slot!, ...more } });

test.for<readonly [string, Partial<Known>, Level, string | undefined]>([
  ['all is well', {}, 'well', undefined],
  ['many SMS wait', { recent: recent(70, 30) }, 'impaired', 'SmslogdOnTimeFastBurn'],
  ['most SMS wait', { recent: recent(10, 90) }, 'failing', 'SmslogdOnTimeFastBurn'],
  ['few SMS are late by chance', { recent: recent(16, 5) }, 'well', undefined],
  ['few SMS are all late', { recent: recent(0, 20) }, 'failing', 'SmslogdOnTimeFastBurn'],
  ['hardly any SMS are late', { recent: recent(0, 19) }, 'well', undefined],
  [
    'at night an hour tells more than ten minutes',
    { recent: [], hours: [hour('2026-05-28T19:00Z', 30, 3)] },
    'failing',
    'SmslogdOnTimeFastBurn',
  ],
  [
    'as many SMS wait to be asked for as that hour had',
    { recent: [], hours: [hour('2026-05-28T19:00Z', 30, 3)], poll_due: 30 },
    'well',
    undefined,
  ],
  [
    'what was long ago is no trouble now',
    { recent: [], hours: [hour('2026-05-28T18:00Z', 300, 3)] },
    'well',
    undefined,
  ],
  ['the database was never read', { read_at: null, read_age: null }, 'unknown', 'SmslogdFiguresStale'],
  ['the figures are old', { read_age: 61 }, 'unknown', 'SmslogdFiguresStale'],
  ['a loop stands still', { silent_loops: ['poller'] }, 'unknown', 'SmslogdDown'],
  [
    'nothing can be judged',
    {
      source_tracked: false,
      recent: [],
      periods: [{ type: 'verification', period: 'today', total: 5, untracked: 5 } as Known['periods'][number]],
    },
    'unknown',
    'SmslogdNoSmsDelivered',
  ],
  ['one source is not judged, another is', { source_tracked: false }, 'well', undefined],
  ['no mirror is at work', { mirror: 'stopped', ...slot({ active: false }) }, 'unknown', 'SmslogdSlotInactive'],
  ['this mirror has failed', { mirror: 'stopped', mirror_problem: 'source_missing' }, 'unknown', 'source_missing'],
  [
    'PostgreSQL cannot be reached, whatever was read of it before',
    { mirror: 'stopped', mirror_problem: 'database_unreachable', database_problem: 'database_unreachable' },
    'unknown',
    'database_unreachable',
  ],
  ['it stands by', { mirror: 'standby', ...pipeline({ lag_seconds: 900 }) }, 'well', undefined],
  ['it stands by for one that does not stream', { mirror: 'standby', slot: null }, 'impaired', 'SmslogdSlotInactive'],
  [
    'this daemon has no mirror',
    { loops: ['poller'], mirror: 'stopped', ...slot({ active: false }) },
    'well',
    undefined,
  ],
  [
    'this daemon has no poller, whatever it once knew of the gateway',
    {
      loops: ['mirror'],
      ...gateway({ breaker_open: true, trouble: 'gateway_unreachable', last_success_age: 700, clock_offset: 900 }),
    },
    'well',
    undefined,
  ],
  ['the mirror repairs', { mirror: 'repairing' }, 'impaired', 'SmslogdMirrorLag'],
  ['the mirror copies for the first time', { mirror: 'snapshot' }, 'well', undefined],
  [
    'the mirror copies SMS that nobody has asked for yet',
    { mirror: 'snapshot', recent: recent(0, 90) },
    'well',
    undefined,
  ],
  ['the mirror is behind', pipeline({ lag_seconds: 61 }), 'impaired', 'SmslogdMirrorLag'],
  ['the slot is in danger', slot({ wal_status: 'unreserved' }), 'impaired', 'SmslogdSlotAboutToBeLost'],
  ['rows are refused', { refused_rows: 2 }, 'impaired', 'row_refused'],
  ['rows were missing', pipeline({ missing_rows: 2 }), 'impaired', 'rows_missing'],
  [
    'the login is refused, and SMS are not known to arrive',
    {
      recent: recent(0, 90),
      ...gateway({ breaker_open: true, trouble: 'gateway_unauthorized', last_success_age: 700 }),
    },
    'unknown',
    'SmslogdGatewayUnauthorized',
  ],
  [
    'the gateway is dead after a time of wrong passwords',
    gateway({
      breaker_open: true,
      trouble: 'gateway_unreachable',
      requests: { ...NO_REQUESTS, unauthorized: 3, network: 2 },
      last_success_age: 700,
    }),
    'unknown',
    'gateway_unreachable',
  ],
  [
    'the gateway asks for a pause',
    gateway({ breaker_open: true, trouble: 'gateway_busy', last_success_age: 61 }),
    'unknown',
    'gateway_busy',
  ],
  ["the gateway's clock is behind", gateway({ clock_offset: -3_600 }), 'impaired', 'SmslogdGatewayClock'],
  ["the gateway's clock is ahead", gateway({ clock_offset: 31 }), 'impaired', 'SmslogdGatewayClock'],
  ['no reply told the time', gateway({ clock_offset: null }), 'well', undefined],
  [
    'many SMS are delivered before they were sent',
    gateway({ dates: { answers: 40, future: 0, delivered: 20, negative: 6 } }),
    'impaired',
    'SmslogdGatewayClock',
  ],
  [
    'few SMS are delivered before they were sent',
    gateway({ dates: { answers: 40, future: 0, delivered: 19, negative: 19 } }),
    'well',
    undefined,
  ],
  [
    'many dates are yet to come',
    gateway({ dates: { answers: 20, future: 6, delivered: 1, negative: 0 } }),
    'impaired',
    'SmslogdGatewayClock',
  ],
  [
    'SMS are late by a clock that is ahead',
    { ...gateway({ clock_offset: 3_600 }), recent: [{ type: 'verification', outcome: 'late', sms: 90 }] },
    'impaired',
    'SmslogdGatewayClock',
  ],
  ['the gateway is silent', gateway({ breaker_open: true, last_success_age: 61 }), 'unknown', 'SmslogdPollStale'],
  ['the gateway coughs', gateway({ breaker_open: true, last_success_age: 5 }), 'impaired', 'SmslogdPollStale'],
  ['nothing waits for a gateway', { poll_due: 0, ...gateway({ breaker_open: true }) }, 'well', undefined],
  [
    'no answer could be read since the start, and SMS are not known to arrive',
    {
      recent: recent(0, 90),
      ...gateway({ last_success_age: null, requests: { ...NO_REQUESTS, ok: 0, protocol: 20 } }),
    },
    'unknown',
    'SmslogdPollStale',
  ],
  [
    'hardly anything was asked since the start',
    gateway({ last_success_age: null, requests: { ...NO_REQUESTS, ok: 0, protocol: 19 } }),
    'well',
    undefined,
  ],
  ['nobody asks', gateway({ last_success_age: 601 }), 'unknown', 'SmslogdPollStale'],
  ['an SMS is open for long', { overdue: [{ type: 'text', age: 3_601 }] }, 'impaired', 'SmslogdBacklogOld'],
  ['old SMS came with the first copy', { open: [{ ...WELL.open[0]!, oldest_age: 864_000 }] }, 'well', undefined],
])('where %s', ([, more, level, runbook]) => {
  const verdict = judge({ ...WELL, ...more });
  expect(verdict.level).toBe(level);
  expect(verdict.findings[0]?.runbook).toBe(runbook);
  expect(verdict.findings.length).toBeLessThan(2);
});

test.for<readonly [string, Partial<Known>]>([
  ['PostgreSQL cannot be reached', { mirror: 'stopped', database_problem: 'database_unreachable' }],
  [
    'The gateway cannot be reached',
    gateway({ breaker_open: true, trouble: 'gateway_unreachable', last_success_age: 70 }),
  ],
  ['The gateway refuses the login', gateway({ breaker_open: true, trouble: 'gateway_unauthorized' })],
  ['No daemon leads', { mirror: 'stopped', leader: { ...WELL.leader!, leads: false } }],
  ['No daemon mirrors', { mirror: 'stopped', leader: { ...WELL.leader!, mirrors: false } }],
  ['The mirror is stopped', { mirror: 'stopped' }],
  ['The database has not been read for 1 min', { read_age: 61 }],
])('the cause stands on top: %s', ([cause, more]) => {
  expect(judge({ ...WELL, ...more }).sentence).toBe(`${cause}: channel status unknown.`);
});

test('whether the daemon reaches a database that cannot be reached from here is not said', () => {
  const away = { database_problem: 'database_unreachable', read_at: null } as const;
  expect(judge({ ...WELL, ...away }).findings[0]?.sentence).toBe(
    'PostgreSQL cannot be reached: new SMS are not logged.',
  );
  expect(judge({ ...WELL, ...away, seen_from: 'database' }).findings.map(({ sentence }) => sentence)).toEqual([
    'PostgreSQL cannot be reached.',
  ]);
});

test('from the database alone, SMS that nobody asks for are told of, unless an answer came', () => {
  const known: Known = {
    ...WELL,
    seen_from: 'database',
    recent: [],
    poll_due: 5,
    gateway: { ...WELL.gateway, last_success_age: null, requests: { ...WELL.gateway.requests, ok: 0, unchanged: 0 } },
    open: [{ type: 'text', status: 'Accepted', sms: 5, oldest_age: 601 }],
  };
  const said = (more: Partial<Known>) => judge({ ...known, ...more }).findings.map(({ sentence }) => sentence);
  expect(said({})).toEqual(['SMS wait to be asked for, and no answer came so far.']);
  expect(said({ open: [{ ...known.open[0]!, oldest_age: 599 }] })).toEqual([]);
  expect(said({ gateway: { ...known.gateway, requests: { ...known.gateway.requests, unchanged: 1 } } })).toEqual([]);
});

test('says what it rests on', () => {
  expect(judge(WELL).because).toBe('95.0 % of the 100 SMS sent 2 to 12 minutes ago arrived within 2 minutes.');
  expect(judge(WELL).sentence).toBe('The SMS channel is well.');
  expect(judge({ ...WELL, recent: [] }).sentence).toBe('No trouble is seen.');
  expect(judge({ ...WELL, recent: [] }).because).toBe('Too few SMS were sent lately to say more.');
  expect(judge({ ...WELL, recent: [], poll_due: 1_200 }).because).toBe(
    '1,200 SMS wait to be asked for: too little is known to say more.',
  );
  expect(judge({ ...WELL, recent: [], periods: [] }).because).toBe('There are no SMS yet.');
  expect(judge({ ...WELL, read_age: 61 }).because).toBeNull();
});

test('by a clock that is wrong nobody says how fast SMS arrived, only whether they did', () => {
  const wrong = gateway({ clock_offset: -3_600 });
  expect(judge({ ...WELL, ...wrong }).because).toBe('100.0 % of the 100 SMS sent 2 to 12 minutes ago arrived.');
  expect(judge({ ...WELL, ...wrong }).findings.map(({ sentence }) => sentence)).toEqual([
    "The gateway's clock is 1 h 0 min behind: times of delivery are wrong by that much.",
  ]);
  expect(judge({ ...WELL, ...wrong, recent: recent(10, 90) }).findings.map(({ sentence }) => sentence)).toEqual([
    'Only 10.0 % of 100 SMS of type verification, sent 2 to 12 minutes ago, are known to have arrived.',
    "The gateway's clock is 1 h 0 min behind: times of delivery are wrong by that much.",
  ]);
});

test('what hides the channel comes before what is known of it', () => {
  const verdict = judge({ ...WELL, read_age: 61, recent: recent(0, 90), ...pipeline({ lag_seconds: 100 }) });
  expect(verdict.findings.map(({ level }) => level)).toEqual(['unknown', 'failing', 'impaired']);
});

test('numbers say neither all nor nothing where it is not so', () => {
  expect([1, 0.9999, 0.97849, 0.0001, 0, null].map(percent)).toEqual([
    '100.0 %',
    '99.9 %',
    '97.8 %',
    '0.1 %',
    '0.0 %',
    '–',
  ]);
  expect([0.4, 59.9, 3_599, 7_500, 172_800].map(age)).toEqual(['0 s', '59 s', '59 min', '2 h 5 min', '2 d']);
  expect([0.35, 45.4, 150, 1_830].map(latency)).toEqual(['0.3 s', '45 s', '2.5 min', '31 min']);
  expect([0, 512, 645_000, 21_000_000, 3.2e9].map(bytes)).toEqual(['0 B', '512 B', '645 kB', '21.0 MB', '3.2 GB']);
});

const named = (file: string, pattern: RegExp) =>
  [...readFileSync(file, 'utf8').matchAll(pattern)].map(([, objective]) => Number(objective));

test('page, alerts and dashboard have one objective for SMS on time', () => {
  const alerts = named('ops/alerts.yml', /on_time:ratio\w+ < (?:1 - 1\.5 \* \(1 - )?(0\.\d+)/g);
  expect(alerts).toEqual(Array.from({ length: 4 }, () => ON_TIME.impaired));
  const dashboard = named('ops/grafana/dashboard.ts', /'On time today'[^}]*?bounds: \[0\.\d+, (0\.\d+)\]/g);
  expect(dashboard).toEqual([ON_TIME.impaired]);
});

/** The expression of an alert. */
const alert = (name: string) =>
  new RegExp(`- alert: ${name}\\n[^]*?expr:([^]*?)\\n        (?:for|labels):`).exec(
    readFileSync('ops/alerts.yml', 'utf8'),
  )?.[1] ?? '';

test.each([
  ['SmslogdMirrorLag', `> ${LAG_SECONDS}`],
  ['SmslogdPollStale', `> ${SILENCE_SECONDS}`],
  ['SmslogdBacklogOld', `> ${OPEN_SECONDS}`],
  ['SmslogdGatewayClock', `>= ${CLOCK_SECONDS}`],
  ['SmslogdSlotAboutToBeLost', `wal_status{status=~"${WAL_AT_RISK.join('|')}"}`],
])('page and the alert %s have one threshold', (name, threshold) => {
  expect(alert(name)).toMatch(new RegExp(`${threshold.replace(/[{}|]/g, '\\$&')}(?!\\d)`));
});
