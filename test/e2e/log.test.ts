/** The daemon and the commands where stdout cannot be written: the work goes on. */
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { PROGRAM } from '../support/program.ts';
import { insertVerification } from '../support/verifications.ts';

const READ = constants.O_RDONLY | constants.O_NONBLOCK;
const WRITE = constants.O_WRONLY | constants.O_NONBLOCK;
/** a file system of its own takes root */
const MOUNTS = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0;

let db: TestDatabase;
let folder: string;
let port: number;
let daemon: ChildProcess | undefined;

beforeEach(async () => {
  db = await createDatabase();
  folder = mkdtempSync(join(tmpdir(), 'smslogd-log-'));
  // the port of a daemon that cannot say it
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;
  server.close();
});
afterEach(async () => {
  daemon?.kill('SIGKILL');
  daemon = undefined;
  spawnSync('umount', ['-l', folder], { stdio: 'ignore' });
  rmSync(folder, { recursive: true, force: true });
  await db.drop();
});

function start(stdio: StdioOptions, env: Record<string, string> = {}): ChildProcess {
  daemon = spawn(process.execPath, [...PROGRAM, 'run'], {
    env: {
      PATH: process.env['PATH'],
      ...db.env({ LOOPS: 'mirror', HTTP_PORT: String(port), LOG_LEVEL: 'trace', ...env }),
    },
    stdio,
  });
  return daemon;
}

const get = async (path: string) =>
  await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(60_000) });
const isReady = async () => (await get('/readyz').catch(() => undefined))?.status === 200;
/** A new slot waits for every transaction that is open on the server. */
const ready = () => until('it to be ready', isReady);
const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;
const lost = async () => Number(/^smslogd_log_lines_lost_total (\d+)/m.exec(await (await get('/metrics')).text())?.[1]);
/** Rows come into the log, it is alive, and it stops as ever. */
async function works(): Promise<void> {
  for (let row = 1; row <= 3; row += 1) {
    await insertVerification(db.sql);
    await until('the row in the log', async () => (await logged()) === row);
    expect((await get('/healthz')).status).toBe(200);
  }
}
async function stops(): Promise<void> {
  const exited = once(daemon!, 'exit');
  daemon!.kill('SIGTERM');
  expect(await exited).toEqual([0, null]);
}

test('with a log that is full from the start it works, and counts what it could not say', async () => {
  start(['ignore', openSync('/dev/full', 'w'), openSync('/dev/full', 'w')]);
  await ready();
  await works();
  expect(await lost()).toBeGreaterThan(0);
  await stops();
});

test('with a log that nobody reads any more it works', async () => {
  start(['ignore', 'pipe', 'pipe']).stdout!.destroy();
  await ready();
  await works();
  expect(await lost()).toBeGreaterThan(0);
  await stops();
});

/** A named pipe with a reader that does not read yet. */
function pipe(): { reader: number; writer: number; path: string } {
  const path = join(folder, 'pipe');
  expect(spawnSync('mkfifo', [path]).status).toBe(0);
  return { path, reader: openSync(path, READ), writer: openSync(path, WRITE) };
}

test('with a log whose reader has stopped reading it works', async () => {
  const { path, reader, writer } = pipe();
  start(['ignore', writer, 'inherit']);
  await ready();
  const other = openSync(path, WRITE);
  for (const size of [4_096, 1]) expect(() => fill(other, size)).toThrow('EAGAIN');
  await works().catch(async (error: unknown) => {
    // why it did not is in the lines that wait for the pipe
    daemon!.kill('SIGTERM');
    await until('its end', () => process.stderr.write(read(reader)) && daemon!.exitCode !== null);
    throw error;
  });
  await stops();
  for (const fd of [reader, writer, other]) closeSync(fd);
});

test('with a log whose reader ends it works, and tells the next reader how much was lost', async () => {
  const { path, reader, writer } = pipe();
  start(['ignore', writer, 'inherit']);
  await ready();
  closeSync(reader);
  await works();
  await until('lines to be lost', async () => (await lost()) > 0);
  const next = openSync(path, READ);
  let text = '';
  await until('the loss to be told', () => (text += read(next)).includes('"code":"log_lost"'));
  await stops();
  expect((text += read(next))).toContain('"msg":"stopped"');
  for (const fd of [writer, next]) closeSync(fd);
});

function fill(fd: number, size: number): void {
  for (;;) writeSync(fd, Buffer.alloc(size, ' '));
}

/** What there is to read at this moment. */
function read(fd: number): string {
  const bytes = Buffer.alloc(65_536);
  try {
    return bytes.toString('utf8', 0, readSync(fd, bytes));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return '';
    throw error;
  }
}

test.skipIf(!MOUNTS)(
  'on a disk that is full for a while it works, and says how much was lost once there is room',
  async () => {
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]).status).toBe(0);
    const path = join(folder, 'log');
    const ballast = join(folder, 'ballast');
    writeFileSync(path, '');
    try {
      writeFileSync(ballast, Buffer.alloc(128 * 1024));
    } catch {
      // as much as there was room for
    }
    start(['ignore', openSync(path, 'a'), 'inherit']);
    await ready();
    await works();
    await until('lines to be lost', async () => (await lost()) > 0);
    truncateSync(ballast, 0);
    await until('the loss to be told', () => readFileSync(path, 'utf8').includes('"code":"log_lost"'));
    await stops();
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    expect(lines.at(-1)).toContain('"msg":"stopped"');
    expect(JSON.parse(lines.find((line) => line.includes('log_lost'))!)).toMatchObject({
      level: 'warn',
      lines: expect.any(Number) as number,
    });
  },
);

test('a failure at the start is the end at once with 1, whatever takes its words', async () => {
  await db.sql`drop schema smslogd cascade`;
  const full = start(['ignore', openSync('/dev/full', 'w'), openSync('/dev/full', 'w')]);
  expect(await once(full, 'exit')).toEqual([1, null]);
  const unread = start(['ignore', 'pipe', 'pipe'], { DATABASE_URL: 'mysql://x' });
  expect(await once(unread, 'exit')).toEqual([1, null]);
});

const run = (stdio: StdioOptions) => spawnSync(process.execPath, [...PROGRAM, 'config', '--markdown'], { stdio });

test('a command whose words cannot be written fails with a sentence, or in silence where there is none to hear it', () => {
  const { status, stderr } = run(['ignore', openSync('/dev/full', 'w'), 'pipe']);
  expect(status).toBe(1);
  expect(String(stderr)).toBe('smslogd: stdout could not be written (ENOSPC)\n');
  expect(run(['ignore', openSync('/dev/full', 'w'), openSync('/dev/full', 'w')]).status).toBe(1);
});
