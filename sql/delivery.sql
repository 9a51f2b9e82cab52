-- Delivery: today, by hour, by day, by status, and against the week before.
--
-- Percentiles stand in a subquery with offset 0: so they are computed once for each row, and without a function scan, which would take twice as long as they do.
create or replace view verification.sms_today_vs_yesterday as
with moment as materialized (
  select s.*, date_trunc('day', s.at at time zone s.zone) as today
    from (select smslogd.clock() as at, (select report_timezone from smslogd.settings) as zone,
                 (select source_tracks_gateway from smslogd.settings) as tracks,
                 case when (select quarters from smslogd.settings) then interval '15 minutes' else interval '1 hour' end as step) s
), period as not materialized (
  select 1 as place, 'today' as period, today at time zone zone as lo, (today + interval '1 day') at time zone zone as hi from moment
  union all
  select 2, 'yesterday_same_time', (today - interval '1 day') at time zone zone,
         least((at at time zone zone - interval '1 day') at time zone zone, today at time zone zone) from moment
  union all
  select 3, 'yesterday', (today - interval '1 day') at time zone zone, today at time zone zone from moment
), whole as not materialized (
  -- up to `past` the counters have whole hours, or quarters of them: every period begins with one
  select p.*, date_bin((select step from moment), p.hi, '2000-01-01 00:00+00') as past from period p
), hours as materialized (
  select h.*, h.hour + h.quarter * interval '15 minutes' as start from smslogd.hour_counts h
   where h.hour >= (select smslogd.hour_of((today - interval '1 day') at time zone zone) from moment)
     and h.hour < (select (today + interval '1 day') at time zone zone from moment)
), counted as not materialized (
  select w.place, w.period, h.type, h.status, h.sms, h.due, h.on_time, h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.oldest
    from whole w join hours h on h.start >= w.lo and h.start < w.past
  union all
  -- the rest, where a period ends within one
  select w.place, w.period, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.oldest
    from whole w cross join lateral smslogd.count_sms(greatest(w.lo, w.past), w.hi, smslogd.clock()) c
   where greatest(w.lo, w.past) < w.hi
  union all
  select p.place, p.period, t.type, 'Delivered', 0, 0, 0, 0, 0, 0, 0, null
    from period p cross join unnest('{verification,medication_request,text,2FA}'::text[]) as t (type)
)
select c.period, c.type, sum(c.sms)::int8 as total, sum(k.finished)::int8 as finished, sum(k.delivered)::int8 as delivered,
       sum(k.finished - k.delivered)::int8 as undelivered, smslogd.ratio(sum(k.delivered), sum(k.finished)) as success_ratio,
       sum(c.le_2m)::int8 as le_2m, sum(c.m2_5)::int8 as m2_5, sum(c.m5_30)::int8 as m5_30, sum(c.gt_30m)::int8 as gt_30m,
       sum(k.open)::int8 as open, smslogd.clock() - min(c.oldest) filter (where k.open > 0) as oldest_open_age,
       smslogd.ratio(sum(k.known), sum(c.sms)) as known_ratio, smslogd.ratio(sum(c.on_time), sum(c.due)) as on_time_ratio,
       sum(k.untracked)::int8 as untracked, c.period <> 'today' and sum(k.open) = 0 as settled,
       coalesce(sum(c.sms) filter (where k.status = 'Accepted'), 0)::int8 as accepted,
       coalesce(sum(c.sms) filter (where k.status = 'Enroute'), 0)::int8 as enroute,
       coalesce(sum(c.sms) filter (where k.status = 'Pending'), 0)::int8 as pending,
       coalesce(sum(c.sms) filter (where k.status = 'Unknown'), 0)::int8 as unknown,
       coalesce(sum(c.sms) filter (where k.status = 'Expired'), 0)::int8 as expired,
       coalesce(sum(c.sms) filter (where k.status = 'Deleted'), 0)::int8 as deleted,
       coalesce(sum(c.sms) filter (where k.status = 'Undeliverable'), 0)::int8 as undeliverable,
       coalesce(sum(c.sms) filter (where k.status = 'Rejected'), 0)::int8 as rejected,
       coalesce(sum(c.sms) filter (where k.status = 'Unaccepted'), 0)::int8 as unaccepted,
       coalesce(sum(c.sms) filter (where k.status = 'Terminated'), 0)::int8 as terminated,
       sum(k.waiting)::int8 as waiting
  from counted c
 cross join moment m
 cross join lateral smslogd.kinds(c.type, c.status, c.sms, m.tracks) k
 group by c.place, c.period, c.type
 order by c.place, array_position('{verification,medication_request,text,2FA}'::text[], c.type);
