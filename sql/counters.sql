-- What the views of the figures are made of. Views are only ever replaced: new columns come last, so that what others built on them stays.
--
-- All figures of delivery come from smslogd.hour_counts: the stored counters, and for the hours that changed since they were stored (and for the
-- youngest, whose rows are not yet 2 minutes old) a count of the log in the same snapshot. So they equal a plain count over the log at any
-- moment, also while no daemon runs; and they read few rows of the log while one does. Conditions on `hour` reach the counts. Days come
-- from smslogd.day_counts in the same way.
--
-- Functions that readers run through views name nothing else of this schema: readers may not look things up here.

-- ratios over nothing are null
create or replace function smslogd.ratio(part numeric, whole numeric) returns float8 language sql immutable parallel safe
as $$ select (part / nullif(whole, 0))::float8 $$;

-- The one rule of what a status counts as. A row without a status and without a gateway id waits for that id and is open, as Accepted, wherever it is
-- to be judged in the end; it is untracked only where its source has no gateway ids at all.
create or replace function smslogd.kinds(type text, stored text, sms bigint, source_tracks_gateway boolean)
returns table (status text, finished bigint, delivered bigint, open bigint, known bigint, untracked bigint, waiting bigint)
language sql immutable rows 1 parallel safe as $$
  select s.status,
         case when s.status not in ('Accepted', 'Enroute', 'untracked') then $3 else 0 end,
         case when s.status = 'Delivered' then $3 else 0 end,
         case when s.status in ('Accepted', 'Enroute', 'Pending', 'Unknown') then $3 else 0 end,
         case when s.status not in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'untracked') then $3 else 0 end,
         case when s.status = 'untracked' then $3 else 0 end,
         case when $2 = 'none' and s.status = 'Accepted' then $3 else 0 end
    from (select case when $2 <> 'none' then $2 when $1 <> 'verification' or $4 then 'Accepted' else 'untracked' end as status) s
$$;

create or replace view smslogd.stale_hour as
select hour from (
  select hour from smslogd.changed_hour
  union select smslogd.hour_of(smslogd.clock())
  union select smslogd.hour_of(smslogd.clock() - interval '2 minutes')
) noted
where hour >= (select frozen_before from smslogd.settings);
comment on view smslogd.stale_hour is 'Hours whose stored counters may not be taken now: they changed, or hold rows that are not 2 minutes old';

create or replace view smslogd.hour_counts as
select h.hour, h.quarter, h.type, h.status, h.sms,
       case when h.hour < smslogd.clock() then h.sms else 0 end as due,
       case when h.hour < smslogd.clock() then h.le_2m else 0 end as on_time,
       h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.newest, h.last_changed_at, h.last_answered_at
  from smslogd.sms_hourly h
 where h.hour not in (select hour from smslogd.stale_hour)
union all
select s.hour, c.quarter, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, c.oldest, c.newest,
       c.last_changed_at, c.last_answered_at
  from smslogd.stale_hour s
 cross join lateral smslogd.count_sms(smslogd.hour_start(s.hour), smslogd.hour_end(s.hour), smslogd.clock()) c;
comment on view smslogd.hour_counts is 'The hourly counters, right at this moment: stored, or counted now where the stored ones are stale';

create or replace view smslogd.sms_hourly_now as
select h.hour, h.quarter, h.type, k.status, h.sms, h.due, h.on_time, h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.newest,
       h.last_changed_at, h.last_answered_at, k.finished, k.delivered, k.open, k.known, k.untracked, k.waiting
  from smslogd.hour_counts h
 cross join (select source_tracks_gateway from smslogd.settings) s
 cross join lateral smslogd.kinds(h.type, h.status, h.sms, s.source_tracks_gateway) k;
comment on view smslogd.sms_hourly_now is 'smslogd.hour_counts with what each status counts as';

