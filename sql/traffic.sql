-- SMS one by one or by phone, without personal data: what is open, stuck, seen last, sent again, by prefix, and the masked log.
create or replace view verification.sms_backlog as
select t.type, s.status, coalesce(n.sms, 0) as open, n.oldest as oldest_inserted_at, smslogd.clock() - n.oldest as oldest_age,
       coalesce(n.waiting, 0) as waiting
  from unnest('{verification,medication_request,text,2FA}'::text[]) with ordinality as t (type, place)
 cross join unnest('{Accepted,Enroute,Pending,Unknown}'::text[]) with ordinality as s (status, place)
  left join (select h.type, k.status, sum(h.sms)::int8 as sms, min(h.oldest) as oldest, sum(k.waiting)::int8 as waiting
               from smslogd.hour_counts h
              cross join (select source_tracks_gateway, frozen_before from smslogd.settings) s
              cross join lateral smslogd.kinds(h.type, h.status, h.sms, s.source_tracks_gateway) k
              where h.status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'none') and h.hour >= s.frozen_before
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

create or replace view verification.sms_resends as
select n.day, n.type, count(*) as total, count(*) filter (where n.again) as resends,
       smslogd.ratio(count(*) filter (where n.again), count(*)) as resend_ratio, count(distinct n.phone_number) filter (where n.again) as phones
  from (select (l.inserted_at at time zone s.report_timezone)::date as day, l.type, l.phone_number, l.inserted_at, s.since,
               coalesce(l.inserted_at - lag(l.inserted_at) over (partition by l.phone_number, l.type order by l.inserted_at) <= interval '10 minutes', false) as again
          from (select report_timezone, (date_trunc('day', smslogd.clock() at time zone report_timezone) - interval '7 days') at time zone report_timezone as since
                  from smslogd.settings) s
          join verification.sms_log l on l.inserted_at >= s.since - interval '10 minutes' and l.inserted_at <= smslogd.clock()) n
 where n.inserted_at >= n.since
 group by n.day, n.type
 order by n.day, n.type;
comment on view verification.sms_resends is 'SMS that followed another one of the same type to the same phone within 10 minutes: people who ask for a second code, or a service that repeats itself; today and the 7 days before. Reads the log itself';

create or replace view verification.sms_delivery_by_prefix as
select d.day, d.type, p.prefix, coalesce(p.operator, 'other') as operator,
       sum(d.sms)::int8 as total, sum(k.finished)::int8 as finished, sum(k.delivered)::int8 as delivered,
       sum(k.finished - k.delivered)::int8 as undelivered, smslogd.ratio(sum(k.delivered), sum(k.finished)) as success_ratio,
       sum(k.open)::int8 as open, smslogd.ratio(sum(k.known), sum(d.sms)) as known_ratio, smslogd.ratio(sum(d.on_time), sum(d.due)) as on_time_ratio
  from (select (l.inserted_at at time zone s.report_timezone)::date as day, l.type, left(l.phone_number, 8) as start,
               coalesce(l.gateway_status, case when l.gateway_id is null then 'none' else 'Accepted' end) as status, s.source_tracks_gateway,
               count(*) as sms, count(*) filter (where l.inserted_at <= smslogd.clock() - interval '2 minutes') as due,
               count(*) filter (where l.inserted_at <= smslogd.clock() - interval '2 minutes' and l.gateway_status = 'Delivered'
                                  and l.status_changed_at <= l.inserted_at + interval '2 minutes' and smslogd.credible(l.status_changed_at)) as on_time
          from (select report_timezone, source_tracks_gateway,
                       (date_trunc('day', smslogd.clock() at time zone report_timezone) - interval '7 days') at time zone report_timezone as since
                  from smslogd.settings) s
          join verification.sms_log l on l.inserted_at >= s.since and l.inserted_at < smslogd.clock() + interval '1 day'
         group by 1, 2, 3, 4, 5) d
  left join lateral (select o.prefix, o.operator from smslogd.operator_prefix o where starts_with(d.start, o.prefix)
                      order by length(o.prefix) desc limit 1) p on true
 cross join lateral smslogd.kinds(d.type, d.status, d.sms, d.source_tracks_gateway) k
 group by d.day, d.type, p.prefix, p.operator
 order by d.day, d.type, p.prefix;
comment on view verification.sms_delivery_by_prefix is 'Delivery by prefix of the number, as smslogd.operator_prefix knows them; numbers are portable, so a prefix tells who first gave the number out and not who serves it. Today and the 7 days before. Reads the log itself';

create or replace view verification.sms_log_masked as
select id, case when phone_number ~ '^\+380[0-9]{9}$' then left(phone_number, 6) || '*****' || right(phone_number, 2) else '****' end as phone_number,
       type, gateway_status, status_changed_at, updated_at, inserted_at
  from verification.sms_log;
comment on view verification.sms_log_masked is 'The log without personal data: no text, no gateway id, most of the phone number hidden';
