/**
 * The SQL of a reconcile: it copies source rows that the log lacks, fills in gateway ids, and saves its position.
 *
 * - A chunk checks the term in the checkpoint's row without a lock, which would block the stream's writes: it writes only what the source has then.
 * - Existing log rows stay as they are, except that a missing gateway id is filled in, together with a missing status.
 * - Rows are written in id order, as everywhere, so that two statements cannot deadlock.
 */
import { codeOf } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { faultOf, UNIQUE_VIOLATION, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import { DURABLE } from '../postgres/session.ts';
import { allEndedBefore, currentTransaction, oldestTransaction } from '../postgres/transactions.ts';
import type { Config } from '../settings.ts';
import { bodySql, columnSql, gatewayIdSql, instantSql, largeSql, statusSql, type Source } from '../source.ts';
import { tellOfSourceWords, unknownWordsSql, type Telling } from '../unknown-words.ts';
import { rangeSql, type ChunkRange } from './chunks.ts';
import type { Quarantine, Term } from './quarantine.ts';

export interface CopiedChunk {
  /** the last source id of the chunk; undefined: no rows are left */
  readonly last: string | undefined;
  readonly scanned: number;
  readonly inserted: number;
  /** rows whose gateway id was filled in */
  readonly completed: number;
  /** ids of rows that a constraint or a trigger of the log rejects; they are set aside in smslogd.sms_refused */
  readonly refused: readonly string[];
}

interface ChunkRow {
  readonly last: string | null;
  readonly scanned: number;
  readonly inserted: number;
  readonly written: number;
  /** rows that are in the log without the gateway id that the source has */
  readonly incomplete: number;
  /** ids of rows that the log lacked and that were not inserted; JSON */
  readonly skipped: string;
  /** ids of rows that the log lacks, with a value that is too large; JSON */
  readonly large: string;
  /** of the rows that were written */
  readonly words: string;
  /** 0: the term is no longer ours */
  readonly fenced: number;
}

type FilledRow = Pick<ChunkRow, 'fenced' | 'words'> & { readonly completed: number };

export interface ChunkOptions {
  readonly limited?: boolean;
  readonly term?: Term;
}

export type ReconcileStore = ReturnType<typeof createReconcileStore>;

/** The only change to an existing row: a missing gateway id is taken from the source, and a missing status with it. */
const FILL_GATEWAY_ID = `on conflict (id) do update
     set gateway_id = excluded.gateway_id, gateway_status = coalesce(l.gateway_status, excluded.gateway_status), updated_at = now()
   where l.gateway_id is null and excluded.gateway_id is not null
  returning id, (xmax = 0) as inserted`;

export function createReconcileStore(sql: Sql, config: Config, quarantine: Quarantine, telling?: Telling) {
  const slot = config.SLOT_NAME;
  const retainedSince =
    config.RETENTION_DAYS === 0 ? `'-infinity'` : `now() - interval '${config.RETENTION_DAYS} days'`;

  const chunkOnce = async (
    source: Source,
    range: ChunkRange,
    { limited, term }: ChunkOptions,
  ): Promise<CopiedChunk> => {
    const { filter, limit, parameter } = rangeSql(range);
    const parameters = [config.OTP_CODE_TEXT, slot, term === undefined ? null : String(term), parameter];
    const run = async (onConflict: 'fail' | 'fill gateway id') => {
      const text = chunkStatement(config, retainedSince, source, { filter, limit, onConflict });
      const [result] = await withRetry(() => briefly<ChunkRow>(sql, text, parameters, limited));
      if (result!.fenced === 0) throw steppedDown();
      if (telling !== undefined) tellOfSourceWords(telling, result!.words);
      return result!;
    };
    let chunk: ChunkRow | undefined;
    try {
      chunk = await run('fail');
    } catch (error) {
      // the stream inserted one of the rows meanwhile
      if (codeOf(error) !== UNIQUE_VIOLATION) throw error;
    }
    let inserted = chunk?.inserted ?? 0;
    let completed = 0;
    if (chunk === undefined || chunk.incomplete > 0) {
      chunk = await run('fill gateway id');
      inserted += chunk.inserted;
      completed = chunk.written - chunk.inserted;
    }
    const skipped = JSON.parse(chunk.skipped) as string[];
    const large = JSON.parse(chunk.large) as string[];
    if (large.length > 0) await quarantine.setAsideLarge(large, term);
    const refused = skipped.length === 0 ? [] : await quarantine.setAsideSkipped(skipped, term);
    const { last, scanned } = chunk;
    return { last: last ?? undefined, scanned, inserted, completed, refused: [...large, ...refused] };
  };

  /** Copies these rows; a row that the log rejects does not block the others. `setAside`: each of them was rejected before, for a fault of its own. */
  const copyIds = async (source: Source, ids: readonly string[], options: ChunkOptions, setAside = false) => {
    const sum = { inserted: 0, completed: 0, refused: [] as string[] };
    const write = async (some: readonly string[]) => {
      const { inserted, completed, refused } = await chunkOnce(source, { ids: some }, options);
      sum.inserted += inserted;
      sum.completed += completed;
      sum.refused.push(...refused);
    };
    const refuse = async (id: string, error: unknown) => {
      await quarantine.setAsideRejected(id, error, options.term);
      sum.refused.push(id);
    };
    await writeAccepted(ids, write, refuse, setAside);
    return sum;
  };

  return {
    /**
     * One chunk of a reconcile: of the `size` source rows that follow `after` in id order, inserts those that the log lacks and fills in missing gateway
     * ids. Safe to repeat, to resume and to run beside the stream. Throws 55P03 on a lock timeout, 57014 on a statement timeout (only if `limited`), and
     * stepped_down if the term is no longer ours.
     */
    async reconcileChunk(
      source: Source,
      after: string | undefined,
      size: number,
      options: ChunkOptions = {},
    ): Promise<CopiedChunk> {
      try {
        return await chunkOnce(source, { after, size }, options);
      } catch (error) {
        if (faultOf(error) === 'whole') throw error;
      }
      const rows = await briefly<{ id: string }>(
        sql,
        `select s.id::text as id from ${source.table} s where ${after === undefined ? 's.id is not null' : 's.id > $1::text::uuid'} order by s.id limit ${size}`,
        [after ?? null],
      );
      const ids = rows.map(({ id }) => id);
      return { last: ids.at(-1), scanned: ids.length, ...(await copyIds(source, ids, options)) };
    },

    /** Copies the source rows `ids` (a few hundred at most) that the log lacks; `refused`: those that the log rejects. `setAside`: they were rejected before. */
    async copyRows(
      source: Source,
      ids: readonly string[],
      term: bigint,
      setAside = false,
    ): Promise<Pick<CopiedChunk, 'inserted' | 'refused'>> {
      return await copyIds(source, ids, { term }, setAside);
    },

    /** At most `size` ids after `after`, in id order, of queued SMS without a gateway id that were queued in the last `seconds` (undefined: all). */
    async waitingForGatewayId(seconds: number | undefined, after: string | undefined, size: number): Promise<string[]> {
      const rows = await sql<{ id: string }[]>`
        select p.id::text as id from smslogd.sms_poll p
         where p.gateway_id is null
           and (${seconds ?? null}::int4 is null
                or p.give_up_at > now() + (select give_up from smslogd.settings) - ${seconds ?? null}::int4 * interval '1 second')
           and (${after ?? null}::text is null or p.id > ${after ?? null}::text::uuid)
         order by p.id limit ${size}`;
      return rows.map(({ id }) => id);
    },

    /**
     * Fills in the gateway ids of the log rows `ids` from the source, where they are missing. Locked rows are skipped; a row that the log rejects
     * (`refused`) does not block the others. Throws 55P03 on a lock timeout, and stepped_down if the term is no longer ours.
     */
    async fillGatewayIds(
      source: Source,
      ids: readonly string[],
      term: bigint,
    ): Promise<{ completed: number; refused: readonly string[] }> {
      const sum = { completed: 0, refused: [] as string[] };
      if (ids.length === 0) return sum;
      const text = `
with fence as materialized (select from smslogd.checkpoint c where c.slot_name = $2::text and c.term = $3::text::int8 and c.removed_at is null),
${gatewayIdSql(source, '(select $1::text::uuid[] from fence)')}
select (select count(*) from fence)::int as fenced, count(*)::int as completed, ${unknownWordsSql('updated')} as words from updated`;
      const write = async (some: readonly string[]) => {
        const [row] = await withRetry(() => briefly<FilledRow>(sql, text, [arrayLiteral(some), slot, String(term)]));
        if (row!.fenced === 0) throw steppedDown();
        if (telling !== undefined) tellOfSourceWords(telling, row!.words);
        sum.completed += row!.completed;
      };
      await writeAccepted(ids, write, async (id) => void sum.refused.push(id));
      return sum;
    },

    /** The first and the last source id: a reconcile's progress is its position between them. */
    async sourceEnds(source: Source): Promise<readonly [string, string] | undefined> {
      const [row] = await briefly<{ first: string; last: string }>(
        sql,
        `select a.id::text as first, z.id::text as last from (select id from ${source.table} where id is not null order by id limit 1) a,
                (select id from ${source.table} where id is not null order by id desc limit 1) z`,
        [],
      );
      return row === undefined ? undefined : [row.first, row.last];
    },

    /** A reconcile's position: the last source id it has passed, and the transaction that must end before its second pass. */
    async reconcilePosition(): Promise<{ after: string | undefined; xid: string | undefined }> {
      const [row] =
        await sql`select reconcile_after::text as after, reconcile_xid::text as xid from smslogd.checkpoint where slot_name = ${slot}`;
      return { after: row?.['after'] ?? undefined, xid: row?.['xid'] ?? undefined };
    },

    /** Saves the position, so that a restart resumes there. Throws stepped_down if the term is no longer ours. */
    async saveReconcilePosition(after: string | undefined, xid: string | undefined, term: bigint): Promise<void> {
      const done =
        await sql`update smslogd.checkpoint set reconcile_after = ${after ?? null}, reconcile_xid = ${xid ?? null}::text::xid8
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
    },

    /** Marks the reconcile as done and forgets refused rows that are in the log now. Throws stepped_down if the term is no longer ours. */
    async clearReconcile(term: bigint): Promise<void> {
      const done =
        await sql`update smslogd.checkpoint set reconcile_due = null, reconcile_after = null, reconcile_xid = null
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
      await quarantine.forgetRefused();
    },

    /** Saves the transaction up to which a light audit found the log complete, unless one that began later has saved its own. */
    async saveAuditedXid(xid: string, term: bigint): Promise<void> {
      await sql`update smslogd.checkpoint
                   set audited_xid = case when audited_xid between ${xid}::text::xid8 and pg_snapshot_xmin(pg_current_snapshot()) then audited_xid
                                          else ${xid}::text::xid8 end, audit_due = false
                 where slot_name = ${slot} and term = ${String(term)}::int8 and reconcile_due is null`;
    },

    currentTransaction: () => currentTransaction(sql),
    allEndedBefore: (xid: string) => allEndedBefore(sql, xid),
    oldestTransaction: () => oldestTransaction(sql),
  };
}

/**
 * A chunk of a reconcile: $1 the text before the code, $2 the slot, $3 the term or null, $4 the id to continue after, or the ids. Inserts the rows that the
 * log lacks. `onConflict`: a row that another session inserts at the same time fails the chunk, or has its gateway id filled in.
 *
 * Of two rows with one id, which a source without a key can have, one is copied. If a user's trigger changed the id of a row, each reconcile would add a
 * copy: the chunk then divides by zero, which rolls it back. A row without a time passes the time filter, is rejected by the log, and is set aside.
 * Lists are made only where counts say that something is in them: to compare all ids for each of them took a fifth of what the copy costs beyond the insert.
 */
function chunkStatement(
  config: Config,
  retainedSince: string,
  source: Source,
  { filter, limit, onConflict }: { filter: string; limit: string; onConflict: 'fail' | 'fill gateway id' },
): string {
  const s = (name: string) => columnSql(source, 's', name);
  const instant = instantSql('s.inserted_at', config.SOURCE_TIMEZONE);
  const fill = onConflict === 'fill gateway id';
  return `
with ${DURABLE},
fence as materialized (
  select greatest(${retainedSince}, coalesce(c.horizon, '-infinity')) as since
    from (select) one left join smslogd.checkpoint c on c.slot_name = $2::text
   where $3::text is null or (c.term = $3::text::int8 and c.removed_at is null)),
chunk as materialized (
  select c.*, k.complete, (c.inserted_at >= fence.since) is not false as retained
    from (select distinct on (s.id) s.id, ${s('phone_number')} as phone, ${s('code')} as code, ${instant} as inserted_at,
                 ${s('gateway_id')} as gateway_id, ${statusSql(s('gateway_id'), s('gateway_status'))} as gateway_status, ${s('gateway_status')} as word,
                 ${largeSql(source, 's', config.SMS_BODY)} as large
            from ${source.table} s where ${filter} order by s.id ${limit}) c
   cross join fence
    left join lateral (select l.gateway_id is not null as complete from verification.sms_log l where l.id = c.id limit 1) k on true),
looked as materialized (
  select count(*)::int as scanned, count(*) filter (where not complete and gateway_id is not null and not large and retained)::int as incomplete,
         count(*) filter (where complete is null and not large and retained) as lacking, bool_or(complete is null and large and retained) as large,
         bool_or(gateway_status = 'Unknown') as unknown
    from chunk),
written as (
  insert into verification.sms_log as l (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
  select c.id, c.phone, 'verification', ${bodySql('$1::text', 'c.code', config.SMS_BODY)}, c.gateway_id, c.gateway_status, c.inserted_at
    from chunk c cross join durable
   where c.retained and not c.large and (c.complete is null${fill ? ' or (not c.complete and c.gateway_id is not null)' : ''})
   order by c.id
  ${fill ? FILL_GATEWAY_ID : 'returning id, true as inserted'}),
compared as materialized (
  select count(*)::int as written, count(*) filter (where w.inserted)::int as inserted,
         count(*) filter (where w.inserted and c.id is not null and c.complete is null) as lacking, count(*) filter (where c.id is null) as changed
    from written w left join chunk c on c.id = w.id)
select (select id::text from chunk order by id desc limit 1) as last, looked.scanned, looked.incomplete, compared.written, compared.inserted,
       case when looked.large then (select json_agg(id)::text from chunk where complete is null and large and retained) else '[]' end as large,
       case when compared.lacking < looked.lacking then (select coalesce(json_agg(id), '[]')::text from (
          select id from chunk where complete is null and not large and retained except select id from written) e) else '[]' end as skipped,
       case when looked.unknown then ${unknownWordsSql('(select * from chunk where (id in (select id from written)) is true)')} else '[]' end as words,
       1 / (compared.changed = 0)::int as undo, (select count(*) from fence)::int as fenced
  from looked, compared`;
}
