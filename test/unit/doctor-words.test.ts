import { expect, test } from 'vitest';
import { command } from '../../src/commands/doctor.ts';
import { ok, summaryOf, warn, fail } from '../../src/doctor/check.ts';

const results = (...levels: ReturnType<typeof ok>[]) => levels.map((each) => ({ name: 'check', ...each }));

test('the last line says what fails and what is warned of', () => {
  expect(summaryOf(results(ok('a'), ok('b')))).toBe('all well');
  expect(summaryOf(results(ok('a'), warn('b'), warn('c')))).toBe('2 warnings');
  expect(summaryOf(results(fail('a'), warn('b'), { level: 'skip', says: 'needs it' }))).toBe(
    '1 of 3 checks fail, 1 warning, 1 skipped',
  );
  expect(summaryOf(results(ok('a'), { level: 'skip', says: 'not wanted' }))).toBe('all well, 1 skipped');
});

test('without settings it says what it needs, and not what it cannot do', async () => {
  const lines: string[] = [];
  const io = { env: { RETENTION_DAY: '30' }, print: (line: string) => lines.push(line), stdoutIsTerminal: false };
  expect(await command.run({}, io)).toBe(1);
  const text = lines.join('\n');
  for (const name of ['DATABASE_URL', 'IP2SMS_URL', 'IP2SMS_LOGIN', 'IP2SMS_PASSWORD'])
    expect(text).toContain(`${name}: is required`);
  expect(text).toContain(
    'warn  names of settings: RETENTION_DAY is no setting of smslogd; the nearest is RETENTION_DAYS',
  );
  expect(text).not.toContain('skip  ');
  expect(lines).toHaveLength(3);
  expect(lines[2]).toMatch(/^1 of \d+ checks fail, 1 warning, \d+ skipped$/);
});
