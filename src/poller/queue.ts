/**
 * The queue smslogd.sms_poll, which holds the log rows that are not final. A claim is a lease: it commits at once, increments `attempt` (the fencing token)
 * and sets `leased_until`. After a crash the row is claimed again. `due_at` does not change: it is indexed, and a changed value would write into every index.
 */
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral, instantText } from '../postgres/quoting.ts';
import { OPEN_STATUSES } from '../status.ts';
import { CLOCK, clockOf, NOW } from './clock.ts';
import { FIRST_REQUEST_MS, LATE_SHARE, LONGEST_GAP_MS } from './schedule.ts';

/** The largest integer: the fencing token wraps around after it. */
const MOST_ATTEMPTS = 2_147_483_647;
/** Rows whose deadline one statement updates, which bounds how long it holds their locks. */
const DEADLINE_CHUNK = 1_000;

export interface Claimed {
  readonly id: string;
  /** null: unknown at its deadline */
  readonly gatewayId: string | null;
  /** the fencing token */
  readonly attempt: number;
  readonly lane: 0 | 1 | 2;
  /** since inserted_at, milliseconds */
  readonly ageMs: number;
  /** when it was due, milliseconds since 1970 */
  readonly dueMs: number;
  /** until the end of its life, milliseconds */
  readonly leftMs: number;
}

export interface Claim {
  readonly rows: readonly Claimed[];
  /** until the next row becomes due, milliseconds; null: no other row waits */
  readonly nextMs: number | null;
}

/** How many rows to claim: at least `old` of the old lane, the rest of the young lane; what one lane leaves, the other takes. */
export interface Wanted {
  readonly total: number;
  readonly old: number;
  /** at most so many that were past their deadline when they were queued, in slots that the other lanes leave */
  readonly past: number;
}

/** No row of a lane is due before its floor, as far as is known (milliseconds since 1970): the scan starts there and skips dead rows. */
export type Floors = readonly [number | null, number | null, number | null];

const CLAIM_TIMES = `extract(epoch from ${NOW} - p.sent_at)::float8 * 1000 as age, extract(epoch from due.due_at)::float8 * 1000 as due,
               extract(epoch from greatest(p.deadline_at, p.sent_at) - ${NOW})::float8 * 1000 as left`;

/** Nothing of a lane is due before the floor that a parameter gives. */
const after = (floor: string) => `coalesce(to_timestamp(${floor}::float8 / 1000), '-infinity')`;

/** One text, since to put it together for each claim costs more than to send it. Total, old and past as in Wanted; the floors; the lease in seconds. */
const CLAIM = `
  with ${CLOCK},
  async_commit as materialized (
    select set_config('synchronous_commit', 'off', true)
  ), old_share as materialized (
    select id, ctid, due_at from smslogd.sms_poll where lane = 1 and due_at <= ${NOW} and due_at > ${after('$5')} and leased_until <= ${NOW}
     order by due_at limit $2::int8 for update skip locked
  ), young as materialized (
    select id, ctid, due_at from smslogd.sms_poll where lane = 0 and due_at <= ${NOW} and due_at > ${after('$4')} and leased_until <= ${NOW}
     order by due_at limit $1::int8 - (select count(*) from old_share) for update skip locked
  ), old_rest as materialized (
    select id, ctid, due_at from smslogd.sms_poll
     where lane = 1 and due_at <= ${NOW} and due_at > ${after('$5')} and leased_until <= ${NOW} and id not in (select id from old_share)
     order by due_at limit $1::int8 - (select count(*) from old_share) - (select count(*) from young) for update skip locked
  ), past as materialized (
    select id, ctid, due_at from smslogd.sms_poll where lane = 2 and due_at <= ${NOW} and due_at > ${after('$6')} and leased_until <= ${NOW}
     order by due_at
     limit least($3::int8, $1::int8 - (select count(*) from old_share) - (select count(*) from young) - (select count(*) from old_rest))
       for update skip locked
  ), due as materialized (
    select * from old_share union all select * from young union all select * from old_rest union all select * from past
  ), claimed as (
    update smslogd.sms_poll p
       set attempt = p.attempt % ${MOST_ATTEMPTS} + 1,
           lane = case when p.lane = 0 and p.sent_at <= ${NOW} - interval '10 minutes' then 1 else p.lane end,
           -- no shorter than the schedule, so that a crash causes no burst of old SMS. Past its deadline an SMS has no schedule, because its next
           -- answer is the last: it waits for the lease alone
           leased_until = ${NOW} + greatest(make_interval(secs => $7::float8),
                                           case when p.deadline_at > ${NOW} then least((${NOW} - p.sent_at) * ${LATE_SHARE}::float8,
                                                                                      make_interval(secs => ${LONGEST_GAP_MS / 1000}::float8)) end)
      from due where p.ctid = due.ctid and (select count(*) from async_commit) = 1
    returning p.id, p.gateway_id, p.attempt, p.lane, ${CLAIM_TIMES}
  )
  select (select extract(epoch from min(n.due_at) - ${NOW})::float8 * 1000
            from unnest('{0,1,2}'::smallint[]) as l (lane)
           cross join lateral (select p.due_at from smslogd.sms_poll p where p.lane = l.lane and p.due_at > ${NOW} order by p.due_at limit 1) n) as next, c.*
    from (select) one left join claimed c on true`;

