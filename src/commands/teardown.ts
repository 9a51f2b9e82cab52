/**
 * Takes away what holds WAL. The checkpoint is marked as removed before the slot is taken from its reader: a daemon that finds the mark steps
 * aside instead of making the slot again, until `migrate` clears it. The log and the schema stay. Running it twice is harmless.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { loadConfig, type Config } from '../settings.ts';
import { directly, openDatabase, type Sql } from '../postgres/pools.ts';
import { lastRows } from '../postgres/last-row.ts';
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { codeOf, SmslogdError, toSmslogdError } from '../errors.ts';
import { describeServer, requireSame } from '../replication/server.ts';
import { retryWithNotice } from '../schema/migrate.ts';
import type { Command } from './command.ts';

const PATIENCE_MS = 30_000;
const LOOK_AGAIN_MS = 100;

export const command: Command = {
  summary: 'drops the slot and the publication, so that nothing holds WAL; keeps the log',
  details:
    'Running daemons become idle until `smslogd migrate` is run again. Drops the slot as the role of\n' +
    'DATABASE_REPLICATION_URL, all else as that of DATABASE_URL; for what these roles may not do it prints the SQL.',
  run: async (_flags, { env, print }) => {
    const config = loadConfig(env, ['database']);
    const sql = openDatabase(config, { max: 1, name: 'teardown' });
    const direct = openDatabase(directly(config), { max: 1, name: 'teardown' });
    try {
      await teardown(sql, config, print, direct);
      const left = await slotsOfOthers(sql, config.SLOT_NAME);
      if (left.length === 0) print('nothing of smslogd holds WAL any more; the log is kept');
      for (const name of left) print(`slot ${name}: holds WAL, too; drop it by: SLOT_NAME=${name} smslogd teardown`);
    } catch (error) {
      throw toSmslogdError(error);
    } finally {
      await Promise.all([sql.end({ timeout: 1 }), direct.end({ timeout: 1 })]);
    }
    return 0;
  },
};

/** `direct`: as the role that may replicate, for the slot. */
export async function teardown(
  sql: Sql,
  config: Config,
  say: (line: string) => void,
  direct: Sql = sql,
): Promise<void> {
  requireSame(await describeServer(sql), await describeServer(direct));
  await refuseForeignSlot(sql, config.SLOT_NAME);
  await markRemoved(sql, config.SLOT_NAME, say);
  // the slot is the one that holds WAL; a publication that may not be dropped does no harm, and is told of all the same
  await releaseSlot(direct, config.SLOT_NAME, say);
  await dropPublication(sql, config.PUBLICATION_NAME, say);
}

async function refuseForeignSlot(sql: Sql, slot: string): Promise<void> {
  const [foreign] = await sql<{ database: string | null }[]>`
    select database from pg_replication_slots where slot_name = ${slot} and database is distinct from current_database()`;
  if (foreign === undefined) return;
  throw new SmslogdError(
    'config_invalid',
    `the slot ${slot} belongs to ${foreign.database === null ? 'a physical standby' : `the database ${foreign.database}`}; nothing was done`,
    { hint: 'Check SLOT_NAME and the database in DATABASE_URL.' },
  );
}

/** The slots of former names in SLOT_NAME, or of daemons that have another one. */
async function slotsOfOthers(sql: Sql, slot: string): Promise<string[]> {
  const [schema] = await sql`select where to_regclass('smslogd.checkpoint') is not null`;
  if (schema === undefined) return [];
  const rows = await sql<{ name: string }[]>`
    select slot_name::text as name from smslogd.checkpoint c join pg_replication_slots s using (slot_name)
     where slot_name <> ${slot} and s.database = current_database() order by 1`;
  return rows.map(({ name }) => name);
}

async function markRemoved(sql: Sql, slot: string, say: (line: string) => void): Promise<void> {
  const [schema] = await sql`select where to_regclass('smslogd.checkpoint') is not null`;
  if (schema === undefined) {
    say('smslogd has no schema here: no daemon to tell');
    return;
  }
  await sql`insert into smslogd.checkpoint (slot_name, removed_at) values (${slot}, now())
            on conflict (slot_name) do update set removed_at = now(), updated_at = now()`;
  say('checkpoint: marked as removed; running daemons become idle');
}

async function releaseSlot(sql: Sql, slot: string, say: (line: string) => void): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  let said = false;
  for (;;) {
    const [row] = await sql<{ pid: number | null }[]>`
      select active_pid as pid from pg_replication_slots where slot_name = ${slot}`;
    if (row === undefined) {
      say(`slot ${slot}: not there`);
      return;
    }
    try {
      if (row.pid === null) {
        await sql`select pg_drop_replication_slot(${slot})`;
        say(`slot ${slot}: dropped`);
        return;
      }
      if (!said) say(`slot ${slot}: ending its reader`);
      said = true;
      await endReader(sql, row.pid);
    } catch (error) {
      const code = codeOf(error);
      if (code === '42501')
        throw new SmslogdError('privilege_missing', `this role may not drop the slot ${slot}`, {
          cause: error,
          hint: `As a role with REPLICATION run: select pg_drop_replication_slot(${quoteLiteral(slot)}); then smslogd teardown again.`,
        });
      // somebody took it, or dropped it, in between: look again
      if (code !== '55006' && code !== '42704') throw error;
    }
    if (Date.now() > deadline)
      throw new SmslogdError('slot_busy', `the slot ${slot} is still being read after ${PATIENCE_MS / 1000} s`, {
        hint: 'Stop the daemon that reads it, then run smslogd teardown again.',
      });
    await delay(LOOK_AGAIN_MS);
  }
}

/** A reader that this role may not end leaves by itself when it finds the mark. */
async function endReader(sql: Sql, pid: number): Promise<void> {
  try {
    await sql`select pg_terminate_backend(${pid})`;
  } catch (error) {
    if (codeOf(error) !== '42501') throw error;
  }
}

async function dropPublication(sql: Sql, name: string, say: (line: string) => void): Promise<void> {
  const [there] = await sql<{ owner: string }[]>`
    select pg_get_userbyid(pubowner) as owner from pg_publication where pubname = ${name}`;
  if (there === undefined) {
    say(`publication ${name}: not there`);
    return;
  }
  const statement = `drop publication if exists ${quoteIdentifier(name)}`;
  try {
    await retryWithNotice(say, async () => void (await lastRows(sql, `set local lock_timeout = 400;\n${statement}`)));
  } catch (error) {
    const problem = toSmslogdError(error);
    if (problem.code !== 'privilege_missing') throw problem;
    throw new SmslogdError('privilege_missing', `this role may not drop the publication ${name}`, {
      cause: error,
      hint: `As ${there.owner} run: ${statement};`,
    });
  }
  say(`publication ${name}: dropped`);
}
