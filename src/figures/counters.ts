/**
 * The SQL that keeps the stored counters: counts noted hours again, freezes and removes old ones, and counts what entered the log in this database. What is
 * counted, and how, is in sql/counting.sql; here it is only called.
 */
import type { Sql } from '../postgres/pools.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import { COUNTING_LOCK } from '../postgres/advisory-locks.ts';
import { lastRow } from '../postgres/last-row.ts';
import { arrayLiteral, instantText } from '../postgres/quoting.ts';

export interface Recount {
  /** hours that were counted */
  readonly hours: number;
  /** noted hours that are left for the next time */
  readonly left: number;
}

export interface RecountOptions {
  /** for another daemon that counts; else nothing is done then */
  readonly wait: boolean;
  /** hours at most: a statement holds a snapshot, and a long one makes the poller's queue slow */
  readonly most: number;
  /** moving: those whose rows are not yet 2 minutes old; settled: all others. Of those that are left out one note each stays */
  readonly which?: 'all' | 'settled' | 'moving';
  /** SQL that is true while this daemon leads */
  readonly fence?: string | undefined;
}

const MOVING = `hour between smslogd.hour_of(now() - interval '2 minutes') and now()`;
/** As a condition on `hour`. */
const WHICH = { all: 'true', settled: `not (${MOVING})`, moving: MOVING };

/**
 * Counts the noted hours again, the youngest first, takes their notes and stores the counts. Deleting the notes and counting see one
 * snapshot: what is not counted is still noted. Undefined where another daemon is at it and `wait` is false.
 *
 * Two statements sent as one: an implicit transaction, in which the second has a snapshot younger than the lock, and no session state is
 * left behind (sql.begin would write a rollback to a connection that has just been cut, which postgres.js does not survive).
 */
export async function recountHours(
  sql: Sql,
  { wait, most, which = 'all', fence = 'true' }: RecountOptions,
): Promise<Recount | undefined> {
  const row = await lastRow<{ ours: boolean; hours: string; noted: string }>(
    sql,
    `select ${
      wait
        ? `set_config('smslogd.ours', 'true', true) from pg_advisory_xact_lock(${COUNTING_LOCK})`
        : `set_config('smslogd.ours', (pg_try_advisory_xact_lock(${COUNTING_LOCK}) and ${fence})::text, true)`
    };${recount(WHICH[which], most)}`,
  );
  if (!row.ours) return undefined;
  const hours = Number(row.hours);
  return { hours, left: Number(row.noted) - hours };
}

/** What is stored of an hour, beside its key. */
const COUNTS = 'sms, le_2m, m2_5, m5_30, gt_30m, buckets, oldest, newest, last_changed_at, last_answered_at';

/** `bound`: which hours, as a condition on `hour`. Of those that it leaves out, one note each stays. */
const recount = (bound: string, most: number) => `
  with ours as materialized (
    select hour, count(*) as notes, ${bound} as bound from smslogd.changed_hour
     where current_setting('smslogd.ours')::boolean and hour >= (select frozen_before from smslogd.settings)
     group by hour
  ), noted as materialized (
    select hour from ours where bound
  ), hours as materialized (
    -- in the order in which the views take them (smslogd.stale_hours)
    select hour from noted order by hour > now(), hour desc limit ${most}
  ), many as materialized (
    select hour from ours where not bound and notes > 1
  ), thinned as (
    insert into smslogd.changed_hour select hour from many
  ), counted as materialized (
    select c.* from hours cross join lateral smslogd.count_sms(smslogd.hour_start(hours.hour), smslogd.hour_end(hours.hour), now()) c
  ), taken as (
    delete from smslogd.changed_hour n
     where n.hour in (select hour from hours) or n.hour in (select hour from many)
        or current_setting('smslogd.ours')::boolean and n.hour < (select frozen_before from smslogd.settings)
     returning type, entered
  ), entered as (
    insert into smslogd.sms_entered as e select type, sum(entered) from taken where entered > 0 group by type
    on conflict (type, writer) do update set sms = e.sms + excluded.sms
  ), gone as (
    delete from smslogd.sms_hourly h using hours
     where h.hour = hours.hour and not exists (select from counted c where (c.status, c.type, c.hour) = (h.status, h.type, h.hour))
  ), stored as (
    insert into smslogd.sms_hourly as h (status, type, hour, ${COUNTS})
    select status, type, hour, ${COUNTS} from counted order by status, type, hour
    on conflict (status, type, hour) do update set (${COUNTS}) = row (${COUNTS.replaceAll(/\w+/g, 'excluded.$&')})
     where (${COUNTS.replaceAll(/\w+/g, 'h.$&')}) is distinct from (${COUNTS.replaceAll(/\w+/g, 'excluded.$&')})
  )
  select current_setting('smslogd.ours')::boolean as ours, (select count(*) from hours) as hours, (select count(*) from noted) as noted`;

/** False: there is nothing to count. To ask is cheap, to plan a recount is not. */
export async function hoursNoted(sql: Sql): Promise<boolean> {
  const [row] = await sql<{ noted: boolean }[]>`select exists (select from smslogd.changed_hour) as noted`;
  return row!.noted;
}

/**
 * Notes one hour of the last `days` days, so that it is counted again: with each `seconds` of the database's clock the one before, so that whoever calls
 * this as often comes by every hour in turn.
 */
