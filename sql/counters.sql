-- What the views are made of: the stored counters, and for the hours that changed since they were stored a count of the log, in one snapshot.
--
-- So the figures equal a plain count over the log at any time, also while no daemon runs, and they read few rows of the log while one does. If very many
-- hours changed, as after a load of old rows, only the youngest are counted in this way, today and yesterday among them; verification.sms_behind says how
-- many wait for the daemon.
--
-- No plan may depend on a table's having been analyzed: a table of one row never is, and after pg_restore none. So settings are read by scalar
-- subqueries or with limit 1, which are one row whatever the statistics say, and what has many rows stands in functions that say how many, with JIT off: to
-- compile such a plan takes longer than to run it.

-- Ratios over nothing are null, and 1 or 0 only where it is all or nothing: of very many SMS one that failed must not look like none.
create or replace function smslogd.ratio(part numeric, whole numeric) returns numeric language sql immutable parallel safe
return case when part > 0 and part < whole then greatest(0.0001, least(0.9999, round(part / whole, 4))) else round(part / nullif(whole, 0), 4) end;

-- As Prometheus' histogram_quantile: seconds with one place, evenly spread within a bucket, the highest bound for what is above all bounds. Null over nothing. No lookup
-- and no SET, because it is called for each row of a view.
create or replace function smslogd.percentile(bounds float8[], buckets bigint[], quantile float8) returns float8
language plpgsql immutable strict parallel safe as $$
declare
  rank constant float8 := quantile * buckets[14];
  -- buckets whose SMS are all before that rank
  past constant int := width_bucket(ceil(rank)::bigint - 1, buckets);
  below constant bigint := coalesce(buckets[past], 0);
  lower constant float8 := case when past = 0 then 0 else bounds[past] end;
begin
  return round(10 * (lower + (coalesce(bounds[past + 1], lower) - lower) * (rank - below) / nullif(buckets[past + 1] - below, 0))) / 10;
end $$;
create or replace function smslogd.percentile(buckets bigint[], quantile float8) returns float8 language sql immutable parallel safe
return smslogd.percentile(smslogd.delivery_bounds(), buckets, quantile);

-- Buckets of few rows, those of a day at the least: where rows are many, sums of their elements are ten times as fast.
create or replace function smslogd.add_buckets(a bigint[], b bigint[]) returns bigint[] language sql immutable strict parallel safe cost 5
return array(select x + y from unnest(a, b) with ordinality as u (x, y, place) order by place);
create or replace aggregate smslogd.sum_buckets(bigint[]) (sfunc = smslogd.add_buckets, stype = bigint[], parallel = safe);

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
comment on view verification.sms_behind is 'How many changed hours the views show with their former counts, because too many wait to be counted: 0 except for minutes after a load of old rows. Today and yesterday are always current';

-- Of a stored hour that is not stale all SMS are due, unless the hour is in the future.
create or replace view smslogd.stored_hours as
select h.hour, h.type, h.status, h.sms, case when h.hour < smslogd.clock() then h.sms else 0 end as due,
       case when h.hour < smslogd.clock() then h.le_2m else 0 end as on_time,
       h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.newest, h.last_changed_at, h.last_answered_at
  from smslogd.sms_hourly h
 where h.hour not in (select s.hour from smslogd.stale_hours() s (hour));
create or replace view smslogd.fresh_hours as
select s.hour, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, c.oldest, c.newest, c.last_changed_at, c.last_answered_at
  from smslogd.stale_hours() s (hour)
 cross join lateral smslogd.count_sms(smslogd.hour_start(s.hour), smslogd.hour_end(s.hour), smslogd.clock()) c;
create or replace view smslogd.hour_counts as
select * from smslogd.stored_hours union all select * from smslogd.fresh_hours;
comment on view smslogd.stored_hours is 'The stored counters of the hours that have not changed since';
comment on view smslogd.fresh_hours is 'The counters of the other hours, counted now';
comment on view smslogd.hour_counts is 'The hourly counters, current at any time. Conditions on hour reach the counts';

