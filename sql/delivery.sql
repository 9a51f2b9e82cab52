-- Delivery: today, by hour, by day, by week, by status, and against the days before.
create or replace view verification.sms_today_vs_yesterday as
select period, type, total, processed, delivered, undelivered, success_ratio, on_time_ratio, known_ratio, le_2m, m2_5, m5_30, gt_30m, open, oldest_open_age, settled
  from smslogd.today_by_type where period <> 'now' order by place, array_position(smslogd.types(), type);
comment on view verification.sms_today_vs_yesterday is 'Start here: the channel today, yesterday up to the same time of day, and all of yesterday, by type; days of inserted_at in REPORT_TIMEZONE. The statuses are those of now, for past periods too';

-- Few and short sums, sorted before what follows from them is computed: those of a year nearly fit into the usual work_mem.
create or replace view verification.sms_delivery_hourly as
select d.hour, d.hour at time zone m.zone as local_hour, d.type,
       d.total, d.processed, d.delivered, d.processed - d.delivered as undelivered, smslogd.ratio(d.delivered, d.processed) as success_ratio,
       smslogd.ratio(d.on_time, d.due) as on_time_ratio, smslogd.ratio(d.total - d.open - d.untracked, d.total) as known_ratio, d.le_2m, d.m2_5, d.m5_30, d.gt_30m,
       d.p50_seconds, d.p95_seconds, d.open, d.untracked, d.hour + interval '1 hour' <= m.at and d.open = 0 as settled
  from smslogd.moment m
 cross join (
   select h.hour, h.type, smslogd.total(h.sms) as total, smslogd.total(k.processed) as processed, smslogd.total(k.delivered) as delivered,
          smslogd.total(h.due) as due, smslogd.total(h.on_time) as on_time, smslogd.total(k.open) as open, smslogd.total(k.untracked) as untracked,
          smslogd.total(h.le_2m) as le_2m, smslogd.total(h.m2_5) as m2_5, smslogd.total(h.m5_30) as m5_30, smslogd.total(h.gt_30m) as gt_30m,
          -- one row has buckets, that of Delivered
          max(smslogd.percentile(h.buckets, 0.5)) as p50_seconds, max(smslogd.percentile(h.buckets, 0.95)) as p95_seconds
     from smslogd.hour_counts h
    cross join lateral smslogd.status_groups(h.status, h.sms) k
    where isfinite(h.hour)
    group by h.hour, h.type
    order by h.hour, h.type) d;
comment on view verification.sms_delivery_hourly is 'Delivery by hour of inserted_at and type; an hour without SMS has no row';

create or replace view verification.sms_delivery_daily as
select d.day, d.type,
       d.total, d.processed, d.delivered, d.processed - d.delivered as undelivered, smslogd.ratio(d.delivered, d.processed) as success_ratio,
       smslogd.ratio(d.on_time, d.due) as on_time_ratio, smslogd.ratio(d.final, d.total) as known_ratio, d.le_2m, d.m2_5, d.m5_30, d.gt_30m,
       smslogd.percentile(d.buckets, 0.5) as p50_seconds, smslogd.percentile(d.buckets, 0.95) as p95_seconds, smslogd.percentile(d.buckets, 0.99) as p99_seconds,
       d.open, d.untracked, d.waiting, d.day < (select today from smslogd.moment) and d.open = 0 as settled
  from smslogd.delivery_by_day d
 order by d.day, d.type;
comment on view verification.sms_delivery_daily is 'Delivery by day of inserted_at in REPORT_TIMEZONE and type, as far back as the counters go, also for SMS that retention has removed; a day without SMS has no row';

-- Percentiles cannot be put together from those of days; the buckets can.
create or replace function verification.sms_delivery_between(first date, last date)
returns table (type text, total bigint, processed bigint, delivered bigint, undelivered bigint, success_ratio numeric, on_time_ratio numeric, known_ratio numeric,
               le_2m bigint, m2_5 bigint, m5_30 bigint, gt_30m bigint, p50_seconds float8, p95_seconds float8, p99_seconds float8, open bigint, untracked bigint,
               waiting bigint)
language sql stable security definer rows 4 set search_path = pg_catalog, pg_temp set jit = off as $$
  select d.type, d.total, d.processed, d.delivered, d.processed - d.delivered, smslogd.ratio(d.delivered, d.processed), smslogd.ratio(d.on_time, d.due),
         smslogd.ratio(d.final, d.total), d.le_2m, d.m2_5, d.m5_30, d.gt_30m, smslogd.percentile(d.buckets, 0.5), smslogd.percentile(d.buckets, 0.95),
         smslogd.percentile(d.buckets, 0.99), d.open, d.untracked, d.waiting
    from (select d.type, smslogd.total(d.total) as total, smslogd.total(d.processed) as processed, smslogd.total(d.delivered) as delivered, smslogd.total(d.due) as due,
                 smslogd.total(d.on_time) as on_time, smslogd.total(d.final) as final, smslogd.total(d.open) as open, smslogd.total(d.untracked) as untracked,
                 smslogd.total(d.waiting) as waiting, smslogd.total(d.le_2m) as le_2m, smslogd.total(d.m2_5) as m2_5, smslogd.total(d.m5_30) as m5_30,
                 smslogd.total(d.gt_30m) as gt_30m, smslogd.sum_buckets(d.buckets) as buckets
            from smslogd.delivery_by_day d where d.day between $1 and $2 group by d.type) d
