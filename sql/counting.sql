-- How SMS are counted by hour, and how it is noted which hours changed.

-- Times that cannot be those of an SMS (infinite ones above all, which PostgreSQL before 17 refuses to subtract) have no latency, no age and no hour of
-- their own: such rows are counted under the hours -infinity and infinity.
create or replace function smslogd.credible(at timestamptz) returns boolean language sql immutable parallel safe
as $$ select at >= '2000-01-01 00:00+00' and at < '3000-01-01 00:00+00' $$;
create or replace function smslogd.hour_of(at timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when at < '2000-01-01 00:00+00' then '-infinity' when at >= '3000-01-01 00:00+00' then 'infinity'
                  else date_bin('1 hour', at, '2000-01-01 00:00+00') end $$;
create or replace function smslogd.hour_start(hour timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when hour = 'infinity' then '3000-01-01 00:00+00' else hour end $$;
create or replace function smslogd.hour_end(hour timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when hour = '-infinity' then '2000-01-01 00:00+00' else hour + interval '1 hour' end $$;

-- Upper bounds of the buckets in seconds, the same as DELIVERY_BUCKETS in src/metrics.ts; 120, 300 and 1800 bound the groups.
create or replace function smslogd.delivery_bounds() returns float8[] language sql immutable parallel safe
as $$ select '{1,2,5,10,20,30,60,120,300,600,900,1800,3600}'::float8[] $$;

-- The one definition of what is counted, for the stored counters and the views: the rows with lo <= inserted_at < hi, by UTC hour (and its
-- quarter), type and status. due: at least 2 minutes old at `at`; on_time: of these, Delivered within 2 minutes. STABLE: it sees what its
-- caller's statement sees. Security definer: readers see counts and not rows. The rows are found by the btree on inserted_at, whatever is known of the
-- table: the BRIN names every block where a first copy has written rows in the order of their ids.
create or replace function smslogd.count_sms(lo timestamptz, hi timestamptz, at timestamptz)
returns table (hour timestamptz, quarter smallint, type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint,
               m5_30 bigint, gt_30m bigint, buckets bigint[], oldest timestamptz, newest timestamptz, last_changed_at timestamptz,
               last_answered_at timestamptz)
language sql stable security definer rows 20 set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
  select b.hour, b.quarter, b.type, b.status, sum(b.n)::int8, sum(b.due)::int8,
         coalesce(sum(b.due) filter (where b.bucket <= 8), 0)::int8, coalesce(sum(b.n) filter (where b.bucket <= 8), 0)::int8,
         coalesce(sum(b.n) filter (where b.bucket = 9), 0)::int8, coalesce(sum(b.n) filter (where b.bucket between 10 and 12), 0)::int8,
         coalesce(sum(b.n) filter (where b.bucket >= 13), 0)::int8,
         case when count(b.bucket) = 0 then '{}'
              else array[coalesce(sum(b.n) filter (where b.bucket = 1), 0), coalesce(sum(b.n) filter (where b.bucket = 2), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 3), 0), coalesce(sum(b.n) filter (where b.bucket = 4), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 5), 0), coalesce(sum(b.n) filter (where b.bucket = 6), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 7), 0), coalesce(sum(b.n) filter (where b.bucket = 8), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 9), 0), coalesce(sum(b.n) filter (where b.bucket = 10), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 11), 0), coalesce(sum(b.n) filter (where b.bucket = 12), 0),
                         coalesce(sum(b.n) filter (where b.bucket = 13), 0), coalesce(sum(b.n) filter (where b.bucket = 14), 0)]::int8[] end,
         min(b.oldest), max(b.newest), max(b.last_changed_at), max(b.last_answered_at)
    from (select smslogd.hour_of(l.inserted_at) as hour,
                 case when (select quarters from smslogd.settings) and smslogd.credible(l.inserted_at)
                      then extract(minute from l.inserted_at at time zone 'UTC')::int / 15 else 0 end::int2 as quarter,
                 l.type, coalesce(l.gateway_status, case when l.gateway_id is null then 'none' else 'Accepted' end) as status,
                 -- the number of the first bound that is not less than the latency, 14 beyond all; null: no latency is known
                 case when l.gateway_status = 'Delivered' and smslogd.credible(l.status_changed_at) and smslogd.credible(l.inserted_at) then
                   14 - width_bucket(-date_part('epoch', l.status_changed_at - l.inserted_at),
                                     '{-3600,-1800,-900,-600,-300,-120,-60,-30,-20,-10,-5,-2,-1}'::float8[]) end as bucket,
                 count(*) as n, count(*) filter (where l.inserted_at <= $3 - interval '2 minutes') as due,
                 min(l.inserted_at) filter (where smslogd.credible(l.inserted_at)) as oldest,
                 max(l.inserted_at) filter (where smslogd.credible(l.inserted_at)) as newest,
                 max(l.status_changed_at) filter (where smslogd.credible(l.status_changed_at)) as last_changed_at,
                 max(l.updated_at) filter (where l.status_changed_at is not null and smslogd.credible(l.updated_at)) as last_answered_at
            from verification.sms_log l
           where l.inserted_at >= $1 and l.inserted_at <= $2 and (l.inserted_at < $2 or $2 = 'infinity')
           group by 1, 2, 3, 4, 5) b
   group by b.hour, b.quarter, b.type, b.status
