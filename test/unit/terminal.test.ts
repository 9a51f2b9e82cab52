import { stripVTControlCharacters } from 'node:util';
import { expect, test } from 'vitest';
import { factsOf, type Reading } from '../../src/page/from-database.ts';
import type { StatusFacts } from '../../src/page/facts.ts';
import { walTillLost } from '../../src/page/machinery.ts';
import { createSettling } from '../../src/page/settling.ts';
import { inSight, statusText } from '../../src/page/terminal.ts';
import { SmslogdError } from '../../src/errors.ts';
import { channelFacts } from '../support/channel.ts';

const AT = Date.parse('2026-05-28T20:26:40Z') / 1000;
const config = { SLOT_NAME: 'smslogd', LATENCY_SOURCE: 'change' } as const;
const WELL: Reading = { ...channelFacts(AT, 480), asked: { results: { ok: 40, unchanged: 12 }, news_at: AT - 3 } };
const seen = (reading: Partial<Reading> = {}, problem?: SmslogdError): StatusFacts =>
  factsOf(problem === undefined ? { ...WELL, ...reading } : undefined, problem, {
    config,
    version: '1.2.3',
    settling: createSettling(),
  });
const facts = (more: Partial<Reading['facts']>) => ({ facts: { ...WELL.facts, ...more } });
const asked = (results: Reading['asked']['results'], silence: number) => ({
  asked: { results, news_at: AT - silence },
});

test('the verdict and the figures of the page stand in 80 columns', () => {
  const text = statusText(seen(), false).join('\n');
  expect(text).toContain(
    '✓ The SMS channel is well.\n  93.2 % of the 103 SMS sent 2 to 12 minutes ago arrived within 2 minutes.\n',
  );
  expect(text).toMatch(
    /^ +verification +medication_request\n +today +by now\* +yesterday +today +by now\* +yesterday\nOn time /m,
  );
  expect(text).toMatch(/^SMS +4,320 +4,800 +5,280 +1,440 +1,600 +1,760$/m);
  expect(text).toContain('* yesterday up to this time, 23:26 in Europe/Kyiv');
  expect(text).toMatch(/^Leader +db-host, process 4711, term 3, renewed 0 s ago$/m);
  expect(text).toMatch(/^Mirror +streaming, 0 B of WAL behind$/m);
  expect(text).toMatch(/^Slot +active, reserved; retains 1\.3 MB of WAL, 20\.0 GB until it is lost$/m);
  expect(text).toContain(
    'Gateway      last change of a status 3 s ago; 3 SMS due; last requests for open\n             SMS: 40 ok, 12 unchanged',
  );
  expect(text).not.toContain('\u001b');
});

test('a slot without a limit is told as that, and one that is lost, which has no limit either, is not', () => {
  const slot = WELL.facts.slot!;
  const lineOf = (more: Partial<typeof slot>) =>
    statusText(seen(facts({ slot: { ...slot, safe: null, ...more } })), false)
      .join('\n')
      .match(/^Slot +(.*)$/m)?.[1];
  expect(lineOf({})).toBe('active, reserved; retains 1.3 MB of WAL, no limit is set');
  expect(lineOf({ active: false, wal_status: 'lost', retained: null })).toBe('inactive, lost');
  expect(walTillLost({ slot: { ...slot, safe: null } })).toBe('no limit is set');
  expect(walTillLost({ slot: { ...slot, safe: null, wal_status: 'lost' } })).toBe('–');
});

test('a small terminal keeps the verdict in sight', () => {
  const lines = statusText(seen(), false);
  expect(inSight(lines, lines.length + 1)).toEqual(lines);
  const few = inSight(lines, 24);
  expect(few).toHaveLength(23);
  expect(few.slice(0, 22)).toEqual(lines.slice(0, 22));
  expect(few.at(-1)).toBe(`(${lines.length - 22} more lines; they need a taller terminal. Ctrl-C ends it)`);
});

test.for<readonly [string, StatusFacts]>([
  ['as many SMS as there may be, of all types', seen(channelFacts(AT, 9_999_999, ['text', '2FA']))],
  ['an empty database', seen(channelFacts(AT, 0))],
  [
    'every trouble',
    seen({
      ...facts({ removed: true, slot: null, due: 1e6, history_due: 1e6, overdue: [{ type: 'text', age: 1e6 }] }),
      ...asked({ unauthorized: 9 }, 1e6),
    }),
  ],
  ['no database', seen({}, new SmslogdError('database_unreachable', 'PostgreSQL cannot be reached (ECONNREFUSED)'))],
])('no line is wider: %s', ([, known]) => {
  for (const colour of [true, false])
    for (const line of statusText(known, colour)) expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(80);
});

test.for<readonly [string, Partial<Reading>, string]>([
  ['no lease is there', facts({ leader: null }), 'No daemon leads: channel status unknown.'],
  [
    'the lease is over',
    facts({ leader: { ...WELL.facts.leader!, leads: false } }),
    'No daemon leads: channel status unknown.',
  ],
  [
    'the leader has no mirror',
    facts({ leader: { ...WELL.facts.leader!, mirrors: false } }),
    'No daemon mirrors: channel status unknown.',
  ],
  ['teardown was run', facts({ removed: true }), 'Teardown was run, and no migrate since: channel status unknown.'],
  ['the first copy is under way', facts({ reconcile: 'first start' }), 'The first copy of the source is under way.'],
  ['a reconcile is under way', facts({ reconcile: 'the slot was lost' }), 'The SMS channel works, with trouble.'],
  [
    'the leader keeps the log without a stream',
    facts({ leader: { ...WELL.facts.leader!, streaming: false } }),
    'The SMS channel works, with trouble.',
  ],
  [
    'the gateway refuses the login',
    asked({ unauthorized: 300, ok: 12 }, 90),
    'The gateway refuses the login: channel status unknown.',
  ],
  [
    'the gateway cannot be reached',
    asked({ timeout: 100, network: 200 }, 90),
    'The gateway cannot be reached: channel status unknown.',
  ],
  ['most requests end well', asked({ timeout: 11, unchanged: 12 }, 90), 'The SMS channel is well.'],
  ['there was news a moment ago', asked({ unauthorized: 300 }, 5), 'The SMS channel is well.'],
  ['nobody asks', asked({}, 700), 'No answer of the gateway for 11 min: channel status unknown.'],
])('from the database alone it is seen where %s', ([, reading, sentence]) => {
  expect(seen(reading).verdict.sentence).toBe(sentence);
});

test('a database that cannot be reached is said, and nothing that was not seen', () => {
  const known = seen({}, new SmslogdError('database_unreachable', 'PostgreSQL cannot be reached (ECONNREFUSED)'));
  expect(statusText(known, false)).toEqual([
    '? PostgreSQL cannot be reached: channel status unknown.',
    '  - PostgreSQL cannot be reached. (docs/runbook.md, database_unreachable)',
  ]);
});

test('a terminal gets the verdict in its colour', () => {
  expect(statusText(seen(), true)[0]).toBe('\u001b[1;32m✓ The SMS channel is well.\u001b[0m');
});

test('how long the history settles is told by how fast it becomes less', () => {
  const settling = createSettling();
  expect(settling.minutes(6_000, 100)).toBeNull();
  expect(settling.minutes(5_900, 102)).toBeNull();
  expect(settling.minutes(5_500, 110)).toBe(2);
  expect(settling.minutes(9_000, 120)).toBeNull();
  expect(settling.minutes(9_000, 130)).toBeNull();
  expect(settling.minutes(8_999, 140)).toBe(3_000);
  expect(settling.minutes(0, 150)).toBeNull();
});
