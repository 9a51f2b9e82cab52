/**
 * What becomes of a claimed SMS: the gateway's answer is written, or the verdict is given that needs no gateway.
 *
 * - A completion counts only where `attempt` and the gateway id are still the claimed ones, and writes a status only over one that is
 *   not final and differs. A row leaves the queue in the statement that makes it final, or when it is seen gone or final.
 * - Rows of the log are locked before those of the queue and both by id, as the log's triggers do it. No verdict and no completion waits for
 *   a row that somebody holds: it is left for the next time, and keeps nobody else from theirs.
 * - Only the database's clock decides: what is past its life, what is given up.
 */
import type { PollResult, RejectReason } from '../metrics.ts';
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { columnSql, gatewayIdSql, type Source } from '../source.ts';
import { OPEN_STATUSES, type SmsType, type Status } from '../status.ts';
import { CLOCK, clockOf, NOW } from './clock.ts';
import type { Claimed } from './queue.ts';

const OPEN = arrayLiteral(OPEN_STATUSES);

export interface Completion {
  readonly id: string;
  readonly attempt: number;
  readonly gatewayId: string;
  /** null: the request did not end (shutdown, wrong login); the row is due again at once */
  readonly result: Exclude<PollResult, 'unchanged'> | null;
  readonly status: Status | null;
  /** milliseconds since 1970; null: the time of the write */
  readonly date: number | null;
  /** until it is due again, if it stays open */
  readonly gapMs: number;
  /** of a Rejected SMS; only counted */
  readonly reason?: RejectReason | undefined;
}

/** A row of the log that was given another status. */
export interface Change {
  readonly id: string;
  readonly type: SmsType;
  readonly from: Status | 'none';
  readonly to: Status;
  /** status_changed_at - inserted_at; may be negative */
  readonly seconds: number | null;
  /** it came into the log past its life and is past that twice over: what a first copy or a repair brings is no traffic */
  readonly history: boolean;
}

export interface Completed {
  readonly changes: readonly Change[];
  /** ids of rows that somebody holds just now: nothing is written of what was said of them */
  readonly held: ReadonlySet<string>;
}

