/**
 * A database of its own for a test file, as in the field: a clone of the migrated template, whose source another role owns, with a slot name of its
 * own. The program under test is the daemon's role; the test's own hand is a superuser, who can look at all and break all.
 */
import { randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import type { Sql } from 'postgres';
import { inject } from 'vitest';
import { loadConfig, type Config } from '../../src/settings.ts';
import { DAEMON_ROLE, REPLICATION_ROLE } from '../../src/demo/roles.ts';
import { openDatabase } from '../../src/postgres/pools.ts';
import { connect, OWNER, PASSWORD, TEMPLATE } from './postgres.ts';

/** The program as somebody: the address, and the settings with it. */
export interface Login {
  readonly url: string;
  /** for DATABASE_REPLICATION_URL */
  readonly replicationUrl: string;
  /** settings as the daemon gets them: this database, a slot of this test's own, a gateway that nobody serves, any free HTTP port */
  env(more?: Record<string, string>): Record<string, string>;
  config(more?: Record<string, string>): Config;
}

export interface TestDatabase extends Login {
  readonly name: string;
  /** the test's own hand */
  readonly sql: Sql;
  /** a pool of the daemon's, for its stores */
  readonly daemon: Sql;
  /** the owner of the source, who runs `migrate` */
  readonly owner: Login & { readonly sql: Sql };
  readonly superuser: Login;
  /** the daemon without TLS, for a test that reads what goes over its connection */
  withoutTls(): Promise<Login>;
  /** disconnects everybody, drops its slots and itself */
  drop(): Promise<void>;
}

export interface Less {
  /** a database without anything, whose texts sort as ICU's `locale` has it */
  readonly empty?: boolean;
  readonly locale?: string;
  /** another server than the worker's */
  readonly adminUrl?: string;
  /** why the program is the superuser here, in all that it does; or the source's owner, who streams as the field's role does */
  readonly superuser?: string;
  readonly asOwner?: string;
}

/** Clones the template on the server of this worker. */
export async function createDatabase({
  empty = false,
  locale,
  adminUrl: another,
  superuser: why,
  asOwner,
}: Less = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const adminUrl = another ?? serverOfWorker();
  const admin = administrator(adminUrl);
  const sorted = locale === undefined ? '' : `locale_provider icu icu_locale '${locale}'`;
  await admin.unsafe(`create database ${name} template ${empty ? 'template0' : TEMPLATE} strategy file_copy ${sorted}`);
  await admin.unsafe(`grant create on database ${name} to ${OWNER}`);
  const address = (user?: string, search?: string): string => {
    const url = new URL(adminUrl);
    url.pathname = name;
    if (user !== undefined) [url.username, url.password] = [user, PASSWORD];
    if (search !== undefined) url.search = search;
    return url.href;
  };
  const as = (user?: string, search?: string, streams = user === DAEMON_ROLE): Login => {
    const url = address(user, search);
    const replicationUrl = streams ? streaming(url) : url;
    const env = (more: Record<string, string> = {}) => ({
      DATABASE_URL: url,
      ...(streams ? { DATABASE_REPLICATION_URL: streaming(more['DATABASE_URL'] ?? url) } : {}),
      SLOT_NAME: name,
      HTTP_PORT: '0',
      IP2SMS_URL: 'http://127.0.0.1:9/ip2sms/',
      IP2SMS_LOGIN: 'login',
      IP2SMS_PASSWORD: 'password',
      ...more,
    });
    return { url, replicationUrl, env, config: (more) => loadConfig(env(more), ['database', 'gateway']) };
  };
  const superuser = as();
  const mine = why !== undefined ? superuser : asOwner === undefined ? as(DAEMON_ROLE) : as(OWNER, undefined, true);
  // on a server of its own, which the test crashes, the client must not be in the middle of reading array types
  const sql = connect(superuser.url, { max: 4, fetch_types: another === undefined });
  const owner = as(OWNER);
  let [daemon, owners]: (Sql | undefined)[] = [];
  return {
    ...mine,
    name,
    sql,
    get daemon() {
      return (daemon ??= openDatabase(mine.config(), { max: 4, name: 'test' }));
    },
    owner: {
      ...owner,
      get sql() {
        return (owners ??= connect(owner.url, { max: 2 }));
      },
    },
    superuser,
    withoutTls: async () => {
      const login = as(why === undefined ? DAEMON_ROLE : undefined, '?sslmode=disable');
      await letInWithoutTls(admin, name, login.url);
      return login;
    },
    drop: async () => {
      for (const each of [sql, daemon, owners]) await each?.end({ timeout: 1 });
      await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`;
      await until(`slots of ${name} to be free`, async () => {
        const slots = await admin`select slot_name, active from pg_replication_slots where database = ${name}`;
        for (const { slot_name: slot, active } of slots)
          if (!active) await admin`select pg_drop_replication_slot(${slot})`;
        return slots.length === 0;
      });
      await admin.unsafe(`drop database ${name} with (force)`);
    },
  };
}

/** Workers that run beside each other have different numbers, from 1 on. */
function serverOfWorker(): string {
  const urls = inject('postgresUrls');
  return urls[Number(process.env['VITEST_POOL_ID']) % urls.length]!;
}

const administrators = new Map<string, Sql>();

/** One connection for all databases of a server that a worker makes, in one file after the other: to connect takes longer than to make a database. */
function administrator(url: string): Sql {
  const admin = administrators.get(url) ?? connect(url, { max: 1, idle_timeout: 2, fetch_types: false });
  administrators.set(url, admin);
  return admin;
}

/** The same address of the role that streams, where it is the daemon's or the owner's. */
function streaming(address: string): string {
  return address.replace(new RegExp(`//(?:${DAEMON_ROLE}|${OWNER}):`), `//${REPLICATION_ROLE}:`);
}

/** Adds to pg_hba.conf as an administrator would, and waits until the server has read it. */
async function letInWithoutTls(admin: Sql, database: string, url: string): Promise<void> {
  const [row] = await admin`select current_setting('hba_file') as file`;
  appendFileSync(row?.['file'] as string, `hostnossl ${database} all 127.0.0.1/32 scram-sha-256\n`);
  await admin`select pg_reload_conf()`;
  const sql = connect(url, { max: 1 });
  await until('the server to let in without TLS', () =>
    sql`select`.then(
      () => true,
      () => false,
    ),
  );
  await sql.end();
}

/** Seconds after which what a test waits for counts as not coming. */
const PATIENCE = 90;

/**
 * Waits until `condition` holds, asking again and again, at most a quarter of the time and less often the longer it waits: each question costs the others
 * of the run processor time. Fails after `seconds` with what it waited for; by itself far behind the usual time, which beside other work is many times as long.
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  seconds = PATIENCE,
): Promise<void> {
  const began = performance.now();
  for (;;) {
    const asked = performance.now();
    if (await condition()) return;
    const now = performance.now();
    if (now - began > seconds * 1000) throw new Error(`waited ${seconds} s in vain for ${what}`);
    const pause = Math.max(Math.min(10 + (now - began) / 10, 60), 3 * (now - asked));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Waits until nothing of much work is left, which on a busy machine takes any time: fails when for `seconds` it became neither less nor more. */
export async function untilNone(what: string, left: () => Promise<number>, seconds = PATIENCE): Promise<void> {
  const changed = async (before: number | undefined) => {
    let now: number | undefined;
    await until(`${what}: ${before} are left`, async () => (now = await left()) !== before, seconds);
    return now;
  };
  for (let now = await changed(undefined); now !== 0;) now = await changed(now);
}

/**
 * Waits until a session of this database waits for a lock, on `relation` where one is named. A server may have several databases, and those cloned from one
 * template have the same oids.
 */
export async function untilLocked(what: string, sql: Pick<Sql, 'unsafe'>, relation?: string): Promise<void> {
  const waits = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
  const on = ` and pid in (select pid from pg_locks where not granted and relation = '${relation}'::regclass)`;
  await until(what, async () => (await sql.unsafe(relation === undefined ? waits : waits + on)).length > 0);
}

/** Waits until the slot has confirmed all that was written to the WAL before this call: what reads it has nothing under way any more. */
export async function untilConfirmed(sql: Sql, slot: string, seconds?: number): Promise<void> {
  const [now] = await sql`select pg_current_wal_insert_lsn()::text as lsn`;
  const confirmed = async () =>
    await sql`select from pg_replication_slots where slot_name = ${slot} and confirmed_flush_lsn >= ${now?.['lsn']}::text::pg_lsn`;
  await until('the slot to have confirmed what was written', async () => (await confirmed()).length > 0, seconds);
}
