import { readFileSync } from 'node:fs';
import { pino } from 'pino';
import { afterEach, expect, test, vi } from 'vitest';
import { SmslogdError, toSmslogdError, type ErrorCode } from '../../src/errors.ts';
import { silentLog } from '../../src/log.ts';
import { MIRRORED_COLUMNS } from '../../src/source.ts';
import { backoff, pauseAfter, supervise } from '../../src/supervise.ts';

const options = { name: 'test', log: silentLog };

afterEach(() => void vi.restoreAllMocks());

test('a loop that fails is begun again until it works, after the wait of its backoff', async () => {
  const stop = new AbortController();
  const told: string[] = [];
  const began: number[] = [];
  let turns = 0;
  await supervise(
    { ...options, onProblem: ({ code }) => told.push(code) },
    async () => {
      turns += 1;
      began.push(performance.now());
      if (turns < 3) throw new SmslogdError('stream_ended', 'ended');
      stop.abort();
    },
    stop.signal,
  );
  expect(turns).toBe(3);
  expect(told).toEqual(['stream_ended', 'stream_ended']);
  // half of the wait is jitter; a timer may be a millisecond early
  expect(began[1]! - began[0]!).toBeGreaterThan(48);
  expect(began[2]! - began[1]!).toBeGreaterThan(98);
});

/** The codes of the lines while a loop fails as `turn` does, whose `stop` is called in one of its turns. */
async function logged(turn: (turns: number, works: () => void, stop: () => void) => Promise<ErrorCode>) {
  const codes: unknown[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line) => void codes.push((JSON.parse(line) as { code: string }).code) },
  );
  const stop = new AbortController();
  let turns = 0;
  const loop = async (_: AbortSignal, works: () => void) => {
    throw new SmslogdError(await turn((turns += 1), works, () => stop.abort()), 'no');
  };
  // no wait
  vi.spyOn(Math, 'random').mockReturnValue(-1);
  await supervise({ name: 'test', log }, loop, stop.signal);
  return codes;
}

test('of failures in turns each is logged once, and once more after a recovery or a minute; after an abort none is', async () => {
  const codes = await logged(async (turns, works, stop) => {
    if (turns === 3) vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 61_000);
    if (turns === 6) works();
    if (turns < 8) return turns % 2 === 0 ? 'stream_ended' : 'stepped_down';
    stop();
    return 'slot_busy';
  });
  const both = ['stepped_down', 'stream_ended'];
  expect(codes).toEqual([...both, ...both, ...both.toReversed()]);
});

test('standing by is logged once, however long it lasts', async () => {
  const codes = await logged(async (turns, _, stop) => {
    if (turns === 25) stop();
    return 'stepped_down';
  });
  expect(codes).toEqual(['stepped_down']);
});

test('a fatal failure is thrown at once, and standing by is no failure', async () => {
  const told: string[] = [];
  let turns = 0;
  const done = supervise(
    { ...options, onProblem: ({ code }) => told.push(code) },
    async () => {
      turns += 1;
      throw new SmslogdError((['removed', 'stepped_down'] as const)[turns - 1] ?? 'wal_level', 'no');
    },
    new AbortController().signal,
  );
  await expect(done).rejects.toMatchObject({ code: 'wal_level' });
  expect(told).toEqual(['wal_level']);
});

test('an abort while it waits ends it without an error', async () => {
  const stop = new AbortController();
  const done = supervise(
    { ...options, onProblem: () => stop.abort() },
    async () => {
      throw new SmslogdError('database_auth', 'no');
    },
    stop.signal,
  );
  await expect(done).resolves.toBeUndefined();
});

