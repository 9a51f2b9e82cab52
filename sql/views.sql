-- What DBAs and Prometheus read: views in schema verification. Installed by `smslogd migrate`, which runs this file again whenever it changed.
-- Views are only ever replaced: new columns come last, so that what others built on them stays.
--
-- All figures come from smslogd.sms_hourly_now: the stored counters, and for the hours that changed since they were stored (and for the youngest,
-- whose rows are not yet 2 minutes old) a count of the log in the same snapshot. So they equal a plain count over the log at any moment,
-- also while no daemon runs; and they read few rows of the log while one does.

-- ratios over nothing are null
create or replace function smslogd.ratio(part numeric, whole numeric) returns float8 language sql immutable parallel safe
as $$ select (part / nullif(whole, 0))::float8 $$;

create or replace function smslogd.add_buckets(bigint[], bigint[]) returns bigint[] language sql immutable parallel safe
as $$ select case when $1 = '{}' then $2 when $2 = '{}' then $1
             else array(select a + b from unnest($1, $2) with ordinality as n (a, b, i) order by i) end $$;
create or replace aggregate smslogd.merge_buckets(bigint[]) (sfunc = smslogd.add_buckets, stype = bigint[], initcond = '{}');

-- As Prometheus' histogram_quantile: seconds, evenly spread within a bucket, the highest bound for what is beyond all. Null over nothing.
-- It names nothing else of this schema: readers run it and may not look things up here.
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
    below := below + buckets[i];
  end loop;
  return null;
end $$;

create or replace view smslogd.stale_hour as
select hour from (
  select hour from smslogd.changed_hour
  union select date_bin('1 hour', smslogd.clock(), '2000-01-01 00:00+00')
  union select date_bin('1 hour', smslogd.clock() - interval '2 minutes', '2000-01-01 00:00+00')
) noted
where hour >= (select frozen_before from smslogd.settings);
comment on view smslogd.stale_hour is 'Hours whose stored counters may not be taken now: they changed, or hold rows that are not 2 minutes old';

create or replace view smslogd.sms_hourly_now as
with stale as materialized (select hour from smslogd.stale_hour)
select h.hour, h.type, h.status, h.sms,
       case when h.hour < smslogd.clock() then h.sms else 0 end as due,
       case when h.hour < smslogd.clock() then h.le_2m else 0 end as on_time,
       h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.buckets, h.oldest, h.last_changed_at
  from smslogd.sms_hourly h
 where h.hour not in (select hour from stale)
union all
select c.hour, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.buckets, c.oldest, c.last_changed_at
  from smslogd.spans(array(select hour from stale)) s
 cross join lateral smslogd.count_sms(s.lo, s.hi, smslogd.clock()) c
 where c.hour in (select hour from stale);
comment on view smslogd.sms_hourly_now is 'The hourly counters, right at this moment: stored, or counted now where the stored ones are stale';

