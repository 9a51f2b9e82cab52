import { pino } from 'pino';
import { expect, test } from 'vitest';
import { logProblem } from '../../src/log.ts';
import { readableLine } from '../../src/log-line.ts';

const line = (more: object) =>
  `${JSON.stringify({ level: 'info', time: '2026-05-28T20:26:40.123Z', name: 'smslogd', pid: 1, ...more })}\n`;
const time = new Date('2026-05-28T20:26:40.123Z').toTimeString().slice(0, 8);

test('a terminal gets time, level, sentence and values', () => {
  expect(readableLine(line({ mirrored: 5, loops: ['mirror'], why: 'slot_missing', msg: 'running' }), false)).toBe(
    `${time} INFO  running mirrored=5 loops=["mirror"] why=slot_missing\n`,
  );
});

test('the hint and the frames of a fault stand under the sentence', () => {
  const shown = readableLine(
    line({
      level: 'error',
      code: 'unexpected',
      hint: 'Report it.',
      runbook: 'docs/runbook.md#unexpected',
      stack: ['at a', 'at b'],
      msg: 'failed',
    }),
    true,
  );
  expect(shown).toBe(
    `${time} \u001b[31mERROR\u001b[0m failed code=unexpected\n${' '.repeat(15)}Try: Report it. (docs/runbook.md#unexpected)\n${' '.repeat(15)}at a\n${' '.repeat(15)}at b\n`,
  );
});

test('of a failure that nobody expects the frames are logged, and no line of its message', () => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (each) => void lines.push(each) });
  logProblem(log, 'error', new Error('+380000000001\n  code 1234'));
  expect(JSON.parse(lines[0]!)).toMatchObject({ code: 'unexpected', msg: 'unexpected failure: Error' });
  const { stack } = JSON.parse(lines[0]!) as { stack: string[] };
  expect(stack.length).toBeGreaterThan(0);
  expect(stack.filter((frame) => !frame.startsWith('at '))).toEqual([]);
});
