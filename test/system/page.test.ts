/** The status page in a real browser: what is shown in each state, on a desk and on a phone, by day and by night. */
import { existsSync } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Figures } from '../../src/figures/gauges.ts';
import { createHealth, type Health } from '../../src/health.ts';
import { startHttp, type HttpServer } from '../../src/http/server.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import { channelFacts } from '../support/channel.ts';

const CHROMIUM = '/usr/bin/chromium';
/** Where to leave the pictures for somebody to look at; unset: nowhere. */
const SHOTS = process.env['SMSLOGD_TEST_SHOTS'];

let browser: Browser;
let metrics: Metrics;
let health: Health;
let shown: ReturnType<typeof channelFacts> | undefined;
let server: HttpServer;
let now = 0;
let complaints: string[];

beforeAll(async () => {
  if (!existsSync(CHROMIUM)) throw new Error('chromium is missing: apt-get install chromium');
  const quiet = ['gpu', 'quic', 'background-networking', 'component-update', 'sync'].map((each) => `--disable-${each}`);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--headless', '--no-sandbox', '--no-first-run', ...quiet],
  });
});
afterAll(() => browser?.close());

beforeEach(async () => {
  complaints = [];
  shown = channelFacts(Date.now() / 1000, 480);
  metrics = createMetrics('1.2.3');
  health = createHealth(metrics, ['mirror', 'poller']);
  health.setMirrorState('streaming');
  metrics.pollLimit.set(64);
  metrics.pollInFlight.set(3);
  metrics.pollLastSuccess.setToCurrentTime();
  metrics.pollRequests.inc({ result: 'ok' }, 4_210);
  metrics.pollRequests.inc({ result: 'unchanged' }, 730);
  const figures: Figures = {
    refresh: async () => {},
    get facts() {
      return shown?.facts;
    },
    ageSeconds: 1,
    hours: async () => shown?.hours,
  };
  server = await startHttp({
    config: { HTTP_HOST: '127.0.0.1', HTTP_PORT: 0, LATENCY_SOURCE: 'unconfirmed' },
    metrics,
    health,
    figures,
    log: silentLog,
    version: '1.2.3',
    // a second goes by between two looks: the page is made for each
    now: () => (now += 1_000),
  });
});
afterEach(() => server.close());

const STATES: Readonly<Record<string, { begin: () => void; says: string; also: string }>> = {
  healthy: { begin: () => {}, says: 'The SMS channel is well.', also: 'Latency source unconfirmed' },
  empty: {
    begin: () => (shown = channelFacts(Date.now() / 1000, 0)),
    says: 'No trouble is seen.',
    also: 'There are no SMS yet.',
  },
  outage: {
    begin: () => {
      health.setMirrorState('stopped');
      metrics.mirrorLagSeconds.set(4_000);
      metrics.pollBreaker.set(1);
      metrics.gatewayTrouble.set({ code: 'gateway_unauthorized' }, 1);
      metrics.pollRequests.inc({ result: 'unauthorized' }, 3);
      shown = { ...shown!, facts: { ...shown!.facts, due: 812, slot: { ...shown!.facts.slot!, active: false } } };
    },
    says: 'The mirror is stopped: channel status unknown.',
    also: 'the gateway refuses the login',
  },
  failing: {
    begin: () => {
      const recent = [{ type: 'verification' as const, outcome: 'waiting' as const, sms: 80 }];
      shown = { ...shown!, facts: { ...shown!.facts, recent } };
    },
    says: 'The SMS channel is not well.',
    also: 'Only 0.0 % of 80 SMS of type verification',
  },
  untracked: {
    begin: () => {
      const { facts, hours } = channelFacts(Date.now() / 1000, 480);
      const verdictless = {
        processed: 0,
        delivered: 0,
        undelivered: 0,
        le_2m: 0,
        m2_5: 0,
        m5_30: 0,
        gt_30m: 0,
        open: 0,
      };
      const none = { success_ratio: null, oldest_open_age: null, known_ratio: 0, on_time_ratio: 0 };
      shown = {
        hours: hours.map((row) =>
          Object.assign(row, verdictless, none, { untracked: row.total, due: 0, on_time: 0, p50: null, p95: null }),
        ),
        facts: {
          ...facts,
          tracks: false,
          recent: [],
          open: [],
          delivered: {},
          due: 0,
          periods: facts.periods.map((row) => ({ ...row, ...verdictless, ...none, untracked: row.total })),
        },
      };
    },
    says: 'The source has no gateway ids: channel status unknown.',
    also: 'The source table has no gateway ids',
  },
  copied: {
    begin: () => (shown = { ...shown!, facts: { ...shown!.facts, history_due: 4_000, due: 4_003 } }),
    says: 'The SMS channel is well.',
    also: 'Copying history: figures of past days settle as the gateway answers (4,000 SMS are still to be asked for).',
  },
  four: {
    begin: () => (shown = channelFacts(Date.now() / 1000, 480, ['text', '2FA'])),
    says: 'The SMS channel is well.',
    also: '2FA',
  },
  three: {
    begin: () => (shown = channelFacts(Date.now() / 1000, 480, ['text'])),
    says: 'The SMS channel is well.',
    also: 'text',
  },
  standby: {
    begin: () => health.stand('standby'),
    says: 'The SMS channel is well.',
    also: 'This daemon is a standby',
  },
};

