/**
 * All SQL of the poller. The queue smslogd.sms_poll holds the rows of the log that are not final; the invariants:
 *
 * - A claim is a lease: it commits at once, raises `attempt` and sets `leased_until`. What crashes is claimed again then. `due_at` stays: it is
 *   indexed, and a claim that changed it would write into every index of the queue.
 * - A completion counts only where `attempt` and the gateway id are still the claimed ones, and writes a status only over one that is
 *   not final and differs. A row leaves the queue in the statement that makes it final, or when it is seen gone or final.
 * - Rows of the log are locked before those of the queue and both by id, as the log's triggers do it. No verdict and no completion waits for
 *   a row that somebody holds: it is left for the next time, and keeps nobody else from theirs.
 * - Only the database's clock decides: what is due, what is past its life, what is given up.
 */
import { briefly } from '../postgres/briefly.ts';
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import type { PollResult, RejectReason } from '../metrics.ts';
import { columnSql, completionSql, type Source } from '../source.ts';
import { OPEN_STATUSES, type SmsType, type Status } from '../status.ts';
import { FIRST_REQUEST_MS, LATE_SHARE, LONGEST_GAP_MS } from './schedule.ts';

const OPEN = arrayLiteral(OPEN_STATUSES);
/** What a column of integers can hold: the fence begins anew after it. */
const MOST_ATTEMPTS = 2_147_483_647;
/** Entries that get another life in one statement: nobody waits for them for long. */
const LIVES = 1_000;

/** A common table expression; materialized, as it is volatile. */
const CLOCK = 'clock as (select clock_timestamp() as now)';
const NOW = '(select now from clock)';

export interface Claimed {
  readonly id: string;
  /** null: none is known at the end of its life */
  readonly gatewayId: string | null;
  /** the fence */
  readonly attempt: number;
  readonly lane: 0 | 1 | 2;
  /** since inserted_at, milliseconds */
  readonly ageMs: number;
  /** when it was due, milliseconds since 1970 */
  readonly dueMs: number;
}

/** How many rows to claim. Old ones have `old` places for sure, young ones the rest; what one lane leaves, the other takes. */
export interface Wanted {
  readonly total: number;
  readonly old: number;
  /** at most so many that were past their life when they were queued, and only in places that nothing live takes */
  readonly past: number;
}

/** Nothing of a lane is due before its floor, as far as is known (milliseconds since 1970): the scan starts there, past what is dead. */
export type Floors = readonly [number | null, number | null, number | null];

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

export type PollerStore = ReturnType<typeof createPollerStore>;

/**
 * `leaseMs`: longer than a request with everything that belongs to it. `sql` is for claims; completions and verdicts have connections of their own, so that
 * a lock on the log or on the source keeps nothing else waiting.
 */
