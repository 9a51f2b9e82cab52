/** The database's clock at the moment: not the start of a transaction, nor of a statement that then waited for a lock. One for all of a statement, and fit for its indexes. */
import type { Sql } from '../postgres/pools.ts';

/** A common table expression; materialized, as it is volatile. */
export const CLOCK = 'clock as (select clock_timestamp() as now)';
export const NOW = '(select now from clock)';

export function clockOf(sql: Sql) {
  return { clock: sql.unsafe(CLOCK), now: sql.unsafe(NOW) };
}
