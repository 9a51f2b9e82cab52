/** What the daemon's role lacks of sql/grants.sql: the file that `migrate --role` runs is the only list of what the role needs. */
import { readFileSync } from 'node:fs';
import { ROOT } from '../package.ts';
import type { Sql } from '../postgres/pools.ts';
import { fill, quoteIdentifier } from '../postgres/quoting.ts';
import type { Source } from '../source.ts';

const GRANTS = new URL('sql/grants.sql', ROOT);

interface Wanted {
  readonly kind: 'schema' | 'tables' | 'table' | 'column' | 'function';
  /** the name as SQL writes it; a function's with the types of its arguments, without spaces */
  readonly object: string;
  readonly privilege: string;
  readonly column?: string;
}

const KINDS: Readonly<Record<string, Wanted['kind']>> = { '': 'table', 'schema ': 'schema', 'function ': 'function' };

/** Reads `grant A, B (c, d) on [schema | function | all tables in schema] X, Y to :"role";` lines; other statements are none of ours. */
export function wantedPrivileges(sql: string, source: Pick<Source, 'table' | 'schema'>): Wanted[] {
  // put in after the file is read: a name may have anything in it
  const names = { ':"source_schema"': quoteIdentifier(source.schema), ':source': source.table };
  return [...sql.matchAll(/^grant (.+?) on (schema |function |all tables in schema )?(.+?) to :"role";$/gm)].flatMap(
    ([, privileges = '', scope = '', objects = '']) =>
      objects.split(', ').flatMap((each) => {
        const object = fill(each, names);
        return privileges.split(/, (?![^(]*\))/).flatMap((each): Wanted[] => {
          const [, privilege = '', columns] = /^(\w+)(?: \((.+)\))?$/.exec(each) ?? [];
          if (columns !== undefined)
            return columns.split(', ').map((column) => ({ kind: 'column', object, privilege, column }));
          return [{ kind: KINDS[scope] ?? 'tables', object, privilege }];
        });
      }),
  );
}

/** `update (gateway_id) on verification.sms_log`, and so on; none where the role of `sql` has all. */
export async function lackingPrivileges(sql: Sql, source: Source): Promise<string[]> {
  const wanted = JSON.stringify(wantedPrivileges(readFileSync(GRANTS, 'utf8'), source));
  const rows = await sql<{ lacking: string }[]>`
    with wanted as (
      select * from json_to_recordset(${wanted}::text::json) as w (kind text, object text, privilege text, "column" text)
    ), each as (
      select 'table' as kind, format('%I.%I', n.nspname, c.relname) as object, w.privilege, null as "column"
        from wanted w join pg_namespace n on n.oid = to_regnamespace(w.object)::oid
        join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm') where w.kind = 'tables'
      union select * from wanted where kind <> 'tables'
    )
    select distinct privilege || coalesce(' (' || "column" || ')', '') || ' on ' || case kind when 'schema' then to_regnamespace(object)::text else object end as lacking
      from each
     where not case when kind = 'schema' then has_schema_privilege(to_regnamespace(object)::oid, privilege)
                    -- without its schema nothing can be named; that is told already
                    when not has_schema_privilege(to_regnamespace(quote_ident((parse_ident(object, false))[1]))::oid, 'usage') then true
                    when kind = 'function' then coalesce(has_function_privilege(to_regprocedure(object)::oid, privilege), false)
                    when kind = 'column' then has_column_privilege(object, "column", privilege)
                    else has_table_privilege(object, privilege) end
     order by 1`;
  return rows.map((row) => row.lacking);
}
