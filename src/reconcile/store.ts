/**
 * The SQL of a reconcile: chunks of the source are written where the log lacks them, gateway ids are filled in, and the position is kept.
 *
 * - A chunk reads the checkpoint's row, where it is ours, and does not lock it: the lock would hold the stream's writes up to its end. What it writes
 *   the source has at that moment, whoever finds it there.
 * - What is in the log stays. Only a missing gateway id is filled in, and the status with it.
 * - Rows are written in id order, as everywhere: two statements never wait for each other in a circle.
 */
import { codeOf } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { faultOf, UNIQUE_VIOLATION, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import { allEndedBefore, currentTransaction, oldestTransaction } from '../postgres/transactions.ts';
import type { Config } from '../settings.ts';
import { bodySql, columnSql, completionSql, instantSql, largeSql, statusSql, type Source } from '../source.ts';
import type { Quarantine, Term } from './quarantine.ts';

export interface Chunk {
  /** the last source id that was looked at; undefined: the end is reached */
  readonly last: string | undefined;
  readonly looked: number;
  readonly inserted: number;
  readonly completed: number;
  /** ids of rows that a constraint or a trigger of the log refuses; they are kept in smslogd.sms_refused */
  readonly refused: readonly string[];
}

interface ChunkResult {
  readonly last: string | null;
  readonly looked: number;
  readonly inserted: number;
  readonly written: number;
  /** rows that are in the log without the gateway id that the source has */
  readonly bare: number;
  /** ids of rows that the log lacked and that were not inserted; JSON */
  readonly left: string;
  /** ids of rows that the log lacks, with a value that is too large; JSON */
  readonly large: string;
  readonly held: number;
}

export interface ChunkOptions {
  readonly limited?: boolean;
  readonly term?: Term;
}

export type ReconcileStore = ReturnType<typeof createReconcileStore>;

/** What a reconcile may change: a row without a gateway id takes the source's, and the status with it where it has none. A status stays as it is. */
const COMPLETE = `on conflict (id) do update
     set gateway_id = excluded.gateway_id, gateway_status = coalesce(l.gateway_status, excluded.gateway_status), updated_at = now()
   where l.gateway_id is null and excluded.gateway_id is not null
  returning id, (xmax = 0) as inserted`;

export function createReconcileStore(sql: Sql, config: Config, quarantine: Quarantine) {
  const slot = config.SLOT_NAME;
  const kept = config.RETENTION_DAYS === 0 ? `'-infinity'` : `now() - interval '${config.RETENTION_DAYS} days'`;

  const chunkOnce = async (source: Source, range: ChunkRange, { limited, term }: ChunkOptions): Promise<Chunk> => {
    const { filter, limit, parameter } = rangeSql(range);
    const parameters = [config.OTP_CODE_TEXT, slot, term === undefined ? null : String(term), parameter];
    const look = async (careful: boolean) => {
      const text = chunkStatement(config, kept, source, { filter, limit, careful });
      const [result] = await withRetry(() => briefly<ChunkResult>(sql, text, parameters, limited));
      if (result!.held === 0) throw steppedDown();
      return result!;
    };
    let chunk: ChunkResult | undefined;
    try {
      chunk = await look(false);
    } catch (error) {
      // the stream has written one of them in this moment
      if (codeOf(error) !== UNIQUE_VIOLATION) throw error;
    }
    let inserted = chunk?.inserted ?? 0;
    let completed = 0;
    if (chunk === undefined || chunk.bare > 0) {
      chunk = await look(true);
      inserted += chunk.inserted;
      completed = chunk.written - chunk.inserted;
    }
    const left = JSON.parse(chunk.left) as string[];
    const large = JSON.parse(chunk.large) as string[];
    if (large.length > 0) await quarantine.large(large, term);
    const refused = left.length === 0 ? [] : await quarantine.passedOver(left, term);
    return {
      last: chunk.last ?? undefined,
      looked: chunk.looked,
      inserted,
      completed,
      refused: [...large, ...refused],
    };
  };

  /** A chunk of these rows; the ones that the log refuses keep no other from it. */
  const copyIds = async (
    source: Source,
    ids: readonly string[],
    options: ChunkOptions,
  ): Promise<Pick<Chunk, 'inserted' | 'completed' | 'refused'>> => {
    const sum = { inserted: 0, completed: 0, refused: [] as string[] };
    const write = async (some: readonly string[]) => {
      const { inserted, completed, refused } = await chunkOnce(source, { ids: some }, options);
      sum.inserted += inserted;
      sum.completed += completed;
      sum.refused.push(...refused);
    };
    await writeAccepted(ids, write, async (id, error) => {
      await quarantine.refuse(id, error, options.term);
      sum.refused.push(id);
    });
    return sum;
  };

  return {
    /**
     * One chunk of a reconcile: of the `size` source rows that follow `after` in id order those that the log lacks are written, and those
     * without a gateway id in the log are completed. Safe to repeat, to resume and to run beside the stream. Throws 55P03 where a lock is not to
     * be had soon, where it is `limited` 57014 when it takes too long, and stepped_down where the term is no longer ours.
     */
    async reconcileChunk(
      source: Source,
      after: string | undefined,
      size: number,
      options: ChunkOptions = {},
    ): Promise<Chunk> {
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
      return { last: ids.at(-1), looked: ids.length, ...(await copyIds(source, ids, options)) };
    },

    /** Writes the source rows `ids`, not many, where the log lacks them: as a chunk of a reconcile, found by key. Returns those that the log refuses. */
    async copyRows(source: Source, ids: readonly string[], term: bigint): Promise<Pick<Chunk, 'inserted' | 'refused'>> {
      return await copyIds(source, ids, { term });
    },

    /** At most `size` ids that follow `after` of SMS that wait for their gateway id, in id order; of those queued in the last `seconds` (undefined: all). */
    async waiting(seconds: number | undefined, after: string | undefined, size: number): Promise<string[]> {
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
     * Gives the rows `ids` of the log the gateway id that the source has by now, where they have none. A row that somebody holds is left for the next
     * time; one that the log refuses (`refused`) keeps nobody else from it. Throws 55P03 where a lock of the source is not to be had soon, and
     * stepped_down where the term is no longer ours.
     */
    async complete(
      source: Source,
      ids: readonly string[],
      term: bigint,
    ): Promise<{ completed: number; refused: readonly string[] }> {
      const sum = { completed: 0, refused: [] as string[] };
      if (ids.length === 0) return sum;
      const text = `
with held as materialized (select from smslogd.checkpoint c where c.slot_name = $2::text and c.term = $3::text::int8 and c.removed_at is null),
${completionSql(source, '(select $1::text::uuid[] from held)')}
select (select count(*) from held)::int as held, count(*)::int as completed from wrote`;
      const write = async (some: readonly string[]) => {
        const parameters = [arrayLiteral(some), slot, String(term)];
        const [row] = await withRetry(() => briefly<{ held: number; completed: number }>(sql, text, parameters));
        if (row!.held === 0) throw steppedDown();
        sum.completed += row!.completed;
      };
      await writeAccepted(ids, write, async (id) => void sum.refused.push(id));
      return sum;
    },

    /** The first and the last source id: between them a reconcile's position is a share of its way. */
    async sourceEnds(source: Source): Promise<readonly [string, string] | undefined> {
      const [row] = await briefly<{ first: string; last: string }>(
        sql,
        `select a.id::text as first, z.id::text as last from (select id from ${source.table} where id is not null order by id limit 1) a,
                (select id from ${source.table} where id is not null order by id desc limit 1) z`,
        [],
      );
      return row === undefined ? undefined : [row.first, row.last];
    },

    /** Where a reconcile stands: the source id it has passed, and the transaction that must have ended before its first look. */
    async reconcilePosition(): Promise<{ after: string | undefined; xid: string | undefined }> {
      const [row] =
        await sql`select reconcile_after::text as after, reconcile_xid::text as xid from smslogd.checkpoint where slot_name = ${slot}`;
      return { after: row?.['after'] ?? undefined, xid: row?.['xid'] ?? undefined };
    },

    /** Keeps the position, so that a restart resumes there. Throws stepped_down where the term is no longer ours. */
    async keepReconcile(after: string | undefined, xid: string | undefined, term: bigint): Promise<void> {
      const done =
        await sql`update smslogd.checkpoint set reconcile_after = ${after ?? null}, reconcile_xid = ${xid ?? null}::text::xid8
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
    },

    /** The reconcile is done; what it could write after all is no longer refused. Throws stepped_down where the term is no longer ours. */
    async clearReconcile(term: bigint): Promise<void> {
      const done =
        await sql`update smslogd.checkpoint set reconcile_due = null, reconcile_after = null, reconcile_xid = null
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
      await quarantine.forgetRefused();
    },

    /** Keeps how far a light audit has found the log whole. */
    async keepAudited(xid: string, term: bigint): Promise<void> {
      await sql`update smslogd.checkpoint set audited_xid = ${xid}::text::xid8
                 where slot_name = ${slot} and term = ${String(term)}::int8 and reconcile_due is null`;
    },

    currentTransaction: () => currentTransaction(sql),
    allEndedBefore: (xid: string) => allEndedBefore(sql, xid),
    oldestTransaction: () => oldestTransaction(sql),
  };
}

/** Which source rows a chunk is: `size` that follow an id, or these. */
type ChunkRange = { readonly after: string | undefined; readonly size: number } | { readonly ids: readonly string[] };

function rangeSql(range: ChunkRange): { filter: string; limit: string; parameter: string | null } {
  if ('ids' in range) return { filter: 's.id = any ($4::text::uuid[])', limit: '', parameter: arrayLiteral(range.ids) };
  const { after, size } = range;
  const filter = after === undefined ? 's.id is not null' : 's.id > $4::uuid';
  return { filter, limit: `limit ${size}`, parameter: after ?? null };
}

/**
 * A chunk of a reconcile: $1 text before the code, $2 slot, $3 the term or null, $4 the id to go on after, or the ids. Rows that the log lacks are inserted;
 * `careful`: though they may come from elsewhere at the same moment, and those that wait for their gateway id are completed. A trigger of somebody's
 * that gives a row another id would let each reconcile add a copy: the chunk divides by zero then, which undoes it. A row without a time is older than
 * nothing: the log refuses it, and it is kept aside.
 */
function chunkStatement(
  config: Config,
  kept: string,
  source: Source,
  { filter, limit, careful }: { filter: string; limit: string; careful: boolean },
): string {
  const s = (name: string) => columnSql(source, 's', name);
  const instant = instantSql('s.inserted_at', config.SOURCE_TIMEZONE);
  return `
with durable as materialized (select set_config('synchronous_commit', 'on', true)),
chunk as materialized (
  select c.*, k.known
    from (select s.id, ${s('phone_number')} as phone, ${s('code')} as code, ${instant} as inserted_at,
                 ${s('gateway_id')} as gateway_id, ${statusSql(s('gateway_id'), s('gateway_status'))} as gateway_status,
                 ${largeSql(source, 's', config.SMS_BODY)} as large
            from ${source.table} s where ${filter} order by s.id ${limit}) c
    left join lateral (select l.gateway_id is not null as known from verification.sms_log l where l.id = c.id limit 1) k on true),
ours as materialized (
  select greatest(${kept}, coalesce(c.horizon, '-infinity')) as since
    from (select) one left join smslogd.checkpoint c on c.slot_name = $2::text
   where $3::text is null or (c.term = $3::text::int8 and c.removed_at is null)),
written as (
  insert into verification.sms_log as l (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
  select c.id, c.phone, 'verification', ${bodySql('$1::text', 'c.code', config.SMS_BODY)}, c.gateway_id, c.gateway_status, c.inserted_at
    from chunk c cross join durable cross join ours
   where (c.inserted_at >= ours.since) is not false and not c.large and (c.known is null${careful ? ' or (not c.known and c.gateway_id is not null)' : ''})
   order by c.id
  ${careful ? COMPLETE : 'returning id, true as inserted'})
select (select id::text from chunk order by id desc limit 1) as last, (select count(*) from chunk)::int as looked,
       (select count(*) from chunk c cross join ours where not c.known and c.gateway_id is not null and not c.large and (c.inserted_at >= ours.since) is not false)::int as bare,
       (select coalesce(json_agg(c.id), '[]')::text from chunk c cross join ours
         where c.known is null and c.large and (c.inserted_at >= ours.since) is not false) as large,
       (select coalesce(json_agg(id), '[]')::text from (
          select c.id from chunk c cross join ours where c.known is null and not c.large and (c.inserted_at >= ours.since) is not false except select id from written) e) as left,
       1 / (not exists (select id from written except select id from chunk))::int as undo,
       count(*) filter (where inserted)::int as inserted, count(*)::int as written, (select count(*) from ours)::int as held
  from written`;
}