export async function noteRecentHour(sql: Sql, days: number, seconds: number): Promise<void> {
  await sql`insert into smslogd.changed_hour
            select smslogd.hour_of(now()) - (floor(extract(epoch from now()) / ${seconds}::numeric)::int8 % (24 * ${days}::int4)) * interval '1 hour'`;
}

/**
 * Where retention cuts: a full UTC hour, so that none is ever removed in part. Two hours and more below the mirror's own horizon,
 * now() - RETENTION_DAYS days, so that what the mirror may still write is never cut off, and what is cut off never written again: an hour for
 * clocks set back (a day of now() - N days has the session's time zone), one for statements that are under way; and today_vs_yesterday
 * reads the log itself for the last 25 hours.
 */
const cutoff = (days: number) => `smslogd.hour_of(now() - interval '${days} days 2 hours')`;

/** Hours counted in one statement before they are frozen. */
const FREEZE_HOURS = 168;

export interface Frozen {
  /** the cutoff */
  readonly before: string;
  /** all hours before it are counted and stay so */
  readonly frozen: boolean;
  /** it was this call that raised the mark */
  readonly raised: boolean;
}

/**
 * Counts noted hours before the cutoff and, where none is left, freezes them, in one transaction. Where many hours are noted it takes
 * several calls: `frozen` is false till then, and where `fence` is not true. Throws retention_kept where the database keeps rows for longer.
 */
export async function freezeHours(sql: Sql, days: number, fence = 'true'): Promise<Frozen> {
  const before = cutoff(days);
  const frozen = lastRow<Frozen>(
    sql,
    `select set_config('smslogd.ours', (${fence})::text, true) from pg_advisory_xact_lock(${COUNTING_LOCK});
     ${recount(`hour < ${before}`, FREEZE_HOURS)};
     select ${instantText('before')} as before, raised, ours and (raised or (select frozen_before >= before from smslogd.settings)) as frozen
       from (select before, ours, case when ours then smslogd.freeze_hours(before) else false end as raised
               from (select ${before} as before, current_setting('smslogd.ours')::boolean as ours offset 0) b) r`,
  );
  return await frozen.catch((error: unknown) => {
    if (codeOf(error) !== '55000') throw error;
    throw new SmslogdError('retention_kept', `the database keeps SMS longer than RETENTION_DAYS=${days}`, {
      cause: error,
    });
  });
}

/** At most `limit` rows that were inserted before `before`, with their ctid; the oldest first, which keeps a log that was never analyzed from being read whole. */
export async function oldRows(sql: Sql, before: string, limit: number): Promise<{ id: string; place: string }[]> {
  return await sql`
    select id, ctid::text as place from verification.sms_log where inserted_at < ${before}::text::timestamptz order by inserted_at limit ${limit}`;
}

/**
 * Removes what of these rows is older than `before`, with its queue entries; returns how many rows. What others hold is left, and all of it where `fence` is
 * not true.
 */
export async function removeRows(sql: Sql, places: readonly string[], before: string, fence = 'true'): Promise<number> {
  const [row] = await sql<{ removed: number }[]>`
    select case when ${sql.unsafe(fence)} then smslogd.remove_logged(${arrayLiteral(places)}::text::tid[], ${before}::text::timestamptz) else 0 end as removed`;
  return row!.removed;
}
/** SQL for the SMS that ever entered the log, by type: those that are counted, and those that are noted and not counted yet. It never becomes less. */
export const ENTERED = `
  select type, sum(sms)::int8 as sms
    from (select type, sms from smslogd.sms_entered
          union all select type, entered from smslogd.changed_hour where entered > 0) s
   group by type`;

export async function verificationsEntered(sql: Sql, limitMs: number): Promise<number> {
  const { sms } = await lastRow<{ sms: number }>(
    sql,
    `select coalesce(sum(sms), 0)::float8 as sms from (${ENTERED}) e where type = 'verification'`,
    limitMs,
  );
  return sms;
}

/**
 * What entered the log is counted from 0 in another database than before: one that was restored may be older, and what counts back is a reset to
 * Prometheus, which takes the whole for an increase. It is another one by its cluster, its timeline (restored to a moment, promoted), its own
 * oid or that of a table (restored from a dump).
 */
export async function countInThisDatabase(sql: Sql, limitMs: number): Promise<void> {
  const here = `
    select concat_ws('/', (select system_identifier from pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
                     (select oid from pg_database where datname = current_database()), 'smslogd.settings'::regclass::oid) as here`;
  const { moved } = await lastRow<{ moved: boolean }>(
    sql,
    `select not pg_is_in_recovery() and counted_in is distinct from (${here}) as moved from smslogd.settings`,
    limitMs,
  );
  if (!moved) return;
  await lastRow(
    sql,
    `select pg_advisory_xact_lock(${COUNTING_LOCK});
     with former as materialized (
       select counted_in from smslogd.settings
     ), moved as (
       update smslogd.settings set counted_in = here from (${here}) h where counted_in is distinct from here returning here
     ), reset as (
       insert into smslogd.sms_entered as e select type, -sms from (${ENTERED}) n
        where exists (select from moved) and (select counted_in from former) is not null
       on conflict (type, writer) do update set sms = e.sms + excluded.sms
     )
     select count(*) from moved`,
    limitMs,
  );
}
