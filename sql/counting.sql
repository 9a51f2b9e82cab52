-- How SMS are counted by hour, and how it is noted which hours changed.

-- sum() of bigint computes in numeric, which takes three times as long; and this one is 0 over nothing
create or replace aggregate smslogd.total(bigint) (sfunc = int8pl, combinefunc = int8pl, stype = bigint, initcond = '0', parallel = safe);

-- Upper bounds of the buckets in seconds, the same as DELIVERY_BUCKETS in src/metrics.ts, which a test holds equal. 120, 300 and 1800, the 8th, 9th and 12th,
-- bound the groups.
create or replace function smslogd.delivery_bounds() returns float8[] language sql immutable parallel safe
return '{1,2,5,10,20,30,60,120,300,600,900,1800,3600}'::float8[];

-- The one definition of what is counted, for the stored counters and the views: the rows with lo <= inserted_at < hi, by UTC hour, type and counted
-- status. due: at least 2 minutes old at `at`; on_time: of these, Delivered within 2 minutes. buckets: see smslogd.sms_hourly. STABLE: it sees what its
-- caller's statement sees. Security definer: readers see counts and not rows. The rows are found by the btree on inserted_at, whatever is known of the
-- table: the BRIN names every block where a first copy has written rows in the order of their ids.
create or replace function smslogd.count_sms(lo timestamptz, hi timestamptz, at timestamptz)
returns table (hour timestamptz, type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint, m5_30 bigint, gt_30m bigint,
               buckets bigint[], oldest timestamptz, newest timestamptz, last_changed_at timestamptz, last_answered_at timestamptz)
language sql stable security definer rows 20 set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
  select c.hour, c.type, c.status, c.sms, c.due, c.on_time,
         coalesce(c.buckets[8], 0), coalesce(c.buckets[9] - c.buckets[8], 0), coalesce(c.buckets[12] - c.buckets[9], 0), coalesce(c.buckets[14] - c.buckets[12], 0),
         c.buckets, c.oldest, c.newest, c.last_changed_at, c.last_answered_at
    from (
      select b.hour, b.type, b.status, smslogd.total(b.n) as sms, smslogd.total(b.due) as due, smslogd.total(b.due) filter (where b.bucket <= 8) as on_time,
             case when count(b.bucket) > 0 then
               array[smslogd.total(b.n) filter (where b.bucket <= 1), smslogd.total(b.n) filter (where b.bucket <= 2), smslogd.total(b.n) filter (where b.bucket <= 3),
                     smslogd.total(b.n) filter (where b.bucket <= 4), smslogd.total(b.n) filter (where b.bucket <= 5), smslogd.total(b.n) filter (where b.bucket <= 6),
                     smslogd.total(b.n) filter (where b.bucket <= 7), smslogd.total(b.n) filter (where b.bucket <= 8), smslogd.total(b.n) filter (where b.bucket <= 9),
                     smslogd.total(b.n) filter (where b.bucket <= 10), smslogd.total(b.n) filter (where b.bucket <= 11), smslogd.total(b.n) filter (where b.bucket <= 12),
                     smslogd.total(b.n) filter (where b.bucket <= 13), smslogd.total(b.n) filter (where b.bucket <= 14)] end as buckets,
             min(b.oldest) as oldest, max(b.newest) as newest, max(b.last_changed_at) as last_changed_at, max(b.last_answered_at) as last_answered_at
        from (
          select smslogd.hour_of(l.inserted_at) as hour, l.type,
                 smslogd.counted_status(l.gateway_status, l.gateway_id, l.type, l.inserted_at, (select tracked_since from smslogd.settings)) as status,
                 -- the number of the first bound that is not less than the latency (which has microseconds), 14 beyond all; null: no latency is known
                 case when l.gateway_status = 'Delivered' and smslogd.credible(l.status_changed_at) and smslogd.credible(l.inserted_at)
                      then 1 + width_bucket(date_part('epoch', l.status_changed_at - l.inserted_at) - 0.0000005, smslogd.delivery_bounds()) end as bucket,
                 count(*) as n, count(*) filter (where l.inserted_at <= $3 - interval '2 minutes') as due,
                 min(l.inserted_at) filter (where smslogd.credible(l.inserted_at)) as oldest,
                 max(l.inserted_at) filter (where smslogd.credible(l.inserted_at)) as newest,
                 max(l.status_changed_at) filter (where smslogd.credible(l.status_changed_at)) as last_changed_at,
                 max(l.updated_at) filter (where l.status_changed_at is not null and smslogd.credible(l.updated_at)) as last_answered_at
            from verification.sms_log l
           where l.inserted_at >= $1 and l.inserted_at <= $2 and (l.inserted_at < $2 or $2 = 'infinity')
           group by 1, 2, 3, 4) b
       group by b.hour, b.type, b.status) c
$$;

-- The triggers note which hours changed, and how many SMS entered. If the note fails, as where somebody holds that table for longer than a service waits, the row
-- is still written: the daemon recounts every hour of the last days in turn. How many entered no recount finds out, so that is added to a sum at once,
-- one of each server process, so that services do not wait for each other.
create or replace function smslogd.note_hours() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if tg_op = 'INSERT' then
    insert into smslogd.changed_hour select smslogd.hour_of(inserted_at), type, count(*) from changed group by 1, 2;
  elsif tg_op = 'UPDATE' then
    insert into smslogd.changed_hour
    select smslogd.hour_of(inserted_at) from changed
    union select smslogd.hour_of(inserted_at) from former;
  elsif tg_op = 'DELETE' then
    insert into smslogd.changed_hour select distinct smslogd.hour_of(inserted_at) from changed;
  else
    insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly;
  end if;
  return null;
exception when others then
  raise warning 'smslogd: the log is written but its counters are not told (%)', sqlstate;
  if tg_op = 'INSERT' then
    begin
      insert into smslogd.sms_entered as e select type, count(*), pg_backend_pid() from changed group by type
      on conflict (type, writer) do update set sms = e.sms + excluded.sms;
    exception when others then null;
    end;
  end if;
  return null;
end $$;
revoke all on function smslogd.note_hours() from public;

create or replace trigger smslogd_note_inserted after insert on verification.sms_log
  referencing new table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_updated after update on verification.sms_log
  referencing old table as former new table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_deleted after delete on verification.sms_log
  referencing old table as changed for each statement execute function smslogd.note_hours();
create or replace trigger smslogd_note_truncated after truncate on verification.sms_log
  for each statement execute function smslogd.note_hours();
-- also where somebody writes with session_replication_role = replica
alter table verification.sms_log enable always trigger smslogd_note_inserted, enable always trigger smslogd_note_updated,
  enable always trigger smslogd_note_deleted, enable always trigger smslogd_note_truncated;
