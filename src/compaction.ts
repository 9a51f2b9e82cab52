/**
 * The loop that keeps small what the daemon changes all the time, while a transaction that is open somewhere lets vacuum clean up nothing: the
 * checkpoint's one row has a new version with each batch, a queue entry with each request, a noted hour with each count.
 *
 * A table that has grown past its size, and holds few rows for it, is written anew with its living rows alone (sql/compaction.sql).
 * That takes its lock alone, so it gives up soon and is tried again later: whoever reads or writes the table waits for less than half a
 * second. A statement that waited goes on with what it finds then: PostgreSQL gives it its snapshot after its locks, but in a
 * stricter isolation level: there it finds nothing, fails or steps down, and is done again.
 */
import type { Sql } from './postgres/pools.ts';
import { setLocal } from './postgres/quoting.ts';
import { codeOf } from './errors.ts';
import type { Log } from './log.ts';
import { pause } from './supervise.ts';

const EVERY_MS = 15_000;
/** After one that gave up: each try is a wait for others. */
const LONGEST_EVERY_MS = 600_000;
const LOCK_MS = 60;
const STATEMENT_MS = 400;

export interface Table {
  readonly name: 'checkpoint' | 'changed_hour' | 'sms_poll';
  /** with its indexes */
  readonly mostBytes: number;
  /** with more of them it is big for what it holds, and would take long */
  readonly mostRows: number;
}

const MIB = 1024 * 1024;
/** The first two are read whole, the queue from where its living entries are: it may be larger. */
const TABLES: readonly Table[] = [
  { name: 'checkpoint', mostBytes: MIB, mostRows: 1_000 },
  { name: 'changed_hour', mostBytes: 16 * MIB, mostRows: 50_000 },
  { name: 'sms_poll', mostBytes: 32 * MIB, mostRows: 60_000 },
];

export interface CompactionDeps {
  readonly sql: Sql;
  readonly log: Log;
  readonly tables?: readonly Table[];
  readonly everyMs?: number;
}

/** Looks after the tables until `signal` aborts. Throws what the database throws, but for what takes too long. */
export async function runCompaction(
  { sql, log, tables = TABLES, everyMs = EVERY_MS }: CompactionDeps,
  signal: AbortSignal,
): Promise<void> {
  let wait = everyMs;
  for (;;) {
    await pause(wait, signal);
    if (signal.aborted) return;
    let gaveUp = false;
    const failures: unknown[] = [];
    for (const table of tables) {
      if (!(await hasGrown(sql, table))) continue;
      const { name } = table;
      try {
        await compact(sql, name);
        log.info({ table: name }, 'a table that vacuum could not clean up is written anew');
      } catch (error) {
        if (codeOf(error) === '55P03' || codeOf(error) === '57014') {
          gaveUp = true;
          log.debug({ table: name }, 'a table that vacuum could not clean up cannot be written anew just now');
        } else failures.push(error);
      }
    }
    // what stands in the way of one, as somebody's view, keeps no other from it
    if (failures.length > 0) throw failures[0];
    wait = gaveUp ? Math.min(2 * wait, LONGEST_EVERY_MS) : everyMs;
  }
}

async function hasGrown(sql: Sql, { name, mostBytes, mostRows }: Table): Promise<boolean> {
  const [row] = await sql<{ grown: boolean }[]>`
    select case when pg_total_relation_size(${`smslogd.${name}`}::text::regclass) <= ${mostBytes}::int8 then false
                else (select count(*) <= ${mostRows}::int8 from (select from ${sql(`smslogd.${name}`)} limit ${mostRows + 1}::int8) t) end as grown`;
  return row!.grown;
}

const BRIEFLY = setLocal([
  // what others commit while the lock is waited for must be seen, also through a pooler whose sessions have another level
  "transaction_isolation = 'read committed'",
  // no stand-by is waited for with that lock in hand
  'synchronous_commit = local',
  `lock_timeout = ${LOCK_MS}`,
  `statement_timeout = ${STATEMENT_MS}`,
]);

/** Sent as one, an implicit transaction: no session state is left behind. */
async function compact(sql: Sql, name: Table['name']): Promise<void> {
  await sql.unsafe(`${BRIEFLY}\nselect smslogd.compact_${name}()`).simple();
}
