-- What the views of the figures are made of. Views are only ever replaced: new columns come last, so that what others built on them stays.
--
-- All figures of delivery come from smslogd.hour_counts: the stored counters, and for the hours that changed since they were stored (and for the
-- youngest, whose rows are not yet 2 minutes old) a count of the log in the same snapshot. So they equal a plain count over the log at any
-- moment, also while no daemon runs; and they read few rows of the log while one does. Conditions on `hour` reach the counts.
--
-- Functions that readers run through views name nothing else of this schema: readers may not look things up here.

-- ratios over nothing are null
create or replace function smslogd.ratio(part numeric, whole numeric) returns float8 language sql immutable parallel safe
as $$ select (part / nullif(whole, 0))::float8 $$;

-- As Prometheus' histogram_quantile: seconds, evenly spread within a bucket, the highest bound for what is beyond all. Null over nothing.
create or replace function smslogd.percentile(buckets bigint[], bounds float8[], fraction float8) returns float8
language plpgsql immutable parallel safe as $$
declare
  rank float8 := fraction * (select sum(n) from unnest(buckets) as n);
  below float8 := 0;
begin
  for i in 1 .. coalesce(cardinality(buckets), 0) loop
    if buckets[i] > 0 and below + buckets[i] >= rank then
      return case when i > cardinality(bounds) then bounds[cardinality(bounds)]
                  else coalesce(bounds[i - 1], 0) + (bounds[i] - coalesce(bounds[i - 1], 0)) * (rank - below) / buckets[i] end;
    end if;
    below := below + coalesce(buckets[i], 0);
  end loop;
  return null;
end $$;

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

create or replace view smslogd.sms_by_status as
select type, status, sum(sms)::int8 as sms, min(oldest) as oldest, max(last_changed_at) as last_changed_at,
       max(newest) as newest, max(last_answered_at) as last_answered_at, sum(waiting)::int8 as waiting
  from (select h.type, h.sms, h.oldest, h.newest, h.last_changed_at, h.last_answered_at, h.waiting,
               -- what retention removed while it was open is waited for no longer
               case when h.hour < (select frozen_before from smslogd.settings) and h.open > 0 then 'untracked' else h.status end as status
          from smslogd.sms_hourly_now h) h
 group by type, status;
comment on view smslogd.sms_by_status is 'All SMS that ever were in the log, by type and status; SMS that retention removed while they were open are untracked';
