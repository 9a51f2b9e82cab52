import { expect, test } from 'vitest';
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
