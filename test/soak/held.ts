/**
 * `npm run soak:held -- MINUTES RATE`: a whole daemon under RATE verification SMS a second (default 300) for MINUTES (default 10), each asked for about
 * 1.7 times, while a transaction that is open elsewhere keeps vacuum from its work. Prints every 20 s how long a new SMS takes into the log, what a
 * claim, a checkpoint and a reading of the figures took on the server, and how large the daemon's tables are. Fails where the log is not whole in the end, or
 * where the claims or the checkpoints of the last third took more than 1.5 times as long as those of the first.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { median } from '../bench/growth.ts';
import { startDaemon } from '../support/daemon.ts';
import { createDatabase } from '../support/database.ts';
import { reply, startGateway } from '../support/gateway.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertVerification } from '../support/verifications.ts';
import { numbersOf } from '../support/words.ts';

const [minutes = 10, rate = 300] = numbersOf(import.meta.filename, 2);
const EVERY_MS = 20_000;
const TRIES = 21;
/** The median of the last third beside that of the first. */
const growthOf = (times: readonly number[]) => {
  const third = Math.ceil(times.length / 3);
  return median(times.slice(-third)) / median(times.slice(0, third));
};
const say = (line: string) => process.stdout.write(`${line}\n`);

const cluster = await createServer({ max_wal_size: '8GB', shared_preload_libraries: 'pg_stat_statements' });
try {
  const db = await createDatabase({ adminUrl: cluster.url('postgres') });
  const { sql } = db;
  await sql`create extension pg_stat_statements`;
  const gateway = await startGateway(({ id }) => reply(id, Math.random() < 0.6 ? 'Delivered' : 'Enroute'));
  const daemon = startDaemon(db.env({ IP2SMS_URL: gateway.url }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const address = await daemon.url();
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
  /** What a statement took on the server, in the mean since the last call; milliseconds. */
  const spent = async () => {
    const [row] = await sql<Record<string, number>[]>`
      select coalesce(sum(total_exec_time) filter (where query ~ 'async_commit as'), 0)::float8 as claim_ms,
             coalesce(sum(calls) filter (where query ~ 'async_commit as'), 0)::float8 as claims,
             coalesce(sum(total_exec_time) filter (where query ~ 'c.ctid = '), 0)::float8 as checkpoint_ms,
             coalesce(sum(calls) filter (where query ~ 'c.ctid = '), 0)::float8 as checkpoints,
             coalesce(sum(total_exec_time) filter (where query ~ 'verification.sms_behind'), 0)::float8 as reading_ms,
             coalesce(sum(calls) filter (where query ~ 'verification.sms_behind'), 0)::float8 as readings
        from pg_stat_statements where query !~ 'pg_stat_statements'`;
    await sql`select pg_stat_statements_reset()`;
    return {
      claim: row!['claim_ms']! / row!['claims']!,
      checkpoint: row!['checkpoint_ms']! / row!['checkpoints']!,
      reading: row!['reading_ms']! / row!['readings']!,
    };
  };
  const claims: number[] = [];
  const checkpoints: number[] = [];
  const report = async () => {
    say(
      '| s | SMS | requests | into the log, median ms | claim ms | checkpoint ms | reading ms | checkpoint, queue, notes: MiB |\n|---|---|---|---|---|---|---|---|',
    );
    await spent();
    while (!over()) {
      await wait(EVERY_MS);
      await fetch(`${address}/metrics`).then((answer) => answer.text());
      const times: number[] = [];
      while (times.length < TRIES) times.push(await untilLogged());
      const logged = median(times);
      const [sizes] = await sql`
        select string_agg(round(pg_total_relation_size(t) / 1048576.0, 2)::text, ', ' order by place) as mib
          from unnest('{smslogd.checkpoint,smslogd.sms_poll,smslogd.changed_hour}'::regclass[]) with ordinality x (t, place)`;
      const { claim, checkpoint, reading } = await spent();
      claims.push(claim);
      checkpoints.push(checkpoint);
      const figures = [logged, claim, checkpoint, reading].map((ms) => ms.toFixed(2)).join(' | ');
      say(`| ${elapsed().toFixed(0)} | ${sent} | ${gateway.asked.length} | ${figures} | ${sizes?.['mib'] as string} |`);
    }
  };
  await Promise.all([traffic(), report()]);
  say(`warnings: ${daemon.lines.filter((line) => /"level":"(warn|error)"/.test(line)).length}`);
  await other`rollback`;
  other.release();
  daemon.kill('SIGTERM');
  await daemon.exited;
  await gateway.close();
  const { missing, surplus } = await difference(sql);
  say(`missing ${missing}, surplus ${surplus}`);
  const growth = [claims, checkpoints].map(growthOf);
  say(`claims took ${growth[0]!.toFixed(2)} and checkpoints ${growth[1]!.toFixed(2)} times as long in the last third`);
  process.exitCode = missing === 0 && surplus === 0 && growth.every((ratio) => ratio <= 1.5) ? 0 : 1;
  await db.drop();
} finally {
  await cluster.remove();
}
