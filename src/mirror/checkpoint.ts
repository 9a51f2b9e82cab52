/** The checkpoint row: the WAL position up to which the log has the source's transactions, the term that may write, and the reconcile that is due. */
import { codeOf, SmslogdError } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { briefly } from '../postgres/briefly.ts';
import { parseLsn, type Lsn } from '../postgres/lsn.ts';
import type { Sql } from '../postgres/pools.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { DIVISION_BY_ZERO } from '../postgres/refusal.ts';
import { writtenSince } from '../postgres/transactions.ts';
import { FIRST_START } from '../schema/steps.ts';
import type { Config } from '../settings.ts';
import type { Source } from '../source.ts';

export interface Checkpoint {
  readonly term: bigint;
  /** end_lsn of the last source transaction in the log */
  readonly lsn: Lsn | undefined;
  /** `lsn` is ahead of the server's own position: it belongs to another history */
  readonly inFuture: boolean;
  readonly systemId: string | undefined;
  readonly sourceTimezone: string | undefined;
  readonly removed: boolean;
  /** why a reconcile is due */
  readonly reconcileDue: string | undefined;
  /** the slot was ahead of `lsn`, or the source got its gateway ids, and what may have been passed over is not audited yet */
  readonly auditDue: boolean;
}

/**
 * A reconcile to mark as due. `fresh`: the saved positions are invalid. `horizon`: rows older than now are not mirrored; nor is, at a first start, what a slot
 * that is older has from before it.
 */
export interface ReconcileDue {
  readonly reason: string;
  readonly fresh: boolean;
  readonly horizon: boolean;
}

