/**
 * `npm run bench:recovery`: how a poller treats a gateway that goes wrong for a few seconds, and how soon it is back at full speed. Prints for each
 * fault the requests in its time, and the seconds from its end to the first answer and to all places in use again.
 */
import { createCluster } from '../../src/demo/cluster.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { loadConfig } from '../../src/config.ts';
import { openDatabase } from '../../src/db.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPoller } from '../../src/poller/poller.ts';
import { migrate } from '../../src/schema.ts';
import { until } from '../support/database.ts';
import { reply, startGateway, type Script } from '../support/gateway.ts';

const PLACES = 64;
const LATENCY_MS = 100;
const FAULT_MS = 6_000;

const FAULTS: Record<string, { script: Script }> = {
  'answers after 3 s': { script: ({ id }) => ({ ...reply(id, 'Delivered'), afterMs: 3_000 }) },
  'silent (time limit 4 s)': { script: () => ({ afterMs: 600_000 }) },
  '503': { script: () => ({ status: 503 }) },
  '503, Retry-After 2': { script: () => ({ status: 503, headers: { 'retry-after': '2' } }) },
  '429, Retry-After 2': { script: () => ({ status: 429, headers: { 'retry-after': '2' } }) },
  resets: { script: () => 'reset' },
  '401': { script: () => ({ status: 401 }) },
};

const cluster = await createCluster({ settings: { fsync: 'off', log_min_messages: 'error' } });
const gateway = await startGateway(() => ({}));
try {
  const config = loadConfig(
    {
      DATABASE_URL: cluster.url('postgres'),
      IP2SMS_URL: gateway.url,
      IP2SMS_LOGIN: 'login',
      IP2SMS_PASSWORD: 'password',
      IP2SMS_MAX_CONCURRENCY: String(PLACES),
      IP2SMS_TIMEOUT_MS: '4000',
    },
    ['database', 'gateway'],
  );
  const sql = openDatabase(config, { max: 6, name: 'bench' });
  await sql.unsafe(SOURCE_DDL);
  await migrate(config, { say: () => {} });
  const log = silentLog;
  for (const [name, { script }] of Object.entries(FAULTS)) {
    if (process.argv[2] !== undefined && !name.includes(process.argv[2])) continue;
    await sql`truncate verification.sms_log, smslogd.sms_poll`;
    await sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
              select '+380000000001', 'text', (7000000 + i)::text, 'Accepted', now() - interval '3 seconds' from generate_series(1, 60000) i`;
    let open = 0;
    let most = 0;
    let answers = 0;
    const well: Script = async ({ id }) => {
      most = Math.max(most, (open += 1));
      await new Promise((resolve) => setTimeout(resolve, LATENCY_MS));
      open -= 1;
      answers += 1;
      return reply(id, 'Delivered');
    };
    gateway.script = well;
    const abort = new AbortController();
    const metrics = createMetrics('bench');
    const done = createPoller({ config, sql, metrics, log, health: { beat: () => {} } })(abort.signal);
    await until('full speed', () => most === PLACES);
    gateway.script = script;
    const before = gateway.asked.length;
    const began = performance.now();
    await new Promise((resolve) => setTimeout(resolve, FAULT_MS));
    const requests = gateway.asked.length - before;
    most = 0;
    answers = 0;
    gateway.script = well;
    const ended = performance.now();
    const seconds = () => ((performance.now() - ended) / 1000).toFixed(1);
    await until('the first answer', () => answers > 0, 90);
    const first = seconds();
    await until('full speed', () => most >= PLACES * 0.9, 90);
    const full = seconds();
    process.stdout.write(
      `${name.padEnd(24)} ${String(requests).padStart(5)} requests in ${((ended - began) / 1000).toFixed(0)} s; back after ${first} s, full speed after ${full} s\n`,
    );
    abort.abort();
    await done;
    gateway.asked.length = 0;
  }
  await sql.end({ timeout: 1 });
} finally {
  await gateway.close();
  await cluster.remove();
}
