-- How an hour and a day are cut. Hours are UTC's; REPORT_TIMEZONE has an offset of whole hours at any time, so that its days are made of them.

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

-- The moment that the views take for now, also in a transaction that began long ago; a function of its own so that tests can move it.
create or replace function smslogd.clock() returns timestamptz language sql stable parallel safe as $$ select statement_timestamp() $$;

-- The first moment of a day. Where clocks are set back at midnight, so that it comes twice, the first of the two.
create or replace function smslogd.day_start(day date, zone text) returns timestamptz language sql stable parallel safe
return case when ((day::timestamp at time zone zone - interval '1 hour') at time zone zone)::date = day
            then day::timestamp at time zone zone - interval '1 hour' else day::timestamp at time zone zone end;

-- Now, and what it is in REPORT_TIMEZONE. One row whatever the statistics say: see counters.sql.
create or replace view smslogd.moment as
select s.at, s.zone, (s.at at time zone s.zone)::date as today
  from (select smslogd.clock() as at, report_timezone as zone from smslogd.settings limit 1) s;
comment on view smslogd.moment is 'One row: the time, REPORT_TIMEZONE, and the day there';

-- From one day to another, each with where it starts and ends.
create or replace function smslogd.days(first date, last date) returns table (day date, lo timestamptz, hi timestamptz)
language sql stable security definer rows 10 set search_path = pg_catalog, pg_temp as $$
  select d::date, smslogd.day_start(d::date, m.zone), smslogd.day_start(d::date + 1, m.zone)
    from smslogd.moment m cross join generate_series($1::timestamp, $2::timestamp, interval '1 day') as d
$$;
