/** Checks of the slot, of the checkpoint that belongs to it, and of other slots on the server. */
import { quoteLiteral } from '../postgres/quoting.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';

/** A daemon that works is never so far behind; idle slots hold less. */
const FAR = 1024 * 1024 * 1024;
const RECONCILE = 'nothing is lost: the daemon makes it again and reconciles';

export const slotChecks: readonly Check<Found>[] = [
  needing('slot', ['config', 'sql'], async ({ config, sql, migrated }) => {
    const name = config.SLOT_NAME;
    const [slot] = await sql<SlotRow[]>`
      select slot_type as kind, plugin, coalesce(database = current_database(), false) as here, database, active, wal_status as status,
             pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as retained,
             coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::float8 as behind,
             coalesce(wal_status = 'lost', false) or to_jsonb(s) ->> 'invalidation_reason' is not null as lost,
             to_jsonb(s) ->> 'invalidation_reason' as why, two_phase as twice
        from pg_replication_slots s where slot_name = ${name}`;
    if (slot === undefined) {
      const [known] =
        migrated === true
          ? await sql`select from smslogd.checkpoint where slot_name = ${name} and system_id is not null and removed_at is null`
          : [];
      return known === undefined
        ? ok(`${name} does not exist yet: the daemon makes it when it first starts`)
        : warn(`${name} is gone, somebody dropped it; ${RECONCILE}`, 'smslogd run');
    }
    if (slot.kind !== 'logical' || slot.plugin !== 'pgoutput' || !slot.here)
      return fail(
        `${name} is somebody else's: ${slot.kind}, plugin ${slot.plugin ?? 'none'}, database ${slot.database ?? 'none'}`,
        `SLOT_NAME=${name}_2 # or, if nobody needs it: select pg_drop_replication_slot(${quoteLiteral(name)});`,
      );
    if (slot.lost)
      return warn(
        `${name} has lost its WAL (${slot.why ?? 'max_slot_wal_keep_size'}); ${RECONCILE}. Raise the limit, and see why the daemon was away or slow`,
        'smslogd run',
      );
    if (slot.twice)
      return warn(
        `${name} sends prepared transactions before their commit (two_phase), which the mirror cannot read; ${RECONCILE}`,
        'smslogd run',
      );
    const said = `${name}, ${slot.active ? 'a daemon reads it' : 'nobody reads it'}, holds ${slot.retained ?? 'no'} WAL (${slot.status ?? 'unknown'})`;
    if (slot.status === 'unreserved') return warn(`${said}: about to be lost`, 'smslogd run # and see its lag');
    if (!slot.active)
      return warn(`${said}: it holds WAL until a daemon runs`, 'smslogd run # or, to leave it: smslogd teardown');
    if (slot.behind > FAR)
      return warn(
        `${said}: its daemon is far behind`,
        "select pid, state, wait_event, xact_start from pg_stat_activity where xact_start < now() - interval '1 minute'; -- what it waits for, if it waits",
      );
    return ok(said);
  }),

  needing('checkpoint', ['config', 'sql', 'migrated'], async ({ config, sql, systemId }) => {
    const [row] = await sql<{ system: string | null; future: boolean | null; lsn: string | null }[]>`
      select system_id as system, lsn > pg_current_wal_lsn() as future, lsn::text as lsn from smslogd.checkpoint where slot_name = ${config.SLOT_NAME}`;
    if (row === undefined) return ok('none yet');
    if (row.future === true)
      return warn(
        'it is ahead of this server, as after a restore or with an older copy: the daemon forgets it and reconciles',
        'smslogd run',
      );
    if (row.system !== null && row.system !== systemId)
      return warn('the log was filled from another cluster: the daemon notes it and reconciles', 'smslogd run');
    return ok(row.lsn === null ? 'no transaction yet' : `at ${row.lsn}`);
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
      `${rows.map(({ name }) => `select pg_drop_replication_slot(${quoteLiteral(name)});`).join(' ')} -- those that nobody needs any more`,
    );
  }),
];

interface SlotRow {
  readonly kind: string;
  readonly plugin: string | null;
  readonly here: boolean;
  readonly database: string | null;
  readonly active: boolean;
  readonly status: string | null;
  readonly retained: string | null;
  /** bytes of WAL that are not confirmed */
  readonly behind: number;
  readonly lost: boolean;
  readonly why: string | null;
  /** it was made with two_phase */
  readonly twice: boolean;
}
