/** The daemon's progress, measured from outside: counts of log rows, and its lag from /metrics. */
import type { Sql } from '../postgres/pools.ts';
import { OPEN_STATUSES } from '../status.ts';

export interface Score {
  /** verifications written before the daemon's first start that are in the log */
  readonly copied: number;
  /** rows of the log for SMS of the live services */
  readonly live: number;
  /** all rows of the log */
  readonly rows: number;
  /** rows without a final status */
  readonly open: number;
  /** open rows past their deadline */
  readonly overdue: number;
}

/** `liveSince`: UTC text; later SMS are those of the live services. */
export async function readScore(sql: Sql, liveSince: string, lifeMinutes: number): Promise<Score> {
  const [score] = await sql<[Score]>`
    select count(*) filter (where type = 'verification' and inserted_at < since)::int as copied,
           count(*) filter (where inserted_at >= since)::int as live,
           count(*)::int as rows,
           count(*) filter (where open)::int as open,
           count(*) filter (where open and inserted_at < now() - ${lifeMinutes} * interval '1 minute')::int as overdue
      from (select type, inserted_at, ${`${liveSince}Z`}::text::timestamptz as since,
                   gateway_status is null or gateway_status = any (${`{${OPEN_STATUSES.join(',')}}`}::text::text[]) as open
              from verification.sms_log) l`;
  return score;
}

/** The verifications that are in the source and not yet in the log. */
export async function waitingVerifications(sql: Sql): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`
    select v.id::text as id from verification.verifications v where not exists (select from verification.sms_log l where l.id = v.id)`;
  return rows.map(({ id }) => id);
}

/** The number of verifications whose gateway id is in the source and not yet in the log. */
export async function countIncomplete(sql: Sql): Promise<number> {
  const [row] = await sql<[{ incomplete: number }]>`
    select count(*)::int as incomplete from verification.verifications v join verification.sms_log l using (id)
     where v.gateway_id is not null and l.gateway_id is null`;
  return row.incomplete;
}

/** How many of `ids` are not in the log. */
export async function countAbsent(sql: Sql, ids: readonly string[]): Promise<number> {
  const [row] = await sql<[{ absent: number }]>`
    select count(*)::int as absent from unnest(${`{${ids.join(',')}}`}::text::uuid[]) as w (id)
     where not exists (select from verification.sms_log l where l.id = w.id)`;
  return row.absent;
}

/** smslogd_mirror_lag_seconds; undefined if the daemon does not answer at once. */
export async function readLag(web: string): Promise<number | undefined> {
  try {
    const response = await fetch(`${web}/metrics`, { signal: AbortSignal.timeout(1_000) });
    const value = /^smslogd_mirror_lag_seconds (\S+)$/m.exec(await response.text())?.[1];
    return value === undefined ? undefined : Number(value);
  } catch {
    return undefined;
  }
}
