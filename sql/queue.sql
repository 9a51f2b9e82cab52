-- What is queued for status requests, and when; the triggers that queue it.

-- The one rule of what is queued and when. No row: nothing to ask. `moment` is the current time, not the start of the transaction: an SMS that is written late in
-- a long transaction is not from the future. A sending time that is infinite or in the future gives no age: the age is then that of the queue entry, or the SMS would
-- be polled as a new one until that time. Its life may end up to ten minutes later, because the sender's clock may be fast. Nothing is added to the sending time
-- itself: that would overflow in the last year that PostgreSQL supports.
create or replace function smslogd.queue_entry(id uuid, gateway_id text, gateway_status text, type text, inserted_at timestamptz, moment timestamptz)
returns setof smslogd.sms_poll language sql stable as $$
  select $1, $2, case when $5 <= $6 - s.life then 2 when $5 <= $6 - interval '10 minutes' then 1 else 0 end::smallint,
         case when $2 is null then greatest($6, least($5, $6 + interval '10 minutes') + s.life) else greatest($6, least($5, $6) + s.first_poll) end,
         case when isfinite($5) then least($5, $6) else $6 end, least($5, $6 + interval '10 minutes') + s.life, $6 + s.give_up,
         0, null::text, timestamptz '-infinity'
    from (select * from smslogd.settings limit 1) s
   where ($3 is null or smslogd.is_open($3))
     and ($2 is not null or smslogd.is_tracked($4, $5, s.tracked_since))
$$;

-- If queueing fails, the row is still written: the leader's repair of the queue finds it later.
create or replace function smslogd.queue_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- a variable: with the call itself for an argument the function would not be inlined
  moment constant timestamptz := clock_timestamp();
begin
  -- what is new in the log is new in the queue: without a lookup of each entry first this costs half
  insert into smslogd.sms_poll
  select q.* from inserted l
  cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, moment) q;
  return null;
exception
  when unique_violation then
    -- except for the entry of a row that was removed by hand: it becomes the new row's, but keeps its fence
    begin
      insert into smslogd.sms_poll
      select q.* from inserted l
      cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, moment) q
      on conflict (id) do update set gateway_id = excluded.gateway_id, lane = excluded.lane, due_at = excluded.due_at, sent_at = excluded.sent_at,
        deadline_at = excluded.deadline_at, give_up_at = excluded.give_up_at, leased_until = excluded.leased_until;
    exception when others then
      raise warning 'smslogd: rows are logged but not queued yet (%)', sqlstate;
    end;
    return null;
  when others then
    raise warning 'smslogd: rows are logged but not queued yet (%)', sqlstate;
    return null;
end $$;

create or replace function smslogd.queue_completed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  moment constant timestamptz := clock_timestamp();
begin
  insert into smslogd.sms_poll as p
  select q.* from smslogd.queue_entry(new.id, new.gateway_id, new.gateway_status, new.type, new.inserted_at, moment) q
  on conflict (id) do update set gateway_id = excluded.gateway_id, due_at = excluded.due_at, lane = excluded.lane,
    leased_until = excluded.leased_until;
  return null;
exception when others then
  raise warning 'smslogd: a row is completed but not queued yet (%)', sqlstate;
  return null;
end $$;
revoke all on function smslogd.queue_inserted(), smslogd.queue_completed() from public;

create or replace trigger smslogd_queue_inserted after insert on verification.sms_log
  referencing new table as inserted for each statement execute function smslogd.queue_inserted();
create or replace trigger smslogd_queue_completed after update of gateway_id on verification.sms_log
  for each row when (new.gateway_id is distinct from old.gateway_id) execute function smslogd.queue_completed();