async function open({ width = 1280, dark = false, scripts = true } = {}): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width, height: width < 500 ? 760 : 900 },
    colorScheme: dark ? 'dark' : 'light',
    javaScriptEnabled: scripts,
  });
  const page = await context.newPage();
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    if (!request.url().startsWith(address())) complaints.push(`asked for ${request.url()}`);
  });
  await page.goto(address());
  return page;
}

const address = () => `http://127.0.0.1:${server.port}/`;

/** What is less than 4.5 to 1 against what is behind it; in the browser. */
const FAINT = `(() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (color) => {
    const [r, g, b] = parse(color).slice(0, 3).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each !== null; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (parse(color).length === 3) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== '');
    if (!own || element.checkVisibility?.() === false || element.closest('script, title, desc')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest('svg') ? style.fill : style.color), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 80) + ' ' + (a + 0.05) / (b + 0.05));
  }
  return faint;
})()`;

/** Labels of charts that are drawn too small to be read, are cut off, or lie on each other. */
const POOR_LABELS = String.raw`(() => {
  const poor = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const frame = svg.getBoundingClientRect();
    const scale = frame.width / svg.viewBox.baseVal.width;
    const labels = [...svg.querySelectorAll('text')].map((text) => ({ text, box: text.getBoundingClientRect() }));
    for (const { text, box } of labels) {
      const size = parseFloat(getComputedStyle(text).fontSize) * scale;
      if (size < 9) poor.push(text.textContent + ' is ' + size + ' px high');
      if (box.left < frame.left || box.right > frame.right || box.bottom > frame.bottom) poor.push(text.textContent + ' is cut off');
      for (const other of labels)
        if (other.text !== text && box.left < other.box.right && other.box.left < box.right && box.top < other.box.bottom && other.box.top < box.bottom)
          poor.push(text.textContent + ' lies on ' + other.text.textContent);
    }
  }
  return poor;
})()`;

describe.each(Object.keys(STATES))('%s', (name) => {
  const { begin, says, also } = STATES[name]!;

  test.each([
    [1280, name === 'healthy'],
    [360, name !== 'healthy'],
  ])(
    '%d wide, dark %s: says it in a sentence, fits, can be read, and asks for nothing from elsewhere',
    async (width, dark) => {
      begin();
      const page = await open({ width, dark });
      if (SHOTS !== undefined)
        await page.screenshot({ path: `${SHOTS}/${name}-${width}-${dark ? 'dark' : 'light'}.png`, fullPage: true });
      expect(await page.getByRole('status').innerText()).toContain(says);
      expect(await page.title()).toContain(says);
      expect(await page.locator('body').innerText()).toContain(also);
      expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBe(0);
      for (const table of await page.locator('summary').all()) await table.click();
      expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBe(0);
      expect(await page.evaluate(FAINT)).toEqual([]);
      expect(await page.evaluate(POOR_LABELS)).toEqual([]);
      expect(complaints).toEqual([]);
      await page.context().close();
    },
  );
});

test('who hears the page has landmarks, headings, named tables and charts in words', async () => {
  const page = await open();
  const tree = await page.locator('body').ariaSnapshot();
  for (const part of ['banner:', 'main:', 'contentinfo:', 'region "Verdict"']) expect(tree).toContain(part);
  expect(tree).toMatch(/status: .*The SMS channel is well\./);
  expect(tree).toContain('heading "smslogd: the SMS channel" [level=1]');
  expect(tree).toContain('heading "verification" [level=2]');
  expect(tree).toMatch(
    /img "[\d,]+ SMS in 24 hours; \d\d\.\d % arrived within 2 minutes\. The worst hour began at \d\d:00: /,
  );
  expect(tree).toMatch(/img "Time to delivery by hour: median 4\.0 s to 6\.0 s, 95th percentile 90 s to 2\.8 min\."/);
  expect(tree).toContain('table "Today against yesterday"');
  expect(tree).toContain('table "Open SMS by status, and the age of the oldest"');
  expect(tree).toMatch(/rowheader "On time"/);
  expect(tree).toMatch(/columnheader "yesterday by this time"/);
  await page.context().close();
});

