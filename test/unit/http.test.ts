import { once } from 'node:events';
import { request, Server, type IncomingMessage } from 'node:http';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Figures } from '../../src/figures/gauges.ts';
import type { Facts, Period } from '../../src/figures/readings.ts';
import { createHealth, type Health, type LoopName } from '../../src/health.ts';
import { startHttp, type HttpDeps, type HttpServer } from '../../src/http/server.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';

const NUMBERS = {
  processed: 100,
  undelivered: 2,
  le_2m: 90,
  m2_5: 5,
  m5_30: 2,
  gt_30m: 1,
  untracked: 0,
  accepted: 4,
  enroute: 0,
  pending: 0,
  unknown: 0,
  delivered: 98,
  expired: 2,
  deleted: 0,
  undeliverable: 0,
  rejected: 0,
  unaccepted: 0,
  terminated: 0,
};
const period = (type: Period['type'], name: Period['period'], total: number): Period => ({
  ...NUMBERS,
  type,
  period: name,
  total,
  success_ratio: 0.98,
  open: 4,
  oldest_open_age: 7_500,
  known_ratio: total === 0 ? null : 0.9615,
  on_time_ratio: total === 0 ? null : 0.865,
  settled: false,
});
const FACTS: Facts = {
  at: 1_780_000_000.25,
  timezone: 'Europe/<Kyiv>',
  tracks: true,
  recent: [],
  periods: [
    period('verification', 'today', 1_104),
    period('verification', 'yesterday', 2_000),
    period('text', 'today', 0),
  ],
  open: [{ type: 'verification', status: 'Accepted', sms: 4, oldest_age: 7_500 }],
  delivered: {},
  due: 3,
  behind: 0,
  refused: 0,
  tables: { sms_log: 0, sms_poll: 0, checkpoint: 0, changed_hour: 0, sms_hourly: 0, sms_refused: 0 },
  entered: {},
  overdue: [{ type: 'verification', age: 7_500 }],
  history_due: 0,
  checkpoint: null,
  reconcile: null,
  removed: false,
  leader: null,
  slot: null,
};

const CONFIG = { HTTP_HOST: '127.0.0.1', HTTP_PORT: 0, LATENCY_SOURCE: 'unconfirmed' } as const;

let now = 0;
let metrics: Metrics;
let health: Health;
let server: HttpServer | undefined;
let refreshed: number;
let facts: Facts | undefined;
beforeEach(() => {
  now = 0;
  refreshed = 0;
  facts = FACTS;
  metrics = createMetrics('1.2.3');
});
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function start({
  loops = ['mirror', 'poller'] as LoopName[],
  ...more
}: Partial<HttpDeps> & { loops?: LoopName[] } = {}): Promise<void> {
  health = createHealth(metrics, loops, () => now);
  const figures: Figures = {
    refresh: async () => {
      refreshed += 1;
    },
    get facts() {
      return facts;
    },
    ageSeconds: 1,
    hours: async () => [],
  };
  server = await startHttp({
    config: CONFIG,
    metrics,
    health,
    figures,
    log: silentLog,
    version: '1.2.3',
    databaseAnswers: async () => true,
    now: () => now,
    ...more,
  });
}

const get = async (path: string, init: RequestInit = {}) =>
  await fetch(`http://127.0.0.1:${server!.port}${path}`, init);

/** Asks 40 times at once. */
const flood = async (path: string) => {
  const answers = await Promise.all(Array.from({ length: 40 }, async () => (await get(path)).status));
  expect(new Set(answers)).toEqual(new Set([200]));
};

/** Asks by the name `host`. */
const answer = async (host: string, path: string) => {
  const asking = request({ port: server!.port, host: '127.0.0.1', path, headers: { host } }).end();
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  return { status: response.statusCode, text: (await response.toArray()).join('') };
};

