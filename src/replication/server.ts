/** What the server is, and that DATABASE_URL and DATABASE_REPLICATION_URL lead to the same one. */
import { SmslogdError } from '../errors.ts';
import type { Sql } from '../postgres/pools.ts';

/** Where an address leads. */
export interface Place {
  readonly systemId: string;
  readonly database: string;
  readonly standby: boolean;
}

export interface Server extends Place {
  readonly version: number;
  readonly walLevel: string;
}

/** Reads a Server, also over a replication connection. */
export const SERVER = `
  select (select system_identifier::text from pg_control_system()) as "systemId", current_database() as database, pg_is_in_recovery() as standby,
         current_setting('server_version_num')::int as version, current_setting('wal_level') as "walLevel"`;

export async function describeServer(sql: Sql): Promise<Server> {
  return (await sql.unsafe<[Server]>(SERVER))[0];
}

/**
 * Throws slot_foreign where DATABASE_REPLICATION_URL leads to `there`, elsewhere than DATABASE_URL. Before anything is read, made, dropped or terminated over it: a
 * slot in another database holds WAL that nobody reads, and one of our name in another cluster has the rows of another source.
 */
export function requireSame(here: Omit<Place, 'standby'>, there: Place | undefined): void {
  const both = 'DATABASE_URL and DATABASE_REPLICATION_URL lead to different';
  if (there?.systemId !== here.systemId) throw elsewhere(`${both} clusters`, 'Point both at the same primary.');
  if (there.database !== here.database)
    throw elsewhere(`${both} databases`, `Use the database ${here.database} in DATABASE_REPLICATION_URL.`);
  if (there.standby)
    throw elsewhere(
      'DATABASE_REPLICATION_URL leads to a standby, which does not have the slot',
      'Point it at the primary.',
    );
}

const elsewhere = (says: string, hint: string) => new SmslogdError('slot_foreign', says, { hint });
