-- Up Migration
-- Stored counters: one row for each UTC hour of inserted_at, type and status. An hour that changed is counted again as a whole, nothing is
-- ever added to. Which hours changed is noted by triggers in the statement that changed the log, whoever ran it; the daemon (src/figures)
-- takes the notes and counts in one transaction, and the views count noted hours themselves, so that figures are right at any moment.

create table smslogd.sms_hourly (
  hour             timestamptz not null,
  quarter          smallint not null default 0,
  type             text not null,
  status           text not null,
  sms              bigint not null,
  le_2m            bigint not null default 0,
  m2_5             bigint not null default 0,
  m5_30            bigint not null default 0,
  gt_30m           bigint not null default 0,
  buckets          bigint[] not null default '{}',
  oldest           timestamptz,
  newest           timestamptz,
  last_changed_at  timestamptz,
  last_answered_at timestamptz,
  primary key (hour, quarter, type, status)
);
create index sms_hourly_open_idx on smslogd.sms_hourly (hour) where status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'none');
comment on table smslogd.sms_hourly is 'Stored counters of the log; hours that stand in changed_hour are out of date until the daemon has counted them again. smslogd.sms_hourly_now is right at any moment';
comment on column smslogd.sms_hourly.hour is 'Start of the UTC hour of inserted_at; -infinity and infinity for times that are not credible';
comment on column smslogd.sms_hourly.quarter is '0 to 3: the quarter of the hour, where days in REPORT_TIMEZONE begin within a UTC hour (settings.quarters); else 0, the whole hour';
comment on column smslogd.sms_hourly.status is 'gateway_status; without one Accepted where a gateway id is known, else none';
comment on column smslogd.sms_hourly.le_2m is 'Delivered rows with a latency of at most 2 minutes; a negative latency counts as 0. A Delivered row without status_changed_at is in no group';
comment on column smslogd.sms_hourly.m2_5 is 'More than 2, at most 5 minutes';
comment on column smslogd.sms_hourly.m5_30 is 'More than 5, at most 30 minutes';
comment on column smslogd.sms_hourly.gt_30m is 'More than 30 minutes';
comment on column smslogd.sms_hourly.buckets is 'Delivered rows in each bucket of smslogd.delivery_bounds() (not summed up), the last one beyond all bounds';
comment on column smslogd.sms_hourly.oldest is 'The earliest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.newest is 'The latest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.last_changed_at is 'The latest credible status_changed_at';
comment on column smslogd.sms_hourly.last_answered_at is 'The latest updated_at of the rows that have a status_changed_at';

-- Retention raises this before it removes rows: the counters of older hours stay as they are.
alter table smslogd.settings add column frozen_before timestamptz not null default '-infinity';
comment on column smslogd.settings.frozen_before is 'Hours before this one are never counted again: retention has removed rows of them';

-- Where days of the report's time zone begin within a UTC hour (India, Nepal), counters by whole hours could not be put together to days.
alter table smslogd.settings add column quarters boolean not null default false;
comment on column smslogd.settings.quarters is 'True where the offset of report_timezone is not always a whole hour: the counters are then kept by quarters of an hour. Follows report_timezone';