test('waits double up to their longest, with jitter in the upper half', () => {
  expect(backoff('retry', 1, () => 1)).toBe(100);
  expect(backoff('retry', 4, () => 1)).toBe(800);
  expect(backoff('retry', 4, () => 0)).toBe(400);
  expect(backoff('retry', 1000, () => 1)).toBe(4_000);
  expect(backoff('standby', 1000, () => 1)).toBe(1_000);
  expect(backoff('slow', 1, () => 1)).toBeGreaterThan(backoff('retry', 1, () => 1));
});

test('a login that was refused is tried again slowly, so that nobody is locked out; what no retry changes is fatal', () => {
  for (const code of ['28P01', '28000']) {
    expect(toSmslogdError(Object.assign(new Error(), { code }))).toMatchObject({
      code: 'database_auth',
      reaction: 'slow',
      hint: expect.stringContaining('password'),
    });
  }
  expect(toSmslogdError(Object.assign(new Error(), { code: '42501' }))).toMatchObject({
    code: 'privilege_missing',
    reaction: 'slow',
    hint: expect.stringContaining('smslogd migrate --role'),
  });
  for (const code of ['wal_level', 'source_timezone', 'schema_missing'] as const)
    expect(new SmslogdError(code, '').reaction).toBe('fatal');
});

test('a connection that pg lost or could not make in time is no fault of ours, though it has no code', () => {
  expect(toSmslogdError(new Error('Connection terminated unexpectedly'))).toMatchObject({
    code: 'database_unreachable',
    message: 'PostgreSQL cannot be reached (CONNECTION_CLOSED)',
  });
  expect(toSmslogdError(new Error('timeout expired'))).toMatchObject({ code: 'database_unreachable' });
  expect(toSmslogdError(new Error('constructor'))).toMatchObject({ code: 'unexpected' });
});

test('a look that takes long takes a twentieth of the time at most, but what waited for a lock is looked at again soon after', () => {
  expect([5, 200, 300_000].map((took) => pauseAfter(1_000, took))).toEqual([1_000, 4_000, 10_000]);
});

const missing = (message: string, where?: string) =>
  toSmslogdError(Object.assign(new Error(message), { code: '42703', where }));

test('a column of ours that somebody dropped or renamed is told as such, with its table where the server names it', () => {
  const ddl = readFileSync(new URL('../../migrations/0001_baseline.sql', import.meta.url), 'utf8');
  const tables = [...ddl.matchAll(/^create table if not exists (\w+)\.(\w+)/gm)];
  expect(tables.length).toBeGreaterThan(10);
  for (const [, schema, table] of tables) {
    for (const message of [
      `column "made_up" of relation "${table}" does not exist`,
      `Spalte »made_up« von Relation »${table}« existiert nicht`,
    ])
      expect(missing(message)).toMatchObject({
        code: 'object_missing',
        message: `a column of ${schema}.${table} is missing in the database (42703)`,
      });
  }
  for (const message of [
    'column "due_at" does not exist',
    'column p.due_at does not exist',
    'la colonne « due_at » n’existe pas',
  ])
    expect(missing(message)).toMatchObject({
      code: 'object_missing',
      message: 'the column due_at of a table of smslogd is missing in the database (42703)',
    });
  expect(
    missing('column "lane" of relation "sms_poll" does not exist', 'PL/pgSQL function smslogd.queue_row() line 3'),
  ).toMatchObject({
    code: 'object_missing',
  });
});

test("a missing column that may be the source's, or that another one's trigger asks for, is not told as ours, nor named", () => {
  for (const name of MIRRORED_COLUMNS)
    expect(missing(`column s.${name} does not exist`)).toMatchObject({ code: 'database_failed' });
  for (const message of ['column "secret" does not exist', 'column "made_up" of relation "settings" does not exist']) {
    const problem = missing(message, 'PL/pgSQL function public.audit() line 3 at EXECUTE');
    expect(problem).toMatchObject({ code: 'database_failed' });
    expect(problem.message).not.toMatch(/secret|made_up|settings/);
  }
  expect(missing('column "a380000000001" does not exist').message).not.toContain('380');
});
