/**
 * The source table as it is now: its owner changes it without asking, so its shape is read, never assumed.
 * Needed columns: id, phone_number, code, inserted_at. Optional: gateway_id, gateway_status; absent ones count as null.
 */
import type { Sql } from './postgres/pools.ts';
import { arrayLiteral, quoteIdentifier, quoteLiteral, quoteTable, splitTable } from './postgres/quoting.ts';
import { DURABLE } from './postgres/session.ts';
import type { Config } from './settings.ts';
import { SmslogdError } from './errors.ts';
import { loggableWord, STATUSES, STATUS_WORDS, statusOfWord, type Status } from './status.ts';

/** What the mirror reads of a row, where the source has it. */
export const MIRRORED_COLUMNS = ['id', 'phone_number', 'code', 'inserted_at', 'gateway_id', 'gateway_status'] as const;
export const NEEDED_COLUMNS = ['id', 'phone_number', 'code', 'inserted_at'] as const;

/** By their ids: how a type's name is written depends on settings. */
const TYPES: readonly (readonly [string, readonly number[], string])[] = [
  ['id', [2950], 'uuid'],
  ['inserted_at', [1114, 1184], 'timestamp without time zone or timestamp with time zone'],
];

/** The first id of a type that is none of PostgreSQL's own. */
const OWN_TYPES = 16_384;

export interface Child {
  readonly oid: string;
  /** quoted */
  readonly table: string;
}

export interface Source {
  /** quoted, ready for SQL */
  readonly table: string;
  readonly schema: string;
  readonly name: string;
  readonly oid: string;
  /** r table, p partitioned table */
  readonly kind: string;
  readonly owner: string;
  /** the tables that inherit from it, as others than partitions do: each is published on its own */
  readonly children: readonly Child[];
  /** column name → type name as format_type gives it */
  readonly columns: ReadonlyMap<string, string>;
  /** column name → pg_type.oid */
  readonly types: ReadonlyMap<string, number>;
  /** those whose type others made, an enum or a domain: a cast of such may run code of theirs */
  readonly ownTypes: ReadonlySet<string>;
  /** those of MIRRORED_COLUMNS that are generated: no stream has them, but stored ones from PostgreSQL 18 on */
  readonly generated: readonly string[];
  /** true where the publication can be told to have them */
  readonly publishesGenerated: boolean;
  /** true where an UPDATE can be published: a primary key, or another replica identity */
  readonly publishesUpdates: boolean;
  /** d default, n nothing, f full, i index */
  readonly replicaIdentity: string;
  /** true where it has the gateway_id column */
  readonly tracksGateway: boolean;
}

const MIRRORED = arrayLiteral(MIRRORED_COLUMNS);

