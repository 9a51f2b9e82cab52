/**
 * Source rows that the log refuses: a constraint, a trigger or their size keeps them out. They block no other row, are kept in smslogd.sms_refused, and
 * each is logged once. Of the server's error only names are kept: its message and detail can hold the row's values.
 */
import { codeOf, SmslogdError } from '../errors.ts';
import { steppedDown } from '../leader/stepped-down.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { DIVISION_BY_ZERO, tellRefused } from '../postgres/refusal.ts';
import { LARGEST_VALUE } from '../source.ts';

/** Under which term a daemon writes; undefined: nobody's, as in `smslogd verify --repair`, which takes no slot. */
export type Term = bigint | undefined;

export type Quarantine = ReturnType<typeof createQuarantine>;

/** Why a row was refused, where there is no name to tell. */
const A_TRIGGER = 'a trigger';
/** The SQLSTATE is the server's, of a limit that was passed. */
const TOO_LARGE = { sqlstate: '54000', reason: `a value of more than ${LARGEST_VALUE / 1024} KiB` };

export function createQuarantine(sql: Sql, slot: string) {
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

  return {
    passedOver,
    refuse,

    /** Sets the rows `ids` aside, which have a value that is too large. */
    large: (ids: readonly string[], term: Term): Promise<void> => keepAside(ids, TOO_LARGE, term),

    /** Which of these ids are neither in the log nor refused. */
    async absent(ids: readonly string[]): Promise<string[]> {
      const rows = await sql<{ id: string }[]>`
        select o.id::text as id from unnest(${arrayLiteral(ids)}::text::uuid[]) o (id)
         where not exists (select from verification.sms_log l where l.id = o.id)
           and not exists (select from smslogd.sms_refused r where r.id = o.id)`;
      return rows.map(({ id }) => id);
    },

    /** Forgets the refusal of rows that are in the log after all. */
    async forgetRefused(): Promise<void> {
      await sql`delete from smslogd.sms_refused r where exists (select from verification.sms_log l where l.id = r.id)`;
    },
  };
}

/** A row that the log's constraints refuse blocks nobody and is never silent. */
export function reportRefused(log: Log, metrics: Pick<Metrics, 'errors'>, id: string): void {
  tellRefused({ log, metrics }, id, new SmslogdError('row_refused', 'a source row cannot be logged'));
}
