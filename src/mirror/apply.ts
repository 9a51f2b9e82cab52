/**
 * The sink: "exactly once" rests on this file.
 *
 * - Rows and checkpoint commit in one statement, durably whatever the session's synchronous_commit says: set_config in a CTE that the
 *   checkpoint's UPDATE reads holds for that very commit.
 * - Every write reads from the RETURNING of the checkpoint's UPDATE, which finds no row once another daemon has raised the term.
 * - The log's primary key is the final safeguard: what is there stays.
 * - Rows are written in id order, as everywhere: two statements never wait for each other in a circle.
 */
import { codeOf } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import { formatLsn } from '../postgres/lsn.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { UNIQUE_VIOLATION, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import type { Quarantine } from '../reconcile/quarantine.ts';
import { nowMicros } from '../replication/frames.ts';
import type { Config } from '../settings.ts';
import { bodySql, instantSql } from '../source.ts';
import type { Batch } from './batch.ts';

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

interface SinkResult {
  /** of the checkpoint's row (ctid); null: it is not ours, or not there any more */
  readonly place: string | null;
  readonly inserted: number;
  readonly at: string;
}

const EPOCH_2000 = `timestamptz '2000-01-01 00:00:00+00'`;

/** So many batches in a row without a row that was there already: then rows are inserted without looking first. */
const CLEAN = 4;

export function createApply(sql: Sql, config: Config, quarantine: Quarantine) {
  const slot = config.SLOT_NAME;
  const careful = sinkStatement(config, 'on conflict (id) do nothing');
  const plain = sinkStatement(config, '');
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
        : await quarantine.setAsideSkipped(
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

  return {
    /** A new term writes: rows that come again come now. `at`: where the checkpoint's row is (ctid). */
    begin(at: string): void {
      place = at;
      clean = 0;
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
        if (ids.length > 0) await quarantine.setAsideLarge(ids, term);
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
        await quarantine.setAsideRejected(rows[i]!.id, error, term);
        sum.refused.push(rows[i]!.id);
      });
      // the checkpoint last, once every row is in the log or set aside
      const rest = { ...batch, rows: [] };
      if (!done) await sinkOnce(rest, literalsOf(rest, []), term);
      failed = false;
      return sum;
    },
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
