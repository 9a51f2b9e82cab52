/** The daemon while clients of its HTTP port behave as badly as they can: an SMS must reach the log and the probe its answer all the while. */
import { get } from 'node:http';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, startProcess, type Daemon, type Process } from '../support/daemon.ts';
import { insertVerification } from '../support/verifications.ts';

let db: TestDatabase;
let daemon: Daemon;
let flood: Process | undefined;

beforeEach(async () => {
  db = await createDatabase();
  daemon = startDaemon(db.env({ LOOPS: 'mirror' }));
  flood = undefined;
});
afterEach(async () => {
  for (const each of [flood, daemon]) each?.kill('SIGKILL');
  await Promise.all([flood?.exited, daemon.exited]);
  await db.drop();
});

const FLOOD = ['--import', 'tsx', fileURLToPath(new URL('../support/flood.ts', import.meta.url))];
const CLOSE = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
const GET = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
const logged = async () => (await db.sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] as number;

/** As who restarts daemons asks: on a connection of its own. */
const probe = (url: string) =>
  new Promise<number | undefined>((resolve, reject) => {
    get(`${url}/healthz`, { agent: false, timeout: 20_000 }, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('timeout', () => reject(new Error('no answer')))
      .on('error', reject);
  });

test.each([
  ['300 connections that pipeline 40 requests for metrics and never read', '300', GET('/metrics'), '40'],
  ['300 connections that pipeline 40 requests for the page and never read', '300', GET('/'), '40'],
  ['300 connections that pipeline 40 questions whether it is ready', '300', GET('/readyz'), '40'],
  ['300 connections that fill all that is read at once with requests', '300', GET('/x'), '1500'],
  ['300 connections that ask again and again', '300', CLOSE, '1', 'read'],
  ['2,000 connections that say nothing', '2000', '', '1'],
  ['2,000 connections that begin a request', '2000', 'GET /metrics HTTP/1.1\r\nHost: ', '1'],
])('with %s rows come into the log, and the probe is answered', async (_, connections, ...words) => {
  const url = await daemon.url();
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  flood = startProcess([new URL(url).port, connections, ...words], {}, FLOOD);
  const open = () => Number(flood?.lines.at(-1) ?? 0);
  await until('the flood', () => open() > 0);
  for (let row = 1; row <= 5; row += 1) {
    await insertVerification(db.sql);
    await until('the row in the log', async () => (await logged()) === row);
    expect(await probe(url)).toBe(200);
  }
  // those that are answered at once are few at any moment, or none
  await until('the flood, which goes on', () => open() > 0);
  expect(readdirSync(`/proc/${daemon.child.pid}/fd`).length).toBeLessThan(700);
  expect(daemon.peakMemory()).toBeLessThan(256 * 1024 * 1024);
});