export function createCheckpointStore(sql: Sql, config: Config) {
  const slot = config.SLOT_NAME;
  const fields = sql`term::text, lsn::text, lsn > pg_current_wal_lsn() as in_future, system_id, source_timezone, removed_at is not null as removed, reconcile_due, audit_due`;

  return {
    /** Reads the checkpoint; creates its row at the first start. */
    async read(): Promise<Checkpoint> {
      const select = async () =>
        (await sql<CheckpointRow[]>`select ${fields} from smslogd.checkpoint where slot_name = ${slot}`)[0];
      const row = await select();
      if (row !== undefined) return checkpointOf(row);
      await sql`insert into smslogd.checkpoint (slot_name) values (${slot}) on conflict do nothing`;
      return checkpointOf(await select());
    },

    /**
     * Makes `term` the one that may write: statements of earlier terms write nothing from now on. Returns the checkpoint and the ctid of its row. Throws
     * stepped_down if there is a later term.
     */
    async acquire(term: bigint): Promise<Checkpoint & { readonly ctid: string }> {
      const [row] = await sql<(CheckpointRow & { ctid: string })[]>`
        update smslogd.checkpoint set term = ${String(term)}::text::int8 where slot_name = ${slot} and term <= ${String(term)}::text::int8
        returning ctid::text, ${fields}`;
      if (row === undefined) throw steppedDown();
      return { ctid: row.ctid, ...checkpointOf(row) };
    },

    /**
     * Commits that a reconcile is due, before the step that makes it necessary: a crash in between leaves no gap. `term` becomes the one that may write, so
     * that a reconcile of an earlier term stops and saves no position. Throws stepped_down if there is a later term, or no row to mark.
     */
    async markReconcile(term: bigint, due: ReconcileDue): Promise<void> {
      try {
        await sql.unsafe(this.markStatements(term, due).join(';\n')).simple();
      } catch (error) {
        if (codeOf(error) === DIVISION_BY_ZERO) throw steppedDown();
        throw error;
      }
    },

    /** markReconcile as statements for a larger transaction, which they fail if there is no row to mark. */
    markStatements(term: bigint, { reason, fresh, horizon }: ReconcileDue): string[] {
      const row = `slot_name = ${quoteLiteral(slot)}`;
      const start = horizon && reason === FIRST_START ? 'least(lsn, pg_current_wal_flush_lsn())' : 'null';
      return [
        `update smslogd.checkpoint
            set term = ${String(term)}, reconcile_due = ${quoteLiteral(reason)}, reconcile_after = null, reconcile_xid = null,
                audited_xid = pg_snapshot_xmin(pg_current_snapshot()), lsn = ${fresh ? start : 'lsn'},
                horizon = ${horizon ? 'coalesce(horizon, now())' : 'horizon'}
          where ${row} and term <= ${String(term)}`,
        `select 1 / (select count(*)::int from smslogd.checkpoint where ${row} and term = ${String(term)})`,
      ];
    },

    /** Commits that an audit is due, before the stream moves the checkpoint past the slot: after a crash nothing else tells. */
    async markAudit(term: bigint): Promise<void> {
      await sql`update smslogd.checkpoint set audit_due = true where slot_name = ${slot} and term = ${String(term)}::text::int8 and not audit_due`;
    },

    /** Records the cluster and the time zone that the log is filled from. */
    async identify(systemId: string, term: bigint): Promise<void> {
      await sql`update smslogd.checkpoint set system_id = ${systemId}, source_timezone = ${config.SOURCE_TIMEZONE}
                 where slot_name = ${slot} and term = ${String(term)}::text::int8`;
    },

    /** True if the log has rows that a mirror wrote. Throws 55P03 if the log is locked. */
    async hasMirroredRows(): Promise<boolean> {
      const text = "select from verification.sms_log where type = 'verification' limit 1";
      return (await briefly(sql, text, [])).length > 0;
    },

    /**
     * Stores since when the source has gateway ids: a mirrored row without an id is queued and judged only if it was inserted later. The hours in which that
     * changes what a row counts as are counted again. Where the column came, an audit of all rows is due: the last one did not know it, and may have passed
     * over ids.
     */
    async noteSource({ tracksGateway }: Source, term: bigint): Promise<void> {
      await sql`
        with fence as (
          select from smslogd.checkpoint where slot_name = ${slot} and term = ${String(term)}::text::int8 for share
        ), noted as (
          update smslogd.settings set tracked_since = case when ${tracksGateway} then clock_timestamp() else 'infinity' end
            from fence where (tracked_since < 'infinity') <> ${tracksGateway}
          returning 1
        ), due as (
          update smslogd.checkpoint set audited_xid = null, audit_due = true
           where slot_name = ${slot} and ${tracksGateway} and exists (select from noted)
        ), changed as (
          select hour from smslogd.sms_hourly
           where type = 'verification' and (status = 'none' or status = 'untracked' and hour >= smslogd.hour_of(clock_timestamp()))
          union select smslogd.hour_of(clock_timestamp())
        )
        insert into smslogd.changed_hour select changed.hour from noted cross join changed`;
    },

    /** True if the publication, or the source's entry in it, changed since the last light audit: for a moment it may have lacked something. */
    async republished(source: Source): Promise<boolean> {
      const changed = (xmin: string) => sql.unsafe(writtenSince(xmin, 'c.audited_xid::xid'));
      const [row] = await sql`
        select exists (select from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = ${source.oid}::text::oid
                        where p.pubname = ${config.PUBLICATION_NAME} and (${changed('p.xmin')} or ${changed('r.xmin')})) as so
          from smslogd.checkpoint c where c.slot_name = ${slot}`;
      return row?.['so'] === true;
    },
  };
}

interface CheckpointRow {
  readonly term: string;
  readonly lsn: string | null;
  readonly in_future: boolean | null;
  readonly system_id: string | null;
  readonly source_timezone: string | null;
  readonly removed: boolean;
  readonly reconcile_due: string | null;
  readonly audit_due: boolean;
}

function checkpointOf(row: CheckpointRow | undefined): Checkpoint {
  if (row === undefined) throw new SmslogdError('stepped_down', 'the checkpoint row is gone');
  return {
    term: BigInt(row.term),
    lsn: row.lsn === null ? undefined : parseLsn(row.lsn),
    inFuture: row.in_future === true,
    systemId: row.system_id ?? undefined,
    sourceTimezone: row.source_timezone ?? undefined,
    removed: row.removed,
    reconcileDue: row.reconcile_due ?? undefined,
    auditDue: row.audit_due,
  };
}
