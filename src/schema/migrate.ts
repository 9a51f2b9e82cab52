/**
 * What smslogd owns in the database: numbered forward migrations (node-pg-migrate) for what holds data, the files of sql/ for what can be made
 * at any time (src/schema/objects.ts), then the settings, the publication and the roles' grants. Whatever of it was dropped or altered is put
 * back. All under one advisory lock; every DDL under a lock_timeout, so that nobody queues behind it for long.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import { ROOT } from '../package.ts';
import type { Config } from '../settings.ts';
import { MIGRATION_LOCK } from '../postgres/advisory-locks.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { pgConfig } from '../postgres/clients.ts';
import { isPooled } from '../postgres/pooler.ts';
import { openDatabase, type Sql } from '../postgres/pools.ts';
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { SESSION_OPTIONS } from '../postgres/session.ts';
import { codeOf, SmslogdError, toSmslogdError } from '../errors.ts';
import { alteredObjects, queryOfPool, type Altered, type Query } from './objects.ts';
import { addIndexes, requireFit } from './fit.ts';
import { becomeOwner } from './owner.ts';
import { describeSource } from '../source.ts';
import { computedSteps, queryOf, type Session } from './steps.ts';
import { applyGrants, daemonRoles, grantStatements } from './grants.ts';
import { policiesInTheWay } from './policies.ts';
import { requireSourceTimezone, requireTimezones } from '../timezones.ts';

const MIGRATIONS = fileURLToPath(new URL('migrations/', ROOT));

const LOCK_TIMEOUT_MS = 400;
const LOCKED_MS = 60_000;
/** Between two tries to be the only migrate. */
const AGAIN_MS = 200;

export interface MigrateOptions {
  /** the daemon's role, to be granted what it needs */
  readonly role?: string;
  readonly say: (line: string) => void;
}

/** The numbered migrations that this version brings, in order, without their file ending. */
export function migrationNames(): string[] {
  return readdirSync(MIGRATIONS)
    .filter((file) => file.endsWith('.sql'))
    .map((file) => file.slice(0, -'.sql'.length))
    .sort();
}

function migrationText(name: string): string {
  return readFileSync(`${MIGRATIONS}${name}.sql`, 'utf8');
}

/** Connects, as the owner of the source. */
async function begin(config: Config): Promise<Session & { readonly become: readonly string[] }> {
  const sql = openDatabase(config, { max: 1, name: 'migrate' });
  let client: Client | undefined;
  try {
    await requireTimezones(queryOfPool(sql), config);
    const source = await describeSource(sql, config);
    if (isPooled(config))
      throw new SmslogdError('config_invalid', 'DATABASE_URL goes through a pooler, which migrate cannot use', {
        hint: "Give migrate the server's own address in DATABASE_URL, as the owner of the source table.",
      });
    // nothing of others at all: it may be a superuser who runs this
    const options = `${SESSION_OPTIONS} -c search_path=pg_catalog,pg_temp`;
    client = new Client(await pgConfig(config.DATABASE_URL ?? '', { name: 'migrate', options }));
    client.on('error', () => {});
    await client.connect();
    return { client, sql, source, become: await becomeOwner(client, source, config.PUBLICATION_NAME) };
  } catch (error) {
    await Promise.all([client?.end().catch(() => {}), sql.end({ timeout: 1 })]);
    throw error;
  }
}

async function end({ client, sql }: Pick<Session, 'client' | 'sql'>): Promise<void> {
  await Promise.all([client.end().catch(() => {}), sql.end({ timeout: 1 })]);
}