create or replace view verification.sms_today_vs_yesterday as
with moment as materialized (
  select smslogd.clock() as at, s.report_timezone as zone, s.source_tracks_gateway as tracks,
         date_trunc('day', smslogd.clock() at time zone s.report_timezone) as today
    from smslogd.settings s
), period as not materialized (
  select 1 as place, 'today' as period, today at time zone zone as lo, (today + interval '1 day') at time zone zone as hi from moment
  union all
  select 2, 'yesterday_same_time', (today - interval '1 day') at time zone zone,
         least((at at time zone zone - interval '1 day') at time zone zone, today at time zone zone) from moment
  union all
  select 3, 'yesterday', (today - interval '1 day') at time zone zone, today at time zone zone from moment
), whole as not materialized (
  -- the whole UTC hours of each period
  select p.*, date_bin('1 hour', p.lo + interval '59 minutes 59.999999 seconds', '2000-01-01 00:00+00') as first,
         date_bin('1 hour', p.hi, '2000-01-01 00:00+00') as past
    from period p
), hours as materialized (
  select h.* from smslogd.sms_hourly_now h
   where h.hour >= (select (today - interval '1 day') at time zone zone from moment)
     and h.hour < (select (today + interval '1 day') at time zone zone from moment)
), counted as not materialized (
  select w.place, w.period, h.type, h.status, h.sms, h.due, h.on_time, h.le_2m, h.m2_5, h.m5_30, h.gt_30m, h.oldest
    from whole w join hours h on h.hour >= w.first and h.hour < w.past
  union all
  -- the parts of an hour at their ends
  select w.place, w.period, c.type, c.status, c.sms, c.due, c.on_time, c.le_2m, c.m2_5, c.m5_30, c.gt_30m, c.oldest
    from whole w
   cross join lateral (values (w.lo, least(w.first, w.hi)), (greatest(w.first, w.past), w.hi)) part (lo, hi)
   cross join lateral smslogd.count_sms(part.lo, part.hi, smslogd.clock()) c
   where part.lo < part.hi
  union all
  select p.place, p.period, t.type, null, 0, 0, 0, 0, 0, 0, 0, null
    from period p cross join unnest('{verification,medication_request,text,2FA}'::text[]) as t (type)
)
select c.period, c.type,
       sum(sms)::int8 as total,
       coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked')), 0)::int8 as finished,
       coalesce(sum(sms) filter (where status = 'Delivered'), 0)::int8 as delivered,
       coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked', 'Delivered')), 0)::int8 as undelivered,
       smslogd.ratio(coalesce(sum(sms) filter (where status = 'Delivered'), 0),
                     sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked'))) as success_ratio,
       sum(le_2m)::int8 as le_2m, sum(m2_5)::int8 as m2_5, sum(m5_30)::int8 as m5_30, sum(gt_30m)::int8 as gt_30m,
       coalesce(sum(sms) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')), 0)::int8 as open,
       smslogd.clock() - min(oldest) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')) as oldest_open_age,
       smslogd.ratio(coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'untracked')), 0),
                     sum(sms)) as known_ratio,
       smslogd.ratio(sum(on_time), sum(due)) as on_time_ratio,
       coalesce(sum(sms) filter (where status = 'untracked'), 0)::int8 as untracked,
       c.period <> 'today'
         and coalesce(sum(sms) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')
           or status = 'untracked' and (c.type <> 'verification' or (select tracks from moment))), 0) = 0 as settled,
       coalesce(sum(sms) filter (where status = 'Accepted'), 0)::int8 as accepted,
       coalesce(sum(sms) filter (where status = 'Enroute'), 0)::int8 as enroute,
       coalesce(sum(sms) filter (where status = 'Pending'), 0)::int8 as pending,
       coalesce(sum(sms) filter (where status = 'Unknown'), 0)::int8 as unknown,
       coalesce(sum(sms) filter (where status = 'Expired'), 0)::int8 as expired,
       coalesce(sum(sms) filter (where status = 'Deleted'), 0)::int8 as deleted,
       coalesce(sum(sms) filter (where status = 'Undeliverable'), 0)::int8 as undeliverable,
       coalesce(sum(sms) filter (where status = 'Rejected'), 0)::int8 as rejected,
       coalesce(sum(sms) filter (where status = 'Unaccepted'), 0)::int8 as unaccepted,
       coalesce(sum(sms) filter (where status = 'Terminated'), 0)::int8 as terminated
  from counted c
 group by c.place, c.period, c.type
 order by c.place, array_position('{verification,medication_request,text,2FA}'::text[], c.type);