-- Times that cannot be those of an SMS (infinite ones above all, which PostgreSQL before 17 refuses to subtract) have no latency, no age and no hour of
-- their own: such rows are counted under the hours -infinity and infinity.
create function smslogd.credible(at timestamptz) returns boolean language sql immutable parallel safe
as $$ select at >= '2000-01-01 00:00+00' and at < '3000-01-01 00:00+00' $$;
create function smslogd.hour_of(at timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when at < '2000-01-01 00:00+00' then '-infinity' when at >= '3000-01-01 00:00+00' then 'infinity'
                  else date_bin('1 hour', at, '2000-01-01 00:00+00') end $$;
create function smslogd.hour_start(hour timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when hour = 'infinity' then '3000-01-01 00:00+00' else hour end $$;
create function smslogd.hour_end(hour timestamptz) returns timestamptz language sql immutable parallel safe
as $$ select case when hour = '-infinity' then '2000-01-01 00:00+00' else hour + interval '1 hour' end $$;

-- Notes are only ever added and taken, never merged: a unique key would make writers of one hour wait for each other.
create table smslogd.changed_hour (
  hour timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- or notes could not be taken while somebody publishes all tables: this one has no key
alter table smslogd.changed_hour replica identity full;
comment on table smslogd.changed_hour is 'UTC hours of the log that changed since they were counted; to have hours counted again, insert them here';

-- A failure to note never refuses the row: the daemon counts the last days again when it starts.
create function smslogd.note_hours() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
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

create trigger smslogd_note_inserted after insert on verification.sms_log
  referencing new table as changed for each statement execute function smslogd.note_hours();
create trigger smslogd_note_updated after update on verification.sms_log
  referencing old table as former new table as changed for each statement execute function smslogd.note_hours();
create trigger smslogd_note_deleted after delete on verification.sms_log
  referencing old table as changed for each statement execute function smslogd.note_hours();
create trigger smslogd_note_truncated after truncate on verification.sms_log
  for each statement execute function smslogd.note_hours();
-- also where somebody writes with session_replication_role = replica
alter table verification.sms_log enable always trigger smslogd_note_inserted, enable always trigger smslogd_note_updated,
  enable always trigger smslogd_note_deleted, enable always trigger smslogd_note_truncated;
insert into smslogd.changed_hour select distinct smslogd.hour_of(inserted_at) from verification.sms_log;

-- Another time zone may need other parts of an hour: what can still be counted is counted again.
create function smslogd.follow_timezone() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  new.quarters := (select bool_or(extract(minute from (at at time zone new.report_timezone) - (at at time zone 'UTC')) <> 0)
                     from generate_series(timestamptz '2000-01-01 00:00+00', '2050-01-01 00:00+00', '1 month') as at);
  if tg_op = 'UPDATE' and new.quarters <> old.quarters then
    insert into smslogd.changed_hour select distinct hour from smslogd.sms_hourly where hour >= new.frozen_before;
  end if;
  return new;
end $$;
revoke all on function smslogd.follow_timezone() from public;
create trigger smslogd_follow_timezone before insert or update of report_timezone on smslogd.settings
  for each row execute function smslogd.follow_timezone();

-- Counts read the hour that they count, whatever the order of the log's rows: a first copy writes them in the order of their ids, and new rows
-- take the places of those that retention removed, and both make the BRIN index name every block. inserted_at never changes, so status updates stay HOT.
create index sms_log_time_idx on verification.sms_log (inserted_at);
-- new page ranges must not wait for a vacuum
alter index verification.sms_log_inserted_at_idx set (autosummarize = on);

-- Upper bounds of the buckets in seconds, the same as DELIVERY_BUCKETS in src/metrics.ts; 120, 300 and 1800 bound the groups.
create function smslogd.delivery_bounds() returns float8[] language sql immutable parallel safe
as $$ select '{1,2,5,10,20,30,60,120,300,600,900,1800,3600}'::float8[] $$;

-- The one definition of what is counted, for the stored counters and the views: the rows with lo <= inserted_at < hi, by UTC hour (and its
-- quarter), type and status. due: at least 2 minutes old at `at`; on_time: of these, Delivered within 2 minutes. STABLE: it sees what its
-- caller's statement sees. Security definer: readers see counts and not rows.
create function smslogd.count_sms(lo timestamptz, hi timestamptz, at timestamptz)
returns table (hour timestamptz, quarter smallint, type text, status text, sms bigint, due bigint, on_time bigint, le_2m bigint, m2_5 bigint,
               m5_30 bigint, gt_30m bigint, buckets bigint[], oldest timestamptz, newest timestamptz, last_changed_at timestamptz,
               last_answered_at timestamptz)
language sql stable security definer rows 20 set search_path = pg_catalog, pg_temp set jit = off as $$
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
                 case when s.quarters and smslogd.credible(l.inserted_at)
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
            from verification.sms_log l cross join smslogd.settings s
           where l.inserted_at >= $1 and l.inserted_at <= $2 and (l.inserted_at < $2 or $2 = 'infinity')
           group by 1, 2, 3, 4, 5) b
   group by b.hour, b.quarter, b.type, b.status
$$;

-- The moment that the views take for now; a function of its own so that tests can move it.
create function smslogd.clock() returns timestamptz language sql stable parallel safe as $$ select now() $$;

-- Retention (src/figures/retention.ts) removes rows through this: the daemon's role may not delete from the log. Only rows of frozen hours go, and
-- none of the last day, whatever is asked for; a row that somebody holds stays for the next time, so nobody is waited for. Log before queue and
-- both by id, as everywhere. The queue entry goes along, since a gateway id can hold the phone number.
create function smslogd.remove_logged(places tid[], before timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  removed integer;
begin
  if before is null or before > now() - interval '1 day'
     or before > coalesce((select s.frozen_before from smslogd.settings s), '-infinity') then
    raise exception 'smslogd: only hours that are frozen and over for a day may be removed' using errcode = 'object_not_in_prerequisite_state';
  end if;
  with held as materialized (
    select l.id from verification.sms_log l
     where l.ctid = any (places) and l.inserted_at < before order by l.id for update skip locked
  ), gone as (
    delete from verification.sms_log l using held h where l.id = h.id returning l.id
  ), queued as materialized (
    select p.id from smslogd.sms_poll p where p.id in (select id from gone) order by p.id for update skip locked
  ), unqueued as (
    delete from smslogd.sms_poll p using queued q where p.id = q.id
  )
  select count(*) into removed from gone;
  return removed;
end $$;

revoke all on function smslogd.remove_logged(tid[], timestamptz) from public;
