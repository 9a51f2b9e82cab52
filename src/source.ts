/**
 * The source table as it is now: its owner changes it without asking, so its shape is read, never assumed.
 * Needed columns: id, phone_number, code, inserted_at. Optional: gateway_id, gateway_status; absent ones count as null.
 */
import { quoteIdentifier, quoteLiteral, quoteTable, type Sql } from './db.ts';
import type { Config } from './config.ts';
import { SmslogdError } from './errors.ts';
import { STATUS_WORDS } from './status.ts';

export const NEEDED_COLUMNS = ['id', 'phone_number', 'code', 'inserted_at'] as const;

export interface Source {
  /** quoted, ready for SQL */
  readonly table: string;
  readonly oid: number;
  /** r table, p partitioned table */
  readonly kind: string;
  readonly owner: string;
  /** column name → type name as format_type gives it */
  readonly columns: ReadonlyMap<string, string>;
  /** true where an UPDATE can be published: a primary key, or another replica identity */
  readonly publishesUpdates: boolean;
  /** d default, n nothing, f full, i index */
  readonly replicaIdentity: string;
  /** true where it has the gateway_id column */
  readonly tracksGateway: boolean;
}

/** Reads the shape of SOURCE_TABLE. Throws source_missing or source_column. */
export async function describeSource(sql: Sql, config: Pick<Config, 'SOURCE_TABLE'>): Promise<Source> {
  const table = quoteTable(config.SOURCE_TABLE);
  const [row] = await sql<
    { oid: number; kind: string; owner: string; identity: string; key: boolean; names: string; types: string }[]
  >`select c.oid::int8::int4 as oid, c.relkind::text as kind, pg_get_userbyid(c.relowner) as owner, c.relreplident::text as identity,
           exists (select from pg_index i where i.indrelid = c.oid and (i.indisprimary and c.relreplident = 'd' or i.indisreplident)) as key,
           (select json_agg(a.attname order by a.attnum)::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as names,
           (select json_agg(format_type(a.atttypid, null) order by a.attnum)::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as types
      from pg_class c where c.oid = to_regclass(${table}) and c.relkind in ('r', 'p')`;
  if (row === undefined)
    throw new SmslogdError('source_missing', `the source table ${config.SOURCE_TABLE} does not exist`);
  const names = JSON.parse(row.names) as string[];
  const types = JSON.parse(row.types) as string[];
  const columns = new Map(names.map((name, i) => [name, types[i] ?? '']));
  const absent = NEEDED_COLUMNS.filter((name) => !columns.has(name));
  if (absent.length > 0) {
    throw new SmslogdError(
      'source_column',
      `the source table ${config.SOURCE_TABLE} has no column ${absent.join(', ')}`,
    );
  }
  return {
    table,
    oid: row.oid,
    kind: row.kind,
    owner: row.owner,
    columns,
    replicaIdentity: row.identity,
    publishesUpdates: row.identity === 'f' || row.key,
    tracksGateway: columns.has('gateway_id'),
  };
}

/**
 * SQL that turns `expression`, the source's inserted_at as a text, into an instant. A type without time zone is read in SOURCE_TIMEZONE.
 * The one rule for the stream and the reconcile.
 */
export function instantSql(expression: string, withTimezone: boolean, timezone: string): string {
  return withTimezone
    ? `(${expression})::timestamptz`
    : `((${expression})::timestamp at time zone ${quoteLiteral(timezone)})`;
}

/** True where the source's inserted_at carries its own time zone. */
export function insertedAtHasTimezone(source: Source): boolean {
  return source.columns.get('inserted_at') === 'timestamp with time zone';
}

/** SQL for the log's gateway_status of a source row: words by the gateway's table, a gateway id without a status is Accepted. */
export function statusSql(id: string, word: string): string {
  const map = quoteLiteral(JSON.stringify(STATUS_WORDS));
  return `case when ${id} is null then null when coalesce(trim(${word}), '') = '' then 'Accepted'
               else coalesce(${map}::jsonb ->> lower(trim(${word})), 'Unknown') end`;
}

/** A column of the source as text, or null where the source has no such column. `alias` is the table's alias. */
export function columnSql(source: Source, alias: string, column: string): string {
  return source.columns.has(column) ? `${alias}.${quoteIdentifier(column)}::text` : 'null::text';
}
