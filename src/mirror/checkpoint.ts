/** The checkpoint's row: up to where the log has the source's transactions, under which term, and what is due. */
import { codeOf, SmslogdError } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { parseLsn, type Lsn } from '../postgres/lsn.ts';
import type { Sql } from '../postgres/pools.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { DIVISION_BY_ZERO } from '../postgres/refusal.ts';
import type { Config } from '../settings.ts';
import type { Source } from '../source.ts';

export interface Checkpoint {
  readonly term: bigint;
  /** end_lsn of the last source transaction in the log */
  readonly lsn: Lsn | undefined;
  /** true where `lsn` is beyond the server's own position: it is another history's */
  readonly inFuture: boolean;
  readonly systemId: string | undefined;
  readonly sourceTimezone: string | undefined;
  readonly removed: boolean;
  /** why a reconcile is due */
  readonly reconcileDue: string | undefined;
}

/** Why a reconcile is due. `fresh`: the positions so far are worthless. `horizon`: what is older than now is not the mirror's. */
export interface Due {
  readonly reason: string;
  readonly fresh: boolean;
  readonly horizon: boolean;
}

/** `sql`: for the writes of the stream; `copy`: for what reads, so that neither waits for the other. */
export function createCheckpointStore(sql: Sql, config: Config, copy: Sql) {
  const slot = config.SLOT_NAME;
  const fields = sql`term::text, lsn::text, lsn > pg_current_wal_lsn() as in_future, system_id, source_timezone, removed_at is not null as removed, reconcile_due`;

  return {
    /** The checkpoint as it is; makes the row at the very first start. */
    async read(): Promise<Checkpoint> {
      await copy`insert into smslogd.checkpoint (slot_name) values (${slot}) on conflict do nothing`;
      const [row] = await copy<CheckpointRow[]>`select ${fields} from smslogd.checkpoint where slot_name = ${slot}`;
      return checkpointOf(row);
    },

    /**
     * Makes `term` the one that may write: no statement of an earlier one does from now on. Returns the checkpoint as that one left it. Throws stepped_down
     * where there is a later one.
     */
    async acquire(term: bigint): Promise<Checkpoint & { readonly place: string }> {
      const [row] = await sql<(CheckpointRow & { place: string })[]>`
        update smslogd.checkpoint set term = ${String(term)}::text::int8 where slot_name = ${slot} and term <= ${String(term)}::text::int8
        returning ctid::text as place, ${fields}`;
      if (row === undefined) throw steppedDown();
      return { place: row.place, ...checkpointOf(row) };
    },

    /**
     * Commits that a reconcile is due, before what makes it necessary is done: a crash in between leaves no gap. `term` is the one that may write from now
     * on: under a later one than before whatever is under way steps down, and keeps no position of its own. Throws stepped_down where there is a later
     * one yet, and where there is no row to mark.
     */
    async markReconcile(term: bigint, due: Due): Promise<void> {
      try {
        await sql.unsafe(this.markStatements(term, due).join(';\n')).simple();
      } catch (error) {
        if (codeOf(error) === DIVISION_BY_ZERO) throw steppedDown();
        throw error;
      }
    },

    /** The same as statements for a transaction that does something else, too; with nothing to mark it fails. */
    markStatements(term: bigint, { reason, fresh, horizon }: Due): string[] {
      const row = `slot_name = ${quoteLiteral(slot)}`;
      return [
        `update smslogd.checkpoint
            set term = ${String(term)}, reconcile_due = ${quoteLiteral(reason)}, reconcile_after = null, reconcile_xid = null,
                audited_xid = pg_snapshot_xmin(pg_current_snapshot()), lsn = ${fresh ? 'null' : 'lsn'},
                horizon = ${horizon ? 'coalesce(horizon, now())' : 'horizon'}
          where ${row} and term <= ${String(term)}`,
        `select 1 / (select count(*)::int from smslogd.checkpoint where ${row} and term = ${String(term)})`,
      ];
    },

    /** Notes whose cluster and which time zone the log was filled from. */
    async identify(systemId: string, term: bigint): Promise<void> {
      await sql`update smslogd.checkpoint set system_id = ${systemId}, source_timezone = ${config.SOURCE_TIMEZONE}
                 where slot_name = ${slot} and term = ${String(term)}::text::int8`;
    },

    /** True where the log has rows that a mirror wrote. */
    async hasMirrored(): Promise<boolean> {
      const [row] = await copy`select from verification.sms_log where type = 'verification' limit 1`;
      return row !== undefined;
    },

    /** Tells the queue's trigger whether mirrored rows without a gateway id are to be judged. */
    async noteSource(source: Source): Promise<void> {
      await copy`update smslogd.settings set source_tracks_gateway = ${source.tracksGateway}
                 where source_tracks_gateway <> ${source.tracksGateway}`;
    },

    /** True where somebody has changed the publication, or the source's place in it, since the last light audit: for a moment it may not have had all. */
    async republished(source: Source): Promise<boolean> {
      const [row] = await copy`
        select exists (select from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = ${source.oid}::text::oid
                        where p.pubname = ${config.PUBLICATION_NAME} and least(age(p.xmin), age(r.xmin)) <= age(c.audited_xid::xid)) as so
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
  };
}
