import { expect, test } from 'vitest';
import { statusOfSource } from '../../src/source.ts';
import { loggableWord } from '../../src/status.ts';

test.for([
  ['Levitating', 'Levitating'],
  ['  in-transit_now ', 'in-transit_now'],
  ['A'.repeat(50), 'A'.repeat(40)],
  ['for +380000000001', ''],
  ['код 1234', ''],
  ['', ''],
] as const)('of the word %j %j may be logged', ([word, shown]) => {
  expect(loggableWord(word)).toBe(shown);
});

test('a status word of the source that nobody knows is Unknown, and told only where it is a plain word', () => {
  expect(statusOfSource('1234567', 'Levitating')).toEqual({ status: 'Unknown', unknownWord: 'Levitating' });
  expect(statusOfSource('1234567', 'sent to +380000000001')).toEqual({ status: 'Unknown', unknownWord: '' });
  expect(statusOfSource('1234567', ' SENT ')).toEqual({ status: 'Enroute' });
});