-- The days that have SMS: each is found by the first hour after the previous one, so an SMS with a wrong time costs one day and not all days in between.
create or replace function smslogd.counted_days() returns table (day date, lo timestamptz, hi timestamptz)
language sql stable security definer rows 100 set search_path = pg_catalog, pg_temp set jit = off as $$
  with recursive zone as materialized (
    select zone from smslogd.moment
  ), stored as (
    select (select min(hour) from smslogd.sms_hourly where hour > '-infinity') as hour
    union all
    select (select min(h.hour) from smslogd.sms_hourly h where h.hour >= smslogd.day_start((s.hour at time zone (select zone from zone))::date + 1, (select zone from zone)))
      from stored s where s.hour < 'infinity'
  ), found as (
    select (hour at time zone (select zone from zone))::date as day
      from (select hour from stored union all select s.hour from smslogd.stale_hours() s (hour)) h where isfinite(hour)
  )
  select f.day, smslogd.day_start(f.day, z.zone), smslogd.day_start(f.day + 1, z.zone) from (select distinct day from found) f cross join zone z
$$;

-- The stored counters from lo to before hi, except for some hours, summed by type and counted status.
create or replace function smslogd.stored_counts(lo timestamptz, hi timestamptz, stale timestamptz[])
returns table (type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint, m5_30 bigint, gt_30m bigint, buckets bigint[])
language sql stable security definer rows 30 set search_path = pg_catalog, pg_temp set jit = off as $$
  select h.type, h.status, smslogd.total(h.sms), smslogd.total(h.sms) filter (where h.hour < smslogd.clock()),
         smslogd.total(h.le_2m) filter (where h.hour < smslogd.clock()),
         smslogd.total(h.le_2m), smslogd.total(h.m2_5), smslogd.total(h.m5_30), smslogd.total(h.gt_30m),
         case when h.status = 'Delivered' then
           array[smslogd.total(h.buckets[1]), smslogd.total(h.buckets[2]), smslogd.total(h.buckets[3]), smslogd.total(h.buckets[4]), smslogd.total(h.buckets[5]), smslogd.total(h.buckets[6]), smslogd.total(h.buckets[7]),
                 smslogd.total(h.buckets[8]), smslogd.total(h.buckets[9]), smslogd.total(h.buckets[10]), smslogd.total(h.buckets[11]), smslogd.total(h.buckets[12]), smslogd.total(h.buckets[13]), smslogd.total(h.buckets[14])] end
    from smslogd.sms_hourly h where h.hour >= $1 and h.hour < $2 and h.hour <> all ($3) group by h.type, h.status
$$;

create or replace view smslogd.day_counts as
with stale as materialized (
  select s.hour from smslogd.stale_hours() s (hour)
)
select d.day, c.type, k.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, k.processed, k.delivered, k.open, k.final, k.untracked, k.waiting
  from smslogd.moment m
 cross join smslogd.counted_days() d
 cross join lateral (
   select * from smslogd.stored_counts(d.lo, d.hi, array(select hour from stale))
   union all
   select n.type, n.status, n.sms, n.due, n.on_time, n.le_2m, n.m2_5, n.m5_30, n.gt_30m, n.buckets
     from stale s cross join lateral smslogd.count_sms(s.hour, smslogd.hour_end(s.hour), m.at) n where s.hour >= d.lo and s.hour < d.hi
 ) c
 cross join lateral smslogd.status_groups(c.status, c.sms) k;
comment on view smslogd.day_counts is 'The counters by day, current at any time; several rows of one day, type and status are to be summed. Conditions on day reach the counts';

