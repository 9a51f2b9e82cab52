/** Checks of the slot, of the checkpoint that belongs to it, and of other slots on the server. */
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { fail, ok, warn, type Check } from './check.ts';
import { needing, type Found } from './found.ts';
import { FAILOVER_SLOTS } from '../mirror/mode.ts';
import { describeSlot } from '../mirror/slot.ts';
import { slotHealth } from '../mirror/slot-health.ts';

const RECONCILE = 'no data is lost: the daemon creates it again and reconciles';

export const slotChecks: readonly Check<Found>[] = [
  needing('slot', ['config', 'sql'], async ({ config, sql, migrated }) => {
    const name = config.SLOT_NAME;
    const [server] = await sql<{ database: string; version: number }[]>`
      select current_database() as database, current_setting('server_version_num')::int as version`;
    const slot = await describeSlot(sql, name);
    const health = slotHealth(slot, server!);
    if (slot === undefined) {
      const [known] =
        migrated === true
          ? await sql`select from smslogd.checkpoint where slot_name = ${name} and system_id is not null and removed_at is null`
          : [];
      return known === undefined
        ? ok(`${name} does not exist yet: the daemon creates it at its first start`)
        : warn(`${name} is missing: it was dropped; ${RECONCILE}`, 'smslogd run');
    }
    const summary = `${name}, ${slot.reader === undefined ? 'inactive' : 'read by a daemon'}, retains ${slot.retained ?? 'no'} WAL (${slot.walStatus})`;
    switch (health) {
      case 'foreign':
        return fail(
          `${name} belongs to somebody else: ${slot.type}, plugin ${slot.plugin || 'none'}, database ${slot.database || 'none'}`,
          `SLOT_NAME=${name}_2 # or, if it is unused: select pg_drop_replication_slot(${quoteLiteral(name)});`,
        );
      case 'lost':
        return warn(
          `${name} has lost its WAL (${slot.invalidationReason ?? 'max_slot_wal_keep_size'}); ${RECONCILE}. Raise the limit, and check why the daemon was away or slow`,
          'smslogd run',
        );
      case 'in the future':
        return warn(`${name} is ahead of this server, as after a restore; ${RECONCILE}`, 'smslogd run');
      case 'two-phase':
        return warn(
          `${name} sends prepared transactions before their commit (two_phase), which the mirror cannot read; ${RECONCILE}`,
          'smslogd run',
        );
      case 'at risk':
        return warn(`${summary}: about to be lost`, 'smslogd run # and check its lag');
      case 'unread':
        return warn(
          `${summary}: it retains WAL until a daemon runs`,
          'smslogd run # or, to remove it: smslogd teardown',
        );
      case 'behind':
        return warn(
          `${summary}: its daemon is far behind`,
          "select pid, state, wait_event, xact_start from pg_stat_activity where xact_start < now() - interval '1 minute'; -- what it may wait for",
        );
      case 'missing':
      case 'healthy':
        break;
    }
    if (server!.version >= FAILOVER_SLOTS && !slot.failover)
      return warn(
        `${name} is no failover slot: a standby that is promoted does not have it`,
        `ALTER_REPLICATION_SLOT ${quoteIdentifier(name)} (FAILOVER true) -- over a replication connection, while no daemon reads it; smslogd run does it at its start`,
      );
    return ok(summary);
  }),

  needing('checkpoint', ['config', 'sql', 'migrated'], async ({ config, sql, systemId }) => {
    const [row] = await sql<{ system: string | null; future: boolean | null; lsn: string | null }[]>`
      select system_id as system, lsn > pg_current_wal_lsn() as future, lsn::text as lsn from smslogd.checkpoint where slot_name = ${config.SLOT_NAME}`;
    if (row === undefined) return ok('none yet');
    if (row.future === true)
      return warn(
        "ahead of this server's position, as after a restore: the daemon discards it and reconciles",
        'smslogd run',
      );
    if (row.system !== null && row.system !== systemId)
      return warn(
        'the log was filled from another cluster: the daemon records the new one and reconciles',
        'smslogd run',
      );
    return ok(row.lsn === null ? 'no transaction yet' : `at ${row.lsn}`);
  }),

  needing('other slots', ['config', 'sql'], async ({ config, sql }) => {
    const rows = await sql<{ name: string; retained: string }[]>`
      select slot_name as name, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) as retained
        from pg_replication_slots
       where slot_name <> ${config.SLOT_NAME} and not active and pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 64 * 1024 * 1024
       order by pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) desc limit 10`;
    if (rows.length === 0) return ok('no inactive slot retains more than 64 MB of WAL');
    return warn(
      `inactive slots retain WAL: ${rows.map(({ name, retained }) => `${name} ${retained}`).join(', ')}`,
      `${rows.map(({ name }) => `select pg_drop_replication_slot(${quoteLiteral(name)});`).join(' ')} -- those that are no longer needed`,
    );
  }),
];
