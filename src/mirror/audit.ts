/**
 * Compares the log with the source, in keyset chunks: rows that are missing or doubled, and mirrored rows whose source is gone.
 *
 * The audit sees a source row before the stream does. So candidates are noted with the WAL position read after the look, and only those that
 * are still absent once the slot has acknowledged that position count as missing.
 */
import type { Config } from '../config.ts';
import type { Sql } from '../db.ts';
import { insertedAtForm, instantSql, type Source } from '../source.ts';
import { pause } from '../supervise.ts';

export interface Audit {
  readonly source: number;
  readonly log: number;
  readonly missing: number;
  /** ids that stand in the log more than once: the primary key forbids it, so more than 0 means a broken index */
  readonly doubled: number;
  /** mirrored rows, newer than the oldest source row, that the source no longer has */
  readonly orphaned: number;
}

export interface AuditOptions {
  /** only rows inserted in the last so many seconds; undefined: all */
  readonly sinceSeconds?: number | undefined;
  /** how long to wait for the mirror to pass the position of the look; milliseconds */
  readonly patienceMs: number;
  readonly progress?: (looked: number) => void;
}

const CHUNK = 20_000;

/** Counts what differs. Rows that SNAPSHOT=never or the retention left out are not expected in the log. */
export async function audit(
  sql: Sql,
  config: Config,
  source: Source,
  options: AuditOptions,
  signal: AbortSignal,
): Promise<Audit> {
  const instant = instantSql('s.inserted_at', insertedAtForm(source), config.SOURCE_TIMEZONE);
  const [bounds] = await sql.unsafe<{ since: string; horizon: string }[]>(
    `select coalesce((now() - $1::text::float8 * interval '1 second')::text, '-infinity') as since,
            greatest(coalesce((select horizon from smslogd.checkpoint where slot_name = $2), '-infinity'),
                     ${config.RETENTION_DAYS === 0 ? `'-infinity'` : `now() - interval '${config.RETENTION_DAYS} days'`})::text as horizon`,
    [options.sinceSeconds === undefined ? null : String(options.sinceSeconds), config.SLOT_NAME],
  );
  const { since, horizon } = bounds!;
  let after: string | null = null;
  let looked = 0;
  const candidates: string[] = [];
  while (!signal.aborted) {
    const [chunk]: ChunkRow[] = await sql.unsafe<ChunkRow[]>(
      `with chunk as materialized (
         select s.id, ${instant} as inserted_at from ${source.table} s
          where ($1::text is null or s.id > $1::text::uuid) order by s.id limit ${CHUNK}),
       wanted as (select id from chunk where inserted_at >= greatest($2::text::timestamptz, $3::text::timestamptz))
       select (select max(id::text) from chunk) as last, (select count(*) from wanted)::int as looked,
              (select coalesce(json_agg(w.id), '[]')::text from wanted w where not exists (select from verification.sms_log l where l.id = w.id)) as absent`,
      [after, since, horizon],
    );
    looked += chunk!.looked;
    candidates.push(...(JSON.parse(chunk!.absent) as string[]));
    options.progress?.(looked);
    if (chunk!.last === null) break;
    after = chunk!.last;
  }
  await mirrorPassed(sql, config, options.patienceMs, signal);
  const [still] = await sql.unsafe<{ missing: number }[]>(
    `select count(*)::int as missing from unnest($1::text::uuid[]) c (id)
      where exists (select from ${source.table} s where s.id = c.id) and not exists (select from verification.sms_log l where l.id = c.id)`,
    [`{${candidates.join(',')}}`],
  );
  const [counts] = await sql.unsafe<{ log: number; doubled: number; orphaned: number }[]>(
    `with oldest as (select min(${instant}) as at from ${source.table} s)
     select count(*)::int as log, (count(*) - count(distinct l.id))::int as doubled,
            count(*) filter (where l.inserted_at > oldest.at and not exists (select from ${source.table} s where s.id = l.id))::int as orphaned
       from verification.sms_log l cross join oldest
      where l.type = 'verification' and l.inserted_at >= greatest($1::text::timestamptz, $2::text::timestamptz)`,
    [since, horizon],
  );
  return { source: looked, missing: still!.missing, ...counts! };
}

interface ChunkRow {
  readonly last: string | null;
  readonly looked: number;
  readonly absent: string;
}

/** The position that the slot has acknowledged decides, not the checkpoint: that stands still when the source is idle. */
async function mirrorPassed(sql: Sql, config: Config, patienceMs: number, signal: AbortSignal): Promise<void> {
  const [position] = await sql<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`;
  const deadline = performance.now() + patienceMs;
  while (!signal.aborted && performance.now() < deadline) {
    const [slot] = await sql<{ passed: boolean }[]>`
      select confirmed_flush_lsn >= ${position!.lsn}::text::pg_lsn as passed from pg_replication_slots where slot_name = ${config.SLOT_NAME}`;
    if (slot === undefined || slot.passed) return;
    await pause(100, signal);
  }
}
