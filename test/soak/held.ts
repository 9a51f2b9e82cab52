/**
 * `npm run soak:held -- MINUTES RATE`: a whole daemon under RATE verification SMS a second (default 300) for MINUTES (default 10), each asked for about
 * 1.7 times, while a transaction that is open elsewhere keeps vacuum from its work. Prints every 20 s how long a new SMS takes into the log, and
 * how large the daemon's tables are; at the end, whether the log is whole.
 */
import { setTimeout as wait } from 'node:timers/promises';
import postgres from 'postgres';
import { loadConfig } from '../../src/config.ts';
import { createCluster } from '../../src/demo/cluster.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { migrate } from '../../src/schema.ts';
import { startDaemon } from '../support/daemon.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { difference, insertVerification } from '../support/verifications.ts';

const [minutes = 10, rate = 300] = process.argv.slice(2).map(Number);
const EVERY_MS = 20_000;
const TRIES = 21;
const say = (line: string) => process.stdout.write(`${line}\n`);

const cluster = await createCluster({ settings: { max_wal_size: '8GB', log_min_messages: 'error', fsync: 'off' } });
try {
  const sql = postgres(cluster.url('postgres'), { max: 6, onnotice: () => {} });
  await sql.unsafe(SOURCE_DDL);
  const gateway = await startGateway(({ id }) => reply(id, Math.random() < 0.6 ? 'Delivered' : 'Enroute'));
  const env = {
    DATABASE_URL: cluster.url('postgres'),
    HTTP_PORT: '0',
    IP2SMS_URL: gateway.url,
    IP2SMS_LOGIN: 'login',
    IP2SMS_PASSWORD: 'password',
  };
  await migrate(loadConfig(env), { say: () => {} });
  const daemon = startDaemon(env);
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const other = await sql.reserve();
  await other`begin isolation level repeatable read`;
  await other`select from verification.verifications limit 1`;

  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1_000;
  const over = () => elapsed() >= minutes * 60;
  const send = () => insertVerification(sql, { inserted_at: new Date().toISOString().replace('Z', '') });
  let sent = 0;
  const traffic = async () => {
    while (!over()) {
      const due = Math.min(100, Math.floor(elapsed() * rate) - sent);
      sent += Math.max(0, due);
      await Promise.all([wait(5), ...Array.from({ length: due }, send)]);
    }
  };
  const untilLogged = async () => {
    const { id } = await send();
    const at = performance.now();
    while ((await sql`select from verification.sms_log where id = ${id}`).length === 0) await wait(1);
    return performance.now() - at;
  };
  const report = async () => {
    say('| s | SMS | requests | into the log, median ms | checkpoint, queue, notes: MiB |\n|---|---|---|---|---|');
    while (!over()) {
      await wait(EVERY_MS);
      const times: number[] = [];
      while (times.length < TRIES) times.push(await untilLogged());
      const median = times.toSorted((a, b) => a - b)[TRIES >> 1]!;
      const [sizes] = await sql`
        select string_agg(round(pg_total_relation_size(t) / 1048576.0, 2)::text, ', ' order by place) as mib
          from unnest('{smslogd.checkpoint,smslogd.sms_poll,smslogd.changed_hour}'::regclass[]) with ordinality x (t, place)`;
      say(
        `| ${elapsed().toFixed(0)} | ${sent} | ${gateway.asked.length} | ${median.toFixed(1)} | ${sizes?.['mib'] as string} |`,
      );
    }
  };
  await Promise.all([traffic(), report()]);
  const rewritten = daemon.lines.filter((line) => line.includes('is written anew'));
  say(
    `tables written anew: ${rewritten.length}; warnings: ${daemon.lines.filter((line) => /"level":"(warn|error)"/.test(line)).length}`,
  );
  await other`rollback`;
  other.release();
  daemon.kill('SIGTERM');
  await daemon.exited;
  await gateway.close();
  const { missing, surplus } = await difference(sql);
  say(`missing ${missing}, surplus ${surplus}`);
  process.exitCode = missing === 0 && surplus === 0 ? 0 : 1;
  await sql.end({ timeout: 1 });
} finally {
  await cluster.remove();
}