create or replace view smslogd.delivery_by_day as
select c.day, c.type, smslogd.total(c.sms) as total, smslogd.total(c.processed) as processed, smslogd.total(c.delivered) as delivered, smslogd.total(c.due) as due,
       smslogd.total(c.on_time) as on_time, smslogd.total(c.final) as final, smslogd.total(c.open) as open, smslogd.total(c.untracked) as untracked,
       smslogd.total(c.waiting) as waiting, smslogd.total(c.le_2m) as le_2m, smslogd.total(c.m2_5) as m2_5, smslogd.total(c.m5_30) as m5_30,
       smslogd.total(c.gt_30m) as gt_30m, smslogd.sum_buckets(c.buckets) as buckets
  from smslogd.day_counts c group by c.day, c.type;
comment on view smslogd.delivery_by_day is 'What verification.sms_delivery_daily shows, with its buckets';

-- SMS of periods by type and counted status. Periods begin with a full hour; the hour in which one ends is counted up to that moment. The additional period `now`
-- has all open SMS, and the latest times of the hours that were read for it or for the periods. Each stale hour is counted once for all periods.
create or replace function smslogd.period_counts(periods text[], los timestamptz[], his timestamptz[])
returns table (place bigint, period text, type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint, m5_30 bigint, gt_30m bigint,
               buckets bigint[], oldest timestamptz, newest timestamptz, last_changed_at timestamptz, last_answered_at timestamptz)
language sql stable security definer rows 100 set search_path = pg_catalog, pg_temp set jit = off as $$
  with span as materialized (
    select p.place, p.period, p.lo, p.hi, smslogd.hour_of(p.hi) as past from unnest($1, $2, $3) with ordinality as p (period, lo, hi, place)
  ), hours as materialized (
    select * from smslogd.fresh_hours
    union all
    select * from smslogd.stored_hours where hour >= (select min(lo) from span) and hour < (select max(hi) from span)
    union all
    select * from smslogd.stored_hours
     where status = any (smslogd.open_statuses() || 'none'::text)
       -- not for the index on hour: the key finds them
       and (hour >= (select frozen_before from smslogd.settings)) is true
       and (hour >= (select min(lo) from span) and hour < (select max(hi) from span)) is not true
  )
  select c.place, c.period, c.type, c.status, smslogd.total(c.sms), smslogd.total(c.due), smslogd.total(c.on_time), smslogd.total(c.le_2m), smslogd.total(c.m2_5),
         smslogd.total(c.m5_30), smslogd.total(c.gt_30m),
         smslogd.sum_buckets(c.buckets),
         min(c.oldest), max(c.newest), max(c.last_changed_at), max(c.last_answered_at)
    from (
      select s.place, s.period, h.* from span s join hours h on h.hour >= s.lo and h.hour < s.past
      union all
      select s.place, s.period, n.* from span s cross join lateral smslogd.count_sms(greatest(s.lo, s.past), s.hi, smslogd.clock()) n where greatest(s.lo, s.past) < s.hi
      union all
      select 0, 'now', h.* from hours h
    ) c
   group by c.place, c.period, c.type, c.status
$$;

-- The channel now and in the periods of sms_today_vs_yesterday, by status.
create or replace view smslogd.today_counts as
select p.place, p.period, p.type, k.status, smslogd.total(p.sms) as sms, smslogd.total(p.due) as due, smslogd.total(p.on_time) as on_time,
       smslogd.total(p.le_2m) as le_2m, smslogd.total(p.m2_5) as m2_5, smslogd.total(p.m5_30) as m5_30, smslogd.total(p.gt_30m) as gt_30m,
       smslogd.total(k.processed) as processed, smslogd.total(k.delivered) as delivered, smslogd.total(k.open) as open, smslogd.total(k.final) as final,
       smslogd.total(k.untracked) as untracked, smslogd.total(k.waiting) as waiting,
       min(p.oldest) as oldest, max(p.newest) as newest, max(p.last_changed_at) as last_changed_at, max(p.last_answered_at) as last_answered_at
  from smslogd.moment m
 cross join lateral smslogd.period_counts(
   '{today,yesterday_same_time,yesterday}',
   array[smslogd.day_start(m.today, m.zone), smslogd.day_start(m.today - 1, m.zone), smslogd.day_start(m.today - 1, m.zone)],
   array[smslogd.day_start(m.today + 1, m.zone),
         least((m.at at time zone m.zone - interval '1 day') at time zone m.zone, smslogd.day_start(m.today, m.zone)), smslogd.day_start(m.today, m.zone)]) p
 cross join lateral smslogd.status_groups(p.status, p.sms) k
 group by p.place, p.period, p.type, k.status;
