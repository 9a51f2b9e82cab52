/**
 * Gathers decoded changes into the next write. Many source transactions go into one commit of ours; rows of a transaction that is still coming
 * may be taken early, to bound memory, but its end may not: `end` is always that of a whole transaction, and the log's key makes a replay of
 * the early rows harmless.
 *
 *   begin ── commit_lsn < resumeAt ──> skipped: it is in the log already
 *         └─ else ──> open: rows are gathered ── commit ──> `end` moves
 */
import type { Lsn } from '../postgres/lsn.ts';
import type { Receiver, Row } from '../replication/pgoutput.ts';

export interface Batch {
  readonly rows: readonly Row[];
  /** end_lsn of the last whole transaction; undefined: no transaction ended */
  readonly end: Lsn | undefined;
  /** commit times of the transactions with new rows that ended in this batch; microseconds since 2000-01-01 UTC */
  readonly commitTimes: readonly bigint[];
  /** rows and transactions that came again and were skipped */
  readonly skipped: number;
  /** ids of rows that the stream has not whole: they are to be read from the source */
  readonly partial: readonly string[];
  /** needed columns that the table was without when some row was written: those rows are passed over here and must be reconciled; told with an end only */
  readonly unreadable: readonly string[];
}

export interface Gathering extends Receiver {
  /** rows that wait to be taken; one of many bytes counts as several */
  readonly size: number;
  /** true between Begin and Commit */
  readonly inTransaction: boolean;
  /** true when a whole transaction can be taken, or enough rows of one that is still coming */
  readonly ready: boolean;
  /** commit time of the oldest transaction that waits to be taken */
  readonly oldestCommit: bigint | undefined;
  take(): Batch;
  /** the log holds everything before `position`: transactions that begin from now on are compared with it */
  resumeAt(position: Lsn): void;
}

/** Rows that are worth a write of their own. */
export const FULL = 2_500;
/** Characters of a row's values up to which it counts as one. */
const USUAL = 1_024;

/** `resumeAt`: end_lsn of the last transaction that the log holds. A transaction whose commit_lsn is below it is skipped, strictly. */
export function gather(resumeAt: Lsn): Gathering {
  let held = resumeAt;
  let rows: Row[] = [];
  let end: Lsn | undefined;
  let commitTimes: bigint[] = [];
  let skipped = 0;
  let partial: string[] = [];
  let unreadable: readonly string[] = [];
  let state: 'outside' | 'open' | 'skipping' = 'outside';
  let newRows = 0;
  let size = 0;

  return {
    get size() {
      return size;
    },
    get inTransaction() {
      return state !== 'outside';
    },
    get ready() {
      return end !== undefined || size >= FULL;
    },
    get oldestCommit() {
      return commitTimes[0];
    },
    begin(commitLsn) {
      state = commitLsn < held ? 'skipping' : 'open';
      newRows = 0;
    },
    insert(row) {
      if (state === 'skipping') return;
      newRows += 1;
      rows.push(row);
      size += 1 + Math.trunc(((row.code?.length ?? 0) + (row.phone?.length ?? 0)) / USUAL);
    },
    partial(id) {
      if (state === 'skipping') return;
      newRows += 1;
      size += 1;
      partial.push(id);
    },
    unreadable(columns) {
      if (state !== 'skipping') unreadable = columns;
    },
    commit(endLsn, committedAt) {
      if (state === 'skipping') skipped += 1;
      else {
        end = endLsn;
        if (newRows > 0) commitTimes.push(committedAt);
      }
      state = 'outside';
    },
    resumeAt(position) {
      held = position;
    },
    take() {
      const batch = {
        rows,
        end,
        commitTimes,
        skipped,
        partial,
        unreadable: end === undefined ? [] : unreadable,
      };
      if (end !== undefined) unreadable = [];
      rows = [];
      partial = [];
      size = 0;
      end = undefined;
      commitTimes = [];
      skipped = 0;
      return batch;
    },
  };
}
