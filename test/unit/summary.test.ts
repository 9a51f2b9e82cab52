/** The one info line a minute. */
import { expect, test } from 'vitest';
import { pino } from 'pino';
import { createSummary } from '../../src/commands/run.ts';
import { createMetrics } from '../../src/metrics.ts';

test('while the figures are not read yet, or were not for long, the line says nothing of what entered the log and what is open', async () => {
  const lines: object[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line) as object) });
  const metrics = createMetrics('test');
  const { begin, tell } = createSummary(log, metrics);
  begin(500_000);
  await tell();
  metrics.smsTotal.inc({ type: 'verification' }, 500_007);
  metrics.open.set({ type: 'verification', status: 'Accepted' }, 3);
  await tell();
  metrics.forgetFigures();
  await tell();
  expect(lines[2]).toMatchObject({ mirrored: 0 });
  expect(lines[2]).not.toHaveProperty('open');
  expect(lines[0]).not.toHaveProperty('mirrored');
  expect(lines[0]).not.toHaveProperty('open');
  expect(lines[1]).toMatchObject({ mirrored: 7, open: 3 });
});
