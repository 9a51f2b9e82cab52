/** The looks of an audit: each one short statement that compares a piece of the source with the log, or of the log with the source. */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { bodySql, columnSql, instantSql, largeSql, type Source } from '../source.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Piece } from './chunks.ts';

/** Which source rows an audit is about. */
export interface Scope {
  /** rows inserted since then */
  readonly since: string;
  /** and those of this transaction or a later one, whatever time they say; null: none */
  readonly xid: string | null;
  /** but none older than this: what SNAPSHOT=never or the retention left out */
  readonly horizon: string;
  /** every transaction before this one had ended when the audit began */
  readonly now: string;
}

export interface SourceLook {
  /** the last id of the piece, found by the bytes of its text, which sort as ids do; null: it was empty */
  readonly last: string | null;
  /** rows that the log must have */
  readonly looked: number;
  readonly differing: number;
  /** ids of rows that are not in the log, or there without the gateway id that the source has; JSON */
  readonly lacking: string;
  /** the earliest time that was seen so far */
  readonly oldest: string | null;
}

export interface LogLook {
  readonly last: string | null;
  readonly looked: number;
  readonly orphaned: number;
  /** ids that the log has more than once; JSON */
  readonly doubled: string;
}

export interface Lacking {
  /** ids of the missing ones that are not refused; JSON */
  readonly missing: string;
  readonly refused: number;
  /** ids; JSON */
  readonly incomplete: string;
}

export const LOG = 'verification.sms_log';

/**
 * `young`: also the rows of transactions since the last light audit, all rows where there was none that is near enough to compare, or where the source
 * got a partition since, which may have brought rows of any age.
 */
export async function scopeOf(
  sql: Sql,
  config: Config,
  source: Source,
  sinceSeconds: number | undefined,
  young: boolean,
): Promise<Scope> {
  const [scope] = await briefly<Scope & { known: boolean }>(
    sql,
    `select coalesce((now() - $1::text::float8 * interval '1 second')::text, '-infinity') as since,
            greatest(coalesce(c.horizon, '-infinity'),
                     case when $2::text::int = 0 then '-infinity' else now() - $2::text::int * interval '1 day' end)::text as horizon,
            c.audited_xid::text as xid, pg_snapshot_xmin(pg_current_snapshot())::text as now,
            coalesce(pg_snapshot_xmin(pg_current_snapshot())::text::int8 - c.audited_xid::text::int8 between 0 and 1000000000, false)
            and not exists (select from pg_partition_tree($4::text::oid) t join pg_inherits i on i.inhrelid = t.relid
                             where age(i.xmin) <= age(c.audited_xid::xid)) as known
       from (select) one left join smslogd.checkpoint c on c.slot_name = $3`,
    [
      sinceSeconds === undefined ? null : String(sinceSeconds),
      String(config.RETENTION_DAYS),
      config.SLOT_NAME,
      source.oid,
    ],
  );
  const { since, xid, horizon, now, known } = scope!;
  if (!young) return { since, horizon, now, xid: null };
  return known ? { since, horizon, now, xid } : { since: '-infinity', horizon, now, xid: null };
}

/** `only`: nothing but the rows in question is read, which is quicker; `oldest` is then theirs. */
export async function lookAtSource(
  sql: Sql,
  config: Config,
  source: Source,
  { scope, piece, oldest, only }: { scope: Scope; piece: Piece; oldest: string | null; only: boolean },
): Promise<SourceLook> {
  const t = (name: string) => columnSql(source, 't', name);
  const instant = instantSql('t.inserted_at', config.SOURCE_TIMEZONE);
  // a row without a time is not too old for anything
  const asked = `(coalesce(${instant} >= $1::text::timestamptz, true) or age(t.xmin) <= age($2::text::xid8::xid))`;
  const [look] = await briefly<SourceLook>(
    sql,
    `with chunk as materialized (
       select t.id, ${instant} as inserted_at, ${asked} as asked, ${t('phone_number')} as phone, ${t('code')} as code, ${t('gateway_id')} as gateway_id, ${largeSql(source, 't', config.SMS_BODY)} as large
         from ${source.table} t where ${piece.filter}${only ? ` and ${asked}` : ''} ${piece.tail}),
     seen as (
       select c.*, l.id as logged, l.gateway_id is null as bare,
              case when l.id is null then false when c.large then true
                   else (l.phone_number, l.inserted_at) is distinct from (c.phone, c.inserted_at)
                        or (l.body is distinct from ${bodySql('$4::text', 'c.code', 'full')} and l.body is distinct from ${bodySql('$4::text', 'c.code', 'masked')}) end as differs
         from chunk c left join lateral (select * from ${LOG} l where l.id = c.id limit 1) l on true
        where c.asked and (c.inserted_at >= $3::text::timestamptz) is not false)
     select (select max(id::text collate "C") from chunk) as last,
            (select least(min(inserted_at), $5::text::timestamptz)::text from chunk) as oldest, count(*)::int as looked,
            count(*) filter (where differs)::int as differing,
            coalesce(json_agg(id) filter (where logged is null or (bare and gateway_id is not null)), '[]')::text as lacking
       from seen`,
    [scope.since, scope.xid, scope.horizon, config.OTP_CODE_TEXT, oldest, ...piece.parameters],
    piece.limited,
  );
  return look!;
}
/** The number of the first parameter that a piece may use in `lookAtSource`. */
export const SOURCE_PIECE = 6;

/** `oldest`: of the source; a mirrored row from before it may have been deleted there in the course of things. */
export async function lookAtLog(
  sql: Sql,
  source: Source,
  { scope, piece, oldest }: { scope: Scope; piece: Piece; oldest: string | null },
): Promise<LogLook> {
  const [look] = await briefly<LogLook>(
    sql,
    `with chunk as materialized (
       select t.id, t.ctid as place, t.inserted_at, t.type = 'verification' and t.inserted_at >= greatest($1::text::timestamptz, $2::text::timestamptz) as asked
         from ${LOG} t where ${piece.filter} ${piece.tail})
     select (select max(id::text collate "C") from chunk) as last, count(*)::int as looked,
            count(*) filter (where c.inserted_at > $3::text::timestamptz and s.id is null)::int as orphaned,
            coalesce(json_agg(c.id) filter (where other.id is not null), '[]')::text as doubled
       from chunk c
       left join lateral (select s.id from ${source.table} s where s.id = c.id limit 1) s on true
       left join lateral (select k.id from ${LOG} k where k.id = c.id and k.ctid <> c.place limit 1) other on true
      where c.asked`,
    [scope.since, scope.horizon, oldest, ...piece.parameters],
    piece.limited,
  );
  return look!;
}
/** The number of the first parameter that a piece may use in `lookAtLog`. */
export const LOG_PIECE = 4;

/** Which of the rows `ids`, not many, are missing, refused or incomplete now; a row that the source has no more is none of these. */
export async function stillLacking(sql: Sql, source: Source, ids: readonly string[]): Promise<Lacking> {
  const [row] = await briefly<Lacking>(
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
 * Pages of a table, of its biggest partition or child where it has some, and how many tables share them. `files` changes where the rows get other places,
 * as VACUUM FULL and CLUSTER do it.
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
