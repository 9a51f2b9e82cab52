/** Several statements in one implicit transaction, of which the last gives a row. */
import type { Sql } from './pools.ts';

/**
 * Sends statements as one simple query, an implicit transaction, and returns the first row of the last one. Nothing is compiled (jit): that takes longer
 * than what is read here.
 */
export async function lastRow<Row>(sql: Sql, statements: string): Promise<Row> {
  const results = (await sql.unsafe(`set local jit = off;\n${statements}`).simple()) as unknown as Row[][];
  return results.at(-1)![0]!;
}
