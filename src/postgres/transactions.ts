/** Which transactions are open, as a reconcile's second pass and the slot's creation must wait for them, which sessions run a statement, and how a session is known by its name. */
import type { Sql } from './pools.ts';

/** SQL: session `a` runs a statement. Its state is hidden where it is another role's, and not known where track_activities is off; its locks are, and every statement has one. */
export const RUNS =
  "coalesce(nullif(a.state, 'disabled') <> 'idle', exists (select from pg_locks l where l.pid = a.pid))";

/** SQL: the name that session `a` was given. PgBouncer adds its client's address to it where application_name_add_host is set. */
export const SESSION_NAME = "split_part(a.application_name, ' - ', 1)";

/**
 * SQL: a row with this xmin is of transaction `since` or a later one. A frozen row keeps its xmin, whose age is far below zero from 2^31 transactions on; one that
 * began after the transaction that asks is a little below.
 */
export function writtenSince(xmin: string, since: string): string {
  return `age(${xmin}) between -1000000 and age(${since})`;
}

/** A transaction id of now: whatever committed before it is visible once `allEndedBefore` says so. */
export async function currentTransaction(sql: Sql): Promise<string> {
  const [row] = await sql`select pg_current_xact_id()::text as xid`;
  return row?.['xid'] as string;
}

/** True when every transaction that began before `xid` has ended and is visible. */
export async function allEndedBefore(sql: Sql, xid: string): Promise<boolean> {
  const [row] = await sql`select pg_snapshot_xmin(pg_current_snapshot()) >= ${xid}::text::xid8 as ended`;
  return row?.['ended'] === true;
}

export interface Oldest {
  readonly oldestPid: number | null;
  readonly oldestSeconds: number | null;
  readonly oldestApplication: string | null;
  /** where it is a prepared transaction, which has no session: COMMIT PREPARED or ROLLBACK PREPARED ends it */
  readonly oldestPrepared: string | null;
}

/** The oldest transaction with an id, which is what others wait for; of another role's session its age in seconds may be hidden from ours. */
export async function oldestTransaction(sql: Sql): Promise<Partial<Oldest>> {
  const [row] = await sql<Oldest[]>`
    select pid as "oldestPid", extract(epoch from now() - since)::int as "oldestSeconds", application as "oldestApplication", prepared as "oldestPrepared"
      from (select backend_xid as xid, pid, xact_start as since, application_name as application, null as prepared
              from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
             union all select transaction, null, prepared, null, gid from pg_prepared_xacts) x
     order by age(xid) desc limit 1`;
  return row ?? {};
}
