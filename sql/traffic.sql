-- SMS one by one or by phone, without personal data: what is open, stuck, seen last, sent again, by prefix, and the masked log.
create or replace view verification.sms_backlog as
select t.type, s.status, coalesce(n.sms, 0) as open, n.oldest as oldest_inserted_at, smslogd.clock() - n.oldest as oldest_age,
       coalesce(n.waiting, 0) as waiting
  from unnest('{verification,medication_request,text,2FA}'::text[]) with ordinality as t (type, place)
 cross join unnest('{Accepted,Enroute,Pending,Unknown}'::text[]) with ordinality as s (status, place)
  left join (select h.type, k.status, sum(h.sms)::int8 as sms, min(h.oldest) as oldest, sum(k.waiting)::int8 as waiting
               from smslogd.hour_counts h
              cross join (select (select source_tracks_gateway from smslogd.settings) as tracks) s
              cross join lateral smslogd.kinds(h.type, h.status, h.sms, s.tracks) k
              where h.status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'none') and h.hour >= (select frozen_before from smslogd.settings)
              group by h.type, k.status) n
         on n.type = t.type and n.status = s.status
 order by t.place, s.place;
comment on view verification.sms_backlog is 'SMS without a final status now, by type and status';

create or replace view verification.sms_stuck as
select p.id, l.type, l.gateway_status, l.inserted_at, smslogd.clock() - p.sent_at as age, p.deadline_at <= smslogd.clock() as past_life,
       p.attempt as attempts, p.last_result, greatest(p.due_at, p.leased_until) as next_due_at, p.give_up_at
  from smslogd.sms_poll p
  join verification.sms_log l on l.id = p.id
 where p.sent_at <= smslogd.clock() - interval '5 minutes'
   and (l.gateway_status is null or l.gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown'))
 order by p.sent_at;
comment on view verification.sms_stuck is 'SMS that are open for more than 5 minutes, the oldest first, with what the gateway was asked; from the queue of status requests';

create or replace view verification.sms_last_seen as
select t.type, max(s.newest) as last_inserted_at, max(s.last_changed_at) filter (where s.status = 'Delivered') as last_delivered_at,
       max(s.last_answered_at) as last_answered_at
  from unnest('{verification,medication_request,text,2FA}'::text[]) with ordinality as t (type, place)
  left join smslogd.sms_by_status s on s.type = t.type
 group by t.type, t.place
 order by t.place;
comment on view verification.sms_last_seen is 'When the channel last showed life, by type: SMS, delivery, and answer of the gateway that changed a status';

-- Resends and prefixes are read from the log, a day at a time through the index on inserted_at: the views show two days, functions any.
create or replace function smslogd.resends(first date, last date)
returns table (day date, type text, total bigint, resends bigint, resend_ratio float8, phones bigint)
language sql stable security definer rows 8
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off set work_mem = '64MB' as $$
  select d.day, p.type, sum(p.sms)::int8, sum(p.resends)::int8, smslogd.ratio(sum(p.resends), sum(p.sms)), count(*) filter (where p.resends > 0)
    from (select day::date, day at time zone zone as lo, least((day + interval '1 day') at time zone zone, smslogd.clock() + interval '1 microsecond') as hi
            from (select (select report_timezone from smslogd.settings) as zone) s
           cross join generate_series($1::timestamp, $2::timestamp, interval '1 day') as day) d
   cross join lateral (
     select n.type, count(*) as sms, count(*) filter (where n.inserted_at - n.former <= interval '10 minutes') as resends
       from (select l.type, l.phone_number, l.inserted_at, lag(l.inserted_at) over (partition by l.phone_number, l.type order by l.inserted_at) as former
               from verification.sms_log l where l.inserted_at >= d.lo - interval '10 minutes' and l.inserted_at < d.hi) n
      where n.inserted_at >= d.lo
      group by n.phone_number, n.type) p
   group by d.day, p.type
$$;
comment on function smslogd.resends(date, date) is 'verification.sms_resends for other days';

create or replace view verification.sms_resends as
select r.* from (select (smslogd.clock() at time zone (select report_timezone from smslogd.settings))::date as today) s
 cross join lateral smslogd.resends(s.today - 1, s.today) r
 order by r.day, r.type;
comment on view verification.sms_resends is 'SMS that followed another one of the same type to the same phone within 10 minutes: people who ask for a second code, or a service that repeats itself; today and yesterday. Reads the log itself; for other days call smslogd.resends(first, last)';

create or replace function smslogd.delivery_by_prefix(first date, last date)
returns table (day date, type text, prefix text, operator text, total bigint, finished bigint, delivered bigint, undelivered bigint, success_ratio float8,
               open bigint, known_ratio float8, on_time_ratio float8)
language sql stable security definer rows 100
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off set work_mem = '64MB' as $$
  select n.day, n.type, p.prefix, coalesce(p.operator, 'other'), sum(n.sms)::int8, sum(k.finished)::int8, sum(k.delivered)::int8,
         sum(k.finished - k.delivered)::int8, smslogd.ratio(sum(k.delivered), sum(k.finished)), sum(k.open)::int8, smslogd.ratio(sum(k.known), sum(n.sms)),
         smslogd.ratio(sum(n.on_time), sum(n.due))
    from (select d.day, d.tracks, c.*
            from (select day::date, day at time zone zone as lo, (day + interval '1 day') at time zone zone as hi, tracks,
                         smslogd.clock() - interval '2 minutes' as due_until
                    from (select (select report_timezone from smslogd.settings) as zone, (select source_tracks_gateway from smslogd.settings) as tracks) s
                   cross join generate_series($1::timestamp, $2::timestamp, interval '1 day') as day) d
           cross join lateral (
             select l.type, left(l.phone_number, 8) as start,
                    coalesce(l.gateway_status, case when l.gateway_id is null then 'none' else 'Accepted' end) as status,
                    count(*) as sms, count(*) filter (where l.inserted_at <= d.due_until) as due,
                    count(*) filter (where l.inserted_at <= d.due_until and l.gateway_status = 'Delivered'
                                       and l.status_changed_at <= l.inserted_at + interval '2 minutes' and smslogd.credible(l.status_changed_at)) as on_time
               from verification.sms_log l where l.inserted_at >= d.lo and l.inserted_at < d.hi
              group by 1, 2, 3) c) n
    left join lateral (select o.prefix, o.operator from smslogd.operator_prefix o where starts_with(n.start, o.prefix)
                        order by length(o.prefix) desc limit 1) p on true
   cross join lateral smslogd.kinds(n.type, n.status, n.sms, n.tracks) k
   group by n.day, n.type, p.prefix, p.operator
$$;
comment on function smslogd.delivery_by_prefix(date, date) is 'verification.sms_delivery_by_prefix for other days';

create or replace view verification.sms_delivery_by_prefix as
select d.* from (select (smslogd.clock() at time zone (select report_timezone from smslogd.settings))::date as today) s
 cross join lateral smslogd.delivery_by_prefix(s.today - 1, s.today) d
 order by d.day, d.type, d.prefix;
comment on view verification.sms_delivery_by_prefix is 'Delivery by prefix of the number, as smslogd.operator_prefix knows them; numbers are portable, so a prefix tells who first gave the number out and not who serves it. Today and yesterday. Reads the log itself; for other days call smslogd.delivery_by_prefix(first, last)';

create or replace view verification.sms_log_masked as
select id, case when phone_number ~ '^\+380[0-9]{9}$' then left(phone_number, 6) || '*****' || right(phone_number, 2) else '****' end as phone_number,
       type, gateway_status, status_changed_at, updated_at, inserted_at
  from verification.sms_log;
comment on view verification.sms_log_masked is 'The log without personal data: no text, no gateway id, most of the phone number hidden';
