/** The database's current time, not the start of a transaction, or of a statement that then waited for a lock. It is one value per statement, which indexes can use. */
import type { Sql } from '../postgres/pools.ts';

/** A common table expression, materialized because clock_timestamp() is volatile. */
export const CLOCK = 'clock as (select clock_timestamp() as now)';
export const NOW = '(select now from clock)';

export function clockOf(sql: Sql) {
  return { clock: sql.unsafe(CLOCK), now: sql.unsafe(NOW) };
}
