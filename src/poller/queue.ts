/**
 * The queue smslogd.sms_poll, which holds the rows of the log that are not final. A claim is a lease: it commits at once, raises `attempt` and sets
 * `leased_until`. What crashes is claimed again then. `due_at` stays: it is indexed, and a claim that changed it would write into every index of the queue.
 */
import type { Sql } from '../postgres/pools.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { OPEN_STATUSES } from '../status.ts';
import { CLOCK, clockOf, NOW } from './clock.ts';
import { FIRST_REQUEST_MS, LATE_SHARE, LONGEST_GAP_MS } from './schedule.ts';

/** What a column of integers can hold: the fence begins anew after it. */
const MOST_ATTEMPTS = 2_147_483_647;
/** Entries that get another life in one statement: nobody waits for them for long. */
const LIVES = 1_000;

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

/** `sql`: for claims; `verdict`: for what needs no gateway. `leaseMs`: longer than a request with everything that belongs to it. */
export function createQueue(sql: Sql, leaseMs: number, verdict: Sql) {
  const { clock, now } = clockOf(sql);
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

  return { writeSettings, claim, claimWithoutGatewayId, postpone };
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
       and (l.gateway_status is null or l.gateway_status = any (${arrayLiteral(OPEN_STATUSES)}::text[]))
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

function toClaimed(row: RawClaim): Claimed {
  const { id, attempt, lane } = row;
  return { id, gatewayId: row.gateway_id, attempt, lane, ageMs: row.age, dueMs: row.due };
}
