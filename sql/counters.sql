-- What the views of the figures are made of. Views are only ever replaced: new columns come last, so that what others built on them stays.
--
-- All figures of delivery come from smslogd.hour_counts: the stored counters, and for the hours that changed since they were stored (and for the
-- youngest, whose rows are not yet 2 minutes old) a count of the log in the same snapshot. So they equal a plain count over the log at any
-- moment, also while no daemon runs; and they read few rows of the log while one does. Where very many hours changed, as after a load of old rows, only the
-- youngest are counted so, which today and yesterday are among; verification.sms_behind says how many wait for the daemon. Conditions on `hour` reach
-- the counts. Days come from smslogd.day_counts in the same way.
--
-- No plan may depend on a table's having been analyzed: a table of one row never is, and after pg_restore none. So settings are read by scalar
-- subqueries or with limit 1, which are one row whatever the statistics say, and what has many rows stands in functions that say how many, with JIT off: to
-- compile such a plan takes longer than to run it.
--
-- Functions that readers run through views name nothing else of this schema: readers may not look things up here.

-- sum() of bigint computes in numeric, which takes three times as long
create or replace aggregate smslogd.total(bigint) (sfunc = int8pl, combinefunc = int8pl, stype = bigint, initcond = '0', parallel = safe);

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

create or replace function smslogd.stale_hours() returns setof timestamptz
language sql stable security definer rows 4 set search_path = pg_catalog, pg_temp set jit = off as $$
  select hour from (
    select hour from smslogd.changed_hour
    union select smslogd.hour_of(smslogd.clock())
    union select smslogd.hour_of(smslogd.clock() - interval '2 minutes')
  ) noted
   where hour >= (select frozen_before from smslogd.settings)
   order by hour > smslogd.clock(), hour desc limit 240
$$;
comment on function smslogd.stale_hours() is 'Hours whose stored counters are not taken now: they changed, or hold rows that are not 2 minutes old. Of very many the 240 youngest, ten days: no view looks further back, but those over all times';

create or replace view verification.sms_behind as
select count(*) as hours, min(hour) as oldest_hour
  from (select distinct hour from smslogd.changed_hour
         where hour >= (select frozen_before from smslogd.settings) and hour not in (select s.hour from smslogd.stale_hours() s (hour))) noted;
comment on view verification.sms_behind is 'How many hours have changed that the views take as they were stored, since too many wait to be counted: 0 but for minutes after a load of old rows. Today and yesterday are always right';

create or replace view smslogd.hour_counts as
select h.hour, h.quarter, h.type, h.status, h.sms,
       case when h.hour < smslogd.clock() then h.sms else 0 end as due,
       case when h.hour < smslogd.clock() then h.le_2m else 0 end as on_time,
       h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.newest, h.last_changed_at, h.last_answered_at
  from smslogd.sms_hourly h
 where h.hour not in (select s.hour from smslogd.stale_hours() s (hour))
union all
select s.hour, c.quarter, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, c.oldest, c.newest,
       c.last_changed_at, c.last_answered_at
  from smslogd.stale_hours() s (hour)
 cross join lateral smslogd.count_sms(smslogd.hour_start(s.hour), smslogd.hour_end(s.hour), smslogd.clock()) c;
comment on view smslogd.hour_counts is 'The hourly counters, right at this moment: stored, or counted now where the stored ones are stale';

create or replace view smslogd.sms_hourly_now as
select h.hour, h.quarter, h.type, k.status, h.sms, h.due, h.on_time, h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.newest,
       h.last_changed_at, h.last_answered_at, k.finished, k.delivered, k.open, k.known, k.untracked, k.waiting
  from smslogd.hour_counts h
 cross join (select (select source_tracks_gateway from smslogd.settings) as tracks) s
 cross join lateral smslogd.kinds(h.type, h.status, h.sms, s.tracks) k;
comment on view smslogd.sms_hourly_now is 'smslogd.hour_counts with what each status counts as';

-- A day is taken from sms_daily, hour by hour where one of its hours is stale (or only some of them are frozen), and stale hours are counted.
create or replace function smslogd.day_counts()
returns table (day date, type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint, m5_30 bigint, gt_30m bigint,
               buckets bigint[], p50 float8, p95 float8, p99 float8, oldest timestamptz, newest timestamptz, last_changed_at timestamptz,
               last_answered_at timestamptz, frozen boolean)
language sql stable security definer rows 1000 set search_path = pg_catalog, pg_temp set jit = off as $$
  with zone as materialized (
    select report_timezone as zone, frozen_before, (frozen_before at time zone report_timezone)::date as frozen_day,
           (smslogd.clock() at time zone report_timezone)::date as today
      from smslogd.settings limit 1
  ), stale as materialized (
    select s.hour from smslogd.stale_hours() s (hour)
  ), split as materialized (
    select ((s.hour + q * interval '15 minutes') at time zone (select zone from zone))::date as day from stale s cross join generate_series(0, 3) as q
     union select frozen_day from zone
  )
  select d.day, d.type, d.status, d.sms, case when d.day <= (select today from zone) then d.sms else 0 end,
         case when d.day <= (select today from zone) then d.le_2m else 0 end, d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.buckets,
         d.p50, d.p95, d.p99, d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.day < (select frozen_day from zone)
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
  select ((c.hour + c.quarter * interval '15 minutes') at time zone (select zone from zone))::date, c.type, c.status, c.sms, c.due, c.on_time,
         c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, null, null, null, c.oldest, c.newest, c.last_changed_at, c.last_answered_at, false
    from stale s cross join lateral smslogd.count_sms(smslogd.hour_start(s.hour), smslogd.hour_end(s.hour), smslogd.clock()) c
$$;
comment on function smslogd.day_counts() is 'The counters by day, right at this moment; several rows of one day, type and status are to be summed, and have no percentiles. frozen: retention has removed the rows';

create or replace view smslogd.sms_daily_now as
select d.day, d.type, k.status, d.sms, d.due, d.on_time, d.le_2m, d.m2_5, d.m5_30, d.gt_30m, d.buckets, d.p50, d.p95, d.p99,
       d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.frozen, k.finished, k.delivered, k.open, k.known, k.untracked, k.waiting
  from smslogd.day_counts() d
 cross join (select (select source_tracks_gateway from smslogd.settings) as tracks) s
 cross join lateral smslogd.kinds(d.type, d.status, d.sms, s.tracks) k;
comment on view smslogd.sms_daily_now is 'smslogd.day_counts() with what each status counts as';

create or replace view smslogd.sms_by_status as
select type, status, sum(sms)::int8 as sms, min(oldest) as oldest, max(last_changed_at) as last_changed_at,
       max(newest) as newest, max(last_answered_at) as last_answered_at, sum(waiting)::int8 as waiting
  from (select d.type, d.sms, d.oldest, d.newest, d.last_changed_at, d.last_answered_at, d.waiting,
               -- what retention removed while it was open is waited for no longer
               case when d.frozen and d.open > 0 then 'untracked' else d.status end as status
          from smslogd.sms_daily_now d) d
 group by type, status;
comment on view smslogd.sms_by_status is 'All SMS that ever were in the log, by type and status; SMS that retention removed while they were open are untracked';
