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
import type { Direct } from '../postgres/direct.ts';
import { formatLsn } from '../postgres/lsn.ts';
import { UNIQUE_VIOLATION, writeAccepted } from '../postgres/refusal.ts';
import { withRetry } from '../postgres/retry.ts';
import { DURABLE } from '../postgres/session.ts';
import type { Quarantine } from '../reconcile/quarantine.ts';
import { nowMicros } from '../replication/frames.ts';
import { readsBinary } from '../replication/pgoutput.ts';
import type { Config } from '../settings.ts';
import { bodySql, inZoneSql, instantSql, type Source } from '../source.ts';
import type { Batch } from './batch.ts';
import { Rows } from './rows.ts';

export interface Written {
  /** new rows in the log */
  readonly inserted: number;
  /** rows that were there already */
  readonly duplicates: number;
  /** ids of rows that a constraint or a trigger of the log refuses; they are kept in smslogd.sms_refused, but for one that has none */
  readonly refused: readonly (string | null)[];
  /** the database's clock at the write; microseconds since 2000-01-01 UTC */
  readonly at: bigint;
}

const EPOCH_2000 = `timestamptz '2000-01-01 00:00:00+00'`;

const PLACE = `select ctid::text from smslogd.checkpoint where slot_name = $1::text and term = $2::text::int8 and removed_at is null`;

/** So many batches in a row without a row that was there already: then rows are inserted without looking first. */
const CLEAN = 4;

/** How a stream sends values: as text, or in binary form, then with the zone of times that are sent without one. */
export type Form = { readonly binary: false } | { readonly binary: true; readonly zone: string };

export const AS_TEXT: Form = { binary: false };
const WITH_ZONE = 1184;

/** Binary where it can be read of each column. A time with a zone is sent in UTC. */
export function formOf({ types }: Source, { SOURCE_TIMEZONE }: Config): Form {
  if (!readsBinary(types)) return AS_TEXT;
  return { binary: true, zone: types.get('inserted_at') === WITH_ZONE ? 'UTC' : SOURCE_TIMEZONE };
}

