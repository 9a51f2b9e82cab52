/**
 * What happens to a refused row: a source row that a constraint, a trigger or its size keeps out of the log. It is set aside in smslogd.sms_refused and
 * logged once, and the other rows go on. Of the server's error only names are stored: its message and detail can contain the row's values.
 *
 * The mirror's audits try set-aside rows again, those first that were tried longest ago, and forget what is not refused any more: it is in the log then, or
 * the log need not have it, because its source row is gone, older than RETENTION_DAYS or before the horizon of SNAPSHOT=never. A reconcile and
 * `smslogd verify --repair` try all rows that the log lacks, and forget here what is in the log.
 */
import { codeOf, SmslogdError } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { DIVISION_BY_ZERO } from '../postgres/refusal.ts';
import { DURABLE } from '../postgres/session.ts';
import { LARGEST_VALUE } from '../source.ts';
import { tellOfRow } from '../throttled-log.ts';

/** The leader's term; undefined in `smslogd verify --repair`, which runs beside a leader and is not fenced. */
export type Term = bigint | undefined;

export type Quarantine = ReturnType<typeof createQuarantine>;

/** The reason if the error names no constraint or column. */
const A_TRIGGER = 'a trigger';
/** 54000: program_limit_exceeded. */
const TOO_LARGE = { sqlstate: '54000', reason: `a value of more than ${LARGEST_VALUE / 1024} KiB` };

export function createQuarantine(sql: Sql, slot: string) {
  /** Commits durably: the WAL position of the row is acknowledged afterwards. */
  const setAside = async (
    ids: readonly string[],
    { sqlstate, reason }: { sqlstate: string; reason: string | null },
    term: Term,
  ): Promise<void> => {
    const fence = term === undefined ? null : String(term);
    const written = await sql`
      with ${sql.unsafe(DURABLE)},
      fence as (
        update smslogd.checkpoint c set updated_at = now() from durable
         where c.slot_name = ${slot} and c.term = ${fence}::text::int8 and c.removed_at is null
        returning 1)
      insert into smslogd.sms_refused as r (id, sqlstate, reason)
      select o.id, ${sqlstate}::text, ${reason}::text from unnest(${arrayLiteral(ids)}::text::uuid[]) o (id)
       where ${fence}::text is null or exists (select from fence) order by o.id
          on conflict (id) do update set sqlstate = excluded.sqlstate, reason = excluded.reason, refused_at = now()
      returning 1`;
    if (written.length === 0) throw steppedDown();
  };

  /** Sets aside the rows of an insert that succeeded without them: a user's trigger skipped them. Returns their ids. */
  const setAsideSkipped = async (offered: readonly string[], term: Term): Promise<readonly string[]> => {
    const missing = await sql<{ id: string }[]>`
      select distinct o.id::text as id from unnest(${arrayLiteral(offered)}::text::uuid[]) o (id)
       where not exists (select from verification.sms_log l where l.id = o.id)`;
    const ids = missing.map(({ id }) => id);
    if (ids.length > 0) await setAside(ids, { sqlstate: '', reason: A_TRIGGER }, term);
    return ids;
  };

  /** Sets a row aside that the server rejected with `error`. */
  const setAsideRejected = async (id: string | null, error: unknown, term: Term) => {
    // a source without a primary key can have a null id, and nothing can identify the row
    if (id === null) return;
    const { constraint_name: constraint, column_name: column } = error as {
      constraint_name?: string;
      column_name?: string;
    };
    const sqlstate = codeOf(error) ?? '';
    const reason = constraint ?? column ?? (sqlstate === DIVISION_BY_ZERO ? A_TRIGGER : null);
    await setAside([id], { sqlstate, reason }, term);
  };

  return {
    setAsideSkipped,
    setAsideRejected,

    /** Sets rows aside that have a value over the size limit. */
    setAsideLarge: (ids: readonly string[], term: Term): Promise<void> => setAside(ids, TOO_LARGE, term),

    /** The ids that are neither in the log nor set aside. Throws 55P03 if the log is locked. */
    async absent(ids: readonly string[]): Promise<string[]> {
      const rows = await briefly<{ id: string }>(
        sql,
        `select o.id::text as id from unnest($1::text::uuid[]) o (id)
          where not exists (select from verification.sms_log l where l.id = o.id)
            and not exists (select from smslogd.sms_refused r where r.id = o.id)`,
        [arrayLiteral(ids)],
      );
      return rows.map(({ id }) => id);
    },

    /** At most `size` ids of set-aside rows, those first that were refused longest ago. Throws 55P03 if their table is locked. */
    async refusedLongest(size: number): Promise<string[]> {
      const text = `select id::text as id from smslogd.sms_refused order by refused_at limit ${size}`;
      return (await briefly<{ id: string }>(sql, text, [])).map(({ id }) => id);
    },

    /** Forgets these set-aside rows, if the term is still ours. Throws 55P03 if their table is locked. */
    async forget(ids: readonly string[], term: bigint): Promise<void> {
      await briefly(
        sql,
        `delete from smslogd.sms_refused where id = any ($1::text::uuid[])
            and exists (select from smslogd.checkpoint where slot_name = $2::text and term = $3::text::int8 and removed_at is null)`,
        [arrayLiteral(ids), slot, String(term)],
      );
    },

    /** Forgets set-aside rows that are in the log now. */
    async forgetRefused(): Promise<void> {
      await sql`delete from smslogd.sms_refused r where exists (select from verification.sms_log l where l.id = r.id)`;
    },
  };
}

/** Logs and counts a refused row, once. */
export function reportRefused(log: Log, metrics: Pick<Metrics, 'errors'>, id: string | null): void {
  tellOfRow({ log, metrics }, id, new SmslogdError('row_refused', 'a source row cannot be logged'));
}
