-- The counters by day: the sums of their hours.

-- Buckets of several rows added up. Of one row they are taken as they are, which is the rule: no row but that of Delivered has any.
create or replace function smslogd.add_buckets(a bigint[], b bigint[]) returns bigint[] language sql immutable strict parallel safe
as $$ select array[a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5], a[6] + b[6], a[7] + b[7], a[8] + b[8], a[9] + b[9],
                   a[10] + b[10], a[11] + b[11], a[12] + b[12], a[13] + b[13], a[14] + b[14]] $$;
create or replace aggregate smslogd.sum_buckets(bigint[]) (sfunc = smslogd.add_buckets, stype = bigint[], parallel = safe);

-- As Prometheus' histogram_quantile: seconds, evenly spread within a bucket, the highest bound for what is beyond all. Null over nothing.
create or replace function smslogd.percentiles(buckets bigint[], out p50 float8, out p95 float8, out p99 float8)
language plpgsql immutable strict parallel safe as $$
declare
  bounds constant float8[] := smslogd.delivery_bounds();
  total constant float8 := buckets[1] + buckets[2] + buckets[3] + buckets[4] + buckets[5] + buckets[6] + buckets[7] + buckets[8] + buckets[9]
                           + buckets[10] + buckets[11] + buckets[12] + buckets[13] + buckets[14];
  below float8 := 0;
  past float8;
  lower float8;
  width float8;
begin
  for i in 1 .. 14 loop
    if buckets[i] > 0 then
      past := below + buckets[i];
      lower := case when i = 1 then 0 else bounds[i - 1] end;
      width := case when i = 14 then 0 else (bounds[i] - lower) / buckets[i] end;
      if p50 is null and past >= 0.5 * total then p50 := lower + width * (0.5 * total - below); end if;
      if p95 is null and past >= 0.95 * total then p95 := lower + width * (0.95 * total - below); end if;
      if past >= 0.99 * total then
        p99 := lower + width * (0.99 * total - below);
        return;
      end if;
      below := past;
    end if;
  end loop;
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
           coalesce(smslogd.sum_buckets(h.buckets) filter (where h.buckets <> '{}'), '{}') as buckets,
           min(h.oldest) as oldest, max(h.newest) as newest, max(h.last_changed_at) as last_changed_at, max(h.last_answered_at) as last_answered_at
      from (select report_timezone from smslogd.settings limit 1) s
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
  select s.day, s.type, s.status, s.sms, s.le_2m, s.m2_5, s.m5_30, s.gt_30m, s.buckets, p.p50, p.p95, p.p99,
         s.oldest, s.newest, s.last_changed_at, s.last_answered_at
    from summed s cross join lateral smslogd.percentiles(nullif(s.buckets, '{}')) p order by s.day, s.type, s.status
      on conflict (day, type, status) do update
     set (sms, le_2m, m2_5, m5_30, gt_30m, buckets, p50, p95, p99, oldest, newest, last_changed_at, last_answered_at)
       = row (excluded.sms, excluded.le_2m, excluded.m2_5, excluded.m5_30, excluded.gt_30m, excluded.buckets, excluded.p50,
              excluded.p95, excluded.p99, excluded.oldest, excluded.newest, excluded.last_changed_at, excluded.last_answered_at)
   where d.* is distinct from excluded.*;
end $$;
revoke all on function smslogd.sum_days(date[]) from public;

create or replace function smslogd.follow_hours() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform pg_advisory_xact_lock(7246581904);
  return null;
end $$;
revoke all on function smslogd.lock_days() from public;
create or replace trigger smslogd_lock_days before update of report_timezone on smslogd.settings
  for each statement execute function smslogd.lock_days();

create or replace function smslogd.follow_days() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform smslogd.sum_days(null);
  return null;
end $$;
revoke all on function smslogd.follow_days() from public;
create or replace trigger smslogd_follow_days after update of report_timezone on smslogd.settings
  for each row when (new.report_timezone <> old.report_timezone) execute function smslogd.follow_days();