$$;
comment on function verification.sms_delivery_between(date, date) is 'Delivery from the first to the last day in REPORT_TIMEZONE, by type: the columns of sms_delivery_daily, percentiles from merged buckets and approximate';
revoke all on function verification.sms_delivery_between(date, date) from public;

create or replace view verification.sms_status_daily as
select d.day, d.type, d.status, d.sms, smslogd.ratio(d.sms, sum(d.sms) over (partition by d.day, d.type)) as share
  from (select c.day, c.type, c.status, smslogd.total(c.sms) as sms from smslogd.day_counts c group by c.day, c.type, c.status) d
 order by d.day, d.type, d.status;
comment on view verification.sms_status_daily is 'What became of the SMS of each day and type: how many have which status now, and their share';

create or replace view verification.sms_week_against_week as
select p.period, t.type, w.total, w.processed, w.delivered, w.processed - w.delivered as undelivered, smslogd.ratio(w.delivered, w.processed) as success_ratio,
       smslogd.ratio(w.on_time, w.due) as on_time_ratio, smslogd.ratio(w.final, w.total) as known_ratio,
       w.le_2m, w.m2_5, w.m5_30, w.gt_30m, smslogd.percentile(w.buckets, 0.5) as p50_seconds, smslogd.percentile(w.buckets, 0.95) as p95_seconds, w.open
  from unnest('{this_week,last_week_same_time,last_week}'::text[]) with ordinality as p (period, place)
 cross join unnest(smslogd.types()) with ordinality as t (type, place)
  left join (
    select c.period, c.type, smslogd.total(c.sms) as total, smslogd.total(k.processed) as processed, smslogd.total(k.delivered) as delivered, smslogd.total(k.open) as open,
           smslogd.total(k.final) as final, smslogd.total(c.due) as due, smslogd.total(c.on_time) as on_time, smslogd.total(c.le_2m) as le_2m,
           smslogd.total(c.m2_5) as m2_5, smslogd.total(c.m5_30) as m5_30, smslogd.total(c.gt_30m) as gt_30m, smslogd.sum_buckets(c.buckets) as buckets
      from (select m.*, date_trunc('week', m.today)::date as monday from smslogd.moment m) m
     cross join lateral smslogd.period_counts(
       '{this_week,last_week_same_time,last_week}',
       array[smslogd.day_start(m.monday, m.zone), smslogd.day_start(m.monday - 7, m.zone), smslogd.day_start(m.monday - 7, m.zone)],
       array[smslogd.day_start(m.today + 1, m.zone),
             least((m.at at time zone m.zone - interval '7 days') at time zone m.zone, smslogd.day_start(m.monday, m.zone)), smslogd.day_start(m.monday, m.zone)]) c
     cross join lateral smslogd.status_groups(c.status, c.sms) k
     group by c.period, c.type) w on w.period = p.period and w.type = t.type
 where w.total > 0
 order by t.place, p.place;
comment on view verification.sms_week_against_week is 'This week so far, last week up to the same day and time, and all of last week, by type; weeks begin on Monday in REPORT_TIMEZONE. A type or week without SMS has no row. Where RETENTION_DAYS is below 7, last week up to the same time ends with the last full hour before it, whose rows are gone from the log';

create or replace view verification.sms_delivery_drop as
with hours as materialized (
  select h.hour, date_trunc('hour', h.hour at time zone m.zone) as clock_hour, h.type, smslogd.total(h.sms) as total, smslogd.total(k.processed) as processed,
         smslogd.total(k.delivered) as delivered, smslogd.total(h.due) as due, smslogd.total(h.on_time) as on_time
    from smslogd.moment m
   cross join smslogd.hour_counts h
   cross join lateral smslogd.status_groups(h.status, h.sms) k
   where h.hour >= smslogd.hour_of(smslogd.clock()) - interval '9 days' and h.hour <= smslogd.clock()
   group by 1, 2, 3
), usual as (
  select h.hour, h.type, round(sum(w.total) / 7, 1) as total, smslogd.ratio(sum(w.on_time), sum(w.due)) as on_time_ratio,
         smslogd.ratio(sum(w.delivered), sum(w.processed)) as success_ratio
    from hours h
    join hours w on w.type = h.type and w.hour < h.hour and w.clock_hour in (
      h.clock_hour - interval '1 day', h.clock_hour - interval '2 days', h.clock_hour - interval '3 days', h.clock_hour - interval '4 days',
      h.clock_hour - interval '5 days', h.clock_hour - interval '6 days', h.clock_hour - interval '7 days')
   where h.hour >= smslogd.hour_of(smslogd.clock()) - interval '24 hours'
   group by h.hour, h.type
), compared as (
  select h.hour, h.clock_hour as local_hour, h.type, h.total, u.total as usual_total,
         smslogd.ratio(h.on_time, h.due) as on_time_ratio, u.on_time_ratio as usual_on_time_ratio, u.on_time_ratio - smslogd.ratio(h.on_time, h.due) as on_time_drop,
         smslogd.ratio(h.delivered, h.processed) as success_ratio, u.success_ratio as usual_success_ratio,
         u.success_ratio - smslogd.ratio(h.delivered, h.processed) as success_drop
    from hours h join usual u using (hour, type)
)
select c.*, round(c.total * greatest(c.on_time_drop, c.success_drop)) as sms_lost
  from compared c
 where c.on_time_drop > 0 or c.success_drop > 0
 order by sms_lost desc, greatest(c.on_time_drop, c.success_drop) desc;
comment on view verification.sms_delivery_drop is 'Hours of the last 24 and the current one that are worse than the same hour of the day in the 7 days before, the worst first: that with the most SMS late or undelivered beyond the usual';
