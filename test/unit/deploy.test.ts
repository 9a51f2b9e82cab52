/** What deploy/ says to the program is what the program takes; test/system/deploy.test.ts asks the programs that read it. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { COMMANDS } from '../../src/commands/list.ts';
import { settingNames } from '../../src/settings.ts';

const read = (path: string) => readFileSync(`deploy/${path}`, 'utf8');
const unit = read('systemd/smslogd.service');
const kubernetes = readdirSync('deploy/kubernetes').filter((file) => file.endsWith('.yaml'));
const manifests = kubernetes.map((file) => read(`kubernetes/${file}`)).join('---\n');
const known = new Set(settingNames().flatMap((name): string[] => [name, `${name}_FILE`]));

test('every setting in deploy/ is one of the program', () => {
  const named = [
    ...[unit, read('systemd/smslogd.env'), read('kubernetes/settings.env')].flatMap((text) =>
      [...text.matchAll(/^(?:Environment=)?([A-Z][A-Z0-9_]+)=/gm)].map(([, name]) => name!),
    ),
    ...[...manifests.matchAll(/\{ name: ([A-Z0-9_]+), value/g)].map(([, name]) => name!),
  ];
  expect(named.length).toBeGreaterThan(15);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});

test('the unit loads every secret that it names, and nothing else', () => {
  const loaded = [...unit.matchAll(/^LoadCredential=(\w+):/gm)].map(([, name]) => name);
  expect(loaded).toHaveLength(4);
  expect([...unit.matchAll(/^Environment=\w+_FILE=%d\/(\w+)$/gm)].map(([, name]) => name)).toEqual(loaded);
});

test('kustomize lists every manifest, and their commands are those of the program', () => {
  const listed = [...read('kubernetes/kustomization.yaml').matchAll(/^ {2}- (\w+\.yaml)$/gm)].map(([, file]) => file!);
  expect(listed.toSorted()).toEqual(kubernetes.filter((file) => file !== 'kustomization.yaml').toSorted());
  const commands = [...manifests.matchAll(/args: \[(\w+)/g)].map(([, name]) => name!);
  expect(commands.toSorted()).toEqual(['migrate', 'run']);
  for (const name of commands) expect(COMMANDS).toHaveProperty(name);
  expect(manifests).not.toMatch(/\b(latest|privileged: true|runAsUser: 0)\b/);
});
