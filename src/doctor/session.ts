/** Checks of how a session reads and writes text: the database's encoding, and what a pooler keeps us from setting. */
import { SESSION } from '../postgres/session.ts';
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { codeOf } from '../errors.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

/** Of SESSION what our SQL cannot do without, whoever connects; limits have a check of their own. */
const NEEDED = [
  'row_security',
  'standard_conforming_strings',
  'transform_null_equals',
  'quote_all_identifiers',
  'array_nulls',
  'default_transaction_isolation',
] as const;

export const sessionChecks: readonly Check<Found>[] = [
  needing('encoding', ['config', 'sql'], async ({ config, sql }) => {
    const [row] = await sql<{ encoding: string; database: string }[]>`
      select getdatabaseencoding()::text as encoding, current_database()::text as database`;
    const { encoding, database } = row!;
    if (encoding === 'UTF8') return ok('UTF8');
    const fix = `create database NEW template template0 encoding UTF8; -- then pg_dump ${database} and pg_restore into it`;
    try {
      await sql`select ${config.OTP_CODE_TEXT}::text as text`;
    } catch (error) {
      if (codeOf(error)?.startsWith('22') !== true) throw error;
      return fail(`${encoding} has no characters for OTP_CODE_TEXT: every row would be set aside`, fix);
    }
    return warn(`${encoding}: a row with characters outside of it is set aside`, fix);
  }),

  needing('session settings', ['sql', 'user'], async ({ sql, user }) => {
    const rows = await sql<{ name: string; value: string }[]>`
      select name, setting as value from pg_settings where name = any (string_to_array(${NEEDED.join(',')}, ','))`;
    const wrong = rows.filter(({ name, value }) => value !== SESSION[name]);
    if (wrong.length === 0) return ok('as smslogd needs them');
    // only a pooler keeps us from setting them when we connect
    return warn(
      `through the pooler ${wrong.map(({ name, value }) => `${name} = ${value}`).join(', ')}${wrong.some(({ name }) => name === 'row_security') ? ': where row-level security is on, policies run with the rights of this role and hide rows' : ''}`,
      wrong
        .map(({ name }) => `alter role ${quoteIdentifier(user)} set ${name} = ${quoteLiteral(SESSION[name] ?? '')};`)
        .join(' '),
    );
  }),
];
