import { describe, expect, test } from 'vitest';
import { isRight, STATUS_LINES, type Audit, type StatusLine, type Tally } from '../../src/demo/audit.ts';
import { count, createScreen, progressLine } from '../../src/demo/progress.ts';
import { age, auditTable, figuresTable, ONWARD, resultLine, type Figures } from '../../src/demo/report.ts';
import { problemsIn, daemonEnv } from '../../src/demo/daemon.ts';

const none: Tally = { written: 0, logged: 0, missing: 0, doubled: 0, differing: 0 };
const good: Tally = { ...none, written: 14_000, logged: 14_000 };

function delivered(tally: Tally): ReadonlyMap<StatusLine, Tally> {
  return new Map(STATUS_LINES.map((status) => [status, status === 'Delivered' ? tally : none]));
}

function audit(verification: Tally, more: Partial<Audit> = {}): Audit {
  return {
    tallies: { verification: delivered(verification), medication_request: delivered(good) },
    totals: { verification, medication_request: good },
    flaws: new Map(),
    behind: { rows: 0, longestMs: 0 },
    ...more,
  };
}

describe('the result', () => {
  test('is right where every SMS is logged once and truly', () => {
    expect(isRight(audit(good))).toBe(true);
    expect(resultLine(audit(good), 0)).toBe(
      'Result: right. Each of the 28,000 SMS is in the log exactly once, with its correct status.',
    );
  });
  test.each([
    ['missing', { ...good, logged: 13_999, missing: 1 }],
    ['doubled', { ...good, logged: 14_001, doubled: 1 }],
    ['differing', { ...good, differing: 1 }],
    ['fewer logged than written, for whatever reason', { ...good, logged: 13_999 }],
    ['nothing written, which proves nothing', none],
  ])('is wrong with %s', (_, tally) => {
    expect(isRight(audit(tally))).toBe(false);
    expect(resultLine(audit(tally), 0)).toMatch(/^Result: WRONG\. /);
  });
  test('is wrong where the daemon does not end in order', () => {
    expect(resultLine(audit(good), 1)).toMatch(/^Result: WRONG\. .*exit code 1/);
    expect(resultLine(audit(good), null)).toMatch(/^Result: WRONG\. /);
  });
  test('counts what is wrong', () => {
    const wrong = audit({ written: 100, logged: 99, missing: 3, doubled: 2, differing: 5 });
    expect(resultLine(wrong, 0)).toBe(
      'Result: WRONG. Of 14,100 SMS 3 are missing in the log, 2 rows are doubled and 5 have wrong data.',
    );
  });
});

describe('the tables', () => {
  const figures: Figures = {
    sms: 12_345,
    success: 0.98765,
    undelivered: 321,
    le2m: 11_000,
    m2to5: 300,
    m5to30: 120,
    gt30m: 12,
    open: 48,
    oldestOpenSeconds: 1_260,
    known: 0.9961,
    onTime: null,
  };
  const lines = figuresTable({
    verification: { today: figures, yesterday: figures },
    medication_request: { today: figures, yesterday: undefined },
  });

  test('are at most 80 columns wide', () => {
    const wide = audit(
      { written: 234_567, logged: 234_567, missing: 0, doubled: 0, differing: 123_456 },
      { flaws: new Map([['status', 3]]), behind: { rows: 123_456, longestMs: 1_260_000 } },
    );
    for (const line of [...lines, ...auditTable(wide), ...ONWARD]) expect(line.length).toBeLessThanOrEqual(80);
  });
  test('write a ratio over nothing and a period without figures as a dash', () => {
    const onTime = lines.find((line) => line.startsWith('on time'));
    expect(onTime?.trimEnd()).toMatch(/ - +- +- +-$/);
    expect(lines.find((line) => line.startsWith('SMS'))).toMatch(/^SMS +12,345 +12,345 +12,345 +-$/);
  });
  test('leave out statuses that do not occur and name what differs', () => {
    const table = auditTable(audit({ ...good, differing: 2 }, { flaws: new Map([['date', 2]]) }));
    expect(table.some((line) => line.startsWith('Delivered'))).toBe(true);
    expect(table.some((line) => line.startsWith('Rejected'))).toBe(false);
    expect(table).toContain('differing in: date 2');
  });
});

describe('the screen', () => {
  test('rewrites the live line on a terminal, cut to its width, and clears it for a line that stays', () => {
    let out = '';
    const screen = createScreen({ write: (text) => (out += text), isTerminal: true, columns: () => 10 });
    screen.live('0123456789abc');
    screen.live('0123456789abc');
    screen.line('stays');
    screen.line('too');
    expect(out).toBe('\r\u001b[2K012345678\r\u001b[2Kstays\ntoo\n');
  });
  test('breaks a phase at words, and goes on under its text', () => {
    let out = '';
    const screen = createScreen({ write: (text) => (out += text), isTerminal: true, columns: () => 30 });
    screen.phase('live', 'twenty verifications a second');
    expect(out).toBe('live       twenty\n           verifications a\n           second\n');
  });
  test('prints the live line every two seconds where there is no terminal', () => {
    let out = '';
    let now = 0;
    const screen = createScreen({
      write: (text) => (out += text),
      isTerminal: false,
      columns: () => 10,
      now: () => now,
    });
    screen.passing('not for a file');
    for (; now <= 4_400; now += 400) screen.live(`${now}`);
    expect(out).toBe('0\n2000\n4000\n');
  });
});

test('the live line is aligned and fits', () => {
  const snapshot = { endless: false, copied: 14_400, written: 5, logged: 5, open: 312, seconds: 7.9 };
  const short = progressLine({ ...snapshot, lagSeconds: undefined });
  const long = progressLine({ ...snapshot, seconds: 1_234, written: 99_999, logged: 99_998, lagSeconds: 1.25 });
  expect(long.length).toBe(short.length);
  expect(long.length).toBeLessThan(80);
  const endless = progressLine({ ...snapshot, endless: true, lagSeconds: undefined });
  expect(endless).toContain('Ctrl-C ends it');
  expect(endless.length).toBe(short.length);
});

test('numbers and ages read well', () => {
  expect([count(0), count(999), count(1_000), count(1_234_567), count(12, 5)]).toEqual([
    '0',
    '999',
    '1,000',
    '1,234,567',
    '   12',
  ]);
  expect([age(null), age(0.4), age(99), age(1_260), age(90_000)]).toEqual(['-', '0 s', '99 s', '21 min', '25 h']);
});

test('the daemon’s problems are its warnings and errors, and whatever is no JSON', () => {
  const lines = [
    '{"level":"info","msg":"fine"}',
    '{"level":"warn","code":"slot_busy","msg":"in use"}',
    'TypeError: x is not a function',
    '{"level":"error","msg":"no code"}',
    '',
  ].join('\n');
  expect(problemsIn(lines)).toEqual(['warn slot_busy: in use', 'TypeError: x is not a function', 'error no code']);
});

test('the daemon gets the demo’s settings and none of the shell’s, nor its proxy: the gateway is on this machine', () => {
  const proxies = { HTTP_PROXY: 'http://proxy.example', https_proxy: 'http://proxy.example' };
  const env = daemonEnv(
    { PATH: '/bin', SMS_BODY: 'masked', IP2SMS_PASSWORD_FILE: '/x', LOG_LEVEL: 'silent', ...proxies },
    { HTTP_PORT: '1' },
  );
  expect(env).toEqual({ PATH: '/bin', HTTP_PORT: '1' });
});