/** Reads the shape of SOURCE_TABLE. Throws source_missing or source_column. */
export async function describeSource(sql: Sql, config: Pick<Config, 'SOURCE_TABLE'>): Promise<Source> {
  const named = splitTable(config.SOURCE_TABLE);
  if (named === undefined)
    throw new SmslogdError('config_invalid', `SOURCE_TABLE is ${config.SOURCE_TABLE}, it must be schema.table`);
  const table = quoteTable(named);
  const [row] = await sql<
    {
      oid: string;
      schema: string;
      name: string;
      kind: string;
      owner: string;
      identity: string;
      key: boolean;
      names: string;
      types: string;
      ids: string;
      children: string;
      generated: string;
      publishes: boolean;
    }[]
  >`select c.oid::text as oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind, pg_get_userbyid(c.relowner) as owner, c.relreplident::text as identity,
           exists (select from pg_index i where i.indrelid = c.oid and (i.indisprimary and c.relreplident = 'd' or i.indisreplident)) as key,
           (select json_agg(a.attname order by a.attnum)::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as names,
           (select json_agg(format_type(a.atttypid, null) order by a.attnum)::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as types,
           (select json_agg(a.atttypid::int8 order by a.attnum)::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as ids,
           (select coalesce(json_agg(a.attname::text order by a.attnum), '[]')::text from pg_attribute a
             where a.attrelid = c.oid and a.attgenerated <> '' and a.attname::text = any (${MIRRORED}::text::text[])) as generated,
           current_setting('server_version_num')::int >= 180000
           and exists (select from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 's' and a.attname::text = any (${MIRRORED}::text::text[])) as publishes,
           (with recursive tree as (
              select i.inhrelid from pg_inherits i where i.inhparent = c.oid and c.relkind = 'r'
              union select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.inhrelid)
            select coalesce(json_agg(json_build_object('oid', k.oid::text, 'table', format('%I.%I', s.nspname, k.relname)) order by k.oid), '[]')::text
              from tree t join pg_class k on k.oid = t.inhrelid join pg_namespace s on s.oid = k.relnamespace) as children
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = ${named.schema} and c.relname = ${named.name}`;
  if (row === undefined)
    throw new SmslogdError('source_missing', `the source table ${config.SOURCE_TABLE} does not exist`);
  if (row.kind !== 'r' && row.kind !== 'p')
    throw new SmslogdError('source_missing', `${config.SOURCE_TABLE} is no table: PostgreSQL streams nothing else`, {
      hint: 'Set SOURCE_TABLE to the table that the OTP service writes; where it is a view, to the one behind it.',
    });
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
  const ids = new Map((JSON.parse(row.ids) as number[]).map((id, i) => [names[i] ?? '', id]));
  for (const [column, wanted, said] of TYPES) {
    if (!wanted.includes(ids.get(column) ?? 0)) {
      throw new SmslogdError(
        'source_column',
        `the column ${column} of ${config.SOURCE_TABLE} is ${columns.get(column)}, it must be ${said}`,
      );
    }
  }
  return {
    table,
    generated: JSON.parse(row.generated) as string[],
    publishesGenerated: row.publishes,
    schema: row.schema,
    name: row.name,
    oid: row.oid,
    kind: row.kind,
    owner: row.owner,
    children: JSON.parse(row.children) as Child[],
    columns,
    types: ids,
    ownTypes: new Set(names.filter((name) => (ids.get(name) ?? 0) >= OWN_TYPES)),
    replicaIdentity: row.identity,
    publishesUpdates: row.identity === 'f' || row.key,
    tracksGateway: columns.has('gateway_id'),
  };
}

/** What a run of the mirror found the source to be is true no more. */
export class SourceChanged extends Error {}

/** Reads the shape of SOURCE_TABLE again. Throws SourceChanged where a reader of the `known` one would lack something, or take it for what it was. */
export async function describeUnchanged(
  sql: Sql,
  config: Pick<Config, 'SOURCE_TABLE'>,
  known: Source,
): Promise<Source> {
  const now = await describeSource(sql, config);
  const read = ({ oid, children, types }: Source) =>
    JSON.stringify([oid, children.map((child) => child.oid), MIRRORED_COLUMNS.map((column) => types.get(column))]);
  if (read(now) !== read(known)) throw new SourceChanged('the source table, or a column that is read, was changed');
  return now;
}

/**
 * SQL that turns the source's inserted_at into an instant; a value without time zone is read in SOURCE_TIMEZONE. `expression` is the text that the
 * stream sent or the column itself, in a session whose time zone is UTC and whose dates are ISO: then one form is right whichever type the
 * column has, also where its owner changes it in this moment.
 */
export function instantSql(expression: string, timezone: string): string {
  const local = inZoneSql(`(${expression})::timestamp`, timezone);
  if (timezone === 'UTC') return local;
  return `(case when (${expression})::text like '%+00%' then (${expression})::timestamptz else ${local} end)`;
}

/** SQL for the instant of a timestamp in a time zone. One within days of the first or the last of all may be none there: it counts as infinite, so that no row stops a statement of many. */
export function inZoneSql(timestamp: string, timezone: string): string {
  const zone = `at time zone ${quoteLiteral(timezone)}`;
  if (timezone === 'UTC') return `(${timestamp} ${zone})`;
  return `(case when ${timestamp} < '4714-11-26 BC' then '-infinity' when ${timestamp} >= '294276-12-30' then 'infinity' else ${timestamp} end ${zone})`;
}

/** SQL for the SMS text: OTP_CODE_TEXT and the code, or `****` in masked mode. `prefix` and `code` are SQL. */
export function bodySql(prefix: string, code: string, mode: 'full' | 'masked'): string {
  return mode === 'masked' ? `(${prefix} || '****')` : `(${prefix} || ${code})`;
}

