/**
 * `npm run soak:recovery`: how the poller treats a gateway in trouble, and how long it takes to its full speed after. The gateway takes 100 ms for an
 * answer and counts what it is asked; each trouble lasts 20 s. Full speed: half a second with at least nine tenths of the rate before.
 */
import { insertOpen } from '../bench/polling.ts';
import { startDaemon } from '../support/daemon.ts';
import { createDatabase, until } from '../support/database.ts';
import { reply, startGateway, type Script } from '../support/gateway.ts';
import { createServer } from '../support/postgres.ts';
import { wordsOf } from '../support/words.ts';

wordsOf(import.meta.filename, {});
const LATENCY_MS = 100;
const TROUBLE_MS = 20_000;
const WINDOW_MS = 500;

const healthy: Script = ({ id }) => ({ ...reply(id, 'Delivered'), afterMs: LATENCY_MS });
const TROUBLES: Readonly<Record<string, Script>> = {
  'answers after 5 s': ({ id }) => ({ ...reply(id, 'Delivered'), afterMs: 5_000 }),
  'answers nothing': () => ({ afterMs: 3_600_000 }),
  'resets every connection': () => 'reset',
  'answers 500': () => ({ status: 500, afterMs: LATENCY_MS }),
  '503 with Retry-After: 5': () => ({ status: 503, headers: { 'retry-after': '5' }, afterMs: LATENCY_MS }),
  '429 with Retry-After: 5': () => ({ status: 429, headers: { 'retry-after': '5' }, afterMs: LATENCY_MS }),
};

const wait = async (ms: number) => await new Promise((resolve) => setTimeout(resolve, ms));
const say = (line: string) => process.stdout.write(`${line}\n`);

const cluster = await createServer();
try {
  const db = await createDatabase({ adminUrl: cluster.url('postgres') });
  const { sql } = db;
  const gateway = await startGateway(healthy);
  await insertOpen(sql, 100_000);
  await sql`update smslogd.sms_poll set due_at = now()`;
  const daemon = startDaemon(db.env({ LOOPS: 'poller', IP2SMS_URL: gateway.url }));
  const since = (at: number) => gateway.asked.filter((one) => one.at >= at).length;
  await until('the first requests', () => gateway.asked.length > 1_000, 60);

  say(
    '| the gateway | requests/s before | requests/s in trouble | most in a second | s to full speed |\n|---|---|---|---|---|',
  );
  for (const [name, trouble] of Object.entries(TROUBLES)) {
    await wait(3_000);
    const before = since(performance.now() - 2_000) / 2;
    gateway.script = trouble;
    const began = performance.now();
    await wait(TROUBLE_MS);
    // what was under way when it began is not the poller's answer to it
    const asked = gateway.asked
      .filter((one) => one.at >= began + 1_000)
      .map((one) => Math.floor((one.at - began) / 1_000));
    const most = Math.max(0, ...Array.from({ length: 20 }, (_, second) => asked.filter((at) => at === second).length));
    gateway.script = healthy;
    const mended = performance.now();
    await until(
      'full speed',
      () =>
        performance.now() - mended > WINDOW_MS &&
        since(performance.now() - WINDOW_MS) >= (0.9 * before * WINDOW_MS) / 1_000,
      120,
    );
    const took = ((performance.now() - mended) / 1_000).toFixed(1);
    say(`| ${name} | ${Math.round(before)} | ${(asked.length / 19).toFixed(1)} | ${most} | ${took} |`);
    gateway.asked.length = 0;
  }
  daemon.kill('SIGTERM');
  await daemon.exited;
  await gateway.close();
  await db.drop();
} finally {
  await cluster.remove();
}