/** `sql` is for claims; `expiry` is for what needs no gateway. `leaseMs` is longer than a request and the write of its result. */
export function createQueue(sql: Sql, leaseMs: number, expiry: Sql) {
  const { clock, now } = clockOf(sql);
  const claimTimes = sql.unsafe(CLAIM_TIMES);

  /** Stores the settings that the queue's triggers read, if they changed. Minutes. */
  async function writeSettings(lifeMinutes: number, giveUpMinutes: number): Promise<void> {
    const wanted = sql`
      select make_interval(secs => ${lifeMinutes * 60}::float8) as life, make_interval(secs => ${giveUpMinutes * 60}::float8) as give_up,
             make_interval(secs => ${FIRST_REQUEST_MS / 1000}::float8) as first_poll`;
    const [known] = await sql<{ life: boolean; all: boolean }[]>`
      select s.life = v.life as life, (s.life, s.give_up, s.first_poll) = (v.life, v.give_up, v.first_poll) as all
        from smslogd.settings s, (${wanted}) v`;
    if (known?.all !== false) return;
    // first, so that after a crash the next start repeats it
    if (!known.life) await updateDeadlines(lifeMinutes);
    await sql`
      update smslogd.settings set life = v.life, give_up = v.give_up, first_poll = v.first_poll from (${wanted}) v`;
    // and for rows that were queued with the old setting meanwhile
    if (!known.life) await updateDeadlines(lifeMinutes);
  }

  /** Applies another SMS_STATUSES_EXPIRATION to queued SMS; locked rows keep their deadline. */
  async function updateDeadlines(minutes: number): Promise<void> {
    let last: { id: string } | undefined;
    do {
      [last] = await sql<{ id: string }[]>`
        with ${clock},
        chunk as materialized (
          select id, sent_at from smslogd.sms_poll
           where ${last === undefined ? sql`true` : sql`id > ${last.id}`} and sent_at <= ${now} order by id limit ${DEADLINE_CHUNK} for update skip locked
        ), lives as materialized (
          -- as smslogd.queue_entry has it: sent_at alone would end the life of an SMS too early whose sender's clock is fast
          select id, (select least(l.inserted_at, c.sent_at + interval '10 minutes') from verification.sms_log l where l.id = c.id)
                     + make_interval(secs => ${minutes * 60}::float8) as ends
            from chunk c
        ), updated as (
          update smslogd.sms_poll p
             set deadline_at = lives.ends, due_at = case when p.gateway_id is null then greatest(${now}, lives.ends) else p.due_at end
            from lives where p.id = lives.id and p.deadline_at <> lives.ends
        )
        select id from chunk order by id desc limit 1`;
    } while (last !== undefined);
  }

  /**
   * Claims rows that are due. The common table expressions are materialized, because the planner may otherwise run a limit several times and claim too much.
   * So is their union: if the UPDATE meets a row with a newer version, EvalPlanQual evaluates the query again for that row, and would run what is below a plain
   * union a second time, which changes the counts ("LIMIT must not be negative", or too many rows). A locked row is found again by its ctid, which saves an
   * index lookup; one that moved meanwhile is claimed the next time. The commit is asynchronous: a claim that is lost in a crash does no harm. Above the present
   * moment the index holds no dead rows, so the next due time is the first entry there.
   */
  async function claim({ total, old, past }: Wanted, floors: Floors): Promise<Claim> {
    const words = [total, old, past, ...floors, leaseMs / 1000];
    const rows = await sql.unsafe<((RawClaim | { readonly id: null }) & { readonly next: number | null })[]>(
      CLAIM,
      words,
      {
        prepare: true,
      },
    );
    return { rows: rows.filter((row) => row.id !== null).map(toClaimed), nextMs: rows[0]!.next };
  }

  /** Claims rows without a gateway id, which need no gateway and so do not wait for it. */
  async function claimWithoutGatewayId(limit: number): Promise<Claimed[]> {
    const rows = await expiry<RawClaim[]>`
      with ${clock},
      due as materialized (
        select id, ctid, due_at from smslogd.sms_poll where lane in (0, 1, 2) and due_at <= ${now} and leased_until <= ${now} and gateway_id is null
         limit ${limit} for update skip locked
      )
      update smslogd.sms_poll p set attempt = p.attempt % ${MOST_ATTEMPTS} + 1, leased_until = ${now} + make_interval(secs => ${leaseMs / 1000}::float8)
        from due where p.ctid = due.ctid
      returning p.id, p.gateway_id, p.attempt, p.lane, ${claimTimes}`;
    return rows.map(toClaimed);
  }

  /** Postpones claimed rows; a locked one waits until its lease ends. */
  async function postpone(rows: readonly Pick<Claimed, 'id' | 'attempt'>[], gapMs: number): Promise<void> {
    await expiry`
      with ${clock},
      locked as materialized (
        select p.id
          from smslogd.sms_poll p
          join unnest(${arrayLiteral(rows.map((r) => r.id))}::uuid[], ${arrayLiteral(rows.map((r) => r.attempt))}::int[]) as claimed (id, attempt)
            on p.id = claimed.id and p.attempt = claimed.attempt
         order by p.id for update of p skip locked
      )
      update smslogd.sms_poll p set due_at = ${now} + make_interval(secs => ${gapMs / 1000}::float8), leased_until = '-infinity' from locked where p.id = locked.id`;
  }

  /** Makes due what waits for the end of a pause since its login was refused: after a restart or SIGHUP the login may be another one. */
  async function askRefused(): Promise<void> {
    await expiry`
      with ${clock},
      refused as materialized (
        select id from smslogd.sms_poll where last_result = 'unauthorized' and due_at > ${now} order by id for update skip locked
      )
      update smslogd.sms_poll p set due_at = ${now} from refused r where p.id = r.id`;
  }

  return { writeSettings, claim, claimWithoutGatewayId, postpone, askRefused };
}

