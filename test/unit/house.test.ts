/** What keeps the house in order: who may import whom, and that the documents tell what is there. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path/posix';
import { expect, test } from 'vitest';
import { DASHBOARD_FILE, dashboardText } from '../../ops/grafana/dashboard.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { wantedPrivileges } from '../../src/doctor/privileges.ts';
import { ERROR_CODES } from '../../src/errors.ts';
import { createMetrics } from '../../src/metrics.ts';

const read = (path: string) => readFileSync(path, 'utf8');
const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
const squeeze = (sql: string) =>
  sql
    .replace(/^--.*$/gm, '')
    .replace(/\s+/g, ' ')
    .trim();
const sources = filesIn('src').sort();

/** Rooms by height. A file may import from its own room and from lower ones; rooms of one height don't know each other. */
const HEIGHTS: readonly (readonly string[])[] = [
  ['errors'],
  ['base'],
  ['leader', 'replication', 'gateway'],
  // serves the mirror and verify
  ['reconcile'],
  ['mirror', 'poller', 'simulator', 'figures'],
  // shows the figures
  ['page'],
  ['http'],
  ['demo', 'doctor'],
  ['commands'],
  ['cli'],
];

/** Files straight in src/ that are no part of the base. */
const OWN_ROOMS: Readonly<Record<string, string>> = {
  'src/errors.ts': 'errors',
  'src/cli.ts': 'cli',
  'src/command-line.ts': 'cli',
};

function roomOf(path: string): string {
  const folder = /^src\/([^/]+)\//.exec(path)?.[1] ?? 'base';
  return OWN_ROOMS[path] ?? (folder === 'postgres' || folder === 'schema' ? 'base' : folder);
}

function heightOf(room: string): number {
  return HEIGHTS.findIndex((rooms) => rooms.includes(room));
}

