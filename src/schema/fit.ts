/**
 * Tables that are there already, as after a removal that kept the log or a restore of one schema: taken where they fit what the migrations make,
 * else it is said what does not. Data is never changed to fit.
 */
import type { Client } from 'pg';
import { SmslogdError } from '../errors.ts';
import { madeNames } from './objects.ts';

const CREATE_TABLE = /create table if not exists (\w+)\.(\w+) (\([\s\S]*?\n\)[^;]*;)/g;
const CREATE_INDEX = /create index if not exists (\w+) on (verification\.sms_log [^;]*;)/g;

const indexesOf = (texts: readonly string[]) => texts.flatMap((text) => [...text.matchAll(CREATE_INDEX)]);

interface Unfit {
  readonly says: string;
  readonly fix: string;
}

/** Throws table_unfit with what does not fit, and the statements. `texts`: the migrations. */
export async function requireFit(client: Client, texts: readonly string[]): Promise<void> {
  const tables = texts.flatMap((text) => [...text.matchAll(CREATE_TABLE)]);
  await client.query('begin');
  try {
    // made in passing and rolled back: PostgreSQL then says itself what a table must be
    for (const [, , name = '', definition = ''] of tables)
      await client.query(`create temporary table ${name} ${definition}`);
    const { rows } = await client.query<Unfit>(UNFIT, [
      tables.map(([, schema, name]) => `${schema}.${name}`),
      indexesOf(texts).map(([, name]) => name),
      madeNames('view'),
    ]);
    if (rows.length === 0) return;
    throw new SmslogdError('table_unfit', `existing tables do not match: ${rows.map(({ says }) => says).join('; ')}`, {
      hint: `Rename the table, or as its owner run what makes it fit, then migrate again: ${rows.map(({ fix }) => fix).join(' ')}`,
    });
  } finally {
    await client.query('rollback');
  }
}

const UNFIT = `
with pair as (
  select n as name, to_regclass(n)::oid as there, to_regclass('pg_temp.' || split_part(n, '.', 2))::oid as wanted
    from unnest($1::text[]) n join pg_class c on c.oid = to_regclass(n) and c.relkind = 'r'
), wanted as (
  select p.name, p.there, a.attname, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull, pg_get_expr(d.adbin, d.adrelid) as initial
    from pair p join pg_attribute a on a.attrelid = p.wanted and a.attnum > 0 left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
), there as (
  select p.name, p.there, a.attname, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull, a.atthasdef or a.attidentity <> '' as filled
    from pair p join pg_attribute a on a.attrelid = p.there and a.attnum > 0 and not a.attisdropped
)
select says, fix from (
  select 0 as place, format('%s is a %s, it must be a %s', n, word, wanted) as says,
         format('alter %s %s rename to %I;', case kind when 'p' then 'table' else word end, n, left(relname, 50) || '_' || oid) as fix
    from (select n, 'plain table' as wanted, 'r' as wants from unnest($1::text[]) n union all select n, 'view', 'v' from unnest($3::text[]) n) made
    join pg_class c on c.oid = to_regclass(n) and c.relkind <> wants
   cross join lateral (select relkind::text as kind,
                              coalesce('{"p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table", "S": "sequence", "c": "type", "i": "index"}'::json ->> relkind::text, 'table') as word) w
  union all
  select 1, format('%s has no column %I (%s)', w.name, w.attname, w.type),
         format('alter table %s add column %I %s%s%s;', w.name, w.attname, w.type, ' default ' || w.initial, case when w.attnotnull then ' not null' end)
    from wanted w left join there t using (name, attname) where t.attname is null
  union all
  select 2, format('column %I of %s is %s, it must be %s', w.attname, w.name, t.type, w.type), format('alter table %s alter column %I type %s;', w.name, w.attname, w.type)
    from wanted w join there t using (name, attname) where t.type <> w.type
  union all
  select 3, format('column %I of %s may be null', w.attname, w.name), format('alter table %s alter column %I set not null;', w.name, w.attname)
    from wanted w join there t using (name, attname) where w.attnotnull and not t.attnotnull
  union all
  select 4, format('column %I of %s must have a value, and smslogd may have none for it', t.attname, t.name), format('alter table %s alter column %I drop not null;', t.name, t.attname)
    from there t left join wanted w using (name, attname) where t.attnotnull and not t.filled and w.attnotnull is not true
  union all
  select 5, format('column %I of %s has no default', w.attname, w.name), format('alter table %s alter column %I set default %s;', w.name, w.attname, w.initial)
    from wanted w join there t using (name, attname) where w.initial is not null and not t.filled
  union all
  select 6, format('%s lacks %s', p.name, pg_get_constraintdef(c.oid)), format('alter table %s %sadd %s;', p.name,
         (select format('drop constraint %I, ', o.conname) from pg_constraint o where o.conrelid = p.there and o.contype = 'p' and c.contype = 'p'), pg_get_constraintdef(c.oid))
    from pair p join pg_constraint c on c.conrelid = p.wanted and c.contype in ('p', 'u', 'c')
   where not exists (select from pg_constraint o where o.conrelid = p.there and pg_get_constraintdef(o.oid) = pg_get_constraintdef(c.oid))
  union all
  -- as after the log was renamed: the new one would be without it
  select 7, format('%s has index %I, a name of the log', i.indrelid::regclass, n), format('alter index verification.%I rename to %I;', n, left(n, 50) || '_' || i.indexrelid)
    from unnest($2::text[]) n join pg_index i on i.indexrelid = to_regclass('verification.' || n) and i.indrelid is distinct from to_regclass('verification.sms_log')
) unfit order by place, says`;

/** Makes the log's indexes that a log with rows lacks without keeping those waiting who write it. */
export async function addIndexes(client: Client, texts: readonly string[]): Promise<string[]> {
  const made: string[] = [];
  for (const [, name = '', definition = ''] of indexesOf(texts)) {
    const { rows } = await client.query<{ valid: boolean | null }>(
      `select (select indisvalid from pg_index where indexrelid = to_regclass('verification.' || $1)) as valid
        where to_regclass('verification.sms_log') is not null`,
      [name],
    );
    if (rows[0] === undefined || rows[0].valid === true) continue;
    // it waits for others' transactions, and nobody for it
    await client.query('set lock_timeout = 0');
    // what a former try has left
    if (rows[0].valid === false) await client.query(`drop index concurrently if exists verification.${name}`);
    await client.query(`create index concurrently if not exists ${name} on ${definition}`);
    made.push(name);
  }
  return made;
}