export function createPollerStore(
  sql: Sql,
  leaseMs: number,
  { complete: completing, verdict }: { complete: Sql; verdict: Sql } = { complete: sql, verdict: sql },
) {
  /** The moment, not the start of a transaction, nor of a statement that then waited for a lock: one for all of a statement, and fit for its indexes. */
  const clock = sql.unsafe(CLOCK);
  const now = sql.unsafe(NOW);
  const claimTimes = sql`extract(epoch from ${now} - p.sent_at)::float8 * 1000 as age, extract(epoch from due.due_at)::float8 * 1000 as due`;

  /** Writes what the queue's triggers must know; nothing where it is known. Minutes. */
  async function writeSettings(lifeMinutes: number, giveUpMinutes: number): Promise<void> {
    const wanted = sql`
      select make_interval(secs => ${lifeMinutes * 60}::float8) as life, make_interval(secs => ${giveUpMinutes * 60}::float8) as give_up,
             make_interval(secs => ${FIRST_REQUEST_MS / 1000}::float8) as first_poll`;
    const [known] = await sql<{ life: boolean; all: boolean }[]>`
      select s.life = v.life as life, (s.life, s.give_up, s.first_poll) = (v.life, v.give_up, v.first_poll) as all
        from smslogd.settings s, (${wanted}) v`;
    if (known?.all !== false) return;
    // first, so that what a crash leaves undone is done by the next start
    if (!known.life) await giveLife(lifeMinutes);
    await sql`
      update smslogd.settings set life = v.life, give_up = v.give_up, first_poll = v.first_poll from (${wanted}) v`;
    // and what was queued by the former one meanwhile
    if (!known.life) await giveLife(lifeMinutes);
  }

  /** Another life is also that of the SMS that are queued; one whose entry somebody holds keeps the one it has. */
  async function giveLife(minutes: number): Promise<void> {
    let last: { id: string } | undefined;
    do {
      [last] = await sql<{ id: string }[]>`
        with ${clock},
        piece as materialized (
          select id, sent_at + make_interval(secs => ${minutes * 60}::float8) as ends from smslogd.sms_poll
           where ${last === undefined ? sql`true` : sql`id > ${last.id}`} and sent_at <= ${now} order by id limit ${LIVES} for update skip locked
        ), given as (
          update smslogd.sms_poll p
             set deadline_at = piece.ends, due_at = case when p.gateway_id is null then greatest(${now}, piece.ends) else p.due_at end
            from piece where p.id = piece.id and p.deadline_at <> piece.ends
        )
        select id from piece order by id desc limit 1`;
    } while (last !== undefined);
  }

  /**
   * Claims what is due. The common table expressions are materialized: else the planner may run a limit many times and claim too much. So is their
   * union: where an update meets a row that has another version by now, PostgreSQL evaluates its query again for that row, and runs what stands
   * below a plain union a second time, into the very rows that the counts are taken from ("LIMIT must not be negative", or too many rows).
   * A locked row is found again by its place, not by its id, which saves a look into the index; one that was moved at that very moment is not
   * found, and is claimed by the next claim. The commit does not wait for the disk: a claim that the server loses in a crash was none.
   */
  async function claim({ total, old, past }: Wanted, floors: Floors): Promise<Claimed[]> {
    const after = (lane: 0 | 1 | 2) => sql`coalesce(to_timestamp(${floors[lane]}::float8 / 1000), '-infinity')`;
    const rows = await sql<RawClaim[]>`
      with ${clock},
      hasty as materialized (
        select set_config('synchronous_commit', 'off', true)
      ), aged as materialized (
        select id, ctid as place, due_at from smslogd.sms_poll where lane = 1 and due_at <= ${now} and due_at > ${after(1)} and leased_until <= ${now}
         order by due_at limit ${old} for update skip locked
      ), young as materialized (
        select id, ctid as place, due_at from smslogd.sms_poll where lane = 0 and due_at <= ${now} and due_at > ${after(0)} and leased_until <= ${now}
         order by due_at limit ${total} - (select count(*) from aged) for update skip locked
      ), more as materialized (
        select id, ctid as place, due_at from smslogd.sms_poll
         where lane = 1 and due_at <= ${now} and due_at > ${after(1)} and leased_until <= ${now} and id not in (select id from aged)
         order by due_at limit ${total} - (select count(*) from aged) - (select count(*) from young) for update skip locked
      ), past as materialized (
        select id, ctid as place, due_at from smslogd.sms_poll where lane = 2 and due_at <= ${now} and due_at > ${after(2)} and leased_until <= ${now}
         order by due_at
         limit least(${past}, ${total} - (select count(*) from aged) - (select count(*) from young) - (select count(*) from more))
           for update skip locked
      ), due as materialized (
        select * from aged union all select * from young union all select * from more union all select * from past
      )
      update smslogd.sms_poll p
         set attempt = p.attempt % ${MOST_ATTEMPTS} + 1,
             lane = case when p.lane = 0 and p.sent_at <= ${now} - interval '10 minutes' then 1 else p.lane end,
             -- no shorter than the schedule: a crash must not make old SMS come in a burst. Past its life an SMS has none, the next answer is
             -- its last: it waits for the lease alone
             leased_until = ${now} + greatest(make_interval(secs => ${leaseMs / 1000}::float8),
                                             case when p.deadline_at > ${now} then least((${now} - p.sent_at) * ${LATE_SHARE}::float8,
                                                                                        make_interval(secs => ${LONGEST_GAP_MS / 1000}::float8)) end)
        from due where p.ctid = due.place and (select count(*) from hasty) = 1
      returning p.id, p.gateway_id, p.attempt, p.lane, ${claimTimes}`;
    return rows.map(toClaimed);
  }

  /** Claims only rows without a gateway id: they need no gateway, and so do not wait for it. */
  async function claimWithoutGatewayId(limit: number): Promise<Claimed[]> {
    const rows = await verdict<RawClaim[]>`
      with ${clock},
      due as materialized (
        select id, ctid as place, due_at from smslogd.sms_poll where lane in (0, 1, 2) and due_at <= ${now} and leased_until <= ${now} and gateway_id is null
         limit ${limit} for update skip locked
      )
      update smslogd.sms_poll p set attempt = p.attempt % ${MOST_ATTEMPTS} + 1, leased_until = ${now} + make_interval(secs => ${leaseMs / 1000}::float8)
        from due where p.ctid = due.place
      returning p.id, p.gateway_id, p.attempt, p.lane, ${claimTimes}`;
    return rows.map(toClaimed);
  }

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
               l.gateway_id as logged_gateway_id, ${sql.unsafe(latency('a.date'))} as seconds, ${sql.unsafe(HISTORY)} as history,
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
      `with ${completionSql(source, '$1::text::uuid[]')}
       select id, type, coalesce(was, 'none') as "from", gateway_status as "to", null::float8 as seconds,
              coalesce((select ${HISTORY} from smslogd.sms_poll p where p.id = wrote.id), false) as history
         from wrote where was is distinct from gateway_status`,
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
    return await briefly<Change>(sql, text, [
      arrayLiteral(rows.map((row) => row.id)),
      arrayLiteral(rows.map((row) => row.attempt)),
      OPEN,
    ]);
  }

  /** Puts claimed rows off, where they cannot be judged now; one that somebody holds waits for its lease alone. */
  async function postpone(rows: readonly Pick<Claimed, 'id' | 'attempt'>[], gapMs: number): Promise<void> {
    await verdict`
      with ${clock},
      held as materialized (
        select p.id
          from smslogd.sms_poll p
          join unnest(${arrayLiteral(rows.map((r) => r.id))}::uuid[], ${arrayLiteral(rows.map((r) => r.attempt))}::int[]) as said (id, attempt)
            on p.id = said.id and p.attempt = said.attempt
         order by p.id for update of p skip locked
      )
      update smslogd.sms_poll p set due_at = ${now} + make_interval(secs => ${gapMs / 1000}::float8), leased_until = '-infinity' from held where p.id = held.id`;
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
        select p.id, l.gateway_status as was, ${sql.unsafe(latency(NOW))} as seconds, ${sql.unsafe(HISTORY)} as history,
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

  return {
    writeSettings,
    claim,
    claimWithoutGatewayId,
    complete,
    fillFromSource,
    judgeWithoutGatewayId,
    postpone,
    overdue,
    giveUp,
    giveUpLater,
  };
}

