/** The daemon as the container image runs it: a user that is only a number, without a home, who can write nothing. Such a user takes root. */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.ts';

const ROOT = process.getuid?.() === 0;
const NOBODY = { uid: 65_532, gid: 65_532 };

let app: string;
let db: TestDatabase;
beforeAll(async () => {
  app = mkdtempSync(join(tmpdir(), 'smslogd-image-'));
  chmodSync(app, 0o755);
  for (const part of ['dist', 'migrations', 'sql', 'package.json']) cpSync(part, join(app, part), { recursive: true });
  const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
    packages: Record<string, { dev?: true; optional?: true }>;
  };
  for (const [path, { dev, optional }] of Object.entries(packages))
    if (path !== '' && !dev && !optional) cpSync(path, join(app, path), { recursive: true });
  db = await createDatabase();
});
afterAll(async () => {
  await db.drop();
  rmSync(app, { recursive: true });
});

const options = (env: Record<string, string>) => ({ ...NOBODY, cwd: '/', env });
const words = (...rest: string[]) => [join(app, 'dist', 'cli.js'), ...rest];

/** The settings with the authority's certificate where this user may read it, as one that is mounted. */
function mounted(env: Record<string, string>): Record<string, string> {
  const root = new URL(env['DATABASE_URL']!).searchParams.get('sslrootcert')!;
  const copy = join(app, 'root.crt');
  copyFileSync(root, copy);
  chmodSync(copy, 0o644);
  return Object.fromEntries(
    Object.entries(env).map(([name, value]) => [
      name,
      value.replace(/(?<=sslrootcert=)[^&]*/, encodeURIComponent(copy)),
    ]),
  );
}

test.skipIf(!ROOT)('it streams', async () => {
  const daemon = spawn(process.execPath, words('run'), options(mounted(db.env({ LOOPS: 'mirror' }))));
  const lines = createInterface({ input: daemon.stdout });
  for await (const line of lines) if (line.includes('"the mirror streams"')) break;
  daemon.kill('SIGTERM');
  expect(await once(daemon, 'exit')).toEqual([0, null]);
});

const IPV6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'));

test.each(['0.0.0.0', '127.0.0.2', ...(IPV6 ? ['::', '::1'] : [])])(
  'its health check asks where the daemon listens: HTTP_HOST=%s',
  async (host) => {
    const [, check] = /^HEALTHCHECK[^]*?CMD (\[.*\])$/m.exec(readFileSync('Dockerfile', 'utf8'))!;
    const [command = '', ...rest] = JSON.parse(check!) as string[];
    const answers = createServer((_, response) => void response.end()).listen(0, host);
    await once(answers, 'listening');
    const env = { HTTP_HOST: host, HTTP_PORT: String((answers.address() as AddressInfo).port) };
    const asking = execFile(command === 'node' ? process.execPath : command, rest, { env });
    expect(await once(asking, 'exit')).toEqual([0, null]);
    answers.close();
  },
);

test.skipIf(!ROOT)('an address without a user is refused with a sentence: there is no name to take', () => {
  const env = { DATABASE_URL: 'postgres://127.0.0.1:1/name', LOOPS: 'mirror' };
  const { status, stderr } = spawnSync(process.execPath, words('run'), options(env));
  expect(status).toBe(1);
  expect(String(stderr)).toContain('DATABASE_URL: must be an address that names a user');
});