create or replace view verification.sms_delivery_hourly as
select h.hour, h.hour at time zone (select report_timezone from smslogd.settings) as local_hour, h.type,
       sum(sms)::int8 as total,
       coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked')), 0)::int8 as finished,
       coalesce(sum(sms) filter (where status = 'Delivered'), 0)::int8 as delivered,
       coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked', 'Delivered')), 0)::int8 as undelivered,
       smslogd.ratio(coalesce(sum(sms) filter (where status = 'Delivered'), 0),
                     sum(sms) filter (where status not in ('Accepted', 'Enroute', 'untracked'))) as success_ratio,
       sum(le_2m)::int8 as le_2m, sum(m2_5)::int8 as m2_5, sum(m5_30)::int8 as m5_30, sum(gt_30m)::int8 as gt_30m,
       coalesce(sum(sms) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')), 0)::int8 as open,
       smslogd.ratio(coalesce(sum(sms) filter (where status not in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'untracked')), 0),
                     sum(sms)) as known_ratio,
       smslogd.ratio(sum(on_time), sum(due)) as on_time_ratio,
       smslogd.percentile(smslogd.merge_buckets(buckets) filter (where status = 'Delivered'), smslogd.delivery_bounds(), 0.5) as p50,
       smslogd.percentile(smslogd.merge_buckets(buckets) filter (where status = 'Delivered'), smslogd.delivery_bounds(), 0.95) as p95,
       smslogd.percentile(smslogd.merge_buckets(buckets) filter (where status = 'Delivered'), smslogd.delivery_bounds(), 0.99) as p99,
       h.hour + interval '1 hour' <= smslogd.clock()
         and coalesce(sum(sms) filter (where status in ('Accepted', 'Enroute', 'Pending', 'Unknown')
           or status = 'untracked' and (h.type <> 'verification' or (select source_tracks_gateway from smslogd.settings))), 0) = 0 as settled,
       coalesce(sum(sms) filter (where status = 'untracked'), 0)::int8 as untracked
  from smslogd.sms_hourly_now h
 group by h.hour, h.type
 order by h.hour, h.type;

create or replace view smslogd.sms_by_status as
select type, status, sum(sms)::int8 as sms, min(oldest) as oldest, max(last_changed_at) as last_changed_at
  from (select h.type, h.sms, h.oldest, h.last_changed_at,
               -- what retention removed while it was open is waited for no longer
               case when h.hour < (select frozen_before from smslogd.settings)
                      and h.status in ('Accepted', 'Enroute', 'Pending', 'Unknown') then 'untracked' else h.status end as status
          from smslogd.sms_hourly_now h) h
 group by type, status;
comment on view smslogd.sms_by_status is 'All SMS that ever were in the log, by type and status; SMS that retention removed while they were open are untracked';

create or replace view verification.sms_backlog as
select t.type, s.status, coalesce(n.sms, 0) as open, n.oldest as oldest_inserted_at, smslogd.clock() - n.oldest as oldest_age
  from unnest('{verification,medication_request,text,2FA}'::text[]) with ordinality as t (type, place)
 cross join unnest('{Accepted,Enroute,Pending,Unknown}'::text[]) with ordinality as s (status, place)
  left join (select h.type, h.status, sum(h.sms)::int8 as sms, min(h.oldest) as oldest
               from smslogd.sms_hourly_now h
              where h.status in ('Accepted', 'Enroute', 'Pending', 'Unknown') and h.hour >= (select frozen_before from smslogd.settings)
              group by h.type, h.status) n
         on n.type = t.type and n.status = s.status
 order by t.place, s.place;

create or replace view verification.sms_log_masked as
select id, case when phone_number ~ '^\+380[0-9]{9}$' then left(phone_number, 6) || '*****' || right(phone_number, 2) else '****' end as phone_number,
       type, gateway_status, status_changed_at, updated_at, inserted_at
  from verification.sms_log;

comment on view verification.sms_today_vs_yesterday is 'Start here: the channel today, yesterday up to the same time of day, and all of yesterday, by type; days of inserted_at in REPORT_TIMEZONE. The fates are those known now, for past periods too';
comment on view verification.sms_delivery_hourly is 'Delivery by hour of inserted_at and type; an hour without SMS has no row';
comment on view verification.sms_backlog is 'SMS without a final status now, by type and status';
comment on view verification.sms_log_masked is 'The log without personal data: no text, no gateway id, most of the phone number hidden';