function importsOf(path: string): string[] {
  const specifiers = [...read(path).matchAll(/(?:\bfrom|\bimport\(?) ?'([^']+)'/g)].map((match) => match[1] ?? '');
  return specifiers.map((each) => (each.startsWith('.') ? join(dirname(path), each) : each));
}

test('every folder under src is a room that has its height', () => {
  expect(sources.length).toBeGreaterThan(40);
  expect(sources.filter((path) => heightOf(roomOf(path)) === -1)).toEqual([]);
});

test('imports go one way: down, or within a room', () => {
  const wrong = sources.flatMap((path) =>
    importsOf(path)
      .filter((target) => target.startsWith('src/'))
      .filter((target) => {
        const [from, to] = [roomOf(path), roomOf(target)];
        return from !== to && heightOf(to) >= heightOf(from);
      })
      .map((target) => `${path} → ${target}`),
  );
  expect(wrong).toEqual([]);
});

test("one file knows the replication library's traps", () => {
  const importers = sources.filter((path) => importsOf(path).includes('pg-logical-replication'));
  expect(importers).toEqual(['src/replication/connection.ts']);
});

test('a slot is never read by SQL: a peek decodes everything each time, and a get takes it away from the stream', () => {
  const reading = [...sources, ...filesIn('migrations'), ...filesIn('sql'), ...filesIn('ops')].filter((path) =>
    /pg_logical_slot_(?:peek|get)\w*\s*\(/i.test(read(path)),
  );
  expect(reading).toEqual([]);
});

/** Files over the limit, each with the reason why it is one piece. */
const LONG: Readonly<Record<string, string>> = {
  'src/errors.ts': 'every failure in one table',
};

test('a file of more than 300 lines has a reason', () => {
  const long = sources.filter((path) => read(path).trimEnd().split('\n').length > 300);
  expect(long.filter((path) => LONG[path] === undefined)).toEqual([]);
  expect(Object.keys(LONG).filter((path) => !sources.includes(path))).toEqual([]);
});

test("the newcomer's map names every file once, with a line, and none that is gone", () => {
  const rows = [...read('AGENTS.md').matchAll(/^\| `((?:src|migrations|sql)\/[^`]+)` \| (.+) \|$/gm)];
  const mapped = rows.map((row) => row[1] ?? '').sort();
  expect(mapped).toEqual([...sources, ...filesIn('migrations'), ...filesIn('sql')].sort());
  expect(rows.filter((row) => (row[2] ?? '').length < 15)).toEqual([]);
});

test('the README is short, and its picture small', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(150);
  expect(statSync('docs/status-page.png').size).toBeLessThan(150_000);
});

/** GitHub's anchor of a heading that is one word. */
const anchors = new Set([...read('docs/runbook.md').matchAll(/^#+ (\S+)$/gm)].map((row) => row[1]?.toLowerCase()));

test('every error code has its heading in the runbook', () => {
  expect(ERROR_CODES.filter((code) => !anchors.has(code))).toEqual([]);
});

test('every alert has its heading in the runbook, and links to it', () => {
  const rules = read('ops/alerts.yml');
  const alerts = [...rules.matchAll(/- alert: (\S+)/g)].map((row) => row[1]?.toLowerCase());
  const links = [...rules.matchAll(/runbook: docs\/runbook\.md#(\S+)/g)].map((row) => row[1]);
  expect(alerts.length).toBeGreaterThan(10);
  expect(links).toEqual(alerts);
  expect(alerts.filter((alert) => !anchors.has(alert))).toEqual([]);
});

/** The part of the runbook under a heading. */
const partOf = (heading: string) =>
  read('docs/runbook.md')
    .split(/^(?=#)/m)
    .find((part) => part.startsWith(`${heading}\n`)) ?? '';
const linksIn = (part: string) => [...part.matchAll(/\]\(#([^)]+)\)/g)].map((row) => row[1] ?? '');

test('the index of the runbook has every alert and every error code once', () => {
  const alerts = [...read('ops/alerts.yml').matchAll(/- alert: (\S+)/g)].map((row) => row[1]!.toLowerCase());
  expect(linksIn(partOf('### By alert')).sort()).toEqual(alerts.sort());
  expect(linksIn(partOf('### By code in the log')).sort()).toEqual([...ERROR_CODES].sort());
});

test('the index of the runbook has what the status page says, in its words, with its entries', () => {
  const index = partOf('### By sentence on the status page');
  const code = read('src/page/verdict.ts');
  const entries = [...code.matchAll(/'(Smslogd[A-Za-z]+|[a-z]+_[a-z]+)'/g)]
    .map((row) => row[1]!.toLowerCase())
    .filter((word) => anchors.has(word) && !word.startsWith('database_') && word !== 'gateway_unauthorized');
  expect(entries.length).toBeGreaterThan(10);
  expect(entries.filter((entry) => !linksIn(index).includes(entry))).toEqual([]);
  const said = [...index.matchAll(/^\| (?!the page|-)(.+?) \|/gm)].flatMap((row) => row[1]!.split('…'));
  const words = said.map((piece) => piece.replace(/[.;:,]? *$/, '').trim()).filter((piece) => piece.length > 3);
  expect(words.length).toBeGreaterThan(20);
  expect(words.filter((piece) => !code.includes(piece))).toEqual([]);
});

test('the tests that the design names are there, in files that are there', () => {
  const design = read('docs/design.md');
  const proofs = [...design.matchAll(/`(test\/[^`]+)`: "([^"]+)"/g)];
  expect(proofs.length).toBeGreaterThanOrEqual(8);
  expect(proofs.filter((row) => !read(row[1]!).includes(row[2]!)).map((row) => row[2])).toEqual([]);
  const files = [...design.matchAll(/`((?:src|test|migrations)\/[\w/.-]+)`/g)].map((row) => row[1]!);
  expect(files.filter((path) => !existsSync(path))).toEqual([]);
});

test('alerts and dashboard ask for metrics that exist', () => {
  const { registry } = createMetrics('test');
  const names = new Set(registry.getMetricsAsArray().map(({ name }) => name));
  const asked = [read('ops/alerts.yml'), dashboardText()].flatMap((text) =>
    [...text.matchAll(/\bsmslogd_[a-z_]+/g)].map(([name]) => name.replace(/(?<=_seconds)_(?:bucket|count)$/, '')),
  );
  expect(asked).toContain('smslogd_poll_requests_total');
  expect(asked).toContain('smslogd_sms_delivery_seconds');
  expect(asked.filter((name) => !names.has(name))).toEqual([]);
});

test('the dashboard is what its program writes', () => {
  expect(read(DASHBOARD_FILE)).toBe(dashboardText());
});

test('every heading that the documents link to is there', () => {
  const documents = ['README.md', 'AGENTS.md', 'SECURITY.md', ...filesIn('docs')];
  const broken = documents.flatMap((path) =>
    [...read(path).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)]
      .filter((row) => !linkLeads(path, row[1] ?? '', row[2]))
      .map((row) => `${path}: ${row[0]}`),
  );
  expect(broken).toEqual([]);
});

function linkLeads(from: string, path: string, anchor: string | undefined): boolean {
  const target = path === '' ? from : join(dirname(from), path);
  if (!existsSync(target)) return false;
  if (anchor === undefined) return true;
  const headings = [...read(target).matchAll(/^#+ (.+)$/gm)].map((row) =>
    (row[1] ?? '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
  return headings.includes(anchor);
}

test('what the operator is sent to is in the package and in the image', () => {
  const { files } = JSON.parse(read('package.json')) as { files: string[] };
  const named = [...read('docs/operations.md').matchAll(/\b(?:ops|sql)\/\w+\.(?:sql|yml)/g)].map(([path]) => path);
  expect(named.length).toBeGreaterThan(1);
  const paths = ['docs/runbook.md', ...named];
  for (const path of paths) expect(files.some((file) => path === file || path.startsWith(`${file}/`))).toBe(true);
  expect(read('Dockerfile')).toContain('COPY docs docs');
  expect(read('.dockerignore').split('\n')).toContain('!docs');
});

test('the image runs as a number and without a package manager, and every image is named by tag and digest', () => {
  const dockerfile = read('Dockerfile');
  const stages = [...dockerfile.matchAll(/^FROM \S+ AS (\w+)$/gm)].map(([, name]) => name!);
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, image]) => image!);
  const trial = [...read('docker-compose.yml').matchAll(/^ +image: (\S+)$/gm)].map(([, image]) => image!);
  const foreign = [...bases, ...trial].filter((image) => !stages.includes(image) && image !== 'smslogd:trial');
  expect(foreign).toHaveLength(4);
  for (const image of foreign) expect(image).toMatch(/^[\w/]+:[\w.-]+@sha256:[0-9a-f]{64}$/);
  const last = dockerfile.split(/^(?=FROM )/m).at(-1);
  expect(last).toMatch(/^USER \d+:\d+$/m);
  expect(last).toContain('rm -r /usr/local/lib/node_modules ');
  expect(last).not.toMatch(/\b(npm|apt-get)\b/);
});

test('what is said of the dependencies is so', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { dev?: true; optional?: true; devOptional?: true; hasInstallScript?: true }>;
  };
  const production = Object.entries(packages).filter(
    ([path, { dev, optional, devOptional }]) => path !== '' && !dev && !optional && !devOptional,
  );
  const text = read('SECURITY.md');
  expect(text).toContain(`${Object.keys(dependencies).length} direct ones; with theirs ${production.length} packages`);
  expect(Object.keys(dependencies).filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  expect(production.filter(([, { hasInstallScript }]) => hasInstallScript)).toEqual([]);
});

test('what the daemon writes in its schema, its role is granted', () => {
  const granted = wantedPrivileges(read('sql/grants.sql'), { table: '"a"."b"', schema: 'a' }).map(
    ({ privilege, object }) => `${privilege} ${object}`,
  );
  const written = sources
    .filter((path) => ['mirror', 'poller', 'figures'].includes(roomOf(path)))
    .flatMap((path) => [...read(path).matchAll(/\b(insert|update|delete)(?: into| from)? (smslogd\.[a-z_]+)/g)])
    .map(([, verb, table]) => `${verb} ${table}`);
  expect(written).toContain('update smslogd.checkpoint');
  expect(written.filter((each) => !granted.includes(each))).toEqual([]);
});

test('the container trial has the source table that the demo and the tests have', () => {
  expect(squeeze(read('ops/trial/source.sql'))).toContain(squeeze(SOURCE_DDL));
});