-- Days whose stored counters may not be taken now: those of stale hours, each with the day that an hour (or a quarter of it) belongs to.
create or replace view smslogd.stale_day as
select distinct ((h.hour + q * interval '15 minutes') at time zone (select report_timezone from smslogd.settings))::date as day, h.hour
  from smslogd.stale_hour h cross join generate_series(0, 3) as q;
comment on view smslogd.stale_day is 'The hours of smslogd.stale_hour with the days in REPORT_TIMEZONE that they touch';

-- A day is taken from sms_daily, hour by hour where one of its hours is stale (or only some of them are frozen), and stale hours are counted. Conditions on
-- `day` reach each of the three.
create or replace view smslogd.day_counts as
with zone as materialized (
  select report_timezone as zone, frozen_before, (frozen_before at time zone report_timezone)::date as frozen_day,
         (smslogd.clock() at time zone report_timezone)::date as today
    from smslogd.settings
), stale as materialized (
  select day, hour from smslogd.stale_day
), split as materialized (
  select day from stale union select frozen_day from zone
)
select d.day, d.type, d.status, d.sms, case when d.day <= (select today from zone) then d.sms else 0 end as due,
       case when d.day <= (select today from zone) then d.le_2m else 0 end as on_time, d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.buckets,
       d.p50, d.p95, d.p99, d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.day < (select frozen_day from zone) as frozen
  from smslogd.sms_daily d
 where d.day not in (select day from split)
union all
select s.day, h.type, h.status, h.sms, case when h.hour < smslogd.clock() then h.sms else 0 end,
       case when h.hour < smslogd.clock() then h.le_2m else 0 end, h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets,
       null, null, null, h.oldest, h.newest, h.last_changed_at, h.last_answered_at, h.hour < (select frozen_before from zone)
  from split s
 cross join lateral (
   -- a day of any zone lies within these; offset 0: looked up by the index for each day, never joined as a whole
   select * from smslogd.sms_hourly i
    where i.hour >= (s.day - 1)::timestamp at time zone 'UTC' and i.hour <= (s.day + 2)::timestamp at time zone 'UTC'
   offset 0
 ) h
 where ((h.hour + h.quarter * interval '15 minutes') at time zone (select zone from zone))::date = s.day
   and h.hour not in (select hour from stale)
union all
select s.day, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets,
       null, null, null, c.oldest, c.newest, c.last_changed_at, c.last_answered_at, false
  from stale s
 cross join lateral smslogd.count_sms(smslogd.hour_start(s.hour), smslogd.hour_end(s.hour), smslogd.clock()) c
 where ((c.hour + c.quarter * interval '15 minutes') at time zone (select zone from zone))::date = s.day;
comment on view smslogd.day_counts is 'The counters by day, right at this moment; several rows of one day, type and status are to be summed, and have no percentiles. frozen: retention has removed the rows';

create or replace view smslogd.sms_daily_now as
select d.day, d.type, k.status, d.sms, d.due, d.on_time, d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.buckets, d.p50, d.p95, d.p99,
       d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.frozen, k.finished, k.delivered, k.open, k.known, k.untracked, k.waiting
  from smslogd.day_counts d
 cross join (select source_tracks_gateway from smslogd.settings) s
 cross join lateral smslogd.kinds(d.type, d.status, d.sms, s.source_tracks_gateway) k;
comment on view smslogd.sms_daily_now is 'smslogd.day_counts with what each status counts as';

create or replace view smslogd.sms_by_status as
select type, status, sum(sms)::int8 as sms, min(oldest) as oldest, max(last_changed_at) as last_changed_at,
       max(newest) as newest, max(last_answered_at) as last_answered_at, sum(waiting)::int8 as waiting
  from (select d.type, d.sms, d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.waiting,
               -- what retention removed while it was open is waited for no longer
               case when d.frozen and d.open > 0 then 'untracked' else d.status end as status
          from smslogd.sms_daily_now d) d
 group by type, status;
comment on view smslogd.sms_by_status is 'All SMS that ever were in the log, by type and status; SMS that retention removed while they were open are untracked';
