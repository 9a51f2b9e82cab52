/**
 * When an SMS gets its final status. The rules, all by the database's clock:
 *
 *   final answer   The gateway's final status is written as it is.
 *   Terminated     An answer that is not final, to a question past `deadline_at` (SMS_STATUSES_EXPIRATION), is the last one; one to a question before it that is
 *                  written past it, as behind a lock or by a daemon that was suspended, is not: the SMS is asked for once more. Without any answer, past
 *                  `give_up_at` (SMS_STATUSES_GIVE_UP); unless the gateway has failed for two minutes (throttle.ts), after one more request, and a second one
 *                  if no request failed before.
 *   Unaccepted     Past `deadline_at`, if the SMS still has no gateway id: it was never accepted. A mirrored one only after a last lookup in the source, however
 *                  long that cannot be read.
 *
 * sql/queue.sql sets both times when it queues an SMS.
 *
 * - A completion counts only while `attempt` and the gateway id are the claimed ones, and writes a status only over one that is not final and differs. A row
 *   leaves the queue in the statement that makes it final, or when its log row is gone or final.
 * - What is written to the log is on disk when it is told, whatever synchronous_commit the database has (DURABLE); only claims commit asynchronously.
 * - Log rows are locked before queue rows, and both by id, as the log's triggers do. No statement waits for a locked row: it is skipped and tried again, so
 *   that it does not block the others. The lock is NO KEY UPDATE: a foreign key of others that refers to the log neither waits for it nor is waited for.
 */
import type { PollResult, RejectReason } from '../metrics.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { DURABLE } from '../postgres/session.ts';
import { columnSql, gatewayIdSql, type Source } from '../source.ts';
import { OPEN_STATUSES, type SmsType, type Status } from '../status.ts';
import { wordSql } from '../unknown-words.ts';
import { CLOCK, clockOf, NOW } from './clock.ts';
import type { Claimed } from './queue.ts';

const OPEN = arrayLiteral(OPEN_STATUSES);

export interface Completion {
  readonly id: string;
  readonly attempt: number;
  readonly gatewayId: string;
  /** null: nothing came of it (shutdown); the row is due again at once */
  readonly result: Exclude<PollResult, 'unchanged'> | null;
  readonly status: Status | null;
  /** milliseconds since 1970; null: the time of the write */
  readonly date: number | null;
  /** milliseconds until it is due again, if it stays open */
  readonly gapMs: number;
  /** the question was asked before the end of its life; nobody knows when the answer came, for the process may have been suspended */
  readonly early?: boolean;
  /** of a Rejected SMS; only for the metric */
  readonly reason?: RejectReason | undefined;
}

/** A log row whose status changed. */
export interface Change {
  readonly id: string;
  readonly type: SmsType;
  readonly from: Status | 'none';
  readonly to: Status;
  /** status_changed_at - inserted_at; may be negative */
  readonly seconds: number | null;
  /** it was queued after its deadline, by an initial copy or a repair, and is now past twice its life: it does not count as traffic */
  readonly history: boolean;
  /** of the source, where it became Unknown by one */
  readonly word?: string | null;
}

export interface Completed {
  readonly changes: readonly Change[];
  /** ids of rows that are locked: nothing was written of them */
  readonly locked: ReadonlySet<string>;
}

