/**
 * Who makes what smslogd owns: the owner of the source table, whoever runs `migrate`. So no function of ours has more power than that owner, and
 * nothing that somebody else put in the place of ours is run or built upon.
 */
import type { Client } from 'pg';
import { quoteIdentifier } from '../postgres/quoting.ts';
import { SmslogdError } from '../errors.ts';
import { madeNames } from './objects.ts';
import type { Source } from '../source.ts';

interface Standing {
  readonly who: string;
  readonly member: boolean;
  readonly superuser: boolean;
  /** the statements that give the owner what it needs */
  readonly lacks: string[];
}

/**
 * Makes the session that of the source's owner, and returns the statement that did so, if any was needed. Throws privilege_missing with what to run where
 * it cannot, and owner_mismatch where something of ours belongs to somebody else.
 */
export async function becomeOwner(client: Client, source: Source, publication: string): Promise<string[]> {
  const owner = source.owner;
  const name = quoteIdentifier(owner);
  const { rows } = await client.query<Standing>(STANDING, [owner, source.schema, name, publication]);
  const { who, member, superuser, lacks } = rows[0]!;
  if (superuser)
    throw new SmslogdError(
      'privilege_missing',
      `the source table belongs to ${owner}, a superuser: what smslogd creates would run with all its rights`,
      {
        hint:
          `Give the table to the role of the service that writes it, or to one of its own: create role otp_owner; alter table ${source.table} owner to otp_owner; ` +
          `alter schema ${quoteIdentifier(source.schema)} owner to otp_owner; grant create, temporary on database DATABASE to otp_owner; -- then run migrate again`,
      },
    );
  if (!member)
    throw new SmslogdError(
      'privilege_missing',
      `migrate runs as the owner of the source table, ${owner}, or as a member of that role; this is ${who}`,
      { hint: `Give migrate the address of ${owner}, or of a member of that role, in DATABASE_URL.` },
    );
  await refuseForeign(client, owner, publication);
  if (lacks.length > 0)
    throw new SmslogdError('privilege_missing', `${owner} may not create what smslogd needs`, {
      hint: `As an administrator run: ${lacks.join(' ')}`,
    });
  const statements = who === owner ? [] : [`set role ${name};`];
  for (const statement of statements) await client.query(statement);
  return statements;
}

const STANDING = `
select current_user::text as who, o.rolsuper as superuser,
       pg_has_role(current_user, o.oid, case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end) as member,
       array(
         select format('grant create on database %I to %s;', current_database(), $3::text)
          where not has_database_privilege(o.oid, current_database(), 'create')
            and ((select count(*) from pg_namespace where nspname in ('smslogd', 'verification')) < 2
                 or not exists (select from pg_publication where pubname = $4 and not puballtables))
         union all
         select format('grant temporary on database %I to %s;', current_database(), $3::text) where not has_database_privilege(o.oid, current_database(), 'temporary')
         union all
         select format('grant usage on language %I to %s;', l.lanname, $3::text) from pg_language l
          where l.lanname in ('sql', 'plpgsql') and not has_language_privilege(o.oid, l.oid, 'usage')
         union all
         -- usage is given on to those who use what is made there
         select format('grant %s on schema %I to %s%s;', privilege, n.nspname, $3::text, case privilege when 'usage' then ' with grant option' else '' end)
           from pg_namespace n
          cross join (values ('usage', 'usage with grant option'), ('create', 'create')) as w (privilege, option)
          where (n.nspname in ('smslogd', 'verification') or n.nspname = $2 and privilege = 'usage') and not has_schema_privilege(o.oid, n.oid, w.option)
       )::text[] as lacks
  from pg_roles o where o.rolname = $1`;

interface Foreign {
  readonly what: string;
  readonly owner: string;
  /** what makes it the owner's, or takes it away */
  readonly fix: string;
}

/** Before anything is made or replaced: what stands under a name of ours and belongs to another role was put there by that role. */
async function refuseForeign(client: Client, owner: string, publication: string): Promise<void> {
  const { rows } = await client.query<Foreign>(FOREIGN, [
    owner,
    ['verification.sms_log', ...madeNames('function'), ...madeNames('view')],
    publication,
  ]);
  if (rows.length === 0) return;
  const owners = [...new Set(rows.map((row) => row.owner))];
  const named =
    rows.length > 3 ? `${rows[0]!.what} and ${rows.length - 1} more` : rows.map(({ what }) => what).join(', ');
  throw new SmslogdError(
    'owner_mismatch',
    `${named} ${rows.length === 1 ? 'is' : 'are'} ${owners.join("'s and ")}'s, and the source table is ${owner}'s; nothing was done`,
    {
      hint:
        `If ${owners.join(' or ')} owned the source table before, run as a superuser, or a member of both roles: ${rows.map(({ fix }) => fix).join(' ')} ` +
        `If not, find out who put it there, and drop it.`,
    },
  );
}

const FOREIGN = `
select what, case owner when 0 then 'public' else pg_get_userbyid(owner)::text end as owner, fix from (
  select 1 as place, format('schema %I', n.nspname) as what, n.nspowner as owner, format('alter schema %I owner to %I;', n.nspname, $1::text) as fix
    from pg_namespace n where n.nspname = 'smslogd' and pg_get_userbyid(n.nspowner) <> $1
  union all
  select 2, format('%s %I.%I', w.word, n.nspname, c.relname), c.relowner, format('alter %s %I.%I owner to %I;', w.word, n.nspname, c.relname, $1::text)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   cross join lateral (select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' else 'table' end as word) w
   where c.relkind in ('r', 'p', 'v', 'm', 'f') and pg_get_userbyid(c.relowner) <> $1
     and (n.nspname = 'smslogd' or n.nspname = 'verification' and format('%s.%s', n.nspname, c.relname) = any ($2::text[]))
  union all
  select 3, format('function %s', p.oid::regprocedure), p.proowner, format('alter routine %s owner to %I;', p.oid::regprocedure, $1::text)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where pg_get_userbyid(p.proowner) <> $1
     and (n.nspname = 'smslogd' or n.nspname = 'verification' and format('%s.%s', n.nspname, p.proname) = any ($2::text[]))
  union all
  -- somebody else's code in our tables runs with our rights
  select 4, format('trigger %I on %s', t.tgname, c.oid::regclass), p.proowner, format('drop trigger %I on %s;', t.tgname, c.oid::regclass)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace join pg_proc p on p.oid = t.tgfoid
   where n.nspname = 'smslogd' and not t.tgisinternal and pg_get_userbyid(p.proowner) <> $1 and p.pronamespace <> n.oid
  union all
  select 5, 'the right to create in schema smslogd', a.grantee, 'revoke create on schema smslogd from '
         || case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end || ' cascade;'
    from pg_namespace n cross join lateral aclexplode(n.nspacl) a
   where n.nspname = 'smslogd' and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner
  union all
  -- goes with the rest; alone an administrator may own it
  select 6, format('publication %I', p.pubname), p.pubowner, format('alter publication %I owner to %I;', p.pubname, $1::text)
    from pg_publication p join pg_namespace n on n.nspowner = p.pubowner
   where p.pubname = $3 and n.nspname = 'smslogd' and pg_get_userbyid(p.pubowner) <> $1
) found order by place, what`;
