/** Several statements in one implicit transaction, of which the last gives rows. */
import type { Sql } from './pools.ts';

/**
 * A time limit that is over as its statement ends is met by the next statement of the session: PostgreSQL looks for it only in the course of a statement, and
 * before it reads the next message (15 to 18, seen). Its error is then one answer too many, which a client takes for that of what it sent meanwhile. So two
 * statements follow in the same message: the first meets what is over, and the second has no limit.
 */
const MEET_LIMIT = 'set local statement_timeout = 0;\nset local statement_timeout = 0';

/**
 * Sends statements as one simple query, an implicit transaction: no session state is left behind, and nothing is left to be rolled back on a connection that
 * was cut (postgres.js does not survive that). Returns the rows of the last one. Nothing is compiled (jit): that takes longer than what is read here.
 * `limitMs`: PostgreSQL gives it up after so many milliseconds (57014); 0: never, whatever the session has.
 */
export async function lastRows<Row>(sql: Sql, statements: string, limitMs?: number): Promise<Row[]> {
  const limited =
    limitMs === undefined
      ? statements
      : `set local statement_timeout = ${Math.round(limitMs)};\n${statements};\n${MEET_LIMIT}`;
  const results = (await sql.unsafe(`set local jit = off;\n${limited}`).simple()) as unknown as Row[][];
  // to postgres.js what gives no rows is no result of its own
  return results.at(-1)!;
}

/** The first row of `lastRows`. */
export async function lastRow<Row>(...words: Parameters<typeof lastRows>): Promise<Row> {
  return (await lastRows<Row>(...words))[0]!;
}