export function createFinalStatus(sql: Sql) {
  const { clock, now } = clockOf(sql);

  /**
   * Writes the gateway's answers in one statement. It decides by its snapshot, then locks the rows, log before queue. A row that is locked, or changed in
   * between, stays as it is and is returned in `locked`: another poller's claim may lock one briefly that it saw before the lease.
   */
  async function completeClaims(rows: readonly Completion[]): Promise<Completed> {
    const early = arrayLiteral(rows.map((row) => String(row.early === true)));
    const words = [...COLUMNS.map((name) => arrayLiteral(rows.map((row) => row[name]))), early, OPEN];
    const decided = await sql.unsafe<(Change & { locked: boolean })[]>(COMPLETE, words, { prepare: true });
    return {
      changes: decided.filter(({ locked }) => !locked),
      locked: new Set(decided.filter(({ locked }) => locked).map(({ id }) => id)),
    };
  }

  /**
   * Looks up the source rows of claimed SMS without a gateway id a last time: an id found there is written to the log, whose trigger queues the SMS again.
   * Returns the statuses that were written.
   */
  async function fillFromSource(source: Source, ids: readonly string[]): Promise<Change[]> {
    return await briefly<Change>(
      sql,
      `with ${gatewayIdSql(source, '$1::text::uuid[]')}
       select id, type, coalesce(was, 'none') as "from", gateway_status as "to", null::float8 as seconds,
              coalesce((select ${HISTORY} from smslogd.sms_poll p where p.id = updated.id), false) as history,
              case when gateway_status = 'Unknown' then ${wordSql('word')} end as word
         from updated where was is distinct from gateway_status`,
      [arrayLiteral(ids)],
    );
  }

  /** Those of these SMS that come from the source. */
  async function mirrored(ids: readonly string[]): Promise<ReadonlySet<string>> {
    const rows = await sql<{ id: string }[]>`
      select id from verification.sms_log where id = any (${arrayLiteral(ids)}::uuid[]) and type = 'verification'`;
    return new Set(rows.map(({ id }) => id));
  }

  /**
   * Makes claimed SMS Unaccepted that have no gateway id past their deadline: mirrored ones where `source` is given, others where it is not. A mirrored row
   * leaves the queue without a status if the source has no gateway ids, or had none when the row was inserted; if the source has an id that `fillFromSource`
   * could not write now, the row stays.
   */
  async function markUnaccepted(rows: readonly Claimed[], source?: Source): Promise<Change[]> {
    const tracked = source?.tracksGateway === true;
    const since = tracked ? '(select tracked_since from smslogd.settings)' : `'infinity'`;
    const hasId = tracked
      ? `exists (select from ${source.table} s where s.id = l.id and ${columnSql(source, 's', 'gateway_id')} is not null)`
      : 'false';
    const text = `
      with ${CLOCK}, ${DURABLE},
      claimed as materialized (
        select * from unnest($1::uuid[], $2::int[]) as claimed (id, attempt)
      ), decided as materialized (
        select p.id, p.attempt, l.gateway_id, l.gateway_status as was, ${latency(NOW)} as seconds, ${HISTORY} as history,
               a.open and l.gateway_id is null and not a.untracked and p.deadline_at <= ${NOW} and not a.has_id as writes,
               not a.open or l.gateway_id is null and (a.untracked or p.deadline_at <= ${NOW} and not a.has_id) as leaves
          from claimed s join smslogd.sms_poll p using (id, attempt) left join verification.sms_log l using (id)
         cross join lateral (select l.id is not null and coalesce(l.gateway_status = any ($3::text[]), true) as open,
                                    smslogd.is_tracked(l.type, l.inserted_at, ${since}) is not true as untracked,
                                    coalesce(l.type = 'verification' and ${hasId}, false) as has_id) a
         where coalesce(l.type = 'verification', false) = ${source !== undefined}
      ), locked_log as materialized (
        select l.id from verification.sms_log l join decided s on s.id = l.id where s.writes order by l.id for no key update of l skip locked
      ), locked as materialized (
        select s.*
          from smslogd.sms_poll p join decided s on s.id = p.id
         where (select count(*) from locked_log) >= 0 and p.attempt = s.attempt and p.gateway_id is null
           and (not s.writes or s.id in (select id from locked_log))
         order by p.id for update of p skip locked
      ), updated as (
        update verification.sms_log l set gateway_status = 'Unaccepted', status_changed_at = ${NOW}, updated_at = ${NOW}
          from locked h cross join durable
         where l.id = h.id and h.writes and l.gateway_id is null
           and (l.gateway_status is null or l.gateway_status = any ($3::text[]))
        returning l.id, l.type, coalesce(h.was, 'none') as was, h.seconds, h.history
      ), dequeued as (
        delete from smslogd.sms_poll p using locked h where p.id = h.id and h.leaves
      ), rescheduled as (
        update smslogd.sms_poll p
           set gateway_id = h.gateway_id, leased_until = '-infinity', due_at = case when h.gateway_id is null then greatest(${NOW}, p.deadline_at) else ${NOW} end
          from locked h where p.id = h.id and not h.leaves
      )
      select id, type, was as "from", 'Unaccepted' as "to", seconds, history from updated`;
    return await briefly<Change>(sql, text, [
      arrayLiteral(rows.map((row) => row.id)),
      arrayLiteral(rows.map((row) => row.attempt)),
      OPEN,
    ]);
  }

  /**
   * At most `limit` rows past `give_up_at`. A row that was queued after its deadline must have been asked for once, because it waits behind all others.
   * Those without a gateway id are left out, which will be Unaccepted. `asks`: the gateway can be asked. Then each row is asked for first, as after a restore or
   * days without a daemon: those are left out, too, that are due or in somebody's lease. The order is random, so that locked rows do not block the others.
   */
  async function overdue(limit: number, asks = false): Promise<string[]> {
    const rows = await sql<{ id: string }[]>`
      with ${clock}
      select id from smslogd.sms_poll
       where give_up_at <= ${now} and (lane <> 2 or attempt > 0) and gateway_id is not null
         and (not ${asks}::bool or due_at > ${now} and leased_until <= ${now})
       order by random() limit ${limit}`;
    return rows.map(({ id }) => id);
  }

  /** Makes SMS Terminated that are past `give_up_at`. */
  async function markTerminated(ids: readonly string[]): Promise<Change[]> {
    return await sql<Change[]>`
      with ${clock}, ${sql.unsafe(DURABLE)},
      decided as materialized (
        select p.id, l.gateway_status as was, ${sql.unsafe(latency(NOW))} as seconds, ${sql.unsafe(HISTORY)} as history,
               l.id is not null and coalesce(l.gateway_status = any (${OPEN}::text[]), true) as writes
          from smslogd.sms_poll p left join verification.sms_log l using (id)
         where p.id = any (${arrayLiteral(ids)}::uuid[])
      ), locked_log as materialized (
        select l.id from verification.sms_log l join decided o on o.id = l.id where o.writes order by l.id for no key update of l skip locked
      ), locked as materialized (
        select o.*
          from smslogd.sms_poll p join decided o on o.id = p.id
         where (select count(*) from locked_log) >= 0 and p.give_up_at <= ${now} and (not o.writes or o.id in (select id from locked_log))
         order by p.id for update of p skip locked
      ), updated as (
        update verification.sms_log l set gateway_status = 'Terminated', status_changed_at = ${now}, updated_at = ${now}
          from locked h cross join durable where l.id = h.id and h.writes and (l.gateway_status is null or l.gateway_status = any (${OPEN}::text[]))
        returning l.id, l.type, coalesce(h.was, 'none') as was, h.seconds, h.history
      ), dequeued as (
        delete from smslogd.sms_poll p using locked h where p.id = h.id
      )
      select id, type, was as "from", 'Terminated' as "to", seconds, history from updated`;
  }

  /** Postpones the end of a row that the database rejects. */
  async function postponeGiveUp(id: string, gapMs: number): Promise<void> {
    await sql`
      with ${clock}
      update smslogd.sms_poll set give_up_at = ${now} + make_interval(secs => ${gapMs / 1000}::float8)
       where id in (select id from smslogd.sms_poll where id = ${id} for update skip locked)`;
  }

  return { completeClaims, fillFromSource, mirrored, markUnaccepted, overdue, markTerminated, postponeGiveUp };
}

