import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
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

test('the first copy is tried with every alert', () => {
  const alerts = [...readFileSync('ops/alerts.yml', 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name]) => name!);
  const [, first = ''] = /- name: the first copy of 43,000([\s\S]*?)\n {2}- name:/.exec(
    readFileSync('ops/alerts.test.yml', 'utf8'),
  )!;
  expect(alerts.length).toBeGreaterThan(15);
  expect(alerts.filter((name) => !first.includes(`alertname: ${name},`))).toEqual([]);
});