/** SQL for the log's gateway_status of a source row: words by the gateway's table, a gateway id without a status is Accepted. */
export function statusSql(id: string, word: string): string {
  const map = quoteLiteral(JSON.stringify(STATUS_WORDS));
  const names = STATUSES.map(quoteLiteral).join(', ');
  // letter by letter, whatever the column's collation takes for the same
  const plain = `btrim(${word} collate "C", ' \t\n\v\f\r')`;
  return `case when ${id} is null then null when ${word} collate "C" in (${names}) then ${word} when coalesce(${plain}, '') = '' then 'Accepted'
               else coalesce(${map}::jsonb ->> lower(${plain}), 'Unknown') end`;
}

/** The same rule for a row of the stream. `unknownWord`: the word that no table knows, as it may be logged. */
export function statusOfSource(
  gatewayId: string | null,
  word: string | null,
): { status: Status | null; unknownWord?: string } {
  if (gatewayId === null) return { status: null };
  if (word === null || word.trim() === '') return { status: 'Accepted' };
  const status = statusOfWord(word);
  return status === undefined ? { status: 'Unknown', unknownWord: loggableWord(word) } : { status };
}

/**
 * Common table expressions that fill in the missing gateway id of log rows from the source, and a missing status with it: `found` (locked in id order)
 * and `updated`, durably. Existing gateway ids and locked rows stay as they are. `ids`: SQL of a uuid[].
 * Lateral joins force one index lookup per id whatever the planner's statistics say: with another plan a few thousand ids took seconds.
 */
export function gatewayIdSql(source: Source, ids: string): string {
  const gatewayId = columnSql(source, 's', 'gateway_id');
  const word = columnSql(source, 's', 'gateway_status');
  return `${DURABLE},
asked as materialized (
  select s.* from unnest(${ids}) i (id) cross join lateral (
    select s.id, ${gatewayId} as gateway_id, ${statusSql(gatewayId, word)} as status, ${word} as word
      from ${source.table} s where s.id = i.id and ${gatewayId} is not null limit 1) s
   order by s.id),
found as materialized (
  select l.id, l.gateway_status as was, a.gateway_id, a.status, a.word from asked a cross join lateral (
    select l.id, l.gateway_status from verification.sms_log l
     where l.id = a.id and l.gateway_id is null and l.type = 'verification' limit 1 for no key update skip locked) l),
updated as (
  update verification.sms_log l
     set gateway_id = f.gateway_id, gateway_status = coalesce(l.gateway_status, f.status), updated_at = now()
    from found f cross join durable where l.id = f.id
  returning l.id, l.type, f.was, l.gateway_status, f.word)`;
}

/** Bytes of the largest value that is read: a larger one may be of a gigabyte, and its row is set aside. */
export const LARGEST_VALUE = 65_536;

/** Of a column of one of these types every value is short. */
const SHORT_TYPES: readonly string[] = [
  'uuid',
  'smallint',
  'integer',
  'bigint',
  'boolean',
  'timestamp without time zone',
  'timestamp with time zone',
];

/**
 * A column of the source as text, or null where the source has no such column or the value is too large; an empty gateway id is none. `alias` is the
 * table's alias.
 */
export function columnSql(source: Source, alias: string, column: string): string {
  const type = source.columns.get(column);
  if (type === undefined) return 'null::text';
  const text = textSql(source, alias, column);
  const value = SHORT_TYPES.includes(type)
    ? text
    : `(case when octet_length(${text}) <= ${LARGEST_VALUE} then ${text} end)`;
  return column === 'gateway_id' ? `nullif(${value}, '')` : value;
}

/** True, in SQL, for a row with a value that is too large, among those that the log is made of. */
export function largeSql(source: Source, alias: string, mode: 'full' | 'masked'): string {
  const lengths = ['phone_number', 'code', 'gateway_id', 'gateway_status']
    .filter((column) => mode === 'full' || column !== 'code')
    .filter((column) => source.columns.has(column) && !SHORT_TYPES.includes(source.columns.get(column)!))
    .map((column) => `octet_length(${textSql(source, alias, column)})`);
  return lengths.length === 0 ? 'false' : `coalesce(greatest(${lengths.join(', ')}) > ${LARGEST_VALUE}, false)`;
}

function textSql(source: Source, alias: string, column: string): string {
  const name = `${alias}.${quoteIdentifier(column)}`;
  // without the cast, which may be somebody's function
  return source.ownTypes.has(column) ? `(case when ${name} is not null then concat(${name}) end)` : `${name}::text`;
}
