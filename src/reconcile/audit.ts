/**
 * Compares the log with the source: rows that are missing, incomplete, duplicated, different, or in the log without a source row.
 *
 * An audit sees a source row before the stream delivers it. So rows that are absent are only candidates: the audit then reads the WAL position, waits
 * until the slot has confirmed it, and counts what is still absent. (The checkpoint would not do: it does not move while the source is idle.)
 */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import type { Source } from '../source.ts';
import { pause } from '../supervise.ts';
import {
  LOG,
  LOG_CHUNK_PARAMETER,
  compareLog,
  compareSource,
  pagesOf,
  scopeOf,
  SOURCE_CHUNK_PARAMETER,
  recheck,
} from './compare.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { scanById, scanByCtid, type ChunkQuery } from './chunks.ts';

export interface Audit {
  /** source rows that the log must have */
  readonly source: number;
  /** mirrored rows of the same period */
  readonly log: number;
  readonly missing: number;
  /** of the missing rows, those that the log rejects: they are in smslogd.sms_refused */
  readonly refused: number;
  /** rows whose gateway id the source has and the log lacks */
  readonly incomplete: number;
  /** ids that the log has more than once: more than 0 means that the primary key's index is corrupt or missing */
  readonly doubled: number;
  /** rows whose phone number, text or time differs from the source */
  readonly differing: number;
  /** mirrored rows, newer than the oldest source row, that the source no longer has */
  readonly orphaned: number;
  /** false if the mirror did not reach the audit's WAL position in time: `missing` rows may then be merely late */
  readonly settled: boolean;
}

export interface AuditOptions {
  /** only rows inserted in the last so many seconds, scanned by ctid; undefined: all, scanned by id */
  readonly sinceSeconds?: number | undefined;
  /** how long to wait for the mirror; milliseconds */
  readonly mirrorTimeoutMs: number;
  /** called after each chunk with the number of rows of a table that were compared so far */
  readonly progress?: (rows: number, table: 'source' | 'log') => void;
}

/** What the light audit found, and up to which transaction the log is complete. */
export interface LightAudit {
  /** rows that are missing and not refused */
  readonly missing: number;
  /** all rows of earlier transactions were compared; undefined if the mirror did not catch up in time, the table was rewritten, or the audit was stopped */
  readonly auditedXid: string | undefined;
}

const LARGEST = { rows: 16_000, pages: 800 };
/** Candidates that are collected before a recheck; bounds the memory. */
const CANDIDATES = 20_000;
/** Candidates that one statement rechecks. */
const RECHECK = 500;
/** A slot without a reader for this long has no daemon. */
const NO_READER_MS = 2_000;

/**
 * Counts the differences. Rows that SNAPSHOT=never or the retention excludes are not expected in the log. If a table was rewritten meanwhile, which moves its
 * rows, the audit is repeated by id.
 */
export async function audit(
  sql: Sql,
  config: Config,
  source: Source,
  options: AuditOptions,
  signal: AbortSignal,
  byId = options.sinceSeconds === undefined,
): Promise<Audit> {
  const { sinceSeconds, mirrorTimeoutMs, progress } = options;
  const restart = () => audit(sql, config, source, options, signal, true);
  const scope = await retryWhileLocked(signal, () => scopeOf(sql, config, source, sinceSeconds, false));
  const found = { source: 0, log: 0, missing: 0, refused: 0, incomplete: 0, differing: 0, orphaned: 0 };
  const doubled = new Set<string>();
  let oldest: string | null = null;
  const candidates = createCandidates(sql, config, source, { mirrorTimeoutMs }, signal);

  const sourceScanned = await scan(
    sql,
    { table: source.table, byId, parameter: SOURCE_CHUNK_PARAMETER },
    signal,
    async (chunk) => {
      const compared = await retryWhileLocked(signal, () =>
        compareSource(sql, config, source, { scope, chunk, oldest, onlyScope: false }),
      );
      oldest = compared.oldest;
      found.source += compared.rows;
      found.differing += compared.differing;
      await candidates.add(JSON.parse(compared.lacking) as string[]);
      progress?.(found.source, 'source');
      return compared.last;
    },
  );
  if (!sourceScanned) return await restart();
  Object.assign(found, await candidates.counts());

  const logScanned = await scan(sql, { table: LOG, byId, parameter: LOG_CHUNK_PARAMETER }, signal, async (chunk) => {
    const compared = await retryWhileLocked(signal, () => compareLog(sql, source, { scope, chunk, oldest }));
    found.log += compared.rows;
    found.orphaned += compared.orphaned;
    for (const id of JSON.parse(compared.doubled) as string[]) doubled.add(id);
    progress?.(found.log, 'log');
    return compared.last;
  });
  if (!logScanned) return await restart();
  return { ...found, doubled: doubled.size, settled: candidates.settled };
}

export interface LightAuditOptions {
  readonly sinceSeconds: number;
  /** how long to wait for the mirror; milliseconds. undefined: there is no stream to wait for */
  readonly mirrorTimeoutMs: number | undefined;
  /** the fraction of the time that may be spent reading */
  readonly share: number;
  /** called with ids of rows that are missing and not refused, a few hundred at most */
  readonly missing: (ids: readonly string[]) => Promise<void>;
  /** called with ids of rows whose gateway id only the source has, a few hundred at most: it was set after the deadline, or the queue lost the SMS */
  readonly incomplete: (ids: readonly string[]) => Promise<void>;
}

