/**
 * Compares the log with the source: rows that are missing, incomplete, doubled, different, or in the log without a source row.
 *
 * An audit sees a source row before the stream does. So what is absent at the look is noted, then the WAL position is read, and only what is
 * still absent once the slot has acknowledged that position counts as missing. (The checkpoint would not do: it stands still when idle.)
 */
import type { Config } from '../config.ts';
import { arrayLiteral, type Sql } from '../db.ts';
import { bodySql, columnSql, insertedAtForm, instantSql, type Source } from '../source.ts';
import { pause } from '../supervise.ts';

export interface Audit {
  /** source rows that the log must have */
  readonly source: number;
  /** mirrored rows of the same time */
  readonly log: number;
  readonly missing: number;
  /** rows whose gateway id the source has and the log lacks */
  readonly incomplete: number;
  /** ids that the log has more than once: the primary key forbids it, so more than 0 means a broken index */
  readonly doubled: number;
  /** rows whose phone number, text or time is not the source's */
  readonly differing: number;
  /** mirrored rows, newer than the oldest source row, that the source does not have: deleted there by hand */
  readonly orphaned: number;
  /** false where the mirror did not pass the position of the look in time: `missing` may then be merely late */
  readonly settled: boolean;
}

export interface AuditOptions {
  /** only rows inserted in the last so many seconds; undefined: all, in keyset chunks */
  readonly sinceSeconds?: number | undefined;
  /** how long to wait for the mirror; milliseconds */
  readonly patienceMs: number;
  readonly progress?: (looked: number) => void;
}

interface Bounds {
  readonly since: string;
  readonly horizon: string;
}

const CHUNK = 20_000;
/** A slot that nobody reads for so long has no daemon. */
const UNREAD_MS = 2_000;

/** Counts what differs. What SNAPSHOT=never or the retention left out is not expected in the log. */
export async function audit(
  sql: Sql,
  config: Config,
  source: Source,
  options: AuditOptions,
  signal: AbortSignal,
): Promise<Audit> {
  const bounds = await boundsOf(sql, config, options.sinceSeconds);
  const found = { source: 0, differing: 0, lacking: [] as string[] };
  const size = options.sinceSeconds === undefined ? CHUNK : undefined;
  let after: string | null = null;
  do {
    const look: Look = await lookAt(sql, config, source, { bounds, after, size });
    found.source += look.looked;
    found.differing += look.differing;
    found.lacking.push(...(JSON.parse(look.lacking) as string[]));
    options.progress?.(found.source);
    after = size === undefined ? null : look.last;
  } while (after !== null && !signal.aborted);
  const settled = found.lacking.length === 0 || (await mirrorPassed(sql, config, options.patienceMs, signal));
  return {
    source: found.source,
    ...(await stillLacking(sql, source, found.lacking)),
    differing: found.differing,
    ...(await lookAtLog(sql, config, source, bounds)),
    settled,
  };
}

/** The rows that the log lacks among those of the last `sinceSeconds`: the light form that the daemon runs again and again. */
export async function lackingRows(
  sql: Sql,
  config: Config,
  source: Source,
  { sinceSeconds, patienceMs }: { sinceSeconds: number; patienceMs: number },
  signal: AbortSignal,
): Promise<number> {
  const bounds = await boundsOf(sql, config, sinceSeconds);
  const look = await lookAt(sql, config, source, { bounds, after: null, size: undefined });
  const lacking = JSON.parse(look.lacking) as string[];
  if (lacking.length === 0) return 0;
  await mirrorPassed(sql, config, patienceMs, signal);
  const { missing, incomplete } = await stillLacking(sql, source, lacking);
  return missing + incomplete;
}

async function boundsOf(sql: Sql, config: Config, sinceSeconds: number | undefined): Promise<Bounds> {
  const [bounds] = await sql<Bounds[]>`
    select coalesce((now() - ${sinceSeconds === undefined ? null : String(sinceSeconds)}::text::float8 * interval '1 second')::text, '-infinity') as since,
           greatest(coalesce((select horizon from smslogd.checkpoint where slot_name = ${config.SLOT_NAME}), '-infinity'),
                    case when ${config.RETENTION_DAYS}::int = 0 then '-infinity' else now() - ${config.RETENTION_DAYS}::int * interval '1 day' end)::text as horizon`;
  return bounds!;
}