/** Creates or upgrades what smslogd owns. Safe to run twice and from two places at once. */
export async function migrate(config: Config, { role, say }: MigrateOptions): Promise<void> {
  const session = await begin(config);
  const { client, source } = session;
  try {
    await requireRole(client, role);
    await lockMigrations(client, say);
    await client.query(`set lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await retryWithNotice(say, () => appliedMigrations(queryOf(client)));
    await retryWithNotice(say, () => requireSourceTimezone(queryOf(client), config));
    const texts = migrationNames().map(migrationText);
    await retryWithNotice(say, () => requireFit(client, texts));
    for (const name of await addIndexes(client, texts)) say(`index ${name} of the log`);
    await client.query(`set lock_timeout = ${LOCK_TIMEOUT_MS}`);
    const altered = await retryWithNotice(say, () => alteredObjects(queryOf(client)));
    tellAltered(altered ?? [], say);
    await retryWithNotice(say, () => applyMigrations(client, say));
    if (lacksTables(altered)) await retryWithNotice(say, () => inTransaction(client, texts));
    for (const step of await retryWithNotice(say, () => computedSteps(config, session, altered))) {
      const rows = await retryWithNotice(say, () => inTransaction(client, step.statements));
      if (step.name !== undefined && (rows > 0 || step.mayChangeNothing !== true)) say(step.name);
    }
    const query = queryOf(client);
    const roles = await daemonRoles(query, role);
    await retryWithNotice(say, () => applyGrants(query, source, grantStatements(source, roles), say));
    const inTheWay = await policiesInTheWay(query, source, roles);
    if (inTheWay !== undefined) throw inTheWay;
  } catch (error) {
    throw codeOf(error instanceof SmslogdError ? error.cause : error) === '42501'
      ? await mayNot(client, error)
      : toSmslogdError(error);
  } finally {
    await end(session);
  }
}

/**
 * Another migrate may take as long as it needs. No statement waits for it: one that did would have a snapshot, for whose end the other's CREATE INDEX
 * CONCURRENTLY waits.
 */
async function lockMigrations(client: Client, say: (line: string) => void): Promise<void> {
  const locked = async () =>
    (await client.query<{ locked: boolean }>('select pg_try_advisory_lock($1) as locked', [MIGRATION_LOCK])).rows[0]
      ?.locked === true;
  if (await locked()) return;
  say('another migrate runs; waiting for it to end');
  do await delay(AGAIN_MS);
  while (!(await locked()));
}

/** More changes than these are told as a number: after a change of the owner all has changed. */
const TOLD = 5;

function tellAltered(altered: readonly Altered[], say: (line: string) => void): void {
  const changed = altered.filter(({ missing }) => !missing);
  for (const { object } of altered.filter(({ missing }) => missing)) say(`${object} was dropped: put back`);
  if (changed.length > TOLD) say(`${changed[0]!.object} and ${changed.length - 1} more were changed: put back`);
  else for (const { object } of changed) say(`${object} was changed: put back`);
}

/** What the files of sql/ make; all else is made by migrations. */
const REPEATABLE = /^(?:body|function|trigger|view) /;

/** The migrations are to be run once more: they make what is missing, and leave what is there. */
function lacksTables(altered: readonly Altered[] | undefined): boolean {
  return altered === undefined || altered.some(({ object }) => !REPEATABLE.test(object));
}

/** Before anything is created: a grant to nobody would fail at the very end. */
async function requireRole(client: Client, role: string | undefined): Promise<void> {
  if (role === undefined) return;
  const { rowCount } = await client.query('select from pg_roles where rolname = $1', [role]);
  if (rowCount === 0) {
    throw new SmslogdError('privilege_missing', `the role ${role} does not exist`, {
      hint: `As an administrator run sql/roles.sql with psql, or: create role ${quoteIdentifier(role)} login;`,
    });
  }
}

/** What can be known was looked at before (owner.ts): this is something else, such as a tablespace or an event trigger, and only the server knows which. */
async function mayNot(client: Client, error: unknown): Promise<SmslogdError> {
  const { rows } = await client.query<{ who: string }>('select current_user as who');
  const { message } = (error instanceof SmslogdError ? error.cause : error) as Error;
  const who = rows[0]?.who ?? '';
  return new SmslogdError('privilege_missing', `${who} may not create what smslogd needs: ${message}`, {
    cause: error,
    hint: `As an administrator grant ${who} what it lacks, then run migrate again.`,
  });
}

/** Only where it is missing: `if not exists` would ask for the right to create all the same, and an administrator may have made it. */
const SCHEMA = `do $$ begin
  if not exists (select from pg_catalog.pg_namespace where nspname = 'smslogd') then create schema smslogd; end if;
end $$;`;

/** As node-pg-migrate makes it. */
const MIGRATIONS_TABLE =
  'create table if not exists smslogd.migrations (id serial primary key, name varchar(255) not null, run_on timestamp not null);';

/** The SQL that `migrate` would run now, without running it. Run by hand it does the same, and `migrate` and `run` know that it was. */
export async function dryRun(config: Config, { role, say }: MigrateOptions): Promise<string> {
  const session = await begin(config);
  const { client, source, become } = session;
  try {
    await client.query(`set lock_timeout = ${LOCK_TIMEOUT_MS}`);
    const query = queryOf(client);
    const done = await retryWithNotice(say, () => appliedMigrations(query));
    await retryWithNotice(say, () => requireSourceTimezone(query, config));
    await retryWithNotice(say, () => requireFit(client, migrationNames().map(migrationText)));
    const altered = await retryWithNotice(say, () => alteredObjects(query));
    const again = lacksTables(altered);
    const files = migrationNames().filter((name) => again || !done.includes(name));
    const steps = await retryWithNotice(say, () => computedSteps(config, session, altered));
    const grants = grantStatements(source, await daemonRoles(query, role));
    return [
      ...become,
      ...(done.length === 0 ? [`${SCHEMA}\n${MIGRATIONS_TABLE}`] : []),
      ...files.map(
        (name) =>
          `-- migrations/${name}.sql\n${migrationText(name).trim()}` +
          (done.includes(name)
            ? ''
            : `\ninsert into smslogd.migrations (name, run_on) values (${quoteLiteral(name)}, now());`),
      ),
      ...[...steps, { name: 'grants', statements: grants }].map(
        (step) =>
          `-- ${step.name ?? 'what there is now'}\n${step.statements.map((text) => `${text.trim().replace(/;$/, '')};`).join('\n')}`,
      ),
      ...become.map(() => 'reset role;'),
    ].join('\n\n');
  } finally {
    await end(session);
  }
}

/**
 * Throws schema_missing or schema_older where the database is behind this version. A newer one is no obstacle, it only adds: returns what it has
 * beyond this version.
 */
export async function requireSchema(sql: Sql): Promise<string[]> {
  const done = await appliedMigrations(queryOfPool(sql));
  if (done.length === 0) throw new SmslogdError('schema_missing', 'the database has no smslogd schema yet');
  const absent = migrationNames().filter((name) => !done.includes(name));
  if (absent.length > 0)
    throw new SmslogdError('schema_older', `the database lacks the migrations ${absent.join(', ')}`);
  const [settings] = await sql`select from smslogd.settings`;
  if (settings === undefined) throw new SmslogdError('schema_missing', 'the row of smslogd.settings was deleted');
  const mine = migrationNames();
  return done.filter((name) => !mine.includes(name));
}

/** Throws schema_older where the database was made before 1.0.0, which had other migrations: only the log can be kept. */
async function appliedMigrations(query: Query): Promise<string[]> {
  const [there] = await query<{ name: string }>(
    `select to_regclass('smslogd.migrations')::text as name where to_regclass('smslogd.migrations') is not null`,
  );
  if (there === undefined) return [];
  const names = (await query<{ name: string }>('select name from smslogd.migrations order by id')).map(
    (row) => row.name,
  );
  if (names.length > 0 && names[0] !== migrationNames()[0])
    throw new SmslogdError(
      'schema_older',
      'the schema smslogd was made by a version before 1.0.0, which cannot be upgraded',
      {
        hint:
          'Stop the daemons. As the owner of the source table run: drop schema smslogd cascade; drop function if exists verification.sms_delivery_between(date, date); ' +
          'then run `smslogd migrate`. The log stays, and queue and counters are filled again from it; counters of SMS that are no longer in it are lost.',
      },
    );
  return names;
}

const nothing = () => {};
const SILENT = { debug: nothing, info: nothing, warn: nothing, error: nothing };

async function applyMigrations(client: Client, say: (line: string) => void): Promise<void> {
  await client.query(SCHEMA);
  // no other command needs it
  const { runner } = await import('node-pg-migrate');
  const done = await runner({
    dbClient: client,
    dir: MIGRATIONS,
    direction: 'up',
    migrationsSchema: 'smslogd',
    migrationsTable: 'migrations',
    singleTransaction: true,
    noLock: true,
    logger: SILENT,
  });
  for (const { name } of done) say(`migration ${name}`);
}

/** Returns how many rows were written. */
async function inTransaction(client: Client, statements: readonly string[]): Promise<number> {
  await client.query('begin');
  try {
    let rows = 0;
    for (const statement of statements) rows += (await client.query(statement)).rowCount ?? 0;
    await client.query('commit');
    return rows;
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

/** For commands: tells of the lock, and gives up after a minute. */
export async function retryWithNotice<T>(say: (line: string) => void, work: () => Promise<T>): Promise<T> {
  return await retryWhileLocked(AbortSignal.timeout(LOCKED_MS), work, (attempt) => {
    if (attempt % 10 === 1) say('a table is locked by another session; trying again');
  });
}
