-- The counters by day: the sums of their hours.

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

-- A statement that changes hours and one that changes the zone wait for each other, and for the daemon, which counts under the same lock
-- (src/figures/store.ts): each sums up what the other has committed. `days` null: all.
create or replace function smslogd.sum_days(days date[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform pg_advisory_xact_lock(7246581904);
  with summed as materialized (
    select d.day, h.type, h.status, sum(h.sms)::int8 as sms, sum(h.le_2m)::int8 as le_2m, sum(h.m2_5)::int8 as m2_5, sum(h.m5_30)::int8 as m5_30,
           sum(h.gt_30m)::int8 as gt_30m,
           case when h.status = 'Delivered' and bool_or(h.buckets <> '{}')
                then array[sum(h.buckets[1]), sum(h.buckets[2]), sum(h.buckets[3]), sum(h.buckets[4]), sum(h.buckets[5]), sum(h.buckets[6]), sum(h.buckets[7]),
                           sum(h.buckets[8]), sum(h.buckets[9]), sum(h.buckets[10]), sum(h.buckets[11]), sum(h.buckets[12]), sum(h.buckets[13]),
                           sum(h.buckets[14])]::int8[] else '{}' end as buckets,
           min(h.oldest) as oldest, max(h.newest) as newest, max(h.last_changed_at) as last_changed_at, max(h.last_answered_at) as last_answered_at
      from smslogd.settings s
     cross join smslogd.sms_hourly h
     cross join lateral (select ((h.hour + h.quarter * interval '15 minutes') at time zone s.report_timezone)::date as day) d
     where days is null
        or d.day = any (days)
           -- a day of any zone lies within these, and the index finds them
           and (h.hour in ('-infinity', 'infinity')
                or h.hour >= ((select min(day) from unnest(days) day where isfinite(day)) - 2)::timestamp at time zone 'UTC'
               and h.hour <= ((select max(day) from unnest(days) day where isfinite(day)) + 2)::timestamp at time zone 'UTC')
     group by d.day, h.type, h.status
  ), gone as (
    delete from smslogd.sms_daily d
     where (days is null or d.day = any (days))
       and not exists (select from summed s where (s.day, s.type, s.status) = (d.day, d.type, d.status))
  )
  insert into smslogd.sms_daily as d
  select day, type, status, sms, le_2m, m2_5, m5_30, gt_30m, buckets, smslogd.percentile(buckets, smslogd.delivery_bounds(), 0.5),
         smslogd.percentile(buckets, smslogd.delivery_bounds(), 0.95), smslogd.percentile(buckets, smslogd.delivery_bounds(), 0.99),
         oldest, newest, last_changed_at, last_answered_at
    from summed order by day, type, status
      on conflict (day, type, status) do update
     set (sms, le_2m, m2_5, m5_30, gt_30m, buckets, p50, p95, p99, oldest, newest, last_changed_at, last_answered_at)
       = row (excluded.sms, excluded.le_2m, excluded.m2_5, excluded.m5_30, excluded.gt_30m, excluded.buckets, excluded.p50,
              excluded.p95, excluded.p99, excluded.oldest, excluded.newest, excluded.last_changed_at, excluded.last_answered_at)
   where d.* is distinct from excluded.*;
end $$;
revoke all on function smslogd.sum_days(date[]) from public;

create or replace function smslogd.follow_hours() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  zone text;
  days date[];
begin
  if tg_op = 'TRUNCATE' then
    perform smslogd.sum_days(null);
    return null;
  end if;
  if not exists (select from changed) then
    return null;
  end if;
  -- before the zone is read: one that changes in this moment is waited for
  perform pg_advisory_xact_lock(7246581904);
  zone := (select report_timezone from smslogd.settings);
  if tg_op = 'UPDATE' then
    days := array(select ((hour + quarter * interval '15 minutes') at time zone zone)::date from changed
                  union select ((hour + quarter * interval '15 minutes') at time zone zone)::date from former);
  else
    days := array(select distinct ((hour + quarter * interval '15 minutes') at time zone zone)::date from changed);
  end if;
  perform smslogd.sum_days(days);
  return null;
end $$;
revoke all on function smslogd.follow_hours() from public;

create or replace trigger smslogd_follow_inserted after insert on smslogd.sms_hourly
  referencing new table as changed for each statement execute function smslogd.follow_hours();
create or replace trigger smslogd_follow_updated after update on smslogd.sms_hourly
  referencing old table as former new table as changed for each statement execute function smslogd.follow_hours();
create or replace trigger smslogd_follow_deleted after delete on smslogd.sms_hourly
  referencing old table as changed for each statement execute function smslogd.follow_hours();
create or replace trigger smslogd_follow_truncated after truncate on smslogd.sms_hourly
  for each statement execute function smslogd.follow_hours();
alter table smslogd.sms_hourly enable always trigger smslogd_follow_inserted, enable always trigger smslogd_follow_updated,
  enable always trigger smslogd_follow_deleted, enable always trigger smslogd_follow_truncated;

-- Who counts takes the lock first and then writes settings (retention's mark), so who changes the zone takes it before he holds the row.
create or replace function smslogd.lock_days() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(7246581904);
  return null;
end $$;
revoke all on function smslogd.lock_days() from public;
create or replace trigger smslogd_lock_days before update of report_timezone on smslogd.settings
  for each statement execute function smslogd.lock_days();

create or replace function smslogd.follow_days() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform smslogd.sum_days(null);
  return null;
end $$;
revoke all on function smslogd.follow_days() from public;
create or replace trigger smslogd_follow_days after update of report_timezone on smslogd.settings
  for each row when (new.report_timezone <> old.report_timezone) execute function smslogd.follow_days();