comment on view verification.sms_today_vs_yesterday is 'Start here: the channel today, yesterday up to the same time of day, and all of yesterday, by type; days of inserted_at in REPORT_TIMEZONE. The fates are those known now, for past periods too';

create or replace view verification.sms_delivery_hourly as
select d.hour, d.hour at time zone (select report_timezone from smslogd.settings) as local_hour, d.type,
       d.total, d.finished, d.delivered, d.finished - d.delivered as undelivered, smslogd.ratio(d.delivered, d.finished) as success_ratio,
       d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.open, smslogd.ratio(d.known, d.total) as known_ratio, smslogd.ratio(d.on_time, d.due) as on_time_ratio,
       (p.these).p50, (p.these).p95, (p.these).p99, d.hour + interval '1 hour' <= smslogd.clock() and d.open = 0 as settled, d.untracked, d.waiting
  from (select h.hour, h.type, smslogd.total(h.sms) as total, smslogd.total(h.finished) as finished, smslogd.total(h.delivered) as delivered,
               smslogd.total(h.le_2m) as le_2m, smslogd.total(h.m2_5) as m2_5, smslogd.total(h.m5_30) as m5_30, smslogd.total(h.gt_30m) as gt_30m,
               smslogd.total(h.open) as open, smslogd.total(h.known) as known, smslogd.total(h.due) as due, smslogd.total(h.on_time) as on_time,
               smslogd.total(h.untracked) as untracked, smslogd.total(h.waiting) as waiting,
               smslogd.sum_buckets(h.buckets) filter (where h.buckets <> '{}') as buckets
          from smslogd.sms_hourly_now h
         where isfinite(h.hour)
         group by h.hour, h.type) d
 cross join lateral (select smslogd.percentiles(d.buckets) as these offset 0) p
 order by d.hour, d.type;
comment on view verification.sms_delivery_hourly is 'Delivery by hour of inserted_at and type; an hour without SMS has no row';

create or replace view verification.sms_delivery_daily as
select d.day, d.type,
       d.total, d.finished, d.delivered, d.finished - d.delivered as undelivered, smslogd.ratio(d.delivered, d.finished) as success_ratio,
       d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.open, smslogd.ratio(d.known, d.total) as known_ratio, smslogd.ratio(d.on_time, d.due) as on_time_ratio,
       coalesce(d.p50, (p.these).p50) as p50, coalesce(d.p95, (p.these).p95) as p95, coalesce(d.p99, (p.these).p99) as p99,
       d.day < (select (smslogd.clock() at time zone report_timezone)::date from smslogd.settings) and d.open = 0 as settled, d.untracked, d.waiting
  from (select h.day, h.type,
               smslogd.total(h.sms) as total, smslogd.total(h.finished) as finished, smslogd.total(h.delivered) as delivered,
               smslogd.total(h.le_2m) as le_2m, smslogd.total(h.m2_5) as m2_5, smslogd.total(h.m5_30) as m5_30, smslogd.total(h.gt_30m) as gt_30m,
               smslogd.total(h.open) as open, smslogd.total(h.known) as known, smslogd.total(h.due) as due, smslogd.total(h.on_time) as on_time,
               smslogd.total(h.untracked) as untracked, smslogd.total(h.waiting) as waiting,
               smslogd.sum_buckets(h.buckets) filter (where h.buckets <> '{}') as buckets,
               max(h.p50) as p50, max(h.p95) as p95, max(h.p99) as p99
          from smslogd.sms_daily_now h
         where isfinite(h.day)
         group by h.day, h.type) d
 -- a day that is stored has its own
 cross join lateral (select smslogd.percentiles(case when d.p50 is null then d.buckets end) as these offset 0) p
 order by d.day, d.type;
comment on view verification.sms_delivery_daily is 'Delivery by day of inserted_at in REPORT_TIMEZONE and type, as far back as the counters go, also for SMS that retention has removed; a day without SMS has no row';

-- Percentiles cannot be put together from those of days; the buckets can.
create or replace function verification.sms_delivery_between(first date, last date)
returns table (type text, total bigint, finished bigint, delivered bigint, undelivered bigint, success_ratio float8, le_2m bigint, m2_5 bigint, m5_30 bigint,
               gt_30m bigint, open bigint, known_ratio float8, on_time_ratio float8, p50 float8, p95 float8, p99 float8, untracked bigint, waiting bigint)
