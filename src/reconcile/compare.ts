/** The SQL of an audit: each statement compares one chunk of the source with the log, or of the log with the source. */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { bodySql, columnSql, instantSql, largeSql, type Source } from '../source.ts';
import { briefly } from '../postgres/briefly.ts';
import { writtenSince } from '../postgres/transactions.ts';
import type { ChunkQuery } from './chunks.ts';

/** The source rows that an audit covers. */
export interface Scope {
  /** rows with inserted_at from here on */
  readonly since: string;
  /** and rows of this transaction or a later one, whatever their inserted_at; null: none */
  readonly xid: string | null;
  /** but no older rows, which SNAPSHOT=never or the retention excludes */
  readonly horizon: string;
  /** all earlier transactions had ended when the audit started */
  readonly now: string;
}

export interface SourceComparison {
  /** the last id of the chunk, by the bytes of its text, which sort as uuids do; null: the chunk was empty */
  readonly last: string | null;
  /** rows that the log must have */
  readonly rows: number;
  readonly differing: number;
  /** ids of rows that are not in the log, or lack the source's gateway id there; JSON */
  readonly lacking: string;
  /** the earliest inserted_at so far */
  readonly oldest: string | null;
}

export interface LogComparison {
  readonly last: string | null;
  readonly rows: number;
  readonly orphaned: number;
  /** ids that the log has more than once; JSON */
  readonly doubled: string;
}

export interface Rechecked {
  /** ids of the missing ones that are not refused; JSON */
  readonly missing: string;
  readonly refused: number;
  /** ids; JSON */
  readonly incomplete: string;
}

export const LOG = 'verification.sms_log';

/**
 * `sinceAudit`: also rows of transactions since the last light audit. That is all rows if there was none within reach of age(), or if the source got a
 * partition since, which may have added rows of any age.
 */
export async function scopeOf(
  sql: Sql,
  config: Config,
  source: Source,
  sinceSeconds: number | undefined,
  sinceAudit: boolean,
): Promise<Scope> {
  const [scope] = await briefly<Scope & { known: boolean }>(
    sql,
    `select coalesce((now() - $1::text::float8 * interval '1 second')::text, '-infinity') as since,
            greatest(coalesce(c.horizon, '-infinity'),
                     case when $2::text::int = 0 then '-infinity' else now() - $2::text::int * interval '1 day' end)::text as horizon,
            c.audited_xid::text as xid, pg_snapshot_xmin(pg_current_snapshot())::text as now,
            coalesce(pg_snapshot_xmin(pg_current_snapshot())::text::int8 - c.audited_xid::text::int8 between 0 and 1000000000, false)
            and not exists (select from pg_partition_tree($4::text::oid) t join pg_inherits i on i.inhrelid = t.relid
                             where ${writtenSince('i.xmin', 'c.audited_xid::xid')}) as known
       from (select) one left join smslogd.checkpoint c on c.slot_name = $3`,
    [
      sinceSeconds === undefined ? null : String(sinceSeconds),
      String(config.RETENTION_DAYS),
      config.SLOT_NAME,
      source.oid,
    ],
  );
  const { since, xid, horizon, now, known } = scope!;
  if (!sinceAudit) return { since, horizon, now, xid: null };
  return known ? { since, horizon, now, xid } : { since: '-infinity', horizon, now, xid: null };
}