/** `completing` writes answers, `verdict` the rest, `judging` the verdict without a gateway id: a lock on the log or on the source keeps nothing else waiting. */
export function createVerdicts(judging: Sql, completing: Sql, verdict: Sql) {
  const { clock, now } = clockOf(completing);

  /**
   * Applies what the gateway said, in one statement. All is judged by the statement's snapshot; then the rows are locked, log before queue. A row
   * that somebody holds, or changed in between, is left as it is and told: another poller's claim may hold one for its own short time, which
   * looked at it before its lease began.
   */
  async function complete(rows: readonly Completion[]): Promise<Completed> {
    const column = (value: (row: Completion) => string | number | null) => arrayLiteral(rows.map(value));
    const told = await completing<(Change & { held: boolean })[]>`
      with ${clock},
      said as materialized (
        select * from unnest(${column((r) => r.id)}::uuid[], ${column((r) => r.attempt)}::int[],
                             ${column((r) => r.gatewayId)}::text[], ${column((r) => r.result)}::text[],
                             ${column((r) => r.status)}::text[],
                             ${column((r) => r.date)}::float8[],
                             ${column((r) => r.gapMs)}::float8[])
            as said (id, attempt, gateway_id, result, status, date, gap)
      ), judged as materialized (
        -- past its life an answer that is not final is the last one
        select s.id, p.ctid as place, l.ctid as logged_place, s.attempt, s.gateway_id, s.result, s.gap, a.status, a.date, l.type, l.gateway_status as was,
               l.gateway_id as logged_gateway_id, ${completing.unsafe(latency('a.date'))} as seconds, ${completing.unsafe(HISTORY)} as history,
               a.answers and a.open and (l.gateway_status is distinct from a.status or l.status_changed_at is null) as writes,
               not a.open or a.answers and a.status <> all (${OPEN}::text[]) as leaves
          from said s
          join smslogd.sms_poll p on p.id = s.id and p.attempt = s.attempt and p.gateway_id = s.gateway_id
          left join verification.sms_log l on l.id = s.id
         cross join lateral (select coalesce(s.status = any (${OPEN}::text[]) and p.deadline_at <= ${now}, false) as expires) e
         cross join lateral (
           select case when e.expires then 'Terminated' else s.status end as status,
                  case when e.expires then ${now} else coalesce(to_timestamp(s.date / 1000), ${now}) end as date,
                  coalesce(l.gateway_id = s.gateway_id and s.status is not null, false) as answers,
                  l.id is not null and coalesce(l.gateway_status = any (${OPEN}::text[]), true) as open
         ) a
      ), logged as materialized (
        select l.ctid as place from verification.sms_log l join judged j on j.logged_place = l.ctid where j.writes
         order by l.id for update of l skip locked
      ), held as materialized (
        select j.*
          from smslogd.sms_poll p join judged j on j.place = p.ctid
         where (select count(*) from logged) >= 0 and p.attempt = j.attempt and p.gateway_id is not distinct from j.gateway_id
           and (not j.writes or j.logged_place in (select place from logged))
         order by p.id for update of p skip locked
      ), wrote as (
        update verification.sms_log l set gateway_status = h.status, status_changed_at = h.date, updated_at = ${now}
          from held h where l.ctid = h.logged_place and h.writes
        returning h.id, h.type, h.was, h.status, h.seconds, h.history
      ), left_queue as (
        delete from smslogd.sms_poll p using held h where p.ctid = h.place and h.leaves
      ), waits as (
        update smslogd.sms_poll p
           set gateway_id = coalesce(h.logged_gateway_id, p.gateway_id),
               leased_until = '-infinity',
               -- given back it goes behind what is due: the next one is tried first, whatever the gateway has against this one
               due_at = case when h.result is null then ${now}
                             when p.deadline_at > ${now} then least(${now} + make_interval(secs => h.gap / 1000), p.deadline_at)
                             else ${now} + make_interval(secs => h.gap / 1000) end,
               last_result = case when h.result = 'ok' and (not h.writes or h.was is not distinct from h.status) then 'unchanged'
                                  else coalesce(h.result, p.last_result) end
          from held h where p.ctid = h.place and not h.leaves
      )
      select id, type, coalesce(was, 'none') as "from", status as "to", seconds, history, false as held from wrote where was is distinct from status
       union all
      select id, type, was, status, seconds, history, true from judged where id not in (select id from held)`;
    return {
      changes: told.filter(({ held }) => !held),
      held: new Set(told.filter(({ held }) => held).map(({ id }) => id)),
    };
  }

  /**
   * Looks the source rows of claimed SMS without a gateway id up once more: an id found there completes the row of the log, whose trigger
   * queues it again. Returns the statuses that were written.
   */
  async function fillFromSource(source: Source, ids: readonly string[]): Promise<Change[]> {
    return await briefly<Change>(
      verdict,
      `with ${gatewayIdSql(source, '$1::text::uuid[]')}
       select id, type, coalesce(was, 'none') as "from", gateway_status as "to", null::float8 as seconds,
              coalesce((select ${HISTORY} from smslogd.sms_poll p where p.id = updated.id), false) as history
         from updated where was is distinct from gateway_status`,
      [arrayLiteral(ids)],
    );
  }

  /**
   * The verdict on claimed rows whose log row still has no gateway id: Unaccepted past their life. Where the source knows no gateway ids,
   * a mirrored row leaves the queue unjudged; where it knows one that `fillFromSource` could not write just now, it is not judged yet.
   */
  async function judgeWithoutGatewayId(rows: readonly Claimed[], source: Source): Promise<Change[]> {
    const tracked = source.tracksGateway;
    const comes = tracked
      ? `exists (select from ${source.table} s where s.id = l.id and ${columnSql(source, 's', 'gateway_id')} is not null)`
      : 'false';
    const text = `
      with ${CLOCK},
      said as materialized (
        select * from unnest($1::uuid[], $2::int[]) as said (id, attempt)
      ), seen as materialized (
        select p.id, p.attempt, l.gateway_id, l.gateway_status as was, ${latency(NOW)} as seconds, ${HISTORY} as history,
               a.open and l.gateway_id is null and not a.untracked and p.deadline_at <= ${NOW} and not a.comes as writes,
               not a.open or l.gateway_id is null and (a.untracked or p.deadline_at <= ${NOW} and not a.comes) as leaves
          from said s join smslogd.sms_poll p using (id, attempt) left join verification.sms_log l using (id)
         cross join lateral (select l.id is not null and coalesce(l.gateway_status = any ($3::text[]), true) as open,
                                    coalesce(l.type = 'verification' and not ${tracked}, false) as untracked,
                                    coalesce(l.type = 'verification' and ${comes}, false) as comes) a
      ), logged as materialized (
        select l.id from verification.sms_log l join seen s on s.id = l.id where s.writes order by l.id for update of l skip locked
      ), held as materialized (
        select s.*
          from smslogd.sms_poll p join seen s on s.id = p.id
         where (select count(*) from logged) >= 0 and p.attempt = s.attempt and p.gateway_id is null
           and (not s.writes or s.id in (select id from logged))
         order by p.id for update of p skip locked
      ), wrote as (
        update verification.sms_log l set gateway_status = 'Unaccepted', status_changed_at = ${NOW}, updated_at = ${NOW}
          from held h
         where l.id = h.id and h.writes and l.gateway_id is null
           and (l.gateway_status is null or l.gateway_status = any ($3::text[]))
        returning l.id, l.type, coalesce(h.was, 'none') as was, h.seconds, h.history
      ), left_queue as (
        delete from smslogd.sms_poll p using held h where p.id = h.id and h.leaves
      ), waits as (
        update smslogd.sms_poll p
           set gateway_id = h.gateway_id, leased_until = '-infinity', due_at = case when h.gateway_id is null then greatest(${NOW}, p.deadline_at) else ${NOW} end
          from held h where p.id = h.id and not h.leaves
      )
      select id, type, was as "from", 'Unaccepted' as "to", seconds, history from wrote`;
    return await briefly<Change>(judging, text, [
      arrayLiteral(rows.map((row) => row.id)),
      arrayLiteral(rows.map((row) => row.attempt)),
      OPEN,
    ]);
  }

  /**
   * At most `limit` rows whose time to wait for any answer is over. One that was queued past its life must have been asked for once: it
   * waits behind all live ones, and that is not the gateway's fault. By chance, so that many that somebody holds stand in nobody's way.
   */
  async function overdue(limit: number): Promise<string[]> {
    const rows = await verdict<{ id: string }[]>`
      with ${clock}
      select id from smslogd.sms_poll where give_up_at <= ${now} and (lane <> 2 or attempt > 0) order by random() limit ${limit}`;
    return rows.map(({ id }) => id);
  }

  /** Terminates what `overdue` found, where it still is so. */
  async function giveUp(ids: readonly string[]): Promise<Change[]> {
    return await verdict<Change[]>`
      with ${clock},
      over as materialized (
        select p.id, l.gateway_status as was, ${completing.unsafe(latency(NOW))} as seconds, ${completing.unsafe(HISTORY)} as history,
               l.id is not null and coalesce(l.gateway_status = any (${OPEN}::text[]), true) as writes
          from smslogd.sms_poll p left join verification.sms_log l using (id)
         where p.id = any (${arrayLiteral(ids)}::uuid[]) and p.give_up_at <= ${now}
      ), logged as materialized (
        select l.id from verification.sms_log l join over o on o.id = l.id where o.writes order by l.id for update of l skip locked
      ), held as materialized (
        select o.*
          from smslogd.sms_poll p join over o on o.id = p.id
         where (select count(*) from logged) >= 0 and p.give_up_at <= ${now} and (not o.writes or o.id in (select id from logged))
         order by p.id for update of p skip locked
      ), wrote as (
        update verification.sms_log l set gateway_status = 'Terminated', status_changed_at = ${now}, updated_at = ${now}
          from held h where l.id = h.id and h.writes and (l.gateway_status is null or l.gateway_status = any (${OPEN}::text[]))
        returning l.id, l.type, coalesce(h.was, 'none') as was, h.seconds, h.history
      ), left_queue as (
        delete from smslogd.sms_poll p using held h where p.id = h.id
      )
      select id, type, was as "from", 'Terminated' as "to", seconds, history from wrote`;
  }

  /** Puts the verdict on a row off that the database refuses to give. */
  async function giveUpLater(id: string, gapMs: number): Promise<void> {
    await verdict`
      with ${clock}
      update smslogd.sms_poll set give_up_at = ${now} + make_interval(secs => ${gapMs / 1000}::float8)
       where id in (select id from smslogd.sms_poll where id = ${id} for update skip locked)`;
  }

  return { complete, fillFromSource, judgeWithoutGatewayId, overdue, giveUp, giveUpLater };
}

/** Seconds from inserted_at; null where that is infinite, which PostgreSQL before 17 refuses to subtract. */
const latency = (end: string) =>
  `case when isfinite(l.inserted_at) then extract(epoch from ${end} - l.inserted_at)::float8 end`;

const HISTORY = 'p.lane = 2 and p.deadline_at < clock_timestamp() - (select life from smslogd.settings)';
