/** Checks of what stands in the database: smslogd's schema, the role's privileges, the source table, the publication. */
import { quoteIdentifier, quoteLiteral } from '../db.ts';
import { SmslogdError } from '../errors.ts';
import { describePublication, publicationStatements } from '../publication.ts';
import { requireSchema } from '../schema.ts';
import { describeSource } from '../source.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';
import { lackingPrivileges } from './privileges.ts';

export const schemaChecks: readonly Check<Found>[] = [
  needing('schema', ['sql'], async (found) => {
    await requireSchema(found.sql);
    found.migrated = true;
    return ok('migrated');
  }),

  needing('source table', ['config', 'sql'], async (found) => {
    const source = await describeSource(found.sql, found.config);
    found.source = source;
    const said = `${found.config.SOURCE_TABLE}, ${source.columns.size} columns, owner ${source.owner}`;
    if (!source.tracksGateway)
      return warn(`${said}; it has no gateway_id column: its SMS are logged and not judged, shown as untracked`);
    if (!source.publishesUpdates)
      return warn(
        `${said}; its UPDATEs cannot be published: a gateway id that arrives by one is found by the reconcile, later`,
        `the owner may run: alter table ${source.table} add primary key (id);`,
      );
    return ok(`${said}, replica identity ${IDENTITIES[source.replicaIdentity] ?? source.replicaIdentity}`);
  }),

  needing('privileges', ['sql', 'migrated', 'source'], async ({ sql, source, user }) => {
    const lacking = await lackingPrivileges(sql, source);
    if (lacking.length === 0) return ok(`role ${user} may read the source and write what is smslogd's`);
    return fail(
      `role ${user} lacks ${lacking.join(', ')}`,
      `smslogd migrate --role ${user} # as the owner of the source table`,
    );
  }),

  needing('publication', ['config', 'sql', 'source'], async ({ config, sql, source }) => {
    const now = await describePublication(sql, config, source);
    const statements = publicationStatements(config, source, now);
    if (statements.length > 0)
      return fail(
        now.update && source.tracksGateway && !source.publishesUpdates
          ? `${config.PUBLICATION_NAME} publishes updates and the source has no replica identity: PostgreSQL refuses the owner's UPDATEs`
          : now.exists
            ? `${config.PUBLICATION_NAME} is not as it must be`
            : `${config.PUBLICATION_NAME} does not exist`,
        `smslogd migrate # or, as the owner of the source table: ${statements.map((text) => `${text};`).join(' ')}`,
      );
    const said = `${config.PUBLICATION_NAME} publishes ${now.update ? 'insert, update' : 'insert'}`;
    if (now.columns === undefined) return ok(said);
    return warn(
      `${said} of the columns ${now.columns.join(', ')} only: dropping or changing one of those fails until the table has left it`,
      `before such DDL: alter publication ${quoteIdentifier(config.PUBLICATION_NAME)} drop table ${source.table}; and after it: smslogd migrate`,
    );
  }),

  needing('settings in the database', ['config', 'sql', 'migrated'], async ({ config, sql }) => {
    const [row] = await sql<{ report: string; source: string | null; removed: boolean }[]>`
      select s.report_timezone as report, c.source_timezone as source, c.removed_at is not null as removed
        from smslogd.settings s left join smslogd.checkpoint c on c.slot_name = ${config.SLOT_NAME}`;
    if (row === undefined) throw new SmslogdError('schema_missing', 'smslogd.settings has no row');
    if (row.source !== null && row.source !== config.SOURCE_TIMEZONE)
      return fail(
        `SOURCE_TIMEZONE is ${config.SOURCE_TIMEZONE}, the log was written with ${row.source}`,
        `SOURCE_TIMEZONE=${row.source}`,
      );
    if (row.removed) return warn('teardown was run here: daemons idle', 'smslogd migrate');
    if (row.report !== config.REPORT_TIMEZONE)
      return warn(`REPORT_TIMEZONE is ${config.REPORT_TIMEZONE}, the views use ${row.report}`, 'smslogd migrate');
    return ok(`days of ${row.report}, source timestamps of ${config.SOURCE_TIMEZONE}`);
  }),

  needing('slot', ['config', 'sql'], async ({ config, sql, migrated }) => {
    const [slot] = await sql<
      {
        kind: string;
        plugin: string | null;
        here: boolean;
        database: string | null;
        active: boolean;
        status: string | null;
        retained: string | null;
        lost: boolean;
      }[]
    >`select slot_type as kind, plugin, coalesce(database = current_database(), false) as here, database, active, wal_status as status,
             pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as retained, coalesce(wal_status = 'lost', false) as lost
        from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
    const name = config.SLOT_NAME;
    const [checkpoint] =
      migrated === true
        ? await sql<{ ahead: boolean }[]>`select lsn > pg_current_wal_lsn() as ahead from smslogd.checkpoint
             where slot_name = ${name} and lsn is not null and removed_at is null`
        : [];
    if (slot === undefined && checkpoint !== undefined)
      return warn(
        `${name} is gone, though a daemon has read it: nothing is mirrored until the daemon makes it again and reconciles`,
        'smslogd run # then: smslogd verify --since 24h',
      );
    if (slot === undefined) return ok(`${name} does not exist yet: the daemon makes it when it first starts`);
    if (slot.kind !== 'logical' || slot.plugin !== 'pgoutput' || !slot.here)
      return fail(
        `${name} is somebody else's: ${slot.kind}, plugin ${slot.plugin ?? 'none'}, database ${slot.database ?? 'none'}`,
        'choose another SLOT_NAME',
      );
    if (slot.lost)
      return warn(
        `${name} has lost its WAL: the daemon makes it again and reconciles`,
        'raise max_slot_wal_keep_size, and see why the daemon was away or slow',
      );
    if (checkpoint?.ahead === true)
      return warn(
        `the checkpoint is ahead of the server, as after a restore: the daemon forgets it and reconciles`,
        'smslogd run # then: smslogd verify --since 24h',
      );
    const said = `${name}, ${slot.active ? 'a daemon reads it' : 'nobody reads it'}, holds ${slot.retained ?? 'no'} WAL (${slot.status ?? 'unknown'})`;
    if (slot.status === 'unreserved') return warn(`${said}: about to be lost`, 'start smslogd run, and see its lag');
    return ok(said);
  }),

  needing('other slots', ['config', 'sql'], async ({ config, sql }) => {
    const rows = await sql<{ name: string; retained: string }[]>`
      select slot_name as name, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as retained
        from pg_replication_slots
       where slot_name <> ${config.SLOT_NAME} and not active and pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 64 * 1024 * 1024
       order by pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) desc limit 10`;
    if (rows.length === 0) return ok('none that nobody reads holds more than 64 MB of WAL');
    return warn(
      `slots that nobody reads hold WAL: ${rows.map(({ name, retained }) => `${name} ${retained}`).join(', ')}`,
      `if nobody needs it any more: select pg_drop_replication_slot(${quoteLiteral(rows[0]?.name ?? '')});`,
    );
  }),
];

const IDENTITIES: Readonly<Record<string, string>> = { d: 'default', n: 'nothing', f: 'full', i: 'an index' };
