/** Checks of who may do what: that policies leave smslogd its rows, that its role has what it needs, that nobody else reads personal data, and whose rights ours run with. */
import type { Sql } from '../postgres/pools.ts';
import { queryOfPool } from '../schema/objects.ts';
import { policiesInTheWay } from '../schema/policies.ts';
import { fail, ok, warn, type Check, type Finding } from './check.ts';
import { needing, type Found } from './found.ts';
import { lackingPrivileges } from './privileges.ts';

/** Before the schema is looked at: a policy may hide it. */
export const policyCheck: Check<Found> = needing(
  'row-level security',
  ['config', 'sql', 'source'],
  async (found): Promise<Finding> => {
    const { sql, source, user = '' } = found;
    const inTheWay = await policiesInTheWay(queryOfPool(sql), source, [user]);
    if (inTheWay === undefined) return ok(`applies to no table that role ${user} uses`);
    found.hidden = true;
    return fail(inTheWay.message, inTheWay.hint);
  },
);

export const accessChecks: readonly Check<Found>[] = [
  needing('privileges', ['sql', 'migrated', 'source'], async ({ sql, source, user }) => {
    const lacking = await lackingPrivileges(sql, source);
    if (lacking.length === 0) return ok(`role ${user} has all privileges that it needs`);
    return fail(
      `role ${user} lacks ${lacking.join(', ')}`,
      `smslogd migrate --role ${user} # as the owner of the source table`,
    );
  }),

  needing('owner', ['sql', 'migrated', 'source'], async ({ sql, source }) => {
    const rows = await sql<{ owner: string; superuser: boolean }[]>`
      select r.rolname::text as owner, r.rolsuper as superuser
        from pg_proc p join pg_roles r on r.oid = p.proowner
       where p.prosecdef and (p.pronamespace = 'smslogd'::regnamespace or p.oid = to_regprocedure('verification.sms_delivery_between(date,date)'))
       group by 1, 2 order by 1`;
    const superusers = rows.filter(({ superuser }) => superuser);
    if (superusers.length > 0)
      return fail(
        `functions of smslogd run with the rights of ${superusers.map(({ owner }) => owner).join(', ')}, a superuser: who can change what they read can run anything as that role`,
        `alter table ${source.table} owner to a role that is no superuser; then, as that role: smslogd migrate`,
      );
    const others = rows.filter(({ owner }) => owner !== source.owner);
    if (others.length > 0)
      return fail(
        `functions of smslogd belong to ${others.map(({ owner }) => owner).join(', ')}, the source table to ${source.owner}`,
        `smslogd migrate # as ${source.owner}; it says what to run`,
      );
    return ok(`everything of smslogd belongs to ${source.owner}, the owner of the source table`);
  }),

  needing('personal data', ['sql', 'migrated', 'source'], async ({ sql, source }) => readers(sql, source.owner)),
];

interface Reader {
  readonly who: string;
  readonly how: string;
  readonly fix: string | null;
}

/** Who reads phone numbers, texts and gateway ids beside the owner, the daemons and sms_dba: by name, by column, as everybody, as a member of one who does, or through a view of others. */
async function readers(sql: Sql, owner: string): Promise<Finding> {
  const rows = await sql<Reader[]>`
    with recursive personal (oid, attname) as (
      select attrelid, attname from pg_attribute
       where attrelid = 'verification.sms_log'::regclass and attname in ('phone_number', 'body', 'gateway_id')
          or attrelid in ('smslogd.sms_poll'::regclass, 'smslogd.sms_refused'::regclass)
      union
      -- a view reads with the rights of its owner, and its columns are not told apart
      select r.ev_class, v.attname
        from personal p join pg_attribute c on c.attrelid = p.oid and c.attname = p.attname
        join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = p.oid and d.refobjsubid = c.attnum and d.classid = 'pg_rewrite'::regclass
        join pg_rewrite r on r.oid = d.objid
        join pg_attribute v on v.attrelid = r.ev_class and v.attnum > 0
       where not exists (select from smslogd.installed where object = 'view ' || r.ev_class::regclass)
         and not exists (select from pg_class w cross join pg_options_to_table(w.reloptions)
                          where w.oid = r.ev_class and option_name = 'security_invoker' and option_value::boolean)
    ), granted as (
      select c.oid::regclass::text as name, a.grantee, '' as list
        from pg_class c cross join aclexplode(c.relacl) a
       where c.oid in (select oid from personal) and a.privilege_type = 'SELECT'
      union all
      select t.attrelid::regclass::text, a.grantee, format(' (%I)', t.attname)
        from personal p join pg_attribute t on t.attrelid = p.oid and t.attname = p.attname cross join aclexplode(t.attacl) a
       where a.privilege_type = 'SELECT'
    ), daemons as (
      select oid from pg_roles where rolname = current_user or exists (select from smslogd.installed where object = 'role ' || rolname)
    ), meant as (
      select oid from daemons union select oid from pg_roles where rolname in (${owner}, 'sms_dba')
    ), direct as (
      select case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as who, grantee, list, name
        from granted where grantee not in (select oid from meant)
    ), members as (
      select quote_ident(m.rolname) as who, quote_ident(g.rolname) as granting, m.oid, g.oid in (select oid from meant except select oid from daemons) as meant
        from pg_roles m join pg_roles g on g.oid <> m.oid and pg_has_role(m.oid, g.oid, 'member')
       where not m.rolsuper and m.oid not in (select oid from meant)
         and (g.oid in (select oid from meant) or g.oid in (select grantee from direct) or g.rolname = 'pg_read_all_data')
    )
    select who, 'select' || list || ' on ' || name as how, format('revoke select%s on %s from %s cascade;', list, name, who) as fix from direct
    union all
    select who, 'member of ' || granting, case when not meant and granting <> 'pg_read_all_data' then format('revoke %s from %s;', granting, who) end from members
    order by 1, 2`;
  const told = (some: readonly Reader[]) => some.map(({ who, how }) => `${who} (${how})`).join(', ');
  const [others, meant] = [rows.filter(({ fix }) => fix !== null), rows.filter(({ fix }) => fix === null)];
  const also = meant.length === 0 ? '' : `; meant to: ${told(meant)}`;
  if (others.length === 0) return ok(`read by ${owner}, smslogd and sms_dba alone${also}`);
  return warn(
    `phone numbers, texts or gateway ids can also be read by ${told(others)}${also}`,
    others.map(({ fix }) => fix).join(' '),
  );
}