/** `onlyScope`: reads the rows in scope alone, which is faster; `oldest` is then theirs. */
export async function compareSource(
  sql: Sql,
  config: Config,
  source: Source,
  { scope, chunk, oldest, onlyScope }: { scope: Scope; chunk: ChunkQuery; oldest: string | null; onlyScope: boolean },
): Promise<SourceComparison> {
  const t = (name: string) => columnSql(source, 't', name);
  const instant = instantSql('t.inserted_at', config.SOURCE_TIMEZONE);
  // a row without a time is never too old
  const inScope = `(coalesce(${instant} >= $1::text::timestamptz, true) or ${writtenSince('t.xmin', '$2::text::xid8::xid')})`;
  const [compared] = await briefly<SourceComparison>(
    sql,
    `with chunk as materialized (
       select t.id, ${instant} as inserted_at, ${inScope} as in_scope, ${t('phone_number')} as phone, ${t('code')} as code, ${t('gateway_id')} as gateway_id, ${largeSql(source, 't', config.SMS_BODY)} as large
         from ${source.table} t where ${chunk.filter}${onlyScope ? ` and ${inScope}` : ''} ${chunk.tail}),
     compared as (
       select c.*, l.id as logged, l.gateway_id is null as incomplete,
              case when l.id is null then false when c.large then true
                   else (l.phone_number, l.inserted_at) is distinct from (c.phone, c.inserted_at)
                        or (l.body is distinct from ${bodySql('$4::text', 'c.code', 'full')} and l.body is distinct from ${bodySql('$4::text', 'c.code', 'masked')}) end as differs
         from chunk c left join lateral (select * from ${LOG} l where l.id = c.id limit 1) l on true
        where c.in_scope and (c.inserted_at >= $3::text::timestamptz) is not false)
     select (select max(id::text collate "C") from chunk) as last,
            (select least(min(inserted_at), $5::text::timestamptz)::text from chunk) as oldest, count(*)::int as rows,
            count(*) filter (where differs)::int as differing,
            coalesce(json_agg(id) filter (where logged is null or (incomplete and gateway_id is not null)), '[]')::text as lacking
       from compared`,
    [scope.since, scope.xid, scope.horizon, config.OTP_CODE_TEXT, oldest, ...chunk.parameters],
    chunk.limited,
  );
  return compared!;
}
/** The number of the first parameter that a chunk may use in `compareSource`. */
export const SOURCE_CHUNK_PARAMETER = 6;

/** `oldest`: of the source; it may have deleted older rows by its own retention. */
export async function compareLog(
  sql: Sql,
  source: Source,
  { scope, chunk, oldest }: { scope: Scope; chunk: ChunkQuery; oldest: string | null },
): Promise<LogComparison> {
  const [compared] = await briefly<LogComparison>(
    sql,
    `with chunk as materialized (
       select t.id, t.ctid, t.inserted_at, t.type = 'verification' and t.inserted_at >= greatest($1::text::timestamptz, $2::text::timestamptz) as in_scope
         from ${LOG} t where ${chunk.filter} ${chunk.tail})
     select (select max(id::text collate "C") from chunk) as last, count(*)::int as rows,
            count(*) filter (where c.inserted_at > $3::text::timestamptz and s.id is null)::int as orphaned,
            coalesce(json_agg(c.id) filter (where other.id is not null), '[]')::text as doubled
       from chunk c
       left join lateral (select s.id from ${source.table} s where s.id = c.id limit 1) s on true
       left join lateral (select k.id from ${LOG} k where k.id = c.id and k.ctid <> c.ctid limit 1) other on true
      where c.in_scope`,
    [scope.since, scope.horizon, oldest, ...chunk.parameters],
    chunk.limited,
  );
  return compared!;
}
/** The number of the first parameter that a chunk may use in `compareLog`. */
export const LOG_CHUNK_PARAMETER = 4;

/** Which of the rows `ids` (a few hundred at most) are missing, refused or incomplete now; a row that the source no longer has is none of these. */
export async function recheck(sql: Sql, source: Source, ids: readonly string[]): Promise<Rechecked> {
  const [row] = await briefly<Rechecked>(
    sql,
    `select coalesce(json_agg(c.id) filter (where l.id is null and not refused), '[]')::text as missing,
            count(*) filter (where l.id is null and refused)::int as refused,
            coalesce(json_agg(c.id) filter (where l.id is not null and l.gateway_id is null and ${columnSql(source, 's', 'gateway_id')} is not null), '[]')::text as incomplete
       from unnest($1::text::uuid[]) c (id)
            cross join lateral (select * from ${source.table} s where s.id = c.id limit 1) s
            left join lateral (select * from ${LOG} l where l.id = c.id limit 1) l on true
            cross join lateral (select exists (select from smslogd.sms_refused r where r.id = c.id) as refused) r`,
    [arrayLiteral(ids)],
  );
  return row!;
}

/**
 * The pages of a table or of its largest partition, and the number of partitions. `files` changes when a table is rewritten, as by VACUUM FULL or CLUSTER.
 */
export async function pagesOf(sql: Sql, table: string): Promise<{ pages: number; leaves: number; files: string }> {
  const [row] = await briefly<{ pages: number; leaves: number; files: string }>(
    sql,
    `select coalesce(max(pg_relation_size(relid) / current_setting('block_size')::int), 0)::int as pages, greatest(count(*), 1)::int as leaves,
            coalesce(string_agg(pg_relation_filenode(relid)::text, ',' order by relid), '') as files
       from (with recursive tree as (
               select $1::text::regclass::oid as relid union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.relid)
             select relid from tree join pg_class c on c.oid = relid where c.relkind = 'r') t`,
    [table],
  );
  return row!;
}
