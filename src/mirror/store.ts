/**
 * All SQL of the mirror that writes: "exactly once" rests on this file.
 *
 * - Rows and checkpoint commit in one statement, durably whatever the session's synchronous_commit says: set_config in a CTE that the
 *   checkpoint's UPDATE reads holds for that very commit.
 * - Every write reads from the RETURNING of the checkpoint's UPDATE, which finds no row once another daemon has raised the term. A chunk of a
 *   reconcile and the look for late gateway ids only read that row, where it is ours: its lock would hold the stream's writes up to their end. What
 *   they write the source has at that moment, whoever finds it there.
 * - The log's primary key is the last line: what is there stays. Only a reconcile and the look for late gateway ids fill a gateway id in.
 * - Rows are written in id order everywhere: two statements never wait for each other in a circle.
 */
import type { Config } from '../config.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral, quoteLiteral } from '../postgres/quoting.ts';
import { faultOf, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import { formatLsn, parseLsn, type Lsn } from '../lsn.ts';
import {
  bodySql,
  columnSql,
  completionSql,
  instantSql,
  largeSql,
  LARGEST_VALUE,
  statusSql,
  type Source,
} from '../source.ts';
import type { Batch } from './batch.ts';
import type { Due } from './mode.ts';

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

export interface Written {
  /** new rows in the log */
  readonly inserted: number;
  /** rows that were there already */
  readonly duplicates: number;
  /** ids of rows that a constraint or a trigger of the log refuses; they are kept in smslogd.sms_refused */
  readonly refused: readonly string[];
  /** the database's clock at the write; microseconds since 2000-01-01 UTC */
  readonly at: bigint;
}

export interface Chunk {
  /** the last source id that was looked at; undefined: the end is reached */
  readonly last: string | undefined;
  readonly looked: number;
  readonly inserted: number;
  readonly completed: number;
  /** ids of rows that a constraint or a trigger of the log refuses; they are kept in smslogd.sms_refused */
  readonly refused: readonly string[];
}

interface SinkResult {
  /** of the checkpoint's row (ctid); null: it is not ours, or not there any more */
  readonly place: string | null;
  readonly inserted: number;
  readonly at: string;
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

/** Under which term a daemon writes; undefined: nobody's, as in `smslogd verify --repair`, which takes no slot. */
type Term = bigint | undefined;

export interface ChunkOptions {
  readonly limited?: boolean;
  readonly term?: Term;
}

export type Store = ReturnType<typeof createStore>;

const EPOCH_2000 = `timestamptz '2000-01-01 00:00:00+00'`;

/** What a reconcile may change: a row without a gateway id takes the source's, and the status with it where it has none. A status stays as it is. */
const COMPLETE = `on conflict (id) do update
     set gateway_id = excluded.gateway_id, gateway_status = coalesce(l.gateway_status, excluded.gateway_status), updated_at = now()
   where l.gateway_id is null and excluded.gateway_id is not null
  returning id, (xmax = 0) as inserted`;

/** So many batches in a row without a row that was there already: then rows are inserted without looking first. */
const CLEAN = 4;

/** `sql`: for the writes of the stream; `copy`: for what reads the source and for the rest, so that neither waits for the other. */
export function createStore(sql: Sql, config: Config, copy: Sql = sql) {
  const slot = config.SLOT_NAME;
  const kept = config.RETENTION_DAYS === 0 ? `'-infinity'` : `now() - interval '${config.RETENTION_DAYS} days'`;
  const careful = sinkStatement(config, 'on conflict (id) do nothing');
  const plain = sinkStatement(config, '');
  const fields = sql`term::text, lsn::text, lsn > pg_current_wal_lsn() as in_future, system_id, source_timezone, removed_at is not null as removed, reconcile_due`;
  let clean = 0;
  let failed = false;
  /** where the checkpoint's row is, as far as is known */
  let place: string | undefined;

  const sinkOnce = async (batch: Batch, literals: readonly string[], term: bigint): Promise<Written> => {
    const offered = batch.rows.length;
    const parameters = [
      slot,
      String(term),
      batch.end === undefined ? null : formatLsn(batch.end),
      String(batch.commitTimes.at(-1) ?? ''),
      ...literals,
      config.OTP_CODE_TEXT,
    ];
    const sink = async (text: string): Promise<SinkResult> => {
      for (;;) {
        const at = place ?? (await placeOfCheckpoint(term));
        const [result] = await withRetry(() => sql.unsafe<SinkResult[]>(text, [...parameters, at], { prepare: true }));
        // it is not there any more where somebody else has written the checkpoint in between
        place = result!.place ?? undefined;
        if (place !== undefined) return result!;
      }
    };
    let result: SinkResult | undefined;
    // looking for each row first costs a fifth of the whole; what comes again comes after a restart or beside a reconcile
    if (clean >= CLEAN) {
      try {
        result = await sink(plain);
      } catch (error) {
        if (codeOf(error) !== UNIQUE_VIOLATION) throw error;
        clean = 0;
      }
    }
    result ??= await sink(careful);
    const { inserted, at } = result;
    clean = inserted === offered ? clean + 1 : 0;
    const refused =
      inserted === offered
        ? []
        : await passedOver(
            batch.rows.map((row) => row.id),
            term,
          );
    return { inserted, duplicates: offered - inserted - refused.length, refused, at: BigInt(at) };
  };

  /** Throws stepped_down where the term is no longer ours. */
  const placeOfCheckpoint = async (term: bigint): Promise<string> => {
    const [row] = await sql<{ place: string }[]>`
      select ctid::text as place from smslogd.checkpoint where slot_name = ${slot} and term = ${String(term)}::int8 and removed_at is null`;
    if (row === undefined) throw steppedDown();
    return row.place;
  };

  /** Durable when it returns, as the position is that is acknowledged behind it. */
  const keepAside = async (
    ids: readonly string[],
    { sqlstate, reason }: { sqlstate: string; reason: string | null },
    term: Term,
  ): Promise<void> => {
    const mine = term === undefined ? null : String(term);
    const kept = await sql`
      with durable as materialized (select set_config('synchronous_commit', 'on', true)),
      held as (
        update smslogd.checkpoint c set updated_at = now() from durable
         where c.slot_name = ${slot} and c.term = ${mine}::text::int8 and c.removed_at is null
        returning 1)
      insert into smslogd.sms_refused as r (id, sqlstate, reason)
      select o.id, ${sqlstate}::text, ${reason}::text from unnest(${arrayLiteral(ids)}::text::uuid[]) o (id)
       where ${mine}::text is null or exists (select from held) order by o.id
          on conflict (id) do update set sqlstate = excluded.sqlstate, reason = excluded.reason, refused_at = now()
      returning 1`;
    if (kept.length === 0) throw steppedDown();
  };

  /** Which of the rows `ids` that were offered are not in the log, though nothing failed: a trigger of somebody's passes them over. They are kept aside, too. */
  const passedOver = async (offered: readonly string[], term: Term): Promise<readonly string[]> => {
    const missing = await sql<{ id: string }[]>`
      select distinct o.id::text as id from unnest(${arrayLiteral(offered)}::text::uuid[]) o (id)
       where not exists (select from verification.sms_log l where l.id = o.id)`;
    const ids = missing.map(({ id }) => id);
    if (ids.length > 0) await keepAside(ids, { sqlstate: '', reason: A_TRIGGER }, term);
    return ids;
  };

  /** Keeps a row aside. Of the server's error only names are kept: its message and detail can hold the row's values. */
  const refuse = async (id: string | null, error: unknown, term: Term) => {
    // a source without a key can have a row without an id: there is nothing to keep it by
    if (id === null) return;
    const { constraint_name: constraint, column_name: column } = error as {
      constraint_name?: string;
      column_name?: string;
    };
    const sqlstate = codeOf(error) ?? '';
    const reason = constraint ?? column ?? (sqlstate === DIVISION_BY_ZERO ? A_TRIGGER : null);
    await keepAside([id], { sqlstate, reason }, term);
  };

  const chunkOnce = async (source: Source, range: ChunkRange, { limited, term }: ChunkOptions): Promise<Chunk> => {
    const { filter, limit, parameter } = rangeSql(range);
    const parameters = [config.OTP_CODE_TEXT, slot, term === undefined ? null : String(term), parameter];
    const look = async (careful: boolean) => {
      const text = chunkStatement(config, kept, source, { filter, limit, careful });
      const [result] = await withRetry(() => briefly<ChunkResult>(copy, text, parameters, limited));
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
    if (large.length > 0) await keepAside(large, TOO_LARGE, term);
    const refused = left.length === 0 ? [] : await passedOver(left, term);
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
      await refuse(id, error, options.term);
      sum.refused.push(id);
    });
    return sum;
  };

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
    async acquire(term: bigint): Promise<Checkpoint> {
      const [row] = await sql<(CheckpointRow & { place: string })[]>`
        update smslogd.checkpoint set term = ${String(term)}::text::int8 where slot_name = ${slot} and term <= ${String(term)}::text::int8
        returning ctid::text as place, ${fields}`;
      if (row === undefined) throw steppedDown();
      place = row.place;
      // what comes again comes now
      clean = 0;
      return checkpointOf(row);
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

    /** True where the last batch could not be written. */
    lastFailed: () => failed,

    /**
     * Writes a batch and its checkpoint; durable when it returns. `literals`: from literalsOf. Throws stepped_down where the term is no longer
     * ours.
     */
    async write(
      batch: Batch,
      statuses: readonly (string | null)[],
      term: bigint,
      literals = literalsOf(batch, statuses),
    ): Promise<Written> {
      const { rows } = batch;
      const large = rows.filter((row) => row.large);
      if (large.length > 0) {
        // a source without a key can have a row without an id, or two with the same one
        const ids = [...new Set(large.map((row) => row.id as string | null))].filter((id) => id !== null);
        if (ids.length > 0) await keepAside(ids, TOO_LARGE, term);
        const usual = [...rows.keys()].filter((i) => !rows[i]!.large);
        const rest = { ...batch, rows: usual.map((i) => rows[i]!) };
        const written = await this.write(
          rest,
          usual.map((i) => statuses[i]!),
          term,
        );
        return { ...written, refused: [...written.refused, ...ids] };
      }
      failed = true;
      const sum = { inserted: 0, duplicates: 0, refused: [] as string[], at: nowMicros() };
      let done = false;
      const sink = async (some: readonly number[]) => {
        const ends = some.length === rows.length;
        const part = ends ? batch : { ...batch, rows: some.map((i) => rows[i]!), end: undefined };
        const partLiterals = ends
          ? literals
          : literalsOf(
              part,
              some.map((i) => statuses[i]!),
            );
        const { inserted, duplicates, refused, at } = await sinkOnce(part, partLiterals, term);
        sum.inserted += inserted;
        sum.duplicates += duplicates;
        sum.refused.push(...refused);
        sum.at = at;
        done = ends;
      };
      await writeAccepted([...rows.keys()], sink, async (i, error) => {
        await refuse(rows[i]!.id, error, term);
        sum.refused.push(rows[i]!.id);
      });
      // the checkpoint last, once every row is in the log or set aside
      const rest = { ...batch, rows: [] };
      if (!done) await sinkOnce(rest, literalsOf(rest, []), term);
      failed = false;
      return sum;
    },

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
        copy,
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

    /** Which of these ids are neither in the log nor refused. */
    async absent(ids: readonly string[]): Promise<string[]> {
      const rows = await copy<{ id: string }[]>`
        select o.id::text as id from unnest(${arrayLiteral(ids)}::text::uuid[]) o (id)
         where not exists (select from verification.sms_log l where l.id = o.id)
           and not exists (select from smslogd.sms_refused r where r.id = o.id)`;
      return rows.map(({ id }) => id);
    },

    /** At most `size` ids that follow `after` of SMS that wait for their gateway id, in id order; of those queued in the last `seconds` (undefined: all). */
    async waiting(seconds: number | undefined, after: string | undefined, size: number): Promise<string[]> {
      const rows = await copy<{ id: string }[]>`
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
        const [row] = await withRetry(() => briefly<{ held: number; completed: number }>(copy, text, parameters));
        if (row!.held === 0) throw steppedDown();
        sum.completed += row!.completed;
      };
      await writeAccepted(ids, write, async (id) => void sum.refused.push(id));
      return sum;
    },

    /** The first and the last source id: between them a reconcile's position is a share of its way. */
    async sourceEnds(source: Source): Promise<readonly [string, string] | undefined> {
      const [row] = await briefly<{ first: string; last: string }>(
        copy,
        `select a.id::text as first, z.id::text as last from (select id from ${source.table} where id is not null order by id limit 1) a,
                (select id from ${source.table} where id is not null order by id desc limit 1) z`,
        [],
      );
      return row === undefined ? undefined : [row.first, row.last];
    },

    /** Where a reconcile stands: the source id it has passed, and the transaction that must have ended before its first look. */
    async reconcilePosition(): Promise<{ after: string | undefined; xid: string | undefined }> {
      const [row] =
        await copy`select reconcile_after::text as after, reconcile_xid::text as xid from smslogd.checkpoint where slot_name = ${slot}`;
      return { after: row?.['after'] ?? undefined, xid: row?.['xid'] ?? undefined };
    },

    /** Keeps the position, so that a restart resumes there. Throws stepped_down where the term is no longer ours. */
    async keepReconcile(after: string | undefined, xid: string | undefined, term: bigint): Promise<void> {
      const done =
        await copy`update smslogd.checkpoint set reconcile_after = ${after ?? null}, reconcile_xid = ${xid ?? null}::text::xid8
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
    },

    /** Forgets the refusal of rows that are in the log after all. */
    async forgetRefused(): Promise<void> {
      await copy`delete from smslogd.sms_refused r where exists (select from verification.sms_log l where l.id = r.id)`;
    },

    /** The reconcile is done; what it could write after all is no longer refused. Throws stepped_down where the term is no longer ours. */
    async clearReconcile(term: bigint): Promise<void> {
      const done =
        await copy`update smslogd.checkpoint set reconcile_due = null, reconcile_after = null, reconcile_xid = null
                              where slot_name = ${slot} and term = ${String(term)}::int8 returning 1`;
      if (done.length === 0) throw steppedDown();
      await this.forgetRefused();
    },

    /** Keeps how far a light audit has found the log whole. */
    async keepAudited(xid: string, term: bigint): Promise<void> {
      await copy`update smslogd.checkpoint set audited_xid = ${xid}::text::xid8
                 where slot_name = ${slot} and term = ${String(term)}::int8 and reconcile_due is null`;
    },

    /** True where somebody has changed the publication, or the source's place in it, since the last light audit: for a moment it may not have had all. */
    async republished(source: Source): Promise<boolean> {
      const [row] = await copy`
        select exists (select from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = ${source.oid}::text::oid
                        where p.pubname = ${config.PUBLICATION_NAME} and least(age(p.xmin), age(r.xmin)) <= age(c.audited_xid::xid)) as so
          from smslogd.checkpoint c where c.slot_name = ${slot}`;
      return row?.['so'] === true;
    },

    /** A transaction id of now: whatever committed before it is visible once `allEndedBefore` says so. */
    async currentTransaction(): Promise<string> {
      const [row] = await copy`select pg_current_xact_id()::text as xid`;
      return row?.['xid'] as string;
    },

    /** True when every transaction that began before `xid` has ended and is visible. */
    async allEndedBefore(xid: string): Promise<boolean> {
      const [row] = await copy`select pg_snapshot_xmin(pg_current_snapshot()) >= ${xid}::text::xid8 as ended`;
      return row?.['ended'] === true;
    },

    oldestTransaction: () => oldestTransaction(copy),
  };
}

/** The columns of a batch in the form that the sink takes them. */
export function literalsOf({ rows }: Batch, statuses: readonly (string | null)[]): string[] {
  const names = ['id', 'phone', 'code', 'insertedAt', 'gatewayId'] as const;
  return [...names.map((name) => arrayLiteral(rows.map((row) => row[name]))), arrayLiteral(statuses)];
}

/**
 * The sink: one statement, one round trip. The checkpoint's row is taken from its place: where a transaction elsewhere keeps its dead versions, its key
 * leads to each of them, one for every batch. `conflict`: what to do with rows that are there already; without it the first one refuses the batch
 * with a unique violation.
 */
function sinkStatement(config: Config, conflict: string): string {
  // read as timestamps at once where a zone in the text can be passed over: the stream's session is in UTC, and so is the source
  const utc = config.SOURCE_TIMEZONE === 'UTC';
  // arrays are unnested in the select list: in FROM each of them would be stored once more
  return `
with durable as materialized (select set_config('synchronous_commit', 'on', true)),
held as (
  update smslogd.checkpoint c
     set lsn = coalesce($3::text::pg_lsn, c.lsn), updated_at = now(),
         committed_at = coalesce(${EPOCH_2000} + nullif($4::text, '')::int8 * interval '1 microsecond', c.committed_at)
    from durable
   where c.ctid = $12::text::tid and c.slot_name = $1::text and c.term = $2::text::int8 and c.removed_at is null
  returning c.ctid as place),
written as (
  insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
  select o.id, o.phone, 'verification', ${bodySql('$11::text', 'o.code', config.SMS_BODY)}, o.gateway_id, o.gateway_status,
         ${instantSql('o.inserted_at', config.SOURCE_TIMEZONE)}
    from (select unnest($5::text::uuid[]) as id, unnest($6::text::text[]) as phone, unnest($7::text::text[]) as code,
                 unnest($8::text::${utc ? 'timestamp' : 'text'}[]) as inserted_at, unnest($9::text::text[]) as gateway_id,
                 unnest($10::text::text[]) as gateway_status) o cross join held
   order by o.id
  ${conflict}
  returning 1)
select (select place::text from held) as place, (select count(*) from written)::int as inserted,
       (extract(epoch from clock_timestamp() - ${EPOCH_2000}) * 1000000)::int8::text as at`;
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

function steppedDown(): SmslogdError {
  return new SmslogdError('stepped_down', 'another daemon leads, or this one starts over');
}

const UNIQUE_VIOLATION = '23505';
const DIVISION_BY_ZERO = '22012';
/** Why a row was refused, where there is no name to tell. */
const A_TRIGGER = 'a trigger';
/** The SQLSTATE is the server's, of a limit that was passed. */
const TOO_LARGE = { sqlstate: '54000', reason: `a value of more than ${LARGEST_VALUE / 1024} KiB` };

/** The time by our clock; microseconds since 2000-01-01 UTC. */
export function nowMicros(): bigint {
  return BigInt(Date.now()) * 1000n - 946_684_800_000_000n;
}

export interface Oldest {
  readonly oldestPid: number | null;
  readonly oldestSeconds: number | null;
  readonly oldestApplication: string | null;
  /** where it is a prepared transaction, which has no session: COMMIT PREPARED or ROLLBACK PREPARED ends it */
  readonly oldestPrepared: string | null;
}

/** The oldest transaction with an id, which is what others wait for; of another role's session its age in seconds may be hidden from ours. */
export async function oldestTransaction(sql: Sql): Promise<Partial<Oldest>> {
  const [row] = await sql<Oldest[]>`
    select pid as "oldestPid", extract(epoch from now() - since)::int as "oldestSeconds", application as "oldestApplication", prepared as "oldestPrepared"
      from (select backend_xid as xid, pid, xact_start as since, application_name as application, null as prepared
              from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
             union all select transaction, null, prepared, null, gid from pg_prepared_xacts) x
     order by age(xid) desc limit 1`;
  return row ?? {};
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
