/** Checks of the PostgreSQL server: can smslogd reach it, read its WAL and keep a slot there. */
import { Client } from 'pg';
import { addressOf } from '../postgres/address.ts';
import { pgConfig } from '../postgres/clients.ts';
import { DAEMON_CONNECTIONS, REPLICATION_CONNECTIONS } from '../postgres/connections.ts';
import { openDatabase } from '../postgres/pools.ts';
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import { describeServer, requireSame, SERVER, type Server } from '../replication/server.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

const OLDEST_VERSION = 150_000;
const SHORT_SENDER_TIMEOUT_MS = 5_000;

export const serverChecks: readonly Check<Found>[] = [
  needing('database', ['config'], async (found) => {
    const sql = openDatabase(found.config, { max: 1, name: 'doctor' });
    try {
      const [row] = await sql<
        {
          number: number;
          version: string;
          role: string;
          database: string;
          standby: boolean;
          system: string;
          readonly: boolean;
        }[]
      >`select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
               current_setting('default_transaction_read_only')::bool as readonly,
               current_user as role, current_database() as database, pg_is_in_recovery() as standby,
               (select system_identifier::text from pg_control_system()) as system`;
      if (row === undefined) throw new SmslogdError('unexpected', 'the database answered nothing');
      found.user = row.role;
      found.systemId = row.system;
      // on it nothing more is to be learned
      if (row.standby)
        throw new SmslogdError('database_read_only', 'this server is a standby', {
          hint: 'Point DATABASE_URL at the primary.',
        });
      found.sql = sql;
      if (row.number < OLDEST_VERSION) return fail(`PostgreSQL ${row.version} is too old`, 'Upgrade to 15 or later.');
      if (row.readonly)
        return fail(
          `transactions of role ${row.role} are read only (default_transaction_read_only)`,
          `set default_transaction_read_only = off; alter role ${quoteIdentifier(row.role)} in database ${quoteIdentifier(row.database)} set default_transaction_read_only = off;`,
        );
      return ok(`PostgreSQL ${row.version}, database ${row.database}, role ${row.role}`);
    } catch (error) {
      await sql.end({ timeout: 1 });
      throw error;
    }
  }),

  needing('replication connection', ['config', 'sql'], async ({ config, sql }) => {
    const name = config.DATABASE_REPLICATION_URL === config.DATABASE_URL ? 'DATABASE_URL' : 'DATABASE_REPLICATION_URL';
    const address = config.DATABASE_REPLICATION_URL ?? '';
    let client: Client | undefined;
    try {
      client = new Client(await pgConfig(address, { name: 'doctor', replication: true }));
      client.on('error', () => {});
      await client.connect();
      requireSame(await describeServer(sql), (await client.query<Server>(SERVER)).rows[0]);
      return ok(`${name} takes replication connections`);
    } catch (error) {
      const code = codeOf(error);
      // PgBouncer refuses the start-up parameter `replication`
      if (code === '08P01')
        return fail(
          `${name} goes through a pooler`,
          'Set DATABASE_REPLICATION_URL to the direct address of the server.',
        );
      if (code === '42501') {
        const { user } = addressOf(address);
        const role = quoteIdentifier(user);
        const [barred] = await sql<{ database: string }[]>`
          select current_database() as database from pg_roles where rolname = ${user} and not has_database_privilege(oid, current_database(), 'connect')`;
        if (barred !== undefined)
          return fail(
            `role ${user} may not connect to this database`,
            `grant connect on database ${quoteIdentifier(barred.database)} to ${role};`,
          );
        return fail(
          `role ${user} may not replicate`,
          name === 'DATABASE_URL'
            ? 'Set DATABASE_REPLICATION_URL to the address of the role that may, as smslogd_replication of sql/roles.sql.'
            : `alter role ${role} replication; -- or your provider's role for it`,
        );
      }
      throw error;
    } finally {
      await client?.end().catch(() => {});
    }
  }),

  needing('role of DATABASE_URL', ['sql'], async ({ sql, user = '' }) => {
    const [row] = await sql<{ superuser: boolean; replicates: boolean }[]>`
      select rolsuper as superuser, rolreplication or coalesce(pg_has_role(oid, to_regrole('rds_replication'), 'member'), false) as replicates
        from pg_roles where rolname = current_user`;
    const role = quoteIdentifier(user);
    if (row?.superuser === true)
      return warn(
        `${role} is a superuser: whoever has its password has the whole server`,
        'psql -v ON_ERROR_STOP=1 -f sql/roles.sql # then DATABASE_URL of smslogd and DATABASE_REPLICATION_URL of smslogd_replication',
      );
    if (row?.replicates === true)
      return warn(
        `${role} may replicate: whoever has its password can copy the whole server, with the password hashes of all roles`,
        `alter role ${role} noreplication; -- once DATABASE_REPLICATION_URL names a role of its own, as smslogd_replication of sql/roles.sql`,
      );
    return ok(`${role} is no superuser and may not replicate`);
  }),

  needing('time limits', ['sql'], async ({ sql, user }) => {
    const rows = await sql<{ name: string; value: string; database: string }[]>`
      select name, current_setting(name) as value, current_database() as database from pg_settings
       where name in ('statement_timeout', 'lock_timeout', 'idle_session_timeout', 'transaction_timeout') and setting <> '0' order by name`;
    if (rows.length === 0) return ok('none that affects smslogd');
    return warn(
      `${rows.map(({ name, value }) => `${name} = ${value}`).join(', ')}: what takes longer, or is idle for longer, is cancelled and retried, such as creating the slot while a long transaction is open`,
      rows
        .map(
          ({ name, database }) =>
            `alter role ${quoteIdentifier(user ?? '')} in database ${quoteIdentifier(database)} set ${name} = 0;`,
        )
        .join(' '),
    );
  }),

  needing('connections', ['config', 'sql'], async ({ config, sql }) => {
    const reader = addressOf(config.DATABASE_REPLICATION_URL ?? '').user;
    const others = DAEMON_CONNECTIONS - REPLICATION_CONNECTIONS;
    const rows = await sql<{ what: string; most: number; needs: number }[]>`
      select 'role ' || quote_ident(rolname) as what, rolconnlimit as most,
             case when rolname = current_user then ${others}::int else 0 end + case when rolname = ${reader} then ${REPLICATION_CONNECTIONS}::int else 0 end as needs
        from pg_roles where rolname in (current_user, ${reader}) and not rolsuper
      union all select 'database ' || quote_ident(datname), datconnlimit, ${DAEMON_CONNECTIONS} from pg_database where datname = current_database()
      order by 1 desc`;
    const tight = rows.filter(({ most, needs }) => most >= 0 && most < needs);
    if (tight.length === 0) return ok(`enough for the ${DAEMON_CONNECTIONS} that a daemon may open`);
    return warn(
      `${tight.map(({ what, most, needs }) => `${what} is limited to ${most}, and a daemon may need ${needs} of it`).join('; ')}; a second one as many`,
      tight.map(({ what }) => `alter ${what} connection limit -1;`).join(' '),
    );
  }),

  needing('wal_level', ['sql'], async ({ sql }) => {
    const level = await setting(sql, 'wal_level');
    return level === 'logical'
      ? ok('logical')
      : fail(`${level}, must be logical`, "alter system set wal_level = 'logical'; -- then restart PostgreSQL");
  }),

  needing('slots and senders', ['config', 'sql'], async ({ config, sql }) => {
    const [row] = await sql<
      { slots: number; mine: number; slotLimit: number; senders: number; reading: number; senderLimit: number }[]
    >`select (select count(*) from pg_replication_slots)::int as slots,
             (select count(*) from pg_replication_slots where slot_name = ${config.SLOT_NAME})::int as mine,
             (select count(*) from pg_replication_slots where slot_name = ${config.SLOT_NAME} and active)::int as reading,
             current_setting('max_replication_slots')::int as "slotLimit",
             (select count(*) from pg_stat_replication)::int as senders,
             current_setting('max_wal_senders')::int as "senderLimit"`;
    if (row === undefined) throw new SmslogdError('unexpected', 'the database answered nothing');
    const said = `${row.slots} of ${row.slotLimit} slots and ${row.senders} of ${row.senderLimit} senders in use`;
    const lines = [
      ...(row.mine === 0 && row.slots >= row.slotLimit
        ? [`alter system set max_replication_slots = ${row.slotLimit + 5};`]
        : []),
      ...(row.reading === 0 && row.senders >= row.senderLimit
        ? [`alter system set max_wal_senders = ${row.senderLimit + 5};`]
        : []),
    ];
    return lines.length === 0 ? ok(said) : fail(said, `${lines.join(' ')} -- then restart PostgreSQL`);
  }),

  needing('standbys', ['sql'], async ({ sql }) => {
    const names = await setting(sql, 'synchronous_standby_names');
    if (names === '') return ok('no commit waits for a standby');
    // a role without pg_monitor sees no more of a sender than its process: that of a slot's reader is no standby's
    const [row] = await sql<{ count: number; others: string }[]>`
      select count(*) filter (where coalesce(sync_state in ('sync', 'quorum'), true))::int as count,
             coalesce(string_agg(distinct quote_ident(application_name), ', '), '') as others
        from pg_stat_replication r
       where not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')`;
    const { count, others } = row!;
    const wanted = Number(/^\s*(?:first|any)?\s*(\d+)\s*\(/i.exec(names)?.[1] ?? 1);
    const reload = 'select pg_reload_conf();';
    if (names.includes('*'))
      return fail(
        `synchronous_standby_names = ${names} matches the daemon's own connection: all commits wait for the daemon, its own too`,
        `alter system set synchronous_standby_names = ${quoteLiteral(others)}; ${reload} -- name your standbys`,
      );
    if (count < wanted)
      return fail(
        `synchronous_standby_names = ${names}, and ${count} of ${wanted} answer: every commit waits, the daemon's too`,
        `alter system set synchronous_standby_names = ''; ${reload} -- or bring the standby back`,
      );
    return ok(`commits wait for ${names}, and ${count} answer`);
  }),

  needing('synchronized_standby_slots', ['sql'], async ({ sql }) => {
    // known from PostgreSQL 17 on
    const [row] = await sql<{ names: string | null }[]>`
      select string_agg(name, ', ') as names from unnest(string_to_array(replace(current_setting('synchronized_standby_slots', true), ' ', ''), ',')) name
       where name <> '' and not exists (select from pg_replication_slots where slot_name = name and active)`;
    const { names } = row!;
    if (names === null) return ok('the stream waits for no inactive slot');
    return fail(
      `${names} is inactive, and the stream waits for it, because smslogd's slot is a failover slot`,
      "alter system set synchronized_standby_slots = ''; select pg_reload_conf(); -- or bring that standby back",
    );
  }),

  needing('wal_sender_timeout', ['sql'], async ({ sql }) => {
    const [row] = await sql<{ ms: number; value: string }[]>`
      select setting::int as ms, current_setting(name) as value from pg_settings where name = 'wal_sender_timeout'`;
    const { ms, value } = row!;
    const fix = "alter system set wal_sender_timeout = '60s'; select pg_reload_conf();";
    if (ms === 0)
      return warn(
        '0: the server never drops the connection of a daemon whose host failed, and the next daemon waits for the slot',
        fix,
      );
    if (ms < SHORT_SENDER_TIMEOUT_MS)
      return warn(`${value}: a short interruption of the network or of the daemon ends the connection`, fix);
    return ok(`${value}; smslogd reports at least three times as often`);
  }),

  needing('max_slot_wal_keep_size', ['sql'], async ({ sql }) => {
    const limit = await setting(sql, 'max_slot_wal_keep_size');
    return limit === '-1'
      ? warn(
          'no limit: an inactive slot fills the disk',
          "alter system set max_slot_wal_keep_size = '20GB'; select pg_reload_conf(); -- a size that the disk can spare",
        )
      : ok(`${limit}; a slot that falls behind by more is lost, which costs one reconcile and no SMS`);
  }),

  needing('idle_replication_slot_timeout', ['sql'], async ({ sql }) => {
    const [row] = await sql<{ value: string; ms: string }[]>`
      select current_setting(name) as value, setting as ms from pg_settings where name = 'idle_replication_slot_timeout'`;
    if (row === undefined || Number(row.ms) === 0) return ok('off: an inactive slot is kept');
    return warn(
      `${row.value}: a daemon that is away for longer finds its slot invalidated, which costs a reconcile`,
      'alter system set idle_replication_slot_timeout = 0; select pg_reload_conf();',
    );
  }),

  needing("the server's own log", ['sql'], async ({ sql, user }) => {
    const wanted = Object.entries(QUIET).map(([name, value]) => ({ name, value }));
    const rows = await sql<{ name: string; value: string }[]>`
      select w.name, w.value from json_to_recordset(${JSON.stringify(wanted)}::text::json) as w (name text, value text)
        join pg_settings s using (name) where s.setting <> w.value order by w.name`;
    if (rows.length === 0) return ok('shows no phone number and no code');
    const role = quoteIdentifier(user ?? '');
    return warn(
      `can show phone numbers and codes when a write is slow or fails (${rows.map(({ name }) => name).join(', ')})`,
      `${rows.map(({ name, value }) => `alter role ${role} set ${name} = ${value};`).join(' ')} -- as a superuser`,
    );
  }),
];

/** Settings of the daemon's sessions under which the server's log shows no values of its statements. */
const QUIET: Readonly<Record<string, string>> = {
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
  log_error_verbosity: 'terse',
  // where the module is loaded
  'auto_explain.log_parameter_max_length': '0',
  'auto_explain.log_verbose': 'off',
};

async function setting(sql: NonNullable<Found['sql']>, name: string): Promise<string> {
  const [row] = await sql<{ value: string }[]>`select current_setting(${name}) as value`;
  return row?.value ?? '';
}