/** The hours with open SMS by the stored counters, and those that are not counted yet; newest first. */
export async function openHours(sql: Sql): Promise<string[]> {
  const rows = await sql<{ hour: string }[]>`
    select ${sql.unsafe(instantText('hour'))} as hour
      from (select h.hour from smslogd.sms_hourly h
             where h.status = any (${arrayLiteral([...OPEN_STATUSES, 'none'])}::text[]) and (h.hour >= (select frozen_before from smslogd.settings)) is true
            union select c.hour from smslogd.changed_hour c) h
     order by h.hour desc`;
  return rows.map(({ hour }) => hour);
}

/**
 * Queues the open SMS of an hour that are missing from the queue, or queued without the gateway id that they have; returns their number. An entry that somebody
 * holds waits for the next pass.
 */
export async function requeueHour(sql: Sql, hour: string, fence: string): Promise<number> {
  const rows = await sql`
    with ${sql.unsafe(CLOCK)},
    open as materialized (
      select id, gateway_id, gateway_status, type, inserted_at from verification.sms_log l
       where l.inserted_at >= smslogd.hour_start(${hour}::text::timestamptz) and l.inserted_at <= smslogd.hour_end(${hour}::text::timestamptz)
         and (l.gateway_status is null or l.gateway_status = any (${arrayLiteral(OPEN_STATUSES)}::text[]))
    ), without_id as materialized (
      select p.id from open l cross join lateral (
        select p.id from smslogd.sms_poll p where p.id = l.id and p.gateway_id is null limit 1 for update skip locked) p
       where l.gateway_id is not null
    )
    insert into smslogd.sms_poll as p
    select q.* from open l cross join clock
     cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, clock.now) q
     where (not exists (select from smslogd.sms_poll p where p.id = l.id) or l.id in (select id from without_id))
       and ${sql.unsafe(fence)}
    on conflict (id) do update set gateway_id = excluded.gateway_id, due_at = excluded.due_at, lane = excluded.lane, leased_until = excluded.leased_until
     where p.gateway_id is null and excluded.gateway_id is not null`;
  return rows.count;
}

/** Makes rows due whose due time is further away than any schedule sets: the database's clock was set back, or somebody changed the row. */
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
  readonly left: number;
}

function toClaimed(row: RawClaim): Claimed {
  const { id, attempt, lane } = row;
  return { id, gatewayId: row.gateway_id, attempt, lane, ageMs: row.age, dueMs: row.due, leftMs: row.left };
}