/** Seconds since inserted_at; null if that is infinite, which PostgreSQL before 17 cannot subtract. */
const latency = (end: string) =>
  `case when isfinite(l.inserted_at) then extract(epoch from ${end} - l.inserted_at)::float8 end`;

const HISTORY = 'p.lane = 2 and p.deadline_at < clock_timestamp() - (select life from smslogd.settings)';

/** The parameters of COMPLETE: the rows as columns, which of them are early, then the open statuses. */
const COLUMNS = ['id', 'attempt', 'gatewayId', 'result', 'status', 'date', 'gapMs'] as const;

/** One text, as for claims. */
const COMPLETE = `
  with ${CLOCK}, ${DURABLE},
  answered as materialized (
    select * from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::bool[])
        as answered (id, attempt, gateway_id, result, status, date, gap, early)
  ), decided as materialized (
    -- past the deadline an answer that is not final is the last one
    select s.id, p.ctid as queue_ctid, l.ctid as log_ctid, s.attempt, s.gateway_id, s.result, s.gap, s.early, a.status, a.date, l.type, l.gateway_status as was,
           l.gateway_id as log_gateway_id, ${latency('a.date')} as seconds, ${HISTORY} as history,
           a.applies and a.open and (l.gateway_status is distinct from a.status or l.status_changed_at is null) as writes,
           not a.open or a.applies and a.status <> all ($9::text[]) as leaves
      from answered s
      join smslogd.sms_poll p on p.id = s.id and p.attempt = s.attempt and p.gateway_id = s.gateway_id
      left join verification.sms_log l on l.id = s.id
     cross join lateral (select coalesce(s.status = any ($9::text[]) and not s.early and p.deadline_at <= ${NOW}, false) as expires) e
     cross join lateral (
       select case when e.expires then 'Terminated' else s.status end as status,
              case when e.expires then ${NOW} else coalesce(to_timestamp(s.date / 1000), ${NOW}) end as date,
              coalesce(l.gateway_id = s.gateway_id and s.status is not null, false) as applies,
              l.id is not null and coalesce(l.gateway_status = any ($9::text[]), true) as open
     ) a
  ), locked_log as materialized (
    select l.ctid from verification.sms_log l join decided d on d.log_ctid = l.ctid where d.writes
     order by l.id for no key update of l skip locked
  ), locked as materialized (
    select d.*
      from smslogd.sms_poll p join decided d on d.queue_ctid = p.ctid
     where (select count(*) from locked_log) >= 0 and p.attempt = d.attempt and p.gateway_id is not distinct from d.gateway_id
       and (not d.writes or d.log_ctid in (select ctid from locked_log))
     order by p.id for update of p skip locked
  ), updated as (
    update verification.sms_log l set gateway_status = h.status, status_changed_at = h.date, updated_at = ${NOW}
      from locked h cross join durable where l.ctid = h.log_ctid and h.writes
    returning h.id, h.type, h.was, h.status, h.seconds, h.history
  ), dequeued as (
    delete from smslogd.sms_poll p using locked h where p.ctid = h.queue_ctid and h.leaves
  ), rescheduled as (
    update smslogd.sms_poll p
       set gateway_id = coalesce(h.log_gateway_id, p.gateway_id),
           leased_until = '-infinity',
           -- a released row goes behind the others that are due, so that it does not block them; so does one that is to be given up and failed for the first
           -- time: the fault may be that of the gateway as a whole
           due_at = case when h.result is null or h.early and h.status is not null and p.deadline_at <= ${NOW}
                              or h.status is null and p.give_up_at <= ${NOW} and coalesce(p.last_result in ('ok', 'unchanged'), true) then ${NOW}
                         when p.deadline_at > ${NOW} then least(${NOW} + make_interval(secs => h.gap / 1000), p.deadline_at)
                         else ${NOW} + make_interval(secs => h.gap / 1000) end,
           last_result = case when h.result = 'ok' and (not h.writes or h.was is not distinct from h.status) then 'unchanged'
                              else coalesce(h.result, p.last_result) end
      from locked h where p.ctid = h.queue_ctid and not h.leaves
  )
  select id, type, coalesce(was, 'none') as "from", status as "to", seconds, history, false as locked from updated where was is distinct from status
   union all
  select id, type, was, status, seconds, history, true from decided where id not in (select id from locked)`;
