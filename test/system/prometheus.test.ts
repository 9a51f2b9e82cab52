import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

/** What promtool complains of; nothing where all is well. */
function complaintsOf(words: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync('promtool', words, { encoding: 'utf8' });
  if (error !== undefined) throw new Error('promtool is missing: apt-get install prometheus', { cause: error });
  return status === 0 ? '' : stdout + stderr;
}

test.for([
  ['the alert rules are valid', 'check', 'rules', 'ops/alerts.yml'],
  ['the Prometheus configuration is valid', 'check', 'config', 'ops/prometheus.yml'],
  ['the alerts fire when they should and only then', 'test', 'rules', 'ops/alerts.test.yml'],
])('%s', ([, ...words]) => {
  expect(complaintsOf(words)).toBe('');
});
