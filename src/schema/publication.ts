/**
 * The publication that the slot reads. No column list except in masked mode: one makes the owner's DROP COLUMN and ALTER COLUMN fail.
 * It publishes INSERTs alone: while a publication has a table's UPDATEs or DELETEs, PostgreSQL refuses them as soon as the table has no replica
 * identity. A gateway id that comes by an UPDATE is looked up instead (src/reconcile/gateway-ids.ts), and the owner's many other UPDATEs are not sent at all.
 */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral, quoteIdentifier } from '../postgres/quoting.ts';
import { SmslogdError } from '../errors.ts';
import type { Source } from '../source.ts';

type Names = Pick<Config, 'PUBLICATION_NAME' | 'SMS_BODY'>;

export interface PublicationState {
  readonly exists: boolean;
  readonly hasSource: boolean;
  readonly insert: boolean;
  /** nobody needs them, and they make the owner's statements fail where the table has no replica identity */
  readonly update: boolean;
  readonly delete: boolean;
  readonly viaRoot: boolean;
  /** it has stored generated columns */
  readonly generated: boolean;
  /** tables that inherit from the source and are not in it, quoted */
  readonly absentChildren: readonly string[];
  /** tables beside the source are in it, as the former one after another table was put in its place */
  readonly others: boolean;
  /** it is FOR ALL TABLES, which no ALTER PUBLICATION changes */
  readonly all: boolean;
  /** somebody gave the source a row filter: rows outside it would pass in silence */
  readonly filtered: boolean;
  /** its owner, where the source's owner may not change it: FOR ALL TABLES and FOR TABLES IN SCHEMA are a superuser's */
  readonly foreignOwner: string | undefined;
  /** the published columns where there is a column list, sorted */
  readonly columns: readonly string[] | undefined;
  /** another one each time that somebody changes it, or takes the source out and puts it back */
  readonly version: string;
}

export async function describePublication(sql: Sql, config: Names, source: Source): Promise<PublicationState> {
  const members = arrayLiteral([source.oid, ...source.children.map(({ oid }) => oid)]);
  const [row] = await sql<
    {
      insert: boolean;
      update: boolean;
      delete: boolean;
      root: boolean;
      generated: boolean;
      member: boolean;
      all: boolean;
      others: boolean;
      filtered: boolean;
      list: boolean;
      owner: string | null;
      columns: string | null;
      version: string;
      members: string;
    }[]
  >`select p.pubinsert as insert, p.pubupdate as update, p.pubdelete as delete, p.pubviaroot as root, coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) as generated,
           p.puballtables or r.prrelid is not null as member, p.puballtables as all,
           p.puballtables or exists (select from pg_publication_namespace n where n.pnpubid = p.oid)
           or exists (select from pg_publication_rel o where o.prpubid = p.oid and o.prrelid <> all (${members}::text::oid[])) as others, r.prqual is not null as filtered, r.prattrs is not null as list,
           (select pg_get_userbyid(p.pubowner) from pg_class c
             where c.oid = ${source.oid}::text::oid and not pg_has_role(c.relowner, p.pubowner, 'usage')) as owner,
           concat_ws(',', p.oid, p.xmin, r.oid, r.xmin) as version,
           (select json_agg(a.attname order by a.attname)::text from pg_attribute a
             where a.attrelid = r.prrelid and a.attnum = any (r.prattrs::int2[])) as columns,
           (select coalesce(json_agg(o.prrelid::text), '[]')::text from pg_publication_rel o where o.prpubid = p.oid) as members
      from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = ${source.oid}::text::oid
     where p.pubname = ${config.PUBLICATION_NAME}`;
  return {
    exists: row !== undefined,
    hasSource: row?.member ?? false,
    insert: row?.insert ?? false,
    update: row?.update ?? false,
    delete: row?.delete ?? false,
    viaRoot: row?.root ?? false,
    generated: row?.generated ?? false,
    absentChildren: source.children
      .filter(({ oid }) => row?.all !== true && !(JSON.parse(row?.members ?? '[]') as string[]).includes(oid))
      .map(({ table }) => table),
    others: row?.others ?? false,
    all: row?.all ?? false,
    filtered: row?.filtered ?? false,
    foreignOwner: row?.owner ?? undefined,
    columns: row?.list === true ? (JSON.parse(row.columns ?? '[]') as string[]) : undefined,
    version: row?.version ?? '',
  };
}

/** What to run before `migrate` can make the publication what it must be; undefined: nothing. */
export function publicationInTheWay(config: Names, now: PublicationState): string | undefined {
  if (now.foreignOwner === undefined) return undefined;
  return `drop publication ${quoteIdentifier(config.PUBLICATION_NAME)}; -- as ${now.foreignOwner} or a superuser, and then, as the owner of the source table: smslogd migrate`;
}

/**
 * The statements that make the publication what it must be; none where it is. UPDATEs and DELETEs that somebody has it publish are taken out where
 * the table cannot publish them, with `strict` always. The publication is smslogd's own: other tables are taken out when the source
 * comes into it, as after a swap, with `strict` always. With `strict` it throws config_invalid for masked mode with REPLICA IDENTITY FULL.
 */
export function publicationStatements(config: Names, source: Source, now: PublicationState, strict = false): string[] {
  const name = quoteIdentifier(config.PUBLICATION_NAME);
  const masked = config.SMS_BODY === 'masked';
  if (masked && strict && source.replicaIdentity === 'f') {
    throw new SmslogdError(
      'config_invalid',
      'SMS_BODY=masked does not work with REPLICA IDENTITY FULL on the source table',
      {
        hint: 'With that identity a column list makes every UPDATE of the source fail. Use SMS_BODY=full, or another replica identity.',
      },
    );
  }
  const wanted = masked
    ? ['id', 'phone_number', 'gateway_id', 'gateway_status', 'inserted_at'].filter((column) =>
        source.columns.has(column),
      )
    : undefined;
  const list = wanted === undefined ? '' : ` (${wanted.map(quoteIdentifier).join(', ')})`;
  const member = `table ${source.table}${list}`;
  const generated = source.publishesGenerated ? ', publish_generated_columns = stored' : '';
  const options = `publish = 'insert', publish_via_partition_root = true${generated}`;
  const excess = (now.update || now.delete) && (strict || masked || !source.publishesUpdates);
  const creation = `create publication ${name} for ${member} with (${options})`;
  if (!now.exists) return [creation];
  if (now.all && (strict || masked)) return [`drop publication ${name}`, creation];
  const statements: string[] = [];
  if (!now.hasSource && !now.others) statements.push(`alter publication ${name} add ${member}`);
  else if (
    !now.hasSource ||
    (now.others && strict) ||
    now.filtered ||
    String(now.columns) !== String(wanted?.toSorted())
  )
    statements.push(`alter publication ${name} set ${member}`);
  else if (now.absentChildren.length > 0)
    statements.push(
      `alter publication ${name} add table ${now.absentChildren.map((table) => `only ${table}${list}`).join(', ')}`,
    );
  if (!now.insert || excess || !now.viaRoot || (source.publishesGenerated && !now.generated))
    statements.push(`alter publication ${name} set (${options})`);
  return statements;
}
