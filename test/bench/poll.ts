/**
 * Statuses a second through the whole poller (claim, ask, understand, write), beside undici and the same parser alone, on the same gateway at the
 * same concurrency. Every answer is a Delivered that is written into the log. Gateway, PostgreSQL, daemon and reference are processes of their own.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { until } from '../support/database.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

/** The default of IP2SMS_MAX_CONCURRENCY. */
const PLACES = 64;
const LATENCIES = [0, 100] as const;
export const GATEWAY = new URL('./poll-gateway.ts', import.meta.url);
const BARE = new URL('./poll-bare.ts', import.meta.url);

export function gatewayIdOf(i: number): string {
  return String(6_614_000_000_000 + i);
}

export const bench: Bench = {
  name: 'poll',
  measures: 'statuses asked for and written, beside undici and the parser alone',
  comparisons: LATENCIES.map((latency) => ({
    title: `statuses/s, gateway at ${latency} ms`,
    figure: `rate${latency}`,
    unit: '/s',
    against: 'undici',
    reference: 'bare undici loop',
    target: { ratio: latency === 0 ? 0.7 : 0.9, better: 'more' },
  })),
  run: async (stage) => {
    const db = await stage.database();
    const totals = {
      0: stage.pick({ tiny: 200, short: 20_000, full: 100_000 }),
      100: stage.pick({ tiny: 100, short: 5_000, full: 20_000 }),
    };
    const each = async (measure: (url: string, total: number) => Promise<number>): Promise<Figures> => {
      const figures: Record<string, number> = {};
      for (const latency of LATENCIES) {
        const gateway = script(GATEWAY, [latency]);
        try {
          const total = totals[latency];
          const took = await measure(`http://127.0.0.1:${await firstLine(gateway)}/ip2sms/`, total);
          figures[`rate${latency}`] = total / (took / 1000);
        } finally {
          gateway.kill();
        }
      }
      return figures;
    };
    await stage.alternate({
      smslogd: () => each((url, total) => poll(stage, db, url, total)),
      undici: () =>
        each(async (url, total) => Number(await firstLine(script(BARE, [url, total, PLACES, gatewayIdOf(1)])))),
    });
  },
};

/** Milliseconds from the daemon's first request to the last status in the log. */
async function poll(stage: Stage, db: BenchDatabase, url: string, total: number): Promise<number> {
  const { sql } = db;
  await sql`truncate verification.sms_log, smslogd.sms_poll, smslogd.changed_hour`;
  await sql`insert into verification.sms_log (phone_number, type, body, gateway_id, gateway_status, inserted_at)
            select '+380000000001', 'text', 'text', (${gatewayIdOf(0)}::bigint + i)::text, 'Accepted', now() - interval '3 seconds'
              from generate_series(1, ${total}::int) i`;
  await sql`update smslogd.sms_poll set due_at = now() + interval '20 minutes'`;
  await sql`vacuum analyze verification.sms_log`;
  await sql`vacuum analyze smslogd.sms_poll`;
  const login = { IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'password', IP2SMS_MAX_CONCURRENCY: String(PLACES) };
  const daemon = stage.daemon(db.env({ LOOPS: 'poller', IP2SMS_URL: url, ...login }));
  await daemon.url();
  await sql`update smslogd.sms_poll set due_at = now()`;
  // the database is asked only when all is asked for: a look at a queue of dead rows costs
  const asked = async () => (await (await fetch(url)).json()) as [firstAt: number, count: number];
  await until('all requests', async () => (await asked())[1] >= total, 300);
  await until('all statuses', async () => (await sql`select from smslogd.sms_poll limit 1`).length === 0, 60);
  const ended = Date.now();
  daemon.kill('SIGTERM');
  await daemon.exited;
  const [row] = await sql<
    { n: number }[]
  >`select count(*)::int as n from verification.sms_log where gateway_status = 'Delivered'`;
  if (row?.n !== total) throw new Error(`${row?.n} of ${total} statuses are in the log`);
  return ended - (await asked())[0];
}

export function script(file: URL, words: readonly (string | number)[]): ChildProcess {
  const flags = ['--import', 'tsx', fileURLToPath(file), ...words.map(String)];
  return spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
}

export async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error('its output is not piped');
  const [line] = (await once(stdout.setEncoding('utf8'), 'data')) as [string];
  return line.trim();
}
