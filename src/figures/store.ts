/** All SQL of the figures. What is counted, and how, stands in sql/counting.sql and sql/counters.sql; here it is only called. */
import type { Sql } from '../postgres/pools.ts';
import { codeOf, SmslogdError } from '../errors.ts';
import { arrayLiteral, quoteLiteral } from '../postgres/quoting.ts';
import { TABLES, type GROUPS, type OUTCOMES, type PollResult, type SLOT_WAL_STATUSES } from '../metrics.ts';
import { OPEN_STATUSES, STATUSES, type OpenStatus, type SmsType, type Status } from '../status.ts';

/** Any fixed number: two daemons that count exclude each other by it. */
const LOCK = 7_246_581_904;

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
        ? `set_config('smslogd.ours', 'true', true) from pg_advisory_xact_lock(${LOCK})`
        : `set_config('smslogd.ours', (pg_try_advisory_xact_lock(${LOCK}) and ${fence})::text, true)`
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
    on conflict (type) do update set sms = e.sms + excluded.sms
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

/**
 * Sends statements as one simple query, an implicit transaction, and returns the first row of the last one. Nothing is compiled (jit): that takes longer
 * than what is read here.
 */
async function lastRow<Row>(sql: Sql, statements: string): Promise<Row> {
  const results = (await sql.unsafe(`set local jit = off;\n${statements}`).simple()) as unknown as Row[][];
  return results.at(-1)![0]!;
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
  /** the cutoff, as PostgreSQL writes it */
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
    `select set_config('smslogd.ours', (${fence})::text, true) from pg_advisory_xact_lock(${LOCK});
     ${recount(`hour < ${before}`, FREEZE_HOURS)};
     select before::text, raised, ours and (raised or (select frozen_before >= before from smslogd.settings)) as frozen
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

type StatusCounts = { readonly [S in Lowercase<Status>]: number };
type GroupCounts = { readonly [G in (typeof GROUPS)[number]]: number };

/** A row of verification.sms_today_vs_yesterday. Ratios over nothing are null, ages are seconds. */
export interface Period extends StatusCounts, GroupCounts {
  readonly period: 'today' | 'yesterday_same_time' | 'yesterday';
  readonly type: SmsType;
  readonly total: number;
  readonly processed: number;
  readonly delivered: number;
  readonly undelivered: number;
  readonly success_ratio: number | null;
  readonly open: number;
  readonly oldest_open_age: number | null;
  readonly known_ratio: number | null;
  readonly on_time_ratio: number | null;
  readonly untracked: number;
  readonly settled: boolean;
}

/** A row of verification.sms_backlog: SMS that are open now, the age of the oldest in seconds. */
export interface OpenCount {
  readonly type: SmsType;
  readonly status: OpenStatus;
  readonly sms: number;
  readonly oldest_age: number;
}

/** What became of the SMS that were sent 2 to 12 minutes ago: old enough to be judged, young enough to tell how the channel is now. */
export interface Recent {
  readonly type: SmsType;
  readonly outcome: (typeof OUTCOMES)[number];
  readonly sms: number;
}

/** The oldest SMS of a type that is past its life and still asked for, its age in seconds; what came into the log past its life is history. */
export interface Overdue {
  readonly type: SmsType;
  readonly age: number;
}

/** An hour of one type, as verification.sms_delivery_hourly has it; `hour` in Unix seconds, percentiles in seconds. */
export interface Hour extends GroupCounts {
  readonly hour: number;
  readonly type: SmsType;
  readonly total: number;
  readonly delivered: number;
  readonly open: number;
  readonly untracked: number;
  /** of those that are followed, SMS at least 2 minutes old, and of these Delivered within 2 minutes */
  readonly due: number;
  readonly on_time: number;
  readonly success_ratio: number | null;
  readonly on_time_ratio: number | null;
  readonly p50: number | null;
  readonly p95: number | null;
}

/** The slot as PostgreSQL sees it; bytes. */
export interface Slot {
  readonly active: boolean;
  readonly wal_status: (typeof SLOT_WAL_STATUSES)[number] | null;
  readonly retained: number | null;
  /** null without max_slot_wal_keep_size */
  readonly safe: number | null;
  /** WAL that its reader has not confirmed; a reader of an idle source confirms all the same */
  readonly behind: number | null;
}

/** Who leads, by smslogd.leader, and what its mirror is about. */
export interface Leader {
  /** host, process id and a word of its own; null: the lease was given back */
  readonly holder: string | null;
  readonly term: number;
  readonly mirrors: boolean;
  readonly streaming: boolean;
  /** seconds since it was renewed */
  readonly renewed_age: number;
  /** its time is not over */
  readonly leads: boolean;
}

/** What the database knows, read in one snapshot. Times are Unix seconds. */
export interface Facts {
  readonly at: number;
  readonly timezone: string;
  /** false where the source has no gateway ids: its SMS are logged and not judged */
  readonly tracks: boolean;
  readonly periods: readonly Period[];
  /** only what there is any of */
  readonly recent: readonly Recent[];
  /** likewise */
  readonly open: readonly OpenCount[];
  /** when the last delivery of a type was, by the gateway's date; only types that have one */
  readonly delivered: Readonly<Partial<Record<SmsType, number>>>;
  readonly due: number;
  /** of these, SMS that were past their life when they came into the log: they are asked for slowly */
  readonly history_due: number;
  /** hours that views take as they were stored, since too many wait to be counted */
  readonly behind: number;
  /** bytes with indexes */
  readonly tables: Readonly<Record<(typeof TABLES)[number], number>>;
  /** SMS that ever entered the log; never less than before in one database. Only types that have any */
  readonly entered: Readonly<Partial<Record<SmsType, number>>>;
  /** likewise */
  readonly overdue: readonly Overdue[];
  readonly checkpoint: number | null;
  /** why a reconcile is due; null: none is */
  readonly reconcile: string | null;
  /** `teardown` was run */
  readonly removed: boolean;
  readonly leader: Leader | null;
  readonly slot: Slot | null;
}

/** SQL for the SMS that ever entered the log, by type: those that are counted, and those that are noted and not counted yet. It never becomes less. */
const ENTERED = `
  select type, sum(sms)::int8 as sms
    from (select type, sms from smslogd.sms_entered
          union all select type, entered from smslogd.changed_hour where entered > 0) s
   group by type`;

/**
 * What entered the log is counted from 0 in another database than before: one that was restored may be older, and what counts back is a reset to
 * Prometheus, which takes the whole for an increase. It is another one by its cluster, its timeline (restored to a moment, promoted), its own
 * oid or that of a table (restored from a dump).
 */
export async function countInThisDatabase(sql: Sql, limitMs: number): Promise<void> {
  const limit = `set local statement_timeout = ${Math.round(limitMs)};`;
  const here = `
    select concat_ws('/', (select system_identifier from pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
                     (select oid from pg_database where datname = current_database()), 'smslogd.settings'::regclass::oid) as here`;
  const { moved } = await lastRow<{ moved: boolean }>(
    sql,
    `${limit} select not pg_is_in_recovery() and counted_in is distinct from (${here}) as moved from smslogd.settings`,
  );
  if (!moved) return;
  await lastRow(
    sql,
    `${limit} select pg_advisory_xact_lock(${LOCK});
     with former as materialized (
       select counted_in from smslogd.settings
     ), moved as (
       update smslogd.settings set counted_in = here from (${here}) h where counted_in is distinct from here returning here
     ), reset as (
       insert into smslogd.sms_entered as e select type, -sms from (${ENTERED}) n
        where exists (select from moved) and (select counted_in from former) is not null
       on conflict (type) do update set sms = e.sms + excluded.sms
     )
     select count(*) from moved`,
  );
}

/** As it comes from the database; `period` now: all that is open, and what was counted beside it. */
interface ByType extends Omit<Period, 'period' | Lowercase<Status>> {
  readonly period: Period['period'] | 'now';
  /** of `now` alone */
  readonly last_delivered_at?: number | null;
  /** `oldest` in Unix seconds */
  readonly statuses: Partial<
    Record<Status | 'untracked', { readonly sms: number; readonly oldest: number | null }>
  > | null;
}

interface Read extends Omit<Facts, 'periods' | 'open' | 'delivered'> {
  readonly channel: readonly ByType[];
}

/** Reads all facts in one statement, hence one snapshot; PostgreSQL gives it up after `limitMs` milliseconds. */
export async function readFacts(sql: Sql, slotName: string, limitMs: number): Promise<Facts> {
  const slot = quoteLiteral(slotName);
  const { read } = await lastRow<{ read: Read }>(
    sql,
    `set local statement_timeout = ${Math.round(limitMs)};
     select json_build_object(
       'at', date_part('epoch', smslogd.clock()),
       'timezone', (select report_timezone from smslogd.settings),
       'tracks', (select source_tracks_gateway from smslogd.settings),
       'recent', (select coalesce(json_agg(r), '[]')
                    from (select type, outcome, sum(n)::int8 as sms
                            from smslogd.moment m
                           cross join smslogd.count_sms(smslogd.clock() - interval '12 minutes', smslogd.clock() - interval '2 minutes', smslogd.clock()) c
                           cross join lateral smslogd.status_groups(c.type, c.status, c.sms, m.tracks) k
                           cross join lateral (values
                             ('on_time', c.on_time),
                             (case when k.delivered > 0 then 'late' when k.untracked > 0 then 'untracked' when k.open > 0 then 'waiting'
                                   else 'undelivered' end, c.sms - c.on_time)) o (outcome, n)
                           where n > 0 group by type, outcome) r),
       'channel', (select json_agg(to_jsonb(p) - '{place,last_delivered_at}'::text[] || jsonb_build_object('oldest_open_age', date_part('epoch', p.oldest_open_age))
                              || case when p.period = 'now' then jsonb_build_object(
                                   'last_delivered_at', (select date_part('epoch', greatest(p.last_delivered_at, max(l.last_changed_at)))
                                                           from smslogd.last_stored l where l.type = p.type and l.status = 'Delivered')) else '{}' end)
                     from smslogd.today_by_type p),
       'due', (select count(*) from smslogd.sms_poll where lane in (0, 1, 2) and due_at <= now() and leased_until <= now()),
       'history_due', (select count(*) from smslogd.sms_poll where lane = 2 and due_at <= now() and leased_until <= now()),
       'behind', (select hours from verification.sms_behind),
       'tables', json_build_object(${TABLES.map((name) => `'${name}', pg_total_relation_size('${name === 'sms_log' ? 'verification' : 'smslogd'}.${name}')`).join(', ')}),
       'entered', (select coalesce(json_object_agg(type, sms), '{}') from (${ENTERED}) e),
       'overdue', (select coalesce(json_agg(o), '[]')
                     from (select l.type, date_part('epoch', smslogd.clock() - min(p.sent_at)) as age
                             from smslogd.sms_poll p join verification.sms_log l using (id)
                            where p.lane < 2 and p.deadline_at < smslogd.clock() group by l.type) o),
       'checkpoint', (select date_part('epoch', updated_at) from smslogd.checkpoint where slot_name = ${slot} and lsn is not null),
       'reconcile', (select reconcile_due from smslogd.checkpoint where slot_name = ${slot}),
       'removed', coalesce((select removed_at is not null from smslogd.checkpoint where slot_name = ${slot}), false),
       'leader', (select json_build_object('holder', holder, 'term', term, 'mirrors', mirrors, 'streaming', streaming,
                         'renewed_age', date_part('epoch', clock_timestamp() - renewed_at),
                         'leads', holder is not null and expires_at > clock_timestamp())
                    from smslogd.leader where slot_name = ${slot}),
       'slot', (select json_build_object('active', active, 'wal_status', wal_status, 'safe', safe_wal_size,
                         'retained', case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) end,
                         'behind', case when pg_is_in_recovery() then null else pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) end)
                  from pg_replication_slots where slot_name = ${slot} and database = current_database())
     ) as read`,
  );
  const { channel, ...facts } = read;
  const now = channel.filter(({ period }) => period === 'now');
  return {
    ...facts,
    periods: channel.flatMap(({ period, statuses, ...row }) =>
      period === 'now' ? [] : [{ ...row, period, ...countsOf(statuses) }],
    ),
    open: now.flatMap(({ type, statuses }) =>
      OPEN_STATUSES.flatMap((status) => {
        const counted = statuses?.[status];
        if (counted === undefined) return [];
        return [
          {
            type,
            status,
            sms: counted.sms,
            oldest_age: counted.oldest === null ? 0 : Math.max(0, Math.floor(facts.at - counted.oldest)),
          },
        ];
      }),
    ),
    delivered: Object.fromEntries(
      now.flatMap(({ type, last_delivered_at: at }) => (at === null || at === undefined ? [] : [[type, at]])),
    ),
  };
}

const countsOf = (statuses: ByType['statuses']) =>
  Object.fromEntries(STATUSES.map((status) => [status.toLowerCase(), statuses?.[status]?.sms ?? 0])) as StatusCounts;

/** What the queue tells of the gateway: how the last requests for open SMS ended, and when an answer last brought news (Unix seconds). */
export interface Asked {
  readonly results: Readonly<Partial<Record<PollResult, number>>>;
  readonly news_at: number | null;
}

/** Reads it; the whole queue, hence not for each scrape. PostgreSQL gives it up after `limitMs` milliseconds. */
export async function readAsked(sql: Sql, limitMs: number): Promise<Asked> {
  return await lastRow<Asked>(
    sql,
    `set local statement_timeout = ${Math.round(limitMs)};
     select (select coalesce(json_object_agg(last_result, n), '{}')
               from (select last_result, count(*) as n from smslogd.sms_poll where attempt > 0 and last_result is not null group by 1) r) as results,
            date_part('epoch', (select max(last_answered_at) from verification.sms_last_seen)) as news_at`,
  );
}

/** The last `hours` hours, this one too, as verification.sms_delivery_hourly has them; PostgreSQL gives it up after `limitMs` milliseconds. */
export async function readHours(sql: Sql, hours: number, limitMs: number): Promise<readonly Hour[]> {
  const { rows } = await lastRow<{ rows: Hour[] }>(
    sql,
    `set local statement_timeout = ${Math.round(limitMs)};
     select coalesce(json_agg(h order by h.hour, h.type), '[]') as rows
       from (select date_part('epoch', n.hour) as hour, n.type, n.total, n.delivered, n.open, n.untracked,
                    smslogd.ratio(n.delivered, n.processed) as success_ratio, smslogd.ratio(n.all_on_time, n.all_due) as on_time_ratio,
                    n.le_2m, n.m2_5, n.m5_30, n.gt_30m, smslogd.percentile(n.buckets, 0.5) as p50, smslogd.percentile(n.buckets, 0.95) as p95, n.due, n.on_time
               from (select h.hour, h.type, smslogd.total(h.sms) as total, smslogd.total(k.processed) as processed, smslogd.total(k.delivered) as delivered,
                            smslogd.total(k.open) as open, smslogd.total(k.untracked) as untracked,
                            smslogd.total(h.due) as all_due, smslogd.total(h.on_time) as all_on_time,
                            smslogd.total(h.due) filter (where k.untracked = 0) as due,
                            smslogd.total(h.on_time) filter (where k.untracked = 0) as on_time,
                            smslogd.total(h.le_2m) as le_2m, smslogd.total(h.m2_5) as m2_5, smslogd.total(h.m5_30) as m5_30, smslogd.total(h.gt_30m) as gt_30m,
                            max(h.buckets) as buckets
                       from smslogd.moment m
                      cross join smslogd.hour_counts h
                      cross join lateral smslogd.status_groups(h.type, h.status, h.sms, m.tracks) k
                      where h.hour > smslogd.clock() - interval '${hours} hours' and isfinite(h.hour)
                      group by h.hour, h.type) n) h`,
  );
  return rows;
}
