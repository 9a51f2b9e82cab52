/**
 * `npm run bench:reconcile -- ROWS`: the first copy of a source with ROWS rows (default 1,000,000) by the daemon, beside one server-side
 * INSERT … SELECT into the same table with the same triggers, in one run on one server. Prints rates, their ratio and the daemon's peak memory.
 */
import { randomUUID } from 'node:crypto';
import postgres from 'postgres';
import { createCluster } from '../../src/demo/cluster.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { loadConfig } from '../../src/config.ts';
import { migrate } from '../../src/schema.ts';
import { startDaemon } from '../support/daemon.ts';

const rows = Number(process.argv[2] ?? 1_000_000);
const say = (line: string) => process.stdout.write(`${line}\n`);
const rate = (ms: number) => Math.round(rows / (ms / 1000));

const cluster = await createCluster({ settings: { max_wal_size: '8GB', log_min_messages: 'error' } });
try {
  const sql = postgres(cluster.url('postgres'), { max: 2, onnotice: () => {} });
  await sql.unsafe(SOURCE_DDL);
  const env = { DATABASE_URL: cluster.url('postgres'), HTTP_PORT: '0', LOOPS: 'mirror', LOG_LEVEL: 'info' };
  await migrate(loadConfig(env), { say: () => {} });
  say(`${rows} source rows are written`);
  await sql`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
            select gen_random_uuid(), '+38000' || lpad((n % 10000000)::text, 7, '0'), 1, 'new', 1000 + n % 9000, now(), false, (6614000000000 + n)::text,
                   'Accepted', timestamp '2026-01-01' + n * interval '100 milliseconds' from generate_series(1, ${rows}::int) n`;
  await sql`vacuum analyze verification.verifications`;

  const reference = await timed(async () => {
    await sql`insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
              select id, phone_number, 'verification', 'text ' || code, gateway_id, gateway_status, inserted_at at time zone 'UTC'
                from verification.verifications order by id`;
  });
  say(`one INSERT ... SELECT   ${rate(reference)} rows/s`);
  await sql`truncate verification.sms_log, smslogd.sms_poll`;
  await sql`checkpoint`;

  const daemon = startDaemon({ ...env, SLOT_NAME: `bench_${randomUUID().slice(0, 8)}` });
  let memory = 0;
  const watch = setInterval(() => {
    memory = daemon.peakMemory();
  }, 200);
  await daemon.line('the reconcile begins', (line) => line.includes('"reconcile begins'));
  const copy = await timed(() => daemon.line('the reconcile is done', (line) => line.includes('"reconcile done"')));
  clearInterval(watch);
  const [{ count }] = (await sql`select count(*)::int from verification.sms_log`) as unknown as [{ count: number }];
  say(
    `the daemon's first copy ${rate(copy)} rows/s, ${(reference / copy).toFixed(2)} of the reference, peak memory ${Math.round(memory / 1024 / 1024)} MiB`,
  );
  if (count !== rows) throw new Error(`${count} rows are in the log`);
  daemon.kill('SIGTERM');
  await daemon.exited;
  await sql.end({ timeout: 1 });
} finally {
  await cluster.remove();
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}
