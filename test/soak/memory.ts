/**
 * `npm run soak:memory -- ROWS`: what the daemon's memory does when it comes back to a transaction of ROWS rows (default 1,000,000) and a backlog
 * of as many small transactions. Prints the peaks, how long each took, and compares log and source at the end.
 */
import { startDaemon } from '../support/daemon.ts';
import { createDatabase, until } from '../support/database.ts';
import { createServer } from '../support/postgres.ts';
import { difference, insertMany, insertOneByOne } from '../support/verifications.ts';
import { numbersOf } from '../support/words.ts';

const [rows = 1_000_000] = numbersOf(import.meta.filename, 1);
const say = (line: string) => process.stdout.write(`${line}\n`);
const MIB = 1024 * 1024;

const cluster = await createServer({ max_wal_size: '8GB' });
try {
  const db = await createDatabase({ adminUrl: cluster.url('postgres') });
  const { sql } = db;
  const env = db.env({ LOOPS: 'mirror' });

  /** Starts a daemon, waits until the log has `count` rows, stops it; returns its peak memory. */
  const catchUp = async (count: number): Promise<string> => {
    const began = performance.now();
    const daemon = startDaemon(env);
    await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
    await until(
      'every row',
      async () => (await sql`select count(*)::int as n from verification.sms_log`)[0]?.['n'] === count,
      3_600,
    );
    const peak = daemon.peakMemory();
    daemon.kill('SIGTERM');
    await daemon.exited;
    return `peak ${Math.round(peak / MIB)} MiB, ${Math.round((performance.now() - began) / 1000)} s`;
  };

  say(`Node.js ${process.versions.node}`);
  say(`nothing to do: ${await catchUp(0)}`);
  await insertMany(sql, rows);
  say(`a transaction of ${rows} rows: ${await catchUp(rows)}`);
  await insertOneByOne(sql, rows);
  say(`a backlog of ${rows} transactions: ${await catchUp(2 * rows)}`);
  const { missing, surplus } = await difference(sql);
  say(`missing ${missing}, surplus ${surplus}`);
  process.exitCode = missing === 0 && surplus === 0 ? 0 : 1;
  await db.drop();
} finally {
  await cluster.remove();
}
