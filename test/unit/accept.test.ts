import { expect, test } from 'vitest';
import { prefersOpenMetrics } from '../../src/http/accept.ts';

const OPEN = 'application/openmetrics-text';

test.for<readonly [string | undefined, boolean]>([
  [undefined, false],
  ['', false],
  ['*/*', false],
  ['text/html,application/xhtml+xml,*/*;q=0.8', false],
  [OPEN, true],
  [`${OPEN};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1`, true],
  // Prometheus 3
  [
    `${OPEN};version=1.0.0;escaping=allow-utf-8;q=0.6,${OPEN};version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2`,
    true,
  ],
  ['Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8; Q=0.5, text/plain; q=0.4', true],
  [`${OPEN};q=0`, false],
  [`${OPEN}; q=0.000, */*`, false],
  [`${OPEN} ; q = 0 , text/plain`, false],
  [`text/plain, ${OPEN};q=0.9`, false],
  [`text/plain;q=0.9, ${OPEN}`, true],
  // named, and as good as the rest
  [`${OPEN}, */*`, true],
  [`text/plain, ${OPEN}`, false],
  ['application/*', true],
  [`application/*, ${OPEN};q=0`, false],
  [`*/*, text/plain;q=0`, true],
  ['*/*;q=0', false],
  // another version than ours, and what is no weight
  [`${OPEN};version=0.0.1`, false],
  [`${OPEN};q=2`, false],
  [`${OPEN};q=1.5`, false],
  [`${OPEN};q=1.0001`, false],
  [`${OPEN};q=`, false],
  [`${OPEN};q=0.001`, true],
  ['application/openmetrics-text-other', false],
  [`text/plain;q=0, ${OPEN};q=0.1`, true],
  [`*/*;q=0, ${OPEN}`, true],
  [`${OPEN};q=0.5, */*;q=0.6`, false],
  [`text/*;q=0.9, ${OPEN};q=0.8`, false],
  [`application/*;q=0.2, ${OPEN};q=0, text/plain;q=0.1`, false],
])('Accept: %s asks for OpenMetrics: %s', ([accept, open]) => {
  expect(prefersOpenMetrics(accept)).toBe(open);
});