test('each figure says what it means, to who points at it, to who hears the page, and to who can do neither', async () => {
  const page = await open();
  const unexplained = await page.evaluate(
    `[...document.querySelectorAll('tbody th[scope=row], dl dt')].filter((each) => !each.title && each.closest('#meanings, #open-table, #verification-hours, #medication_request-hours') === null).map((each) => each.textContent)`,
  );
  expect(unexplained).toEqual([]);
  const row = page.getByRole('rowheader', { name: 'On time' }).first();
  expect(await row.getAttribute('title')).toContain('Delivered within 2 minutes, of all SMS');
  await page.locator('#meanings-summary').click();
  expect(await page.locator('#meanings').innerText()).toContain('Delivered within 2 minutes, of all SMS');
  await page.context().close();
});

test('a finding leads to its entry of the runbook, which can be read on a phone', async () => {
  STATES['failing']!.begin();
  const page = await open({ width: 360, dark: true });
  await page.getByRole('link', { name: 'runbook: SmslogdOnTimeFastBurn' }).click();
  await page.waitForURL('**/docs/runbook.md#smslogdontimefastburn');
  if (SHOTS !== undefined) await page.screenshot({ path: `${SHOTS}/runbook-360-dark.png` });
  expect(await page.locator(':target').innerText()).toBe('SmslogdOnTimeFastBurn');
  expect(await page.evaluate("document.querySelector(':target').getBoundingClientRect().top < 200")).toBe(true);
  expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBe(0);
  expect(await page.evaluate(FAINT)).toEqual([]);
  expect(complaints).toEqual([]);
  await page.context().close();
});

test.each([
  ['three', 3],
  ['four', 4],
] as const)('%s kinds of SMS fill their rows', async (name, kinds) => {
  STATES[name]!.begin();
  const page = await open();
  const boxes = await page.evaluate<{ top: number; left: number; right: number }[]>(
    `[...document.querySelectorAll('.kind, #channel')].map((each) => { const { top, left, right } = each.getBoundingClientRect(); return { top, left, right }; })`,
  );
  const [row, ...cards] = boxes;
  expect(cards).toHaveLength(kinds);
  for (const { top } of cards) {
    const beside = cards.filter((each) => each.top === top);
    expect(Math.min(...beside.map(({ left }) => left))).toBe(row!.left);
    expect(Math.max(...beside.map(({ right }) => right))).toBe(row!.right);
  }
  await page.context().close();
});

test('all that can be used is reached by keyboard, in its order, and shows the focus', async () => {
  const page = await open();
  const reached: string[] = [];
  for (;;) {
    await page.keyboard.press('Tab');
    const [what, outline] = await page.evaluate<[string, string]>(
      '[document.activeElement.id || document.activeElement.textContent, getComputedStyle(document.activeElement).outlineStyle]',
    );
    if (reached.includes(what) || what.includes('smslogd: the SMS channel')) break;
    expect(`${what} ${outline}`).toBe(`${what} solid`);
    reached.push(what);
  }
  expect(reached).toEqual([
    'To the figures',
    'verification-periods',
    'verification-summary',
    'medication_request-periods',
    'medication_request-summary',
    'open-table',
    'meanings-summary',
    'metrics',
    'status.json',
    'runbook',
  ]);
  await page.context().close();
});

test('stays up to date by itself: a new verdict comes in, what the reader opened and where he is stays', async () => {
  const page = await open();
  await page.locator('#verification-summary').focus();
  await page.keyboard.press('Enter');
  await page.evaluate('window.same = true');
  STATES['failing']!.begin();
  // as when the page is seen again
  await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
  await page.getByRole('status').filter({ hasText: 'The SMS channel is not well.' }).waitFor();
  shown = { ...shown!, hours: shown!.hours.slice(0, 20) };
  await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
  await page.locator('#verification-table td.zero').first().waitFor();
  expect(
    await page.evaluate('[window.same, document.activeElement.id, document.getElementById("verification-table").open]'),
  ).toEqual([true, 'verification-summary', true]);
  expect(await page.title()).toBe('✕ The SMS channel is not well.');
  expect(complaints).toEqual([]);
  await server.close();
  await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
  await page.getByRole('alert').waitFor();
  expect(await page.getByRole('alert').innerText()).toContain('not up to date');
  await page.context().close();
});

test('needs no script', async () => {
  const page = await open({ scripts: false });
  expect(await page.getByRole('status').innerText()).toContain('The SMS channel is well.');
  await page.locator('#verification-summary').click();
  expect(await page.locator('#verification-hours').isVisible()).toBe(true);
  expect(await page.locator('noscript meta').getAttribute('content')).toBe('30');
  await page.context().close();
});