$$;

-- The moment that the views take for now, also in a transaction that began long ago; a function of its own so that tests can move it.
create or replace function smslogd.clock() returns timestamptz language sql stable parallel safe as $$ select statement_timestamp() $$;

-- A failure to note never refuses the row: the daemon counts the last days again when it starts.
create or replace function smslogd.note_hours() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  -- what leaves the counters, so that smslogd_sms_total does not go back
  if tg_op = 'DELETE' then
    insert into smslogd.sms_removed
    select smslogd.hour_of(l.inserted_at), l.type, count(*) from changed l
     where smslogd.hour_of(l.inserted_at) >= (select frozen_before from smslogd.settings) group by 1, 2;
  elsif tg_op = 'TRUNCATE' and tg_when = 'BEFORE' then
    insert into smslogd.sms_removed
    select h.hour, h.type, sum(h.sms) from smslogd.hour_counts h where h.hour >= (select frozen_before from smslogd.settings) group by 1, 2;
    return null;
  elsif tg_level = 'ROW' then
    insert into smslogd.sms_removed
    select smslogd.hour_of(old.inserted_at), old.type, 1 where smslogd.hour_of(old.inserted_at) >= (select frozen_before from smslogd.settings);
    return null;
  end if;
  if tg_op = 'TRUNCATE' then
    insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly;
  elsif tg_op = 'UPDATE' then
    insert into smslogd.changed_hour
    select smslogd.hour_of(inserted_at) from changed
    union select smslogd.hour_of(inserted_at) from former;
  else
    insert into smslogd.changed_hour
    select distinct smslogd.hour_of(inserted_at) from changed;
  end if;
  return null;
exception when others then
  raise warning 'smslogd: the log is written but its counters are not told (%)', sqlstate;
  return null;
end $$;
revoke all on function smslogd.note_hours() from public;

create or replace trigger smslogd_note_inserted after insert on verification.sms_log
  referencing new table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_updated after update on verification.sms_log
  referencing old table as former new table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_deleted after delete on verification.sms_log
  referencing old table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_truncating before truncate on verification.sms_log
  for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_truncated after truncate on verification.sms_log
  for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_retyped after update of type on verification.sms_log
  for each row when (new.type is distinct from old.type) execute function smslogd.note_hours();
-- also where somebody writes with session_replication_role = replica
alter table verification.sms_log enable always trigger smslogd_note_inserted, enable always trigger smslogd_note_updated,
  enable always trigger smslogd_note_deleted, enable always trigger smslogd_note_truncating, enable always trigger smslogd_note_truncated,
  enable always trigger smslogd_note_retyped;

-- Another time zone may need other parts of an hour: what can still be counted is counted again.
create or replace function smslogd.follow_timezone() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  new.quarters := (select bool_or(extract(minute from (at at time zone new.report_timezone) - (at at time zone 'UTC')) <> 0)
                     from generate_series(timestamptz '2000-01-01 00:00+00', '2050-01-01 00:00+00', '1 month') as at);
  if tg_op = 'UPDATE' and new.quarters <> old.quarters then
    insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly where hour >= new.frozen_before;
  end if;
  return new;
end $$;
revoke all on function smslogd.follow_timezone() from public;
create or replace trigger smslogd_follow_timezone before insert or update of report_timezone on smslogd.settings
  for each row execute function smslogd.follow_timezone();
