/**
 * Big tables are read in pieces, by one short statement each. A statement holds its tables' locks to its end: whoever wants to change the
 * source waits for that, and everybody else behind him. So a piece is to take an eighth of a second, and a statement that has to wait for a
 * lock itself gives up soon.
 *
 * By id a table is read exactly once, whatever is written meanwhile. By place (pages of the file) only the rows that are wanted cost
 * anything, but one that is moved by an UPDATE during the look may be passed over: right for looks that are repeated.
 */
import { quoteLiteral, type Sql } from '../db.ts';
import { codeOf } from '../errors.ts';
import { pause } from '../supervise.ts';

const PIECE_MS = 120;
const LOCK_TIMEOUT_MS = 400;

/** The size of the next piece after one of `size` took `ms`: at most twice as much. */
export function nextSize(size: number, ms: number, { least, most }: { least: number; most: number }): number {
  return Math.round(Math.min(most, Math.max(least, size * Math.min(2, PIECE_MS / ms))));
}

const BRIEFLY = [
  `lock_timeout = ${LOCK_TIMEOUT_MS}`,
  // a piece is small, whatever the statistics say: for a table that was never analyzed the planner would read it whole for every row
  'enable_seqscan = off',
  'jit = off',
  // rows that a policy hides from our role are refused (42501), never passed over
  'row_security = off',
  // src/source.ts reads times so
  "timezone = 'UTC'",
  "datestyle = 'ISO'",
]
  .map((setting) => `set local ${setting};`)
  .join('\n');

/**
 * Runs one statement that gives up where a lock is not to be had soon (55P03): it may hold others' locks while it waits. The limit and the
 * statement are sent as one, an implicit transaction: no session state stays, and nothing is left to be rolled back on a connection that was
 * cut (postgres.js does not survive that). Such a query takes no parameters: `$1` and so on become literals here, but not within quotes, where
 * they are part of a name.
 */
export async function briefly<Row extends object>(
  sql: Sql,
  text: string,
  parameters: readonly (string | null)[],
): Promise<Row[]> {
  const filled = text.replaceAll(/"[^"]*"|'[^']*'|\$(\d+)/g, (found, number?: string) => {
    if (number === undefined) return found;
    const value = parameters[Number(number) - 1];
    return value === null || value === undefined ? 'null' : quoteLiteral(value);
  });
  const results = await sql.unsafe(`${BRIEFLY}\n${filled}`).simple();
  return (results as unknown as Row[][]).at(-1)!;
}

/** Does it again while a lock is not to be had; throws 55P03 once `signal` aborts. */
export async function patiently<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (codeOf(error) !== '55P03' || signal.aborted) throw error;
      await pause(500, signal);
    }
  }
}

/** What a statement adds to read one piece; `filter` goes into WHERE, `tail` behind it. Made for the alias `t`. */
export interface Piece {
  readonly filter: string;
  readonly tail: string;
  readonly parameters: readonly string[];
}

/**
 * Walks a table by id: `read` runs the statement for a piece and returns the last id of it, or null where the end is reached.
 * `parameter` is the number of the first parameter that a piece may use.
 */
export async function walkById(
  largest: number,
  parameter: number,
  read: (piece: Piece) => Promise<string | null>,
  signal: AbortSignal,
): Promise<void> {
  let size = Math.ceil(largest / 8);
  let after: string | null = null;
  while (!signal.aborted) {
    const began = performance.now();
    const tail = `order by t.id limit ${size}`;
    const piece: Piece =
      after === null
        ? { filter: 'true', tail, parameters: [] }
        : { filter: `t.id > $${parameter}::text::uuid`, tail, parameters: [after] };
    after = await read(piece);
    if (after === null) return;
    size = nextSize(size, performance.now() - began, { least: Math.ceil(largest / 100), most: largest });
  }
}

/** Walks a table by place, `pages` in all (of its longest partition), at most `largest` pages at once. */
export async function walkByPlace(
  pages: number,
  largest: number,
  parameter: number,
  read: (piece: Piece) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  let size = Math.ceil(largest / 8);
  for (let from = 0; from <= pages && !signal.aborted;) {
    const began = performance.now();
    const to = from + size;
    // the last piece is open: what moves or is added meanwhile goes there
    const open = to > pages;
    await read({
      filter: `t.ctid >= $${parameter}::text::tid${open ? '' : ` and t.ctid < $${parameter + 1}::text::tid`}`,
      tail: '',
      parameters: open ? [`(${from},0)`] : [`(${from},0)`, `(${to},0)`],
    });
    from = to;
    size = nextSize(size, performance.now() - began, { least: Math.ceil(largest / 100), most: largest });
  }
}
