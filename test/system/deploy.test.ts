/** What reads deploy/ takes it: systemd its unit, kustomize the manifests. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

let folder: string;
let unit: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'smslogd-deploy-'));
  unit = join(folder, 'smslogd.service');
  // systemd asks whether the program is there
  const text = readFileSync('deploy/systemd/smslogd.service', 'utf8');
  writeFileSync(unit, text.replace('/usr/local/bin/smslogd', process.execPath));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Nothing where the program is missing: neither of them is a package that every Debian can have. */
const version = (program: string, ...words: readonly string[]) =>
  spawnSync(program, words, { encoding: 'utf8' }).stdout ?? '';

function run(program: string, ...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, words, { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

test.skipIf(version('systemd-analyze', '--version') === '')(
  'systemd takes the unit without a complaint, and finds it little exposed',
  () => {
    expect(run('systemd-analyze', 'verify', unit)).toBe('');
    const exposure = run('systemd-analyze', 'security', '--offline=true', '--threshold=20', '--no-pager', unit);
    expect(Number(/exposure level for smslogd\.service: ([\d.]+)/.exec(exposure)?.[1])).toBeLessThan(2);
  },
);

// Debian's kubectl is of 2020, and its kustomize does not know `labels`
test.skipIf(!/Kustomize Version: v5/.test(version('kubectl', 'version', '--client')))(
  'kustomize makes of the manifests what they are meant to be, with every name in its place',
  () => {
    const built = run('kubectl', 'kustomize', 'deploy/kubernetes');
    const objects = built.split(/^---$/m);
    const kinds = objects.map((text) => /^kind: (\w+)$/m.exec(text)?.[1] ?? '');
    expect(kinds.toSorted()).toEqual([
      'ConfigMap',
      'ConfigMap',
      'Deployment',
      'Job',
      'Namespace',
      'NetworkPolicy',
      'PodDisruptionBudget',
      'PodMonitor',
      'Secret',
      'Secret',
      'Service',
    ]);
    const named = objects.map((text) => /^ {2}name: (.+)$/m.exec(text)![1]!);
    const referred = [...built.matchAll(/secretName: (.+)|configMap(?:Ref)?:\n\s+(?:name|defaultMode): (.+)/g)].map(
      ([, secret, map]) => secret ?? map!,
    );
    expect(referred.length).toBeGreaterThan(5);
    expect(referred.filter((name) => !named.includes(name))).toEqual([]);
    expect(built.match(/image: registry\.example\/smslogd:[\d.]+/g)).toHaveLength(2);
    const elsewhere = objects.filter(
      (text) => !text.includes('kind: Namespace') && !text.includes('namespace: smslogd'),
    );
    expect(elsewhere).toEqual([]);
  },
);
