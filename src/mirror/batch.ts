/**
 * Gathers decoded changes into the next write. Many source transactions go into one commit of ours; rows of a transaction that is still coming
 * may be taken early, to bound memory, but its end may not: `end` is always that of a whole transaction, and the log's key makes a replay of
 * the early rows harmless.
 *
 *   begin ── commit_lsn < resumeAt ──> skipped: it is in the log already
 *         └─ else ──> open: rows are gathered ── commit ──> `end` moves
 */
import { maxLsn, ZERO_LSN, type Lsn } from '../postgres/lsn.ts';
import { GATEWAY_ID, GATEWAY_STATUS, ID, idOf, textOf, type Receiver, type Tuple } from '../replication/pgoutput.ts';
import { statusOfSource } from '../source.ts';
import { Rows } from './rows.ts';

export interface Batch {
  readonly rows: Rows;
  /** ids of rows with a value that is too large, which are set aside */
  readonly large: readonly (string | null)[];
  /** end_lsn of the last whole transaction; undefined: no transaction ended */
  readonly end: Lsn | undefined;
  /** commit times of the transactions with new rows that ended in this batch; microseconds since 2000-01-01 UTC */
  readonly commitTimes: readonly bigint[];
  /** commit time of the oldest transaction with new rows in this batch, whether it ended in it or not */
  readonly oldestCommit: bigint | undefined;
  /** rows and transactions that came again and were skipped */
  readonly skipped: number;
  /** ids of rows that the stream has not whole: they are to be read from the source */
  readonly partial: readonly string[];
  /** needed columns that the table was without when some row was written: those rows are passed over here and must be reconciled */
  readonly unreadable: readonly string[];
}

export interface Gathering extends Receiver {
  /** rows that wait to be taken; one of many bytes counts as several */
  readonly size: number;
  /** true between Begin and Commit */
  readonly inTransaction: boolean;
  /** true when a whole transaction can be taken, or enough rows of one that is still coming */
  readonly ready: boolean;
  /** commit time of the oldest transaction that waits to be taken, or is still coming */
  readonly oldestCommit: bigint | undefined;
  take(): Batch;
  /** `rows` of a batch that is written: their memory is used again. */
  reuse(rows: Rows): void;
}

/** Rows that are worth a write of their own. */
export const FULL = 2_500;
/** Bytes of a row's values up to which it counts as one. */
const USUAL = 1_024;

/**
 * Where a stream starts. What the log holds is known by the checkpoint alone: the slot may stand behind it, after an acknowledgement that the server never got
 * or forgot, and before it, after an idle time. `durable` may be acknowledged at once.
 */
export function startOf(
  slot: { readonly confirmed: Lsn },
  checkpoint: { readonly lsn: Lsn | undefined },
): { readonly durable: Lsn; readonly resumeAt: Lsn } {
  const resumeAt = checkpoint.lsn ?? ZERO_LSN;
  return { durable: maxLsn(slot.confirmed, resumeAt), resumeAt };
}

/** True where a keepalive's position may be acknowledged: all that was received is durable. In a transaction the position is that transaction's own. */
export function allDurable({ ready, inTransaction }: Pick<Gathering, 'ready' | 'inTransaction'>, unwritten: boolean) {
  return !unwritten && !ready && !inTransaction;
}

/**
 * `resumeAt`: end_lsn of the last transaction that the log holds. A transaction whose commit_lsn is below it is skipped, strictly. `binary`: the form of
 * the values. `unknownWord` is told a status word of the source that no table knows, as it may be logged.
 */
export function gather(
  resumeAt: Lsn,
  {
    binary = false,
    unknownWord = () => {},
  }: { binary?: boolean; unknownWord?: (id: string, word: string) => void } = {},
): Gathering {
  let rows = new Rows(binary);
  const spare: Rows[] = [];
  let large: (string | null)[] = [];
  let end: Lsn | undefined;
  let commitTimes: bigint[] = [];
  let skipped = 0;
  let partial: string[] = [];
  let unreadable: readonly string[] = [];
  let state: 'outside' | 'open' | 'skipping' = 'outside';
  let newRows = 0;
  /** of the transaction that is coming */
  let coming = 0n;
  let size = 0;
  /** the last word and what it means: nearly all have the same one */
  let known: { word: string | null; status: string | null } | undefined;

  const statusOf = (tuple: Tuple): string | null => {
    if (tuple.begins[GATEWAY_ID] === -1) return null;
    const word = textOf(tuple, GATEWAY_STATUS);
    if (known?.word === word) return known.status;
    const { status, unknownWord: said } = statusOfSource('', word);
    if (said === undefined) known = { word, status };
    else unknownWord(idOf(tuple.bytes.subarray(tuple.begins[ID], tuple.ends[ID]), binary), said);
    return status;
  };

  const oldestCommit = () => commitTimes[0] ?? (state === 'open' && newRows > 0 ? coming : undefined);

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
      return oldestCommit();
    },
    begin(commitLsn, committedAt) {
      state = commitLsn < resumeAt ? 'skipping' : 'open';
      coming = committedAt;
      newRows = 0;
    },
    insert(tuple) {
      if (state === 'skipping') return;
      newRows += 1;
      size += 1 + Math.trunc(rows.add(tuple, statusOf(tuple)) / USUAL);
    },
    large(id) {
      if (state === 'skipping') return;
      newRows += 1;
      size += 1;
      large.push(id);
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
    take() {
      const batch = {
        rows,
        large,
        end,
        commitTimes,
        oldestCommit: oldestCommit(),
        skipped,
        partial,
        unreadable,
      };
      unreadable = [];
      rows = spare.pop() ?? new Rows(binary);
      large = [];
      partial = [];
      size = 0;
      end = undefined;
      commitTimes = [];
      skipped = 0;
      return batch;
    },
    reuse(written) {
      written.clear();
      spare.push(written);
    },
  };
}