language sql stable security definer rows 4 set search_path = pg_catalog, pg_temp set jit = off as $$
  select d.type, d.total, d.finished, d.delivered, d.finished - d.delivered, smslogd.ratio(d.delivered, d.finished), d.le_2m, d.m2_5, d.m5_30, d.gt_30m,
         d.open, smslogd.ratio(d.known, d.total), smslogd.ratio(d.on_time, d.due), (p.these).p50, (p.these).p95, (p.these).p99, d.untracked, d.waiting
    from (select h.type, smslogd.total(h.sms) as total, smslogd.total(h.finished) as finished, smslogd.total(h.delivered) as delivered, smslogd.total(h.le_2m) as le_2m,
                 smslogd.total(h.m2_5) as m2_5, smslogd.total(h.m5_30) as m5_30, smslogd.total(h.gt_30m) as gt_30m, smslogd.total(h.open) as open, smslogd.total(h.known) as known,
                 smslogd.total(h.due) as due, smslogd.total(h.on_time) as on_time, smslogd.total(h.untracked) as untracked, smslogd.total(h.waiting) as waiting,
                 smslogd.sum_buckets(h.buckets) filter (where h.buckets <> '{}') as buckets
            from smslogd.sms_daily_now h
           where isfinite(h.day) and h.day between $1 and $2
           group by h.type) d
   cross join lateral (select smslogd.percentiles(d.buckets) as these offset 0) p
$$;
comment on function verification.sms_delivery_between(date, date) is 'Delivery from the first to the last day in REPORT_TIMEZONE, by type: the columns of sms_delivery_daily, percentiles from merged buckets and approximate';
revoke all on function verification.sms_delivery_between(date, date) from public;

create or replace view verification.sms_status_daily as
select h.day, h.type, h.status, sum(h.sms)::int8 as sms, smslogd.ratio(sum(h.sms), sum(sum(h.sms)) over (partition by h.day, h.type)) as share
  from smslogd.sms_daily_now h
 where isfinite(h.day)
 group by h.day, h.type, h.status
 order by h.day, h.type, h.status;
comment on view verification.sms_status_daily is 'What became of the SMS of each day and type: how many have which status now, and their share';

create or replace view verification.sms_delivery_drop as
with hours as materialized (
  select h.hour, date_trunc('hour', h.hour at time zone (select report_timezone from smslogd.settings)) as clock_hour, h.type, sum(h.sms) as total,
         sum(h.finished) as finished, sum(h.delivered) as delivered, sum(h.due) as due, sum(h.on_time) as on_time
    from smslogd.sms_hourly_now h
   where h.hour >= smslogd.hour_of(smslogd.clock()) - interval '9 days' and h.hour <= smslogd.clock()
   group by h.hour, h.type
), span as (
  select n.hour, n.hour at time zone (select report_timezone from smslogd.settings) as local_hour, t.type
    from generate_series(smslogd.hour_of(smslogd.clock()) - interval '24 hours', smslogd.clock(), interval '1 hour') as n (hour)
   cross join unnest('{verification,medication_request,text,2FA}'::text[]) as t (type)
), usual as (
  select s.hour, s.type, (sum(w.total) / 7)::float8 as total, smslogd.ratio(sum(w.on_time), sum(w.due)) as on_time_ratio,
         smslogd.ratio(sum(w.delivered), sum(w.finished)) as success_ratio
    from span s cross join generate_series(1, 7) as d
    join hours w on w.type = s.type and w.clock_hour = date_trunc('hour', s.local_hour) - d * interval '1 day' and w.hour < s.hour
   group by s.hour, s.type
)
select s.hour, s.local_hour, s.type, coalesce(h.total, 0)::int8 as total, coalesce(u.total, 0) as usual_total,
       smslogd.ratio(h.on_time, h.due) as on_time_ratio, u.on_time_ratio as usual_on_time_ratio,
       u.on_time_ratio - smslogd.ratio(h.on_time, h.due) as on_time_drop,
       smslogd.ratio(h.delivered, h.finished) as success_ratio, u.success_ratio as usual_success_ratio,
       u.success_ratio - smslogd.ratio(h.delivered, h.finished) as success_drop
  from span s
  left join hours h on h.hour = s.hour and h.type = s.type
  left join usual u on u.hour = s.hour and u.type = s.type
 where h.total > 0 or u.total > 0
 order by s.hour, s.type;
comment on view verification.sms_delivery_drop is 'The last 24 hours and the current one, each against the same hour of the day in the 7 days before; a type that has no SMS in all of these has no row';