/**
 * The light audit that the daemon repeats: it compares the rows of the last `sinceSeconds`, and all rows written since the last light audit, whatever their
 * inserted_at. It pauses after each chunk so that reading the owner's table takes no more than `share` of the time.
 */
export async function lightAudit(
  sql: Sql,
  config: Config,
  source: Source,
  { sinceSeconds, share, ...options }: LightAuditOptions,
  signal: AbortSignal,
): Promise<LightAudit> {
  const scope = await retryWhileLocked(signal, () => scopeOf(sql, config, source, sinceSeconds, true));
  const candidates = createCandidates(sql, config, source, options, signal);
  const scanned = await scan(
    sql,
    { table: source.table, byId: false, parameter: SOURCE_CHUNK_PARAMETER, share },
    signal,
    async (chunk) => {
      const compared = await retryWhileLocked(signal, () =>
        compareSource(sql, config, source, { scope, chunk, oldest: null, onlyScope: true }),
      );
      await candidates.add(JSON.parse(compared.lacking) as string[]);
      return compared.last;
    },
  );
  const { missing, refused } = await candidates.counts();
  return {
    missing: missing - refused,
    auditedXid: scanned && candidates.settled && !signal.aborted ? scope.now : undefined,
  };
}

interface Scan {
  readonly table: string;
  readonly byId: boolean;
  readonly parameter: number;
  /** the fraction of the time that a scan by ctid may spend reading; default: all */
  readonly share?: number;
}

/** False if the table was rewritten meanwhile, so that rows may have been missed. */
async function scan(
  sql: Sql,
  { table, byId, parameter, share = 1 }: Scan,
  signal: AbortSignal,
  read: (chunk: ChunkQuery) => Promise<string | null>,
): Promise<boolean> {
  if (byId) {
    await scanById(LARGEST.rows, parameter, read, signal);
    return true;
  }
  const { pages, leaves, files } = await retryWhileLocked(signal, () => pagesOf(sql, table));
  await scanByCtid(pages, Math.max(1, Math.floor(LARGEST.pages / leaves)), { parameter, share }, read, signal);
  return (await retryWhileLocked(signal, () => pagesOf(sql, table))).files === files;
}

/** Collects ids that the log lacks, and counts those that it still lacks once the mirror has passed the current WAL position. */
function createCandidates(
  sql: Sql,
  config: Config,
  source: Source,
  {
    mirrorTimeoutMs,
    ...callbacks
  }: Pick<LightAuditOptions, 'mirrorTimeoutMs'> & Partial<Pick<LightAuditOptions, 'missing' | 'incomplete'>>,
  signal: AbortSignal,
) {
  const sum = { missing: 0, refused: 0, incomplete: 0 };
  let ids: string[] = [];
  let settled = true;
  const recheckCandidates = async () => {
    // after one timeout do not wait again
    if (mirrorTimeoutMs !== undefined) settled &&= await waitForSlot(sql, config, mirrorTimeoutMs, signal);
    for (let from = 0; from < ids.length; from += RECHECK) {
      const chunk = ids.slice(from, from + RECHECK);
      const now = await retryWhileLocked(signal, () => recheck(sql, source, chunk));
      const missing = JSON.parse(now.missing) as string[];
      const incomplete = JSON.parse(now.incomplete) as string[];
      sum.missing += missing.length + now.refused;
      sum.refused += now.refused;
      sum.incomplete += incomplete.length;
      // if the mirror is behind, the stream still has to deliver the rows
      if (settled && missing.length > 0) await callbacks.missing?.(missing);
      if (incomplete.length > 0) await callbacks.incomplete?.(incomplete);
    }
    ids = [];
  };
  return {
    async add(more: readonly string[]) {
      ids.push(...more);
      // with no stream to wait for, what is found is copied even where the scan is cut short
      const enough = mirrorTimeoutMs === undefined ? 1 : CANDIDATES;
      if (ids.length >= enough) await recheckCandidates();
    },
    async counts() {
      if (ids.length > 0) await recheckCandidates();
      return sum;
    },
    get settled() {
      return settled;
    },
  };
}

/**
 * Waits until the slot has confirmed the current WAL position; false on a timeout, or if the slot has no reader. Without a slot there is nothing to wait for.
 */
async function waitForSlot(sql: Sql, config: Config, mirrorTimeoutMs: number, signal: AbortSignal): Promise<boolean> {
  const [position] = await sql<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`;
  const began = performance.now();
  while (!signal.aborted) {
    const [slot] = await sql<{ passed: boolean; active: boolean }[]>`
      select confirmed_flush_lsn >= ${position!.lsn}::text::pg_lsn as passed, active
        from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
    if (slot === undefined || slot.passed) return true;
    if (performance.now() - began > (slot.active ? mirrorTimeoutMs : NO_READER_MS)) return false;
    await pause(100, signal);
  }
  return false;
}
