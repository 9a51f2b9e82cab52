/**
 * Applies sql/grants.sql, which says who may do what, in one transaction, so that nobody keeps what ALTER DEFAULT PRIVILEGES or a former GRANT gave. If
 * nothing changes by it, it is rolled back.
 */
import { fill, quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { sqlFile, type Query } from './objects.ts';
import type { Source } from '../source.ts';

/** The daemons' roles: those of earlier times and `role`. */
export async function daemonRoles(query: Query, role: string | undefined): Promise<string[]> {
  const [noted] = await query(`select where to_regclass('smslogd.installed') is not null`);
  const former =
    noted === undefined
      ? []
      : await query<{ role: string }>(
          `select rolname::text as role from smslogd.installed join pg_roles on object = 'role ' || rolname order by 1`,
        );
  return [...new Set([...former.map((row) => row.role), ...(role === undefined ? [] : [role])])];
}

/** The statements that leave the privileges as they must be. */
export function grantStatements(source: Source, roles: readonly string[]): string[] {
  const text = sqlFile('grants');
  const [revoke = ''] = /^do \$\$.*?^end \$\$;/ms.exec(text) ?? [];
  const grants = text.split('\n').filter((line) => line.startsWith('grant '));
  const daemon = grants.filter((line) => line.endsWith(DAEMON)).join('\n');
  return [
    `delete from smslogd.installed where object like 'role %'`,
    ...roles.map((each) => `insert into smslogd.installed values (${quoteLiteral(`role ${each}`)}, '')`),
    revoke,
    ...roles.map((each) =>
      fill(daemon, {
        ':"role"': quoteIdentifier(each),
        ':"source_schema"': quoteIdentifier(source.schema),
        ':source': source.table,
      }),
    ),
    ...grants.filter((line) => !line.endsWith(DAEMON)).flatMap(toThoseWhoExist),
  ];
}

const DAEMON = 'to :"role";';

function toThoseWhoExist(grant: string): string[] {
  const [, what = '', roles = ''] = /^(.+ to )(\w+(?:, \w+)*);$/.exec(grant) ?? [];
  return roles
    .split(', ')
    .map((role) => `do $$ begin if to_regrole('${role}') is not null then ${what}${role}; end if; end $$`);
}

/** Runs them in a transaction of their own; says who lost and who got something. */
export async function applyGrants(
  query: Query,
  source: Source,
  statements: readonly string[],
  say: (line: string) => void,
): Promise<void> {
  await query('begin');
  try {
    const privileges = () => query<Privilege>(privilegesOn(source));
    const before = await privileges();
    for (const statement of statements) await query(statement);
    const after = await privileges();
    const [lost, got] = [missingFrom(after, before), missingFrom(before, after)];
    await query(lost.size + got.size === 0 ? 'rollback' : 'commit');
    for (const [who, what] of lost) say(`taken from ${who}: ${what.join(', ')}`);
    for (const who of got.keys()) say(`grants to ${who}`);
  } catch (error) {
    await query('rollback').catch(() => {});
    throw error;
  }
}

interface Privilege {
  readonly who: string;
  readonly what: string;
}

function missingFrom(some: readonly Privilege[], others: readonly Privilege[]): Map<string, string[]> {
  const there = new Set(some.map(({ who, what }) => `${who} ${what}`));
  const missing = new Map<string, string[]>();
  for (const { who, what } of others)
    if (!there.has(`${who} ${what}`)) missing.set(who, [...(missing.get(who) ?? []), what]);
  return missing;
}

/** Of everybody but the owner, on all that is ours and on what the daemon reads. */
const privilegesOn = (source: Source) => `
select case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::text end as who, lower(a.privilege_type) || ' on ' || o.name as what
  from (
    select format('%s.%s', n.nspname, c.relname) as name, c.relacl as acl, c.relowner as owner
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'smslogd' or n.nspname = 'verification' and (c.relname = 'sms_log' or c.oid in (select smslogd.views()))
    union all
    select format('%s.%s.%s', n.nspname, c.relname, t.attname), t.attacl, c.relowner
      from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace
     where t.attacl is not null and (n.nspname = 'smslogd' or n.nspname = 'verification' and (c.relname = 'sms_log' or c.oid in (select smslogd.views())))
    union all
    select format('%s.%s', n.nspname, p.proname), p.proacl, p.proowner from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = 'smslogd' or n.nspname = 'verification' and p.proname = 'sms_delivery_between'
    union all
    select format('schema %s', nspname), nspacl, nspowner from pg_namespace where nspname in ('smslogd', 'verification', ${quoteLiteral(source.schema)})
    union all
    select 'the source', relacl, relowner from pg_class where oid = ${quoteLiteral(source.table)}::regclass
  ) o cross join lateral aclexplode(o.acl) a
 where a.grantee <> o.owner
 order by 1, 2`;