/** `sink`: the connection of the one statement that writes rows. */
export function createApply(sink: Pick<Direct, 'row'>, config: Config, quarantine: Quarantine) {
  const slot = config.SLOT_NAME;
  let statements = sinkStatements(config, AS_TEXT);
  let clean = 0;
  let failed = false;
  /** where the checkpoint's row is, as far as is known */
  let place: string | undefined;

  const sinkOnce = async ({ rows, end, commitTimes }: Batch, term: bigint): Promise<Written> => {
    const position = end === undefined ? null : formatLsn(end);
    const committed = String(commitTimes.at(-1) ?? '');
    const parameters = [slot, String(term), position, committed, ...rows.arrays(), config.OTP_CODE_TEXT];
    const write = async (statement: string): Promise<{ inserted: number; at: bigint }> => {
      for (;;) {
        const from = place ?? (await placeOfCheckpoint(term));
        const [to, inserted, at] = await withRetry(() => sink.row(statement, [...parameters, from]));
        // it is not there any more where somebody else has written the checkpoint in between
        place = to ?? undefined;
        if (place !== undefined) return { inserted: Number(inserted), at: BigInt(at ?? 0) };
      }
    };
    let result: { inserted: number; at: bigint } | undefined;
    // looking for each row first costs a fifth of the whole; what comes again comes after a restart or beside a reconcile
    if (clean >= CLEAN) {
      try {
        result = await write(statements.plain);
      } catch (error) {
        if (codeOf(error) !== UNIQUE_VIOLATION) throw error;
        clean = 0;
      }
    }
    const { inserted, at } = result ?? (await write(statements.careful));
    clean = inserted === rows.length ? clean + 1 : 0;
    const offered = inserted === rows.length ? [] : rows.ids().filter((id) => id !== null);
    const refused = offered.length === 0 ? [] : await quarantine.setAsideSkipped(offered, term);
    return { inserted, duplicates: rows.length - inserted - refused.length, refused, at };
  };

  /** Throws stepped_down where the term is no longer ours. */
  const placeOfCheckpoint = async (term: bigint): Promise<string> => {
    // not over the other connection, where what waits for a lock would hold up the stream
    const [at] = await sink.row(PLACE, [slot, String(term)]);
    if (typeof at !== 'string') throw steppedDown();
    return at;
  };

  return {
    /** A new term writes: rows that come again come now. `at`: where the checkpoint's row is (ctid). */
    begin(at: string): void {
      place = at;
      clean = 0;
      // logs in while the stream does
      sink.row('select', []).catch(() => {});
    },

    /** How the values of the batches come from now on. */
    takes(form: Form): void {
      statements = sinkStatements(config, form);
    },

    /** True where the last batch could not be written. */
    lastFailed: () => failed,

    /** Writes a batch and its checkpoint; durable when it returns. Throws stepped_down where the term is no longer ours. */
    async write(batch: Batch, term: bigint): Promise<Written> {
      const { rows } = batch;
      failed = true;
      // a source without a key can have a row without an id, or two with the same one
      const large = [...new Set(batch.large)].filter((id) => id !== null);
      if (large.length > 0) await quarantine.setAsideLarge(large, term);
      const sum = { inserted: 0, duplicates: 0, refused: [...large] as (string | null)[], at: nowMicros() };
      let done = false;
      let ids: readonly (string | null)[] | undefined;
      const some = async (indexes: readonly number[]) => {
        const ends = indexes.length === rows.length;
        const part = ends ? batch : { ...batch, rows: rows.pick(indexes), end: undefined };
        const { inserted, duplicates, refused, at } = await sinkOnce(part, term);
        sum.inserted += inserted;
        sum.duplicates += duplicates;
        sum.refused.push(...refused);
        sum.at = at;
        done = ends;
      };
      await writeAccepted([...Array(rows.length).keys()], some, async (i, error) => {
        const id = (ids ??= rows.ids())[i]!;
        await quarantine.setAsideRejected(id, error, term);
        sum.refused.push(id);
      });
      // the checkpoint last, once every row is in the log or set aside
      if (!done) await sinkOnce({ ...batch, rows: new Rows(rows.binary) }, term);
      failed = false;
      return sum;
    },
  };
}

function sinkStatements(config: Config, form: Form): { readonly careful: string; readonly plain: string } {
  return {
    careful: sinkStatement(config, form, 'on conflict (id) do nothing'),
    plain: sinkStatement(config, form, ''),
  };
}

/**
 * The sink: one statement, one round trip. The checkpoint's row is taken from its place: where a transaction elsewhere keeps its dead versions, its key
 * leads to each of them, one for every batch. `conflict`: what to do with rows that are there already; without it the first one refuses the batch
 * with a unique violation.
 */
function sinkStatement(config: Config, form: Form, conflict: string): string {
  const { SOURCE_TIMEZONE } = config;
  // text is read as a timestamp at once where a zone in it can be passed over: the stream's session is in UTC, and so is the source
  const time = form.binary || SOURCE_TIMEZONE === 'UTC' ? 'timestamp' : 'text';
  const array = (parameter: number, type: string) =>
    form.binary ? `unnest($${parameter}::${type}[])` : `unnest($${parameter}::text[])::${type}`;
  // arrays are unnested in the select list: in FROM each of them would be stored once more
  return `
with ${DURABLE},
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
         ${form.binary ? inZoneSql('o.inserted_at', form.zone) : instantSql('o.inserted_at', SOURCE_TIMEZONE)}
    from (select ${array(5, 'uuid')} as id, ${array(6, 'text')} as phone, ${array(7, 'text')} as code, ${array(8, time)} as inserted_at,
                 ${array(9, 'text')} as gateway_id, ${array(10, 'text')} as gateway_status) o cross join held
   order by o.id
  ${conflict}
  returning 1)
select (select place::text from held) as place, (select count(*) from written)::int as inserted,
       (extract(epoch from clock_timestamp() - ${EPOCH_2000}) * 1000000)::int8::text as at`;
}