test('a mirror that stands by is told as such, whatever a life of it that another daemon has ended still says', async () => {
  await start();
  health.stand('leading');
  health.setMirrorState('repairing');
  health.stand('standby');
  health.setMirrorState('streaming');
  expect(health.mirrorState).toBe('standby');
  expect((await get('/readyz')).status).toBe(200);
  health.stand('leading');
  health.setMirrorState('streaming');
  expect(health.mirrorState).toBe('streaming');
});

describe('/metrics', () => {
  test('is Prometheus text, brought up to date first', async () => {
    await start();
    const response = await get('/metrics');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    expect(text).toContain('# TYPE smslogd_sms_total counter');
    expect(text).toContain('smslogd_build_info{version="1.2.3"');
    expect(text).not.toContain('# EOF');
    expect(refreshed).toBe(1);
  });

  test('is text for who weighs OpenMetrics with 0', async () => {
    await start();
    const response = await get('/metrics', { headers: { accept: 'application/openmetrics-text;q=0, */*' } });
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  });

  test('is made once a second, for however many who ask, and so is every other answer that costs work', async () => {
    let asked = 0;
    const databaseAnswers = async () => {
      asked += 1;
      return true;
    };
    await start({ loops: ['poller'], databaseAnswers });
    const made = vi.spyOn(metrics.registry, 'metrics');
    await flood('/metrics');
    await flood('/metrics');
    expect(made).toHaveBeenCalledTimes(1);
    expect(refreshed).toBe(1);
    for (const path of ['/readyz', '/', '/status.json']) await flood(path);
    expect({ asked, refreshed }).toEqual({ asked: 1, refreshed: 2 });
    now += 1_000;
    await flood('/metrics');
    await flood('/readyz');
    expect({ asked, refreshed }).toEqual({ asked: 2, refreshed: 3 });
    expect(made).toHaveBeenCalledTimes(2);
  });

  test('is OpenMetrics for who asks for it', async () => {
    await start();
    const response = await get('/metrics', {
      headers: { accept: 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1' },
    });
    expect(response.headers.get('content-type')).toMatch(/^application\/openmetrics-text; version=1\.0\.0/);
    const text = await response.text();
    expect(text).toContain('# TYPE smslogd_poll_requests counter');
    expect(text).toMatch(/^smslogd_poll_requests_total\{/m);
    expect(text.trimEnd().endsWith('# EOF')).toBe(true);
    // the one form leaves the other as it is
    const plain = await (await get('/metrics')).text();
    expect(plain).toContain('# TYPE smslogd_poll_requests_total counter');
    expect(plain).toMatch(/^smslogd_poll_requests_total\{/m);
  });
});

describe('/healthz', () => {
  test('is well while the loops turn or wait, and names the one that does neither', async () => {
    await start();
    expect((await get('/healthz')).status).toBe(200);
    health.beat('poller');
    health.waits('mirror');
    now = 61_000;
    const response = await get('/healthz');
    expect(response.status).toBe(503);
    expect(await response.text()).toBe('loops that do not turn: poller\n');
    health.beat('poller');
    expect((await get('/healthz')).status).toBe(200);
  });
});

describe('/readyz', () => {
  test.each([
    ['streaming', 200, 'ready\n'],
    ['standby', 200, 'ready\n'],
    ['starting', 503, 'not ready: the mirror is starting\n'],
    ['snapshot', 503, 'not ready: the mirror is snapshot\n'],
    ['repairing', 503, 'not ready: the mirror is repairing\n'],
    ['stopped', 503, 'not ready: the mirror is stopped\n'],
  ] as const)('with a mirror that is %s answers %d', async (state, status, text) => {
    await start();
    if (state === 'standby') health.stand('standby');
    else if (state !== 'starting') health.setMirrorState(state);
    const response = await get('/readyz');
    expect(response.status).toBe(status);
    expect(await response.text()).toBe(text);
  });

  test('does not ask for a mirror where none is turned', async () => {
    await start({ loops: ['poller'] });
    expect((await get('/readyz')).status).toBe(200);
  });

  test.each([
    ['says no', async () => false],
    ['fails', async () => Promise.reject(new Error('no'))],
    ['is silent', () => new Promise<boolean>(() => {})],
  ])('is not ready where the database %s', async (_, databaseAnswers) => {
    await start({ loops: ['poller'], databaseAnswers });
    const response = await get('/readyz');
    expect(response.status).toBe(503);
    expect(await response.text()).toBe('not ready: the database does not answer\n');
  });
});

describe('the status page', () => {
  test('shows the figures side by side, escaped, and lets nothing in but its own style and script', async () => {
    await start();
    health.setMirrorState('streaming');
    const response = await get('/');
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    const policy = response.headers.get('content-security-policy');
    expect(policy).toMatch(
      /^default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'; connect-src 'self'; /,
    );
    expect(policy).not.toContain('unsafe');
    const page = await response.text();
    expect(page).toContain('<dd>streaming</dd>');
    expect(page).toContain('Europe/&lt;Kyiv&gt;');
    expect(page).toContain('<td>86.5 %</td>');
    expect(page).toContain('<td>1,104</td>');
    expect(page).toContain('<td>4 <small>2 h 5 min</small></td>');
    // what both kinds of SMS are about always stands there, a type without SMS does not
    expect(page).toContain('id="medication_request"');
    expect(page).not.toContain('id="text"');
    expect(page).not.toMatch(/ src=|https?:| style=| on[a-z]+=/);
  });

  test('says what is wrong: no database yet, a silent loop', async () => {
    facts = undefined;
    await start();
    health.beat('mirror');
    health.beat('poller');
    now = 61_000;
    const page = await (await get('/')).text();
    expect(page).toContain('The database has not answered yet: channel status unknown.');
    expect(page).toContain('The database has not answered yet.');
    expect(page).toContain('The mirror of this daemon stands still.');
    expect(page).toContain('The poller of this daemon stands still.');
  });

  test.each([
    ['unconfirmed', 'Latency source unconfirmed'],
    ['reply', 'latencies are too long'],
    ['change', undefined],
  ] as const)('with a latency source that is %s says %s', async (source, words) => {
    await start({ config: { ...CONFIG, LATENCY_SOURCE: source } });
    const page = await (await get('/')).text();
    for (const each of ['Latency source unconfirmed', 'latencies are too long']) {
      expect(page.includes(each)).toBe(each === words);
    }
    expect(await (await get('/status.json')).json()).toMatchObject({ latency_source: source });
  });

  test('says that a source without gateway ids is not judged', async () => {
    await start();
    expect(await (await get('/')).text()).not.toContain('The source table has no gateway ids');
    facts = { ...FACTS, tracks: false };
    now += 1_000;
    expect(await (await get('/')).text()).toContain('The source table has no gateway ids');
    expect(await (await get('/status.json')).json()).toMatchObject({ source_tracked: false });
  });

  test.for<readonly [string, (metrics: Metrics) => void, RegExp]>([
    ['the Date of a reply', ({ clockOffset }) => clockOffset.set(-3_600), /clock is 1 h 0 min behind/],
    [
      'deliveries before the SMS were sent',
      ({ delivery, negativeLatency }) => {
        for (let i = 0; i < 20; i += 1) delivery.observe({ type: '2FA' }, 0);
        negativeLatency.inc(20);
      },
      /20 of 20 SMS were delivered before they were sent/,
    ],
    [
      'dates yet to come',
      ({ futureDates, pollRequests }) => {
        futureDates.inc(15);
        pollRequests.inc({ result: 'ok' }, 10);
        pollRequests.inc({ result: 'unchanged' }, 10);
      },
      /15 of 20 answers of the gateway have a date yet to come/,
    ],
  ])("says that the gateway's clock is wrong, by %s", async ([, set, sentence]) => {
    await start();
    set(metrics);
    expect(await (await get('/')).text()).toMatch(sentence);
  });

  test('tells the newest trouble with the gateway', async () => {
    await start();
    metrics.pollBreaker.set(1);
    metrics.pollRequests.inc({ result: 'unauthorized' }, 5);
    metrics.gatewayTrouble.set({ code: 'gateway_unauthorized' }, 1);
    expect(await (await get('/')).text()).toContain('refuses the login');
    metrics.gatewayTrouble.set({ code: 'gateway_unauthorized' }, 0);
    metrics.gatewayTrouble.set({ code: 'gateway_unreachable' }, 1);
    now += 2_000;
    const page = await (await get('/')).text();
    expect(page).not.toContain('refuses the login');
    expect(page).toContain('No status is learned: the gateway cannot be reached, and no answer came');
  });

  test.each([
    ['stands by', () => health.stand('standby')],
    ['does not know who leads', () => health.stand('unknown')],
    ['is cut off while it leads', () => health.setMirrorState('stopped', 'database_unreachable')],
  ])(
    'of a daemon that %s forgets the rows that its own audits missed: who leads finds what there is',
    async (_, happens) => {
      await start();
      health.stand('leading');
      metrics.reconcileMissing.set(3);
      expect(await (await get('/')).text()).toContain('The log lacked 3 rows of the source');
      happens();
      now += 1_000;
      expect(await (await get('/')).text()).not.toContain('The log lacked');
      expect(await (await get('/metrics')).text()).toContain('\nsmslogd_reconcile_missing_rows 0\n');
    },
  );

  test('has the same facts as JSON, and what this process does itself', async () => {
    await start();
    metrics.pollRequests.inc({ result: 'ok' }, 7);
    metrics.pollLimit.set(12);
    metrics.mirrorLagSeconds.set(1.5);
    const response = await get('/status.json');
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(await response.json()).toMatchObject({
      version: '1.2.3',
      verdict: { level: 'impaired', findings: [{ runbook: 'SmslogdBacklogOld' }] },
      ready: false,
      reason: 'the mirror is starting',
      loops: ['mirror', 'poller'],
      silent_loops: [],
      mirror: 'starting',
      read_at: new Date(FACTS.at * 1000).toISOString(),
      timezone: FACTS.timezone,
      periods: FACTS.periods,
      open: expect.arrayContaining([
        { type: 'verification', status: 'Accepted', sms: 4, oldest_age: 7_500 },
        { type: '2FA', status: 'Unknown', sms: 0, oldest_age: null },
      ]) as object,
      poll_due: 3,
      hours_behind: 0,
      refused_rows: 0,
      slot: null,
      pipeline: { lag_seconds: 1.5, lag_bytes: 0, missing_rows: 0, checkpoint_at: null },
      gateway: { breaker_open: false, concurrency_limit: 12, last_success_at: null, requests: { ok: 7, timeout: 0 } },
    });
  });
});

describe('the documents', () => {
  test('the page leads to the entry of the runbook, which is served as the file is, without scripts', async () => {
    await start();
    const page = await (await get('/')).text();
    expect(page).toContain('href="docs/runbook.md#smslogdbacklogold"');
    const response = await get('/docs/runbook.md');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(response.headers.get('content-security-policy')).not.toContain('script-src');
    expect(await response.text()).toContain('<h3 id="smslogdbacklogold">SmslogdBacklogOld</h3>');
  });
});

describe('every answer', () => {
  test.each(['/metrics', '/healthz', '/readyz', '/', '/status.json', '/docs/operations.md', '/nothing'])(
    '%s carries the headers and has a HEAD',
    async (path) => {
      await start();
      const response = await get(path);
      const body = await response.arrayBuffer();
      for (const [name, value] of [
        ['x-content-type-options', 'nosniff'],
        ['cache-control', 'no-store'],
        ['referrer-policy', 'no-referrer'],
        ['x-frame-options', 'DENY'],
      ] as const)
        expect(response.headers.get(name)).toBe(value);
      expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
      const head = await get(path, { method: 'HEAD' });
      expect(head.status).toBe(response.status);
      expect(head.headers.get('content-type')).toBe(response.headers.get('content-type'));
      expect(await head.text()).toBe('');
      // figures such as the process's age may have grown by a digit
      expect(Math.abs(Number(head.headers.get('content-length')) - body.byteLength)).toBeLessThan(50);
    },
  );

  test('is 404 for an unknown path and takes a query for no part of it', async () => {
    await start();
    expect((await get('/metricsx')).status).toBe(404);
    expect((await get('/../etc/passwd')).status).toBe(404);
    expect((await get('/healthz?verbose')).status).toBe(200);
  });

  test('is refused to who asks by a name that is not of this host, as a page of another site does', async () => {
    await start({ config: { ...CONFIG, HTTP_ALLOWED_HOSTS: ['page.example'] } });
    for (const path of ['/', '/status.json', '/metrics', '/healthz', '/readyz', '/nothing']) {
      const { status, text } = await answer('rebind.example:80', path);
      expect(status).toBe(403);
      expect(text).toContain('HTTP_ALLOWED_HOSTS');
    }
    expect(refreshed).toBe(0);
    expect((await answer('page.example', '/healthz')).status).toBe(200);
  });

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('refuses %s', async (method) => {
    await start();
    const response = await get('/metrics', { method, ...(method === 'POST' ? { body: 'x' } : {}) });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD');
    expect(refreshed).toBe(0);
  });

  test('is 500 where it cannot be made, without a word of the failure, which is counted', async () => {
    await start({ databaseAnswers: undefined as never });
    metrics.registry.metrics = () => Promise.reject(new Error('+380000000001'));
    const response = await get('/metrics');
    expect(response.status).toBe(500);
    expect(await response.text()).toBe('the answer could not be made\n');
    // and not once for each of a flood
    expect((await get('/metrics')).status).toBe(500);
    const { values } = await metrics.errors.get();
    expect(values.find((each) => each.labels['code'] === 'unexpected')?.value).toBe(1);
  });
});

test('a port in use is a named failure', async () => {
  await start();
  const { port } = server!;
  const first = server;
  await expect(
    start({ config: { HTTP_HOST: '127.0.0.1', HTTP_PORT: port, LATENCY_SOURCE: 'unconfirmed' } }),
  ).rejects.toMatchObject({
    code: 'port_in_use',
    message: expect.stringContaining(String(port)) as string,
  });
  server = first;
});

test('an address that is not of this host is a named failure', async () => {
  await expect(
    start({ config: { HTTP_HOST: '192.0.2.1', HTTP_PORT: 0, LATENCY_SOURCE: 'unconfirmed' } }),
  ).rejects.toMatchObject({
    code: 'config_invalid',
  });
});

test('a connection that cannot be accepted is a failure that is counted, and the end of nothing', async () => {
  const listen = vi.spyOn(Server.prototype, 'listen');
  await start();
  const listening = listen.mock.contexts[0] as Server;
  listen.mockRestore();
  const tooMany = Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' });
  for (let i = 0; i < 3; i += 1) listening.emit('error', tooMany);
  expect((await get('/healthz')).status).toBe(200);
  expect(await metrics.registry.metrics()).toContain('smslogd_errors_total{code="unexpected"} 3');
});

test('closing ends connections that are kept open', async () => {
  await start();
  const closed = new Promise<void>((resolve) => {
    // a connection that never sends its request
    const hanging = request({
      port: server!.port,
      host: '127.0.0.1',
      headers: { 'transfer-encoding': 'chunked' },
      path: '/healthz',
      method: 'POST',
    });
    hanging.on('error', () => resolve());
    hanging.on('close', () => resolve());
    hanging.flushHeaders();
  });
  await (await get('/healthz')).text();
  await server!.close();
  server = undefined;
  await expect(closed).resolves.toBeUndefined();
});