/** The hours that have open SMS by the stored counters, and those that are not counted yet; as PostgreSQL writes them, the youngest first. */
export async function openHours(sql: Sql): Promise<string[]> {
  const rows = await sql<{ hour: string }[]>`
    select hour::text as hour
      from (select h.hour from smslogd.sms_hourly h
             where h.status = any (${arrayLiteral([...OPEN_STATUSES, 'none'])}::text[]) and h.hour >= (select frozen_before from smslogd.settings)
               and (h.status <> 'none' or h.type <> 'verification' or (select source_tracks_gateway from smslogd.settings))
            union select c.hour from smslogd.changed_hour c) h
     order by h.hour desc`;
  return rows.map(({ hour }) => hour);
}

/** Queues the open SMS of an hour that are not queued; returns how many. */
export async function requeueHour(sql: Sql, hour: string, fence: string): Promise<number> {
  const rows = await sql`
    with ${sql.unsafe(CLOCK)}
    insert into smslogd.sms_poll
    select q.* from verification.sms_log l cross join clock
     cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, clock.now) q
     where l.inserted_at >= smslogd.hour_start(${hour}::text::timestamptz) and l.inserted_at <= smslogd.hour_end(${hour}::text::timestamptz)
       and (l.gateway_status is null or l.gateway_status = any (${OPEN}::text[]))
       and not exists (select from smslogd.sms_poll p where p.id = l.id)
       and ${sql.unsafe(fence)}
    on conflict (id) do nothing`;
  return rows.count;
}

/** Makes due what waits for longer than any schedule tells: the database's clock was set back, or somebody's hand was there. */
export async function resetStuck(sql: Sql, fence: string): Promise<number> {
  const rows = await sql`
    with ${sql.unsafe(CLOCK)},
    stuck as materialized (
      select id from smslogd.sms_poll
       where gateway_id is not null and greatest(due_at, leased_until) > ${sql.unsafe(NOW)} + make_interval(secs => ${(2 * LONGEST_GAP_MS) / 1000}::float8)
         and ${sql.unsafe(fence)}
       order by id for update skip locked
    )
    update smslogd.sms_poll p set due_at = ${sql.unsafe(NOW)}, leased_until = '-infinity' from stuck s where p.id = s.id`;
  return rows.count;
}

interface RawClaim {
  readonly id: string;
  readonly gateway_id: string | null;
  readonly attempt: number;
  readonly lane: 0 | 1 | 2;
  readonly age: number;
  readonly due: number;
}

/** Seconds from inserted_at; null where that is infinite, which PostgreSQL before 17 refuses to subtract. */
const latency = (end: string) =>
  `case when isfinite(l.inserted_at) then extract(epoch from ${end} - l.inserted_at)::float8 end`;

const HISTORY = 'p.lane = 2 and p.deadline_at < clock_timestamp() - (select life from smslogd.settings)';

function toClaimed(row: RawClaim): Claimed {
  const { id, attempt, lane } = row;
  return { id, gatewayId: row.gateway_id, attempt, lane, ageMs: row.age, dueMs: row.due };
}
