/** A database of its own for a test file: a clone of the migrated template, with its own slot name. */
import { randomBytes } from 'node:crypto';
import postgres, { type Sql } from 'postgres';
import { inject } from 'vitest';
import { loadConfig, type Config } from '../../src/config.ts';
import { TEMPLATE } from './postgres.ts';

export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  readonly sql: Sql;
  /** settings as the daemon gets them: this database, a slot of this test's own, a gateway that nobody serves, any free HTTP port */
  env(more?: Record<string, string>): Record<string, string>;
  config(more?: Record<string, string>): Config;
  /** disconnects everybody, drops its slots and itself */
  drop(): Promise<void>;
}

/** Clones the template (`empty`: a database without anything, whose texts sort as ICU's `locale` has it) on the run's server, or on the one at `adminUrl`. */
export async function createDatabase({
  empty = false,
  locale,
  adminUrl = inject('postgresUrl'),
}: { empty?: boolean; locale?: string; adminUrl?: string } = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const admin = postgres(adminUrl, { max: 1, onnotice: () => {} });
  const sorted = locale === undefined ? '' : `locale_provider icu icu_locale '${locale}'`;
  await admin.unsafe(`create database ${name} template ${empty ? 'template0' : TEMPLATE} strategy wal_log ${sorted}`);
  const url = adminUrl.replace('/postgres?', `/${name}?`);
  // on a server of its own, which the test crashes, the client must not be in the middle of reading array types
  const sql = postgres(url, { max: 4, onnotice: () => {}, fetch_types: adminUrl === inject('postgresUrl') });
  const env = (more: Record<string, string> = {}) => ({
    DATABASE_URL: url,
    SLOT_NAME: name,
    HTTP_PORT: '0',
    IP2SMS_URL: 'http://127.0.0.1:9/ip2sms/',
    IP2SMS_LOGIN: 'login',
    IP2SMS_PASSWORD: 'password',
    ...more,
  });
  return {
    name,
    url,
    sql,
    env,
    config: (more) => loadConfig(env(more), ['database', 'gateway']),
    drop: async () => {
      await sql.end({ timeout: 1 });
      await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`;
      await until(`slots of ${name} to be free`, async () => {
        const slots = await admin`select slot_name, active from pg_replication_slots where database = ${name}`;
        for (const { slot_name: slot, active } of slots)
          if (!active) await admin`select pg_drop_replication_slot(${slot})`;
        return slots.length === 0;
      });
      await admin.unsafe(`drop database ${name} with (force)`);
      await admin.end();
    },
  };
}

/** Waits until `condition` holds, asking again and again, at most half of the time; fails after `seconds` with what it waited for. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, seconds = 20): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const asked = performance.now();
    if (await condition()) return;
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, Math.max(10, performance.now() - asked)));
  }
}