interface Look {
  readonly last: string | null;
  readonly looked: number;
  readonly differing: number;
  readonly lacking: string;
}

/** One look at the source: the `size` rows after `after` in id order, or all that are young enough. */
async function lookAt(
  sql: Sql,
  config: Config,
  source: Source,
  { bounds, after, size }: { bounds: Bounds; after: string | null; size: number | undefined },
): Promise<Look> {
  const s = (name: string) => columnSql(source, 's', name);
  const instant = instantSql('s.inserted_at', insertedAtForm(source), config.SOURCE_TIMEZONE);
  const [look] = await sql.unsafe<Look[]>(
    `with chunk as materialized (
       select s.id, ${instant} as inserted_at, ${s('phone_number')} as phone, ${s('code')} as code, ${s('gateway_id')} as gateway_id
         from ${source.table} s
        where ${size === undefined ? `$3::text is null and ${instant} >= $1::text::timestamptz` : '($3::text is null or s.id > $3::text::uuid)'}
        ${size === undefined ? '' : `order by s.id limit ${size}`}),
     seen as (
       select c.*, l.id as logged, l.gateway_id is null as bare,
              (l.phone_number, l.inserted_at) is distinct from (c.phone, c.inserted_at)
              or (l.body is distinct from ${bodySql('$4::text', 'c.code', 'full')} and l.body is distinct from ${bodySql('$4::text', 'c.code', 'masked')}) as differs
         from chunk c left join verification.sms_log l using (id)
        where c.inserted_at >= greatest($1::text::timestamptz, $2::text::timestamptz))
     select (select max(id::text) from chunk) as last, count(*)::int as looked,
            count(*) filter (where logged is not null and differs)::int as differing,
            coalesce(json_agg(id) filter (where logged is null or (bare and gateway_id is not null)), '[]')::text as lacking
       from seen`,
    [bounds.since, bounds.horizon, after, config.OTP_CODE_TEXT],
  );
  return look!;
}

async function stillLacking(
  sql: Sql,
  source: Source,
  ids: readonly string[],
): Promise<{ missing: number; incomplete: number }> {
  const [row] = await sql.unsafe<{ missing: number; incomplete: number }[]>(
    `select count(*) filter (where l.id is null)::int as missing,
            count(*) filter (where l.gateway_id is null and ${columnSql(source, 's', 'gateway_id')} is not null and l.id is not null)::int as incomplete
       from unnest($1::text::uuid[]) c (id) join ${source.table} s using (id) left join verification.sms_log l using (id)`,
    [arrayLiteral(ids)],
  );
  return row!;
}

async function lookAtLog(
  sql: Sql,
  config: Config,
  source: Source,
  bounds: Bounds,
): Promise<{ log: number; doubled: number; orphaned: number }> {
  const instant = instantSql('s.inserted_at', insertedAtForm(source), config.SOURCE_TIMEZONE);
  const [row] = await sql.unsafe<{ log: number; doubled: number; orphaned: number }[]>(
    `with oldest as materialized (select min(${instant}) as at from ${source.table} s)
     select count(*)::int as log, (count(*) - count(distinct l.id))::int as doubled,
            count(*) filter (where l.inserted_at > oldest.at and not exists (select from ${source.table} s where s.id = l.id))::int as orphaned
       from verification.sms_log l cross join oldest
      where l.type = 'verification' and l.inserted_at >= greatest($1::text::timestamptz, $2::text::timestamptz)`,
    [bounds.since, bounds.horizon],
  );
  return row!;
}

/**
 * Waits until the slot has acknowledged what the WAL held at this moment; false where that takes too long, or where nobody reads the slot.
 * Without a slot there is nothing to wait for.
 */
async function mirrorPassed(sql: Sql, config: Config, patienceMs: number, signal: AbortSignal): Promise<boolean> {
  const [position] = await sql<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`;
  const began = performance.now();
  while (!signal.aborted) {
    const [slot] = await sql<{ passed: boolean; active: boolean }[]>`
      select confirmed_flush_lsn >= ${position!.lsn}::text::pg_lsn as passed, active
        from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
    if (slot === undefined || slot.passed) return true;
    if (performance.now() - began > (slot.active ? patienceMs : UNREAD_MS)) return false;
    await pause(100, signal);
  }
  return false;
}