-- columns of one name mean one thing in every view
do $$
declare
  meaning constant jsonb := '{
    "period": "today, yesterday_same_time (up to the same wall-clock time as now) or yesterday",
    "hour": "Start of the hour, an instant: shown in the session''s time zone",
    "local_hour": "Start of the hour on the clocks of REPORT_TIMEZONE; one comes twice when they are set back",
    "type": "verification, medication_request, text or 2FA",
    "total": "All SMS",
    "finished": "SMS whose status is not Accepted or Enroute; rows without any status (untracked) are not among them",
    "delivered": "SMS that are Delivered",
    "undelivered": "finished - delivered",
    "success_ratio": "delivered / finished; null over nothing. Blind to SMS that are stuck: read it beside on_time_ratio",
    "le_2m": "Delivered within 2 minutes: status_changed_at - inserted_at, negative counts as 0",
    "m2_5": "Delivered in more than 2, at most 5 minutes",
    "m5_30": "Delivered in more than 5, at most 30 minutes",
    "gt_30m": "Delivered in more than 30 minutes",
    "oldest_open_age": "Age of the oldest SMS that is open; null where none is",
    "known_ratio": "SMS with a final status / all; null over nothing",
    "on_time_ratio": "The first figure to look at: Delivered within 2 minutes / all SMS that are at least 2 minutes old, whatever their status; null over nothing",
    "untracked": "SMS without any status, as no gateway id is known; in total, on_time_ratio and known_ratio, not in finished and open",
    "settled": "True once the period is over and none of its SMS is open or waits for its gateway id: its figures stay",
    "accepted": "Open: accepted by the gateway, not tried yet",
    "enroute": "Open: in the delivery process",
    "pending": "Open: in progress of delivery",
    "unknown": "Open: the gateway does not know",
    "expired": "Its time limit was reached at the gateway",
    "deleted": "Deleted by an administrator of the gateway",
    "undeliverable": "Cannot be delivered",
    "rejected": "Rejected because of errors",
    "unaccepted": "Could not be accepted, or never got a gateway id",
    "terminated": "Not delivered within its life",
    "p50": "Half were delivered within so many seconds; approximate, from merged buckets",
    "p95": "95 of 100 were delivered within so many seconds; approximate, from merged buckets, 3600 at most",
    "p99": "99 of 100 were delivered within so many seconds; approximate, from merged buckets, 3600 at most",
    "status": "Accepted, Enroute, Pending or Unknown",
    "open": "SMS without a final status: Accepted, Enroute, Pending or Unknown",
    "oldest_inserted_at": "When the oldest of them was created",
    "oldest_age": "Age of the oldest of them",
    "id": "As in sms_log",
    "phone_number": "The operator''s prefix and the last two digits",
    "gateway_status": "As in sms_log",
    "status_changed_at": "As in sms_log",
    "updated_at": "As in sms_log",
    "inserted_at": "As in sms_log"
  }';
  each record;
begin
  for each in
    select a.attrelid::regclass as view, a.attname, meaning ->> a.attname as comment
      from pg_attribute a
     where a.attnum > 0 and meaning ? a.attname
       and a.attrelid in ('verification.sms_today_vs_yesterday'::regclass, 'verification.sms_delivery_hourly'::regclass,
                          'verification.sms_backlog'::regclass, 'verification.sms_log_masked'::regclass)
  loop
    execute format('comment on column %s.%I is %L', each.view, each.attname, each.comment);
  end loop;
end $$;

-- The roles of sql/roles.sql, where they exist. Called here and by every `smslogd migrate --role NAME`.
create or replace function smslogd.grant_people() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if to_regrole('sms_reader') is not null then
    grant usage on schema verification to sms_reader;
    grant select on verification.sms_today_vs_yesterday, verification.sms_delivery_hourly, verification.sms_backlog,
                    verification.sms_log_masked to sms_reader;
  end if;
  if to_regrole('sms_dba') is not null then
    grant usage on schema verification, smslogd to sms_dba;
    grant select on verification.sms_log, verification.sms_today_vs_yesterday, verification.sms_delivery_hourly, verification.sms_backlog,
                    verification.sms_log_masked to sms_dba;
    grant select on all tables in schema smslogd to sms_dba;
  end if;
  if to_regrole('sms_writer') is not null then
    grant usage on schema verification to sms_writer;
    grant insert, select (id), update (gateway_id, gateway_status, updated_at) on verification.sms_log to sms_writer;
  end if;
end $$;
revoke all on function smslogd.grant_people() from public;
select smslogd.grant_people();
