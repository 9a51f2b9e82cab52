-- SMS one by one or by phone, without personal data: what is open, stuck, seen last, sent again, by prefix, and the masked log.
create or replace view verification.sms_backlog as
select t.type, s.status, coalesce(n.sms, 0) as open, n.oldest as oldest_inserted_at, date_trunc('second', smslogd.clock() - n.oldest) as oldest_age,
       coalesce(n.waiting, 0) as waiting
  from unnest(smslogd.types()) with ordinality as t (type, place)
 cross join unnest(smslogd.open_statuses()) with ordinality as s (status, place)
  left join smslogd.today_counts n on n.period = 'now' and n.type = t.type and n.status = s.status
 order by t.place, s.place;
comment on view verification.sms_backlog is 'SMS without a final status now, by type and status';

create or replace view verification.sms_stuck as
select p.id, l.type, l.gateway_status, l.inserted_at, date_trunc('second', smslogd.clock() - p.sent_at) as age, p.deadline_at <= smslogd.clock() as past_life,
       p.attempt as attempts, p.last_result, greatest(p.due_at, p.leased_until) as next_due_at, p.give_up_at
  from smslogd.sms_poll p
  join verification.sms_log l on l.id = p.id
 where p.sent_at <= smslogd.clock() - interval '5 minutes'
   and coalesce(smslogd.is_open(l.gateway_status), true)
 order by p.sent_at;
comment on view verification.sms_stuck is 'SMS that are open for more than 5 minutes, the oldest first, with what the gateway was asked; from the queue of status requests';

create or replace view verification.sms_last_seen as
select t.type, max(s.newest) as last_inserted_at, max(s.last_changed_at) filter (where s.status = 'Delivered') as last_delivered_at,
       -- smslogd's own verdicts are no answers
       max(s.last_answered_at) filter (where s.status not in ('Unaccepted', 'Terminated')) as last_answered_at
  from unnest(smslogd.types()) with ordinality as t (type, place)
  left join (select type, status, newest, last_changed_at, last_answered_at from smslogd.last_stored
             union all
             select type, status, newest, last_changed_at, last_answered_at from smslogd.today_counts where period = 'now') s on s.type = t.type
 group by t.type, t.place
 order by t.place;
comment on view verification.sms_last_seen is 'The latest activity of the channel by type: SMS, delivery, and answer of the gateway that changed a status';

-- Resends and prefixes are read from the log, a day at a time through the index on inserted_at: the views show two days, functions any.
create or replace function smslogd.resends(first date, last date)
returns table (day date, type text, total bigint, resends bigint, resend_ratio numeric, phones bigint)
language sql stable security definer rows 8
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off set work_mem = '64MB' as $$
  select d.day, p.type, smslogd.total(p.sms), smslogd.total(p.resends), smslogd.ratio(smslogd.total(p.resends), smslogd.total(p.sms)), count(*) filter (where p.resends > 0)
    from (select day, lo, least(hi, smslogd.clock() + interval '1 microsecond') as hi from smslogd.days($1, $2)) d
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
select r.* from smslogd.moment m cross join lateral smslogd.resends(m.today - 1, m.today) r order by r.day desc, r.type;
comment on view verification.sms_resends is 'SMS that followed another one of the same type to the same phone within 10 minutes: people who ask for a second code, or a service that repeats itself; today and yesterday. Reads the log itself; for other days call smslogd.resends(first, last)';

create or replace function smslogd.delivery_by_prefix(first date, last date)
returns table (day date, type text, prefix text, operator text, total bigint, processed bigint, delivered bigint, undelivered bigint, success_ratio numeric,
               on_time_ratio numeric, known_ratio numeric, open bigint)
language sql stable security definer rows 100
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_bitmapscan = off set work_mem = '64MB' as $$
  select n.day, n.type, p.prefix, coalesce(p.operator, 'other'), smslogd.total(n.sms), smslogd.total(k.processed), smslogd.total(k.delivered),
         smslogd.total(k.processed - k.delivered), smslogd.ratio(smslogd.total(k.delivered), smslogd.total(k.processed)),
         smslogd.ratio(smslogd.total(n.on_time), smslogd.total(n.due)), smslogd.ratio(smslogd.total(k.final), smslogd.total(n.sms)), smslogd.total(k.open)
    from (select d.day, c.*
            from smslogd.moment m
           cross join smslogd.days($1, $2) d
           cross join lateral (
             select l.type, left(l.phone_number, 8) as start,
                    smslogd.counted_status(l.gateway_status, l.gateway_id, l.type, l.inserted_at, (select tracked_since from smslogd.settings)) as status,
                    count(*) as sms, count(*) filter (where l.inserted_at <= m.at - interval '2 minutes') as due,
                    count(*) filter (where l.inserted_at <= m.at - interval '2 minutes' and l.gateway_status = 'Delivered'
                                       and l.status_changed_at <= l.inserted_at + interval '2 minutes' and smslogd.credible(l.status_changed_at)) as on_time
               from verification.sms_log l where l.inserted_at >= d.lo and l.inserted_at < d.hi
              group by 1, 2, 3) c) n
    left join lateral (select o.prefix, o.operator from smslogd.operator_prefix o where starts_with(n.start, o.prefix)
                        order by length(o.prefix) desc limit 1) p on true
   cross join lateral smslogd.status_groups(n.status, n.sms) k
   group by n.day, n.type, p.prefix, p.operator
$$;
comment on function smslogd.delivery_by_prefix(date, date) is 'verification.sms_delivery_by_prefix for other days';

create or replace view verification.sms_delivery_by_prefix as
select d.* from smslogd.moment m cross join lateral smslogd.delivery_by_prefix(m.today - 1, m.today) d
 order by d.day desc, d.on_time_ratio, d.success_ratio, d.total desc;
comment on view verification.sms_delivery_by_prefix is 'Delivery by prefix of the number, as smslogd.operator_prefix knows them, today first and in each day what fails first; numbers are portable, so a prefix tells who first gave the number out and not who serves it. Today and yesterday. Reads the log itself; for other days call smslogd.delivery_by_prefix(first, last)';

create or replace view verification.sms_log_masked as
select id, case when phone_number ~ '^\+380[0-9]{9}$' then left(phone_number, 6) || '*****' || right(phone_number, 2) else '****' end as phone_number,
       type, gateway_status, status_changed_at, updated_at, inserted_at
  from verification.sms_log;
comment on view verification.sms_log_masked is 'The log without personal data: no text, no gateway id, most of the phone number hidden';
