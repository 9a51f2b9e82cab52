/**
 * Compares the log with the source: rows that are missing, incomplete, doubled, different, or in the log without a source row.
 *
 * An audit sees a source row before the stream does. So what is absent at the look is noted, then the WAL position is read, and only what is
 * still absent once the slot has acknowledged that position counts as missing. (The checkpoint would not do: it stands still when idle.)
 */
import type { Config } from '../settings.ts';
import type { Sql } from '../postgres/pools.ts';
import type { Source } from '../source.ts';
import { pause } from '../supervise.ts';
import { LOG, LOG_PIECE, lookAtLog, lookAtSource, pagesOf, scopeOf, SOURCE_PIECE, stillLacking } from './compare.ts';
import { patiently } from '../postgres/briefly.ts';
import { walkById, walkByPlace, type Piece } from './chunks.ts';

export interface Audit {
  /** source rows that the log must have */
  readonly source: number;
  /** mirrored rows of the same time */
  readonly log: number;
  readonly missing: number;
  /** the ones among these that a constraint or a trigger of the log refuses: kept in smslogd.sms_refused */
  readonly refused: number;
  /** rows whose gateway id the source has and the log lacks */
  readonly incomplete: number;
  /** ids that the log has more than once: the primary key forbids it, so more than 0 means a broken index or none */
  readonly doubled: number;
  /** rows whose phone number, text or time is not the source's */
  readonly differing: number;
  /** mirrored rows, newer than the oldest source row, that the source does not have: deleted there by hand */
  readonly orphaned: number;
  /** false where the mirror did not pass the position of the look in time: `missing` may then be merely late */
  readonly settled: boolean;
}

export interface AuditOptions {
  /** only rows inserted in the last so many seconds, walked by place; undefined: all, walked by id */
  readonly sinceSeconds?: number | undefined;
  /** how long to wait for the mirror; milliseconds */
  readonly patienceMs: number;
  /** told after each piece how many rows of a table were compared so far */
  readonly progress?: (rows: number, table: 'source' | 'log') => void;
}

/** What the light audit found, and how far the log is then known to be whole. */
export interface LightAudit {
  /** rows that are missing and not refused */
  readonly missing: number;
  /** every row of a transaction before this one was compared; undefined where the mirror did not come so far in time, or rows got other places */
  readonly auditedXid: string | undefined;
}

const LARGEST = { rows: 16_000, pages: 800 };
/** Candidates that are kept until they are looked at again; bounds the memory. */
const CANDIDATES = 20_000;
/** How many of them one statement looks at again. */
const SECOND_LOOK = 500;
/** A slot that nobody reads for so long has no daemon. */
const UNREAD_MS = 2_000;

/**
 * Counts what differs. What SNAPSHOT=never or the retention left out is not expected in the log. Where rows got other places meanwhile all is done
 * again by id, which passes nothing over.
 */
export async function audit(
  sql: Sql,
  config: Config,
  source: Source,
  options: AuditOptions,
  signal: AbortSignal,
  byId = options.sinceSeconds === undefined,
): Promise<Audit> {
  const { sinceSeconds, patienceMs, progress } = options;
  const again = () => audit(sql, config, source, options, signal, true);
  const scope = await scopeOf(sql, config, source, sinceSeconds, false);
  const found = { source: 0, log: 0, missing: 0, refused: 0, incomplete: 0, differing: 0, orphaned: 0 };
  const doubled = new Set<string>();
  let oldest: string | null = null;
  const candidates = createCandidates(sql, config, source, { patienceMs }, signal);

  const sourceWhole = await walk(sql, { table: source.table, byId, parameter: SOURCE_PIECE }, signal, async (piece) => {
    const look = await patiently(signal, () =>
      lookAtSource(sql, config, source, { scope, piece, oldest, only: false }),
    );
    oldest = look.oldest;
    found.source += look.looked;
    found.differing += look.differing;
    await candidates.add(JSON.parse(look.lacking) as string[]);
    progress?.(found.source, 'source');
    return look.last;
  });
  if (!sourceWhole) return await again();
  Object.assign(found, await candidates.counts());

  const logWhole = await walk(sql, { table: LOG, byId, parameter: LOG_PIECE }, signal, async (piece) => {
    const look = await patiently(signal, () => lookAtLog(sql, source, { scope, piece, oldest }));
    found.log += look.looked;
    found.orphaned += look.orphaned;
    for (const id of JSON.parse(look.doubled) as string[]) doubled.add(id);
    progress?.(found.log, 'log');
    return look.last;
  });
  if (!logWhole) return await again();
  return { ...found, doubled: doubled.size, settled: candidates.settled };
}

