/** The SQL that reads figures for metrics, page and `status`. What they are made of is in sql/counters.sql and sql/delivery.sql; here it is only called. */
import type { Sql } from '../postgres/pools.ts';
import { lastRow } from '../postgres/last-row.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { TABLES, type GROUPS, type OUTCOMES, type PollResult, type SLOT_WAL_STATUSES } from '../metrics.ts';
import { OPEN_STATUSES, STATUSES, type OpenStatus, type SmsType, type Status } from '../status.ts';
import { ENTERED } from './counters.ts';

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

/**
 * The oldest SMS of a type that is past its life and still asked for, its age in seconds. At the end of its life an SMS is due, and for a minute it is just
 * being asked for. What came into the log past its life is history.
 */
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
  /** source rows that the log refuses, and that are set aside */
  readonly refused: number;
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
    `select json_build_object(
       'at', date_part('epoch', smslogd.clock()),
       'timezone', (select report_timezone from smslogd.settings),
       'tracks', (select tracked_since < 'infinity' from smslogd.settings),
       'recent', (select coalesce(json_agg(r), '[]')
                    from (select type, outcome, sum(n)::int8 as sms
                            from smslogd.count_sms(smslogd.clock() - interval '12 minutes', smslogd.clock() - interval '2 minutes', smslogd.clock()) c
                           cross join lateral smslogd.status_groups(c.status, c.sms) k
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
       'refused', (select count(*) from smslogd.sms_refused),
       'tables', json_build_object(${TABLES.map((name) => `'${name}', pg_total_relation_size('${name === 'sms_log' ? 'verification' : 'smslogd'}.${name}')`).join(', ')}),
       'entered', (select coalesce(json_object_agg(type, sms), '{}') from (${ENTERED}) e),
       'overdue', (select coalesce(json_agg(o), '[]')
                     from (select l.type, date_part('epoch', smslogd.clock() - min(p.sent_at)) as age
                             from smslogd.sms_poll p join verification.sms_log l using (id)
                            where p.lane < 2 and p.deadline_at < smslogd.clock() - interval '1 minute' group by l.type) o),
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
    limitMs,
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

/**
 * What the queue tells of the gateway: how the last requests for open SMS ended, and when an answer last brought news (Unix seconds). An answer to an SMS that
 * is due again says nothing of now: while the gateway is left alone such SMS are many, and those that met the trouble few.
 */
export interface Asked {
  readonly results: Readonly<Partial<Record<PollResult, number>>>;
  readonly news_at: number | null;
}

/** Reads it; the whole queue, hence not for each scrape. PostgreSQL gives it up after `limitMs` milliseconds. */
export async function readAsked(sql: Sql, limitMs: number): Promise<Asked> {
  return await lastRow<Asked>(
    sql,
    `select (select coalesce(json_object_agg(last_result, n), '{}')
               from (select last_result, count(*) as n from smslogd.sms_poll
                      where attempt > 0 and last_result is not null and (due_at > now() or last_result not in ('ok', 'unchanged')) group by 1) r) as results,
            date_part('epoch', (select max(last_answered_at) from verification.sms_last_seen)) as news_at`,
    limitMs,
  );
}

/** The last `hours` hours, this one too, as verification.sms_delivery_hourly has them; PostgreSQL gives it up after `limitMs` milliseconds. */
export async function readHours(sql: Sql, hours: number, limitMs: number): Promise<readonly Hour[]> {
  const { rows } = await lastRow<{ rows: Hour[] }>(
    sql,
    `select coalesce(json_agg(h order by h.hour, h.type), '[]') as rows
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
                       from smslogd.hour_counts h
                      cross join lateral smslogd.status_groups(h.status, h.sms) k
                      where h.hour > smslogd.clock() - interval '${hours} hours' and isfinite(h.hour)
                      group by h.hour, h.type) n) h`,
    limitMs,
  );
  return rows;
}
