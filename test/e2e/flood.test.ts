/** The daemon while clients of its HTTP port behave as badly as they can: an SMS must reach the log and the probe its answer all the while. */
import { get } from 'node:http';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let daemon: Daemon;
let flood: Set<Socket>;
let ended: boolean;

beforeEach(async () => {
  db = await createDatabase();
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  flood = new Set();
  ended = false;
});
afterEach(async () => {
  ended = true;
  for (const socket of flood) socket.destroy();
  daemon.kill('SIGKILL');
  await daemon.exited;
  await db.drop();
});

/** A connection that sends `text` at once and reads nothing, or all where it asks for an end; one that the daemon ends is made again. */
function hold(port: number, text: string): void {
  if (ended) return;
  const socket = connect({ port, host: '127.0.0.1' }, () => socket.write(text));
  flood.add(socket);
  socket.on('error', () => {});
  if (text === CLOSE) socket.resume();
  socket.once('close', () => {
    flood.delete(socket);
    setImmediate(hold, port, text);
  });
}

const CLOSE = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;

/** As who restarts daemons asks: on a connection of its own. */
const probe = (url: string) =>
  new Promise<number | undefined>((resolve, reject) => {
    get(`${url}/healthz`, { agent: false, timeout: 5_000 }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('timeout', () => reject(new Error('no answer')))
      .on('error', reject);
  });

test.each([
  ['300 connections that pipeline 40 requests for metrics and never read', 300, GET('/metrics').repeat(40)],
  ['300 connections that pipeline 40 requests for the page and never read', 300, GET('/').repeat(40)],
  ['300 connections that pipeline 40 questions whether it is ready', 300, GET('/readyz').repeat(40)],
  ['300 connections that fill all that is read at once with requests', 300, GET('/x').repeat(1_500)],
  ['300 connections that ask again and again', 300, CLOSE],
  ['2,000 connections that say nothing', 2_000, ''],
  ['2,000 connections that begin a request', 2_000, 'GET /metrics HTTP/1.1\r\nHost: '],
])('with %s rows come into the log, and the probe is answered', async (_, connections, text) => {
  const url = await daemon.url();
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  for (let i = 0; i < connections; i += 1) hold(Number(new URL(url).port), text);
  for (let row = 1; row <= 5; row += 1) {
    await insertVerification(db.sql);
    await until('the row in the log', async () => (await logged()) === row);
    expect(await probe(url)).toBe(200);
  }
  expect(flood.size).toBeGreaterThan(0);
  expect(readdirSync(`/proc/${daemon.child.pid}/fd`).length).toBeLessThan(700);
  expect(daemon.peakMemory()).toBeLessThan(256 * 1024 * 1024);
});
