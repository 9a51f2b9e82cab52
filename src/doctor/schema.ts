/** Checks of what stands in the database: smslogd's schema, the role's privileges, the source table, the publication, what was refused. */
import { lastRows } from '../postgres/last-row.ts';
import { quoteIdentifier } from '../postgres/quoting.ts';
import { LOCK_NOT_AVAILABLE } from '../postgres/refusal.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import {
  describePublication,
  publicationInTheWay,
  publicationStatements,
  type PublicationState,
} from '../schema/publication.ts';
import { alteredObjects, changedFiles, filesToApply, queryOfPool } from '../schema/objects.ts';
import { requireSchema } from '../schema/migrate.ts';
import { describeSource, type Source } from '../source.ts';
import { accessChecks, policyCheck } from './access.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

const LOG = 'verification.sms_log';
/** A lock on the log may be held for hours. */
const LOCK_MS = 2_000;
const LOCKED = 'not compared, as another session holds a lock on one of them';
const HOLDERS = `select a.* from pg_stat_activity a join pg_locks l using (pid) where l.mode = 'AccessExclusiveLock' and l.granted; -- wait for its end, or end it`;
const MIGRATE = "smslogd migrate # as the owner of the source table, with the daemon's settings";

export const schemaChecks: readonly Check<Found>[] = [
  needing('source table', ['config', 'sql'], async (found) => {
    const source = await describeSource(found.sql, found.config);
    found.source = source;
    // of a partitioned table each partition counts, and only these are stored
    const unlogged = await found.sql<{ name: string }[]>`
      select c.oid::regclass::text as name from pg_class c
       where c.relpersistence = 'u' and (c.oid = ${source.oid}::text::oid or c.oid in (select relid from pg_partition_tree(${source.oid}::text::oid)))`;
    if (unlogged.length > 0) {
      const names = unlogged.map(({ name }) => name);
      return fail(
        `${names.join(', ')} is unlogged: PostgreSQL streams nothing of it, and empties it after a crash`,
        names.map((name) => `alter table ${name} set logged;`).join(' '),
      );
    }
    const said = `${found.config.SOURCE_TABLE}, ${source.columns.size} columns, owner ${source.owner}`;
    if (source.generated.length > 0 && !source.publishesGenerated)
      return warn(
        `${said}; ${source.generated.join(', ')} is generated, and generated columns are not streamed (before PostgreSQL 18; later only stored ones): each new SMS needs a lookup in the source`,
      );
    if (!source.tracksGateway)
      return warn(
        `${said}; it has no gateway_id column: its SMS are logged, but their delivery cannot be followed (untracked)`,
      );
    return ok(`${said}, replica identity ${IDENTITIES[source.replicaIdentity] ?? source.replicaIdentity}`);
  }),

  policyCheck,

  needing('schema', ['sql'], async (found) => {
    if (found.hidden === true) return { level: 'skip', says: 'needs its rows, which policies hide' };
    const newer = await requireSchema(found.sql);
    found.migrated = true;
    if (newer.length === 0) return ok('migrated');
    return warn(
      `newer than this version, with ${newer.join(', ')}; this version works on the schema of the next minor version`,
      'install the version of smslogd that ran migrate here',
    );
  }),

  needing('installed objects', ['config', 'sql', 'migrated', 'source'], async ({ config, sql, source }) => {
    const query = queryOfPool(sql);
    const altered = await alteredObjects(
      async (text) => await lastRows(sql, `set local lock_timeout = ${LOCK_MS};\n${text}`),
    ).catch((error: unknown) => {
      if (codeOf(error) === LOCK_NOT_AVAILABLE)
        throw new SmslogdError('database_busy', LOCKED, { cause: error, hint: HOLDERS });
      throw error;
    });
    if (altered === undefined) return fail('migrate has not completed here', MIGRATE);
    if (altered.length > 0)
      return fail(
        altered.map(({ object, missing }) => `${object} ${missing ? 'was dropped' : 'was changed'}`).join('; '),
        MIGRATE,
      );
    const others = await changedFiles(query, filesToApply(config, source));
    if (others.length > 0)
      return warn(`of another version or with other settings: ${others.map(({ name }) => name).join(', ')}`, MIGRATE);
    return ok('all present and unchanged');
  }),

  needing('index on the id', ['sql', 'source'], async ({ sql, source }) => {
    // a partitioned table's key has more columns than the id
    const [index] = await sql<{ name: string }[]>`
      select i.indexrelid::regclass::text as name from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'id'
       where i.indrelid = ${source.oid}::text::oid and i.indisunique and i.indisvalid and i.indpred is null and i.indkey[0] = a.attnum
         and (i.indnkeyatts = 1 or exists (select from pg_class c where c.oid = i.indrelid and c.relkind = 'p'))`;
    if (index !== undefined) return ok(index.name);
    return warn(
      'the source has no unique index on its id: a copy or an audit reads the whole table for each chunk, and DDL on the table waits for that; of two rows with one id the log has the first',
      `create unique index concurrently on ${source.table} (id);`,
    );
  }),

  needing('the log', ['sql', 'migrated'], async ({ sql }) => {
    const rows = await sql<{ says: string; fix: string }[]>`
      select * from (
        select format('%s is unlogged: a crash empties it', oid::regclass) as says, format('alter table %s set logged;', oid::regclass) as fix
          from pg_class where relkind = 'r' and relpersistence = 'u' and (oid = ${LOG}::text::regclass or relnamespace = 'smslogd'::regnamespace)
        union all
        select format('its column %I must have a value, and smslogd has none for it: every SMS is refused', attname),
               format('alter table %s alter column %I drop not null;', attrelid::regclass, attname)
          from pg_attribute where attrelid = ${LOG}::text::regclass and attnum > 0 and not attisdropped and attnotnull and not atthasdef
           and attidentity = '' and attname not in ('id', 'phone_number', 'type', 'updated_at', 'inserted_at')
        union all
        select format('it has no column %I', name), ${`${MIGRATE}; it says what to run`}::text
          from unnest(string_to_array('phone_number type body gateway_id gateway_status status_changed_at updated_at inserted_at', ' ')) as name
         where not exists (select from pg_attribute where attrelid = ${LOG}::text::regclass and attname = name and not attisdropped)
        union all
        select 'nothing keeps an id from coming twice',
               format('alter table %s %sadd primary key (id);', ${LOG}::text,
                      (select format('drop constraint %I, ', conname) from pg_constraint where conrelid = ${LOG}::text::regclass and contype = 'p'))
         where not exists (
           select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attname = 'id'
            where i.indrelid = ${LOG}::text::regclass and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null
              and i.indnkeyatts = 1 and i.indkey[0] = a.attnum)) wrong`;
    if (rows.length === 0) return ok('unique ids, crash-safe');
    return fail(rows.map(({ says }) => says).join('; '), rows.map(({ fix }) => fix).join(' '));
  }),

  needing('triggers of the log', ['sql', 'migrated'], async ({ sql }) => {
    const rows = await sql<{ kind: string; name: string }[]>`
      select 'trigger' as kind, quote_ident(tgname) as name from pg_trigger
       where tgrelid = ${LOG}::text::regclass and not tgisinternal and tgenabled <> 'D'
         -- for each row, before, insert or update
         and tgtype & 3 = 3 and tgtype & 20 <> 0
         and not exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = tgfoid and n.nspname = 'smslogd')
      union all select 'rule', quote_ident(rulename) from pg_rewrite where ev_class = ${LOG}::text::regclass and ev_type in ('2', '3')
      order by 1, 2`;
    if (rows.length === 0) return ok('none that can change or skip a row');
    return warn(
      `${rows.map(({ kind, name }) => `${kind} ${name}`).join(', ')} can change or skip rows: the log may then differ from what was sent`,
      `${rows.map(({ kind, name }) => `drop ${kind} ${name} on ${LOG};`).join(' ')} -- then: smslogd verify --repair`,
    );
  }),

  ...accessChecks,

  needing('publication', ['config', 'sql', 'source'], async ({ config, sql, source }) => {
    const now = await describePublication(sql, config, source);
    const fixOf = (statements: readonly string[]) =>
      publicationInTheWay(config, now) ??
      `${MIGRATE}; or as that role: ${statements.map((text) => `${text};`).join(' ')}`;
    const statements = publicationStatements(config, source, now);
    if (statements.length > 0) return fail(`${config.PUBLICATION_NAME} ${whatIsWrong(now, source)}`, fixOf(statements));
    const excess = publicationStatements(config, source, now, true);
    if (excess.length > 0)
      return warn(
        now.others
          ? `${config.PUBLICATION_NAME} also publishes tables other than ${source.table}, which smslogd does not read`
          : `${config.PUBLICATION_NAME} publishes UPDATEs or DELETEs, which smslogd does not need: without a replica identity PostgreSQL would refuse the owner's`,
        fixOf(excess),
      );
    const said = `${config.PUBLICATION_NAME} publishes insert`;
    if (now.columns === undefined) return ok(said);
    return warn(
      `${said} of the columns ${now.columns.join(', ')} only: dropping or altering one of them fails until the table is removed from it`,
      `before such DDL: alter publication ${quoteIdentifier(config.PUBLICATION_NAME)} drop table ${source.table}; and after it: smslogd migrate`,
    );
  }),

  needing('settings in the database', ['config', 'sql', 'migrated'], async ({ config, sql }) => {
    const [row] = await sql<{ report: string; days: number; source: string | null; removed: boolean }[]>`
      select s.report_timezone as report, s.retention_days as days, c.source_timezone as source, c.removed_at is not null as removed
        from smslogd.settings s left join smslogd.checkpoint c on c.slot_name = ${config.SLOT_NAME}`;
    if (row === undefined) throw new SmslogdError('schema_missing', 'smslogd.settings has no row');
    if (row.source !== null && row.source !== config.SOURCE_TIMEZONE)
      return fail(
        `SOURCE_TIMEZONE is ${config.SOURCE_TIMEZONE}, the log was written with ${row.source}`,
        `SOURCE_TIMEZONE=${row.source}`,
      );
    if (row.removed) return warn('teardown was run here: daemons idle', MIGRATE);
    if (row.report !== config.REPORT_TIMEZONE)
      return warn(`REPORT_TIMEZONE is ${config.REPORT_TIMEZONE}, the views use ${row.report}`, MIGRATE);
    const days = config.RETENTION_DAYS;
    if (days > 0 && (row.days === 0 || row.days > days))
      return warn(
        `RETENTION_DAYS is ${days}, and the database keeps SMS ${row.days === 0 ? 'for ever' : `for ${row.days} days`}: none is removed`,
        MIGRATE,
      );
    return ok(`days in ${row.report}, source timestamps in ${config.SOURCE_TIMEZONE}`);
  }),

  needing('refused rows', ['sql', 'migrated'], async ({ sql }) => {
    const [row] = await sql<{ rows: number; reasons: string | null }[]>`
      select count(*)::int as rows, string_agg(distinct coalesce(reason, sqlstate), ', ') as reasons from smslogd.sms_refused`;
    if (row === undefined || row.rows === 0) return ok('none');
    return warn(
      `${row.rows} source rows are not in the log, refused by ${row.reasons ?? 'a constraint'}`,
      'select * from smslogd.sms_refused; -- repair the constraint or the rows; the next audit of the daemon then logs them, smslogd verify --repair at once',
    );
  }),
];

/** What publicationStatements would mend, worst first. */
function whatIsWrong(now: PublicationState, source: Source): string {
  if (!now.exists) return 'does not exist';
  if (!now.hasSource) return 'does not have the source table';
  const unpublishable = source.publishesUpdates
    ? []
    : [...(now.update ? ['UPDATE'] : []), ...(now.delete ? ['DELETE'] : [])];
  if (unpublishable.length > 0)
    return `publishes ${unpublishable.join(' and ')} and the source has no replica identity: PostgreSQL refuses the owner's`;
  if (now.filtered) return 'has a row filter: rows outside it are not streamed';
  if (now.absentChildren.length > 0)
    return `does not have ${now.absentChildren.join(', ')}, which inherit from the source: their rows are logged minutes late`;
  if (!now.insert) return 'does not publish INSERTs';
  if (!now.viaRoot) return 'does not publish via the partition root';
  return 'is not as it must be: its columns';
}

const IDENTITIES: Readonly<Record<string, string>> = { d: 'default', n: 'nothing', f: 'full', i: 'an index' };