comment on view smslogd.today_counts is 'SMS of today, of yesterday up to the same time, of all of yesterday and, as period now, all that is open; by type and status';

-- The same by type, with a row for each of them.
create or replace view smslogd.today_by_type as
select p.place, p.period, t.type, smslogd.total(c.sms) as total, smslogd.total(c.processed) as processed, smslogd.total(c.delivered) as delivered,
       smslogd.total(c.processed - c.delivered) as undelivered, smslogd.ratio(smslogd.total(c.delivered), smslogd.total(c.processed)) as success_ratio,
       smslogd.ratio(smslogd.total(c.on_time), smslogd.total(c.due)) as on_time_ratio, smslogd.ratio(smslogd.total(c.final), smslogd.total(c.sms)) as known_ratio,
       smslogd.total(c.le_2m) as le_2m, smslogd.total(c.m2_5) as m2_5, smslogd.total(c.m5_30) as m5_30, smslogd.total(c.gt_30m) as gt_30m,
       smslogd.total(c.open) as open, date_trunc('second', smslogd.clock() - min(c.oldest) filter (where c.open > 0)) as oldest_open_age,
       p.period in ('yesterday_same_time', 'yesterday') and smslogd.total(c.open) = 0 as settled, smslogd.total(c.untracked) as untracked,
       max(c.last_changed_at) filter (where c.status = 'Delivered') as last_delivered_at,
       jsonb_object_agg(c.status, jsonb_build_object('sms', c.sms, 'oldest', date_part('epoch', c.oldest))) filter (where c.status is not null) as statuses
  from unnest('{now,today,yesterday_same_time,yesterday}'::text[]) with ordinality as p (period, place)
 cross join unnest(smslogd.types()) with ordinality as t (type, place)
  left join smslogd.today_counts c on c.period = p.period and c.type = t.type
 group by p.place, p.period, t.place, t.type
 order by p.place, t.place;
comment on view smslogd.today_by_type is 'What verification.sms_today_vs_yesterday shows, with the statuses and with all that is open now: the daemon reads its figures here';

-- The times of the stored hours in which a type and status may have occurred last: those of the last days, because a status can change for as long as SMS are
-- polled, and the last hour that has it. Whole keys are compared for the latter: with conditions on their parts the planner uses the index on hour, and reads
-- all of it for a status that does not occur.
create or replace view smslogd.last_stored as
select h.type, h.status, max(h.newest) as newest, max(h.last_changed_at) as last_changed_at, max(h.last_answered_at) as last_answered_at
  from smslogd.stored_hours h
 where h.hour > smslogd.clock() - interval '8 days' and h.hour < 'infinity'
 group by h.type, h.status
union all
select l.type, l.status, l.newest, l.last_changed_at, l.last_answered_at
  from (select array(select s.hour from smslogd.stale_hours() s (hour)) as hours offset 0) stale
 cross join unnest(smslogd.types()) as t (type)
 cross join unnest(smslogd.statuses() || '{none,untracked}'::text[]) as s (status)
 cross join lateral (
   select i.* from smslogd.sms_hourly i
    where (i.status, i.type, i.hour) < (s.status, t.type, timestamptz 'infinity') and i.hour <> all (stale.hours)
    order by i.status desc, i.type desc, i.hour desc limit 1) l
 where l.status = s.status and l.type = t.type and isfinite(l.hour);
comment on view smslogd.last_stored is 'The youngest times of the stored counters, by type and counted status; one or two rows of each';
