/** What deploy/ says to the program and to Kubernetes is what they take; test/system/deploy.test.ts asks the programs that read it. */
import { readdirSync, readFileSync } from 'node:fs';
import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor';
import { Deployment } from 'kubernetes-models/apps/v1/Deployment';
import { Job } from 'kubernetes-models/batch/v1/Job';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { Namespace } from 'kubernetes-models/v1/Namespace';
import { Service } from 'kubernetes-models/v1/Service';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
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

test('the operator gives the pods the job that the alerts look for', () => {
  const { jobLabel } = (parse(read('kubernetes/podmonitor.yaml')) as { spec: { jobLabel?: string } }).spec;
  const { template } = (parse(read('kubernetes/deployment.yaml')) as { spec: { template: Pod } }).spec;
  const jobs = [...readFileSync('ops/alerts.yml', 'utf8').matchAll(/job="([^"]*)"/g)].map(([, job]) => job);
  // without a label it is namespace/name of the PodMonitor
  expect(new Set(jobs)).toEqual(new Set([template.metadata.labels[jobLabel ?? '']]));
});

interface Pod {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
}

const KINDS = { Deployment, Job, Namespace, NetworkPolicy, PodDisruptionBudget, PodMonitor, Service };

/** What the schema of its kind has against a manifest. The schemas allow unknown fields: one is a field that the validation never reads. */
function complaints(text: string): string[] {
  const manifest = parse(text) as { kind: keyof typeof KINDS };
  const unread = new Set<string>();
  // its own constructor copies the whole
  const model = Object.create(KINDS[manifest.kind].prototype) as { validate: () => void };
  Object.assign(model, watched(manifest, '', unread));
  try {
    model.validate();
  } catch (error) {
    return [(error as Error).message];
  }
  return [...unread];
}

function watched<Value>(value: Value, path: string, unread: Set<string>): Value {
  if (typeof value !== 'object' || value === null) return value;
  const fields = new Map(Object.entries(value).map(([key, each]) => [key, watched(each, `${path}/${key}`, unread)]));
  for (const key of fields.keys()) unread.add(`${path}/${key}`);
  return new Proxy(value, {
    get: (target, key) => {
      unread.delete(`${path}/${String(key)}`);
      return fields.get(key as string) ?? (Reflect.get(target, key) as unknown);
    },
  });
}

test.for(kubernetes.filter((file) => file !== 'kustomization.yaml'))("%s is as Kubernetes' schemas want it", (file) => {
  expect(complaints(read(`kubernetes/${file}`))).toEqual([]);
});

test('a misspelt field and a wrong value are complaints', () => {
  const text = read('kubernetes/deployment.yaml');
  expect(complaints(text.replace('readOnlyRootFilesystem', 'readOnlyRootFileSystem'))).toEqual([
    '/spec/template/spec/containers/0/securityContext/readOnlyRootFileSystem',
  ]);
  expect(complaints(text.replace('replicas: 2', 'replicas: two'))).toEqual([expect.stringContaining('replicas')]);
  expect(complaints(read('kubernetes/podmonitor.yaml').replace('15s', '15 seconds'))).toEqual([
    expect.stringContaining('interval'),
  ]);
});
