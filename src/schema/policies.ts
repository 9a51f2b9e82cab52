/** Row-level security on what smslogd uses: its session refuses to read where a policy would apply (`row_security = off`). */
import { arrayLiteral, quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { SmslogdError } from '../errors.ts';
import type { Source } from '../source.ts';
import type { Query } from './objects.ts';

interface Policed {
  readonly role: string;
  readonly name: string;
  readonly ours: boolean;
}

/** The failure row_security, with what to run, where policies apply to one of `roles`; undefined: they apply to none. */
export async function policiesInTheWay(
  query: Query,
  source: Source,
  roles: readonly string[],
): Promise<SmslogdError | undefined> {
  const rows = await query<Policed>(statement(source, roles));
  if (rows.length === 0) return undefined;
  const some = (key: 'name' | 'role', ours?: boolean) => [
    ...new Set(rows.filter((row) => ours === undefined || row.ours === ours).map((row) => row[key])),
  ];
  return new SmslogdError(
    'row_security',
    `policies of ${some('name').join(', ')} also apply to role ${some('role').join(' and role ')}, whose statements are refused there`,
    {
      hint: [
        ...some('name', true).map((name) => `alter table ${name} disable row level security;`),
        ...some('role', false).map((role) => `alter role ${quoteIdentifier(role)} bypassrls;`),
      ].join(' '),
    },
  );
}

const statement = (source: Source, roles: readonly string[]) => `
select r.rolname::text as role, c.oid::regclass::text as name, c.oid <> ${source.oid} as ours
  from pg_roles r, pg_class c left join pg_namespace n on n.oid = c.relnamespace
 where r.rolname = any (${quoteLiteral(arrayLiteral(roles))}::text[]) and not r.rolsuper and not r.rolbypassrls
   and c.relkind in ('r', 'p') and c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
   and (c.oid = ${source.oid} or n.nspname = 'smslogd' or n.nspname = 'verification' and c.relname = 'sms_log')
 order by 3, 2, 1`;