export interface LightAuditOptions {
  readonly sinceSeconds: number;
  /** how long to wait for the mirror; milliseconds. undefined: nothing streams, what is missing now stays so */
  readonly patienceMs: number | undefined;
  /** of the time that the reading may take */
  readonly share: number;
  /** told the ids of rows that are missing and not refused, not many at once */
  readonly missing: (ids: readonly string[]) => Promise<void>;
  /** told the ids of rows whose gateway id the source has and the log lacks, not many at once: it came after the verdict, or the queue has lost them */
  readonly incomplete: (ids: readonly string[]) => Promise<void>;
}

/**
 * The light form that the daemon runs again and again: what the log lacks of the rows of the last `sinceSeconds`, and of all that was written
 * since the last light audit, whatever time it says. Each piece is followed by a pause that keeps the whole within `share`: it reads the owner's table.
 */
export async function lightAudit(
  sql: Sql,
  config: Config,
  source: Source,
  { sinceSeconds, share, ...options }: LightAuditOptions,
  signal: AbortSignal,
): Promise<LightAudit> {
  const scope = await scopeOf(sql, config, source, sinceSeconds, true);
  const candidates = createCandidates(sql, config, source, options, signal);
  const whole = await walk(
    sql,
    { table: source.table, byId: false, parameter: SOURCE_PIECE, share },
    signal,
    async (piece) => {
      const look = await patiently(signal, () =>
        lookAtSource(sql, config, source, { scope, piece, oldest: null, only: true }),
      );
      await candidates.add(JSON.parse(look.lacking) as string[]);
      return look.last;
    },
  );
  const { missing, refused } = await candidates.counts();
  return {
    missing: missing - refused,
    auditedXid: whole && candidates.settled && !signal.aborted ? scope.now : undefined,
  };
}

interface Walk {
  readonly table: string;
  readonly byId: boolean;
  readonly parameter: number;
  /** of the time that the reading by place may take; default: all */
  readonly share?: number;
}

/** False where the rows got other places meanwhile, so that some may have been passed over. */
async function walk(
  sql: Sql,
  { table, byId, parameter, share = 1 }: Walk,
  signal: AbortSignal,
  read: (piece: Piece) => Promise<string | null>,
): Promise<boolean> {
  if (byId) {
    await walkById(LARGEST.rows, parameter, read, signal);
    return true;
  }
  const { pages, leaves, files } = await patiently(signal, () => pagesOf(sql, table));
  await walkByPlace(pages, Math.max(1, Math.floor(LARGEST.pages / leaves)), { parameter, share }, read, signal);
  return (await patiently(signal, () => pagesOf(sql, table))).files === files;
}

/** Gathers ids that the log lacked at the look, and counts those that it still lacks once the mirror has passed that moment. */
function createCandidates(
  sql: Sql,
  config: Config,
  source: Source,
  {
    patienceMs,
    ...told
  }: Pick<LightAuditOptions, 'patienceMs'> & Partial<Pick<LightAuditOptions, 'missing' | 'incomplete'>>,
  signal: AbortSignal,
) {
  const sum = { missing: 0, refused: 0, incomplete: 0 };
  let ids: string[] = [];
  let settled = true;
  const lookAgain = async () => {
    // where nobody reads the slot, or too slowly, there is no use in waiting a second time
    if (patienceMs !== undefined) settled &&= await mirrorPassed(sql, config, patienceMs, signal);
    for (let from = 0; from < ids.length; from += SECOND_LOOK) {
      const piece = ids.slice(from, from + SECOND_LOOK);
      const now = await patiently(signal, () => stillLacking(sql, source, piece));
      const missing = JSON.parse(now.missing) as string[];
      const incomplete = JSON.parse(now.incomplete) as string[];
      sum.missing += missing.length + now.refused;
      sum.refused += now.refused;
      sum.incomplete += incomplete.length;
      // where the mirror is behind, what it lacks is on its way
      if (settled && missing.length > 0) await told.missing?.(missing);
      if (incomplete.length > 0) await told.incomplete?.(incomplete);
    }
    ids = [];
  };
  return {
    async add(more: readonly string[]) {
      ids.push(...more);
      if (ids.length >= CANDIDATES) await lookAgain();
    },
    async counts() {
      if (ids.length > 0) await lookAgain();
      return sum;
    },
    get settled() {
      return settled;
    },
  };
}

/**
 * Waits until the slot has acknowledged what the WAL held at this moment; false where that takes too long, or where nobody reads the slot.
 * Without a slot there is nothing to wait for.
 */
async function mirrorPassed(sql: Sql, config: Config, patienceMs: number, signal: AbortSignal): Promise<boolean> {
  const [position] = await sql<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`;
  const began = performance.now();
  while (!signal.aborted) {
    const [slot] = await sql<{ passed: boolean; active: boolean }[]>`
      select confirmed_flush_lsn >= ${position!.lsn}::text::pg_lsn as passed, active
        from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
    if (slot === undefined || slot.passed) return true;
    if (performance.now() - began > (slot.active ? patienceMs : UNREAD_MS)) return false;
    await pause(100, signal);
  }
  return false;
}
