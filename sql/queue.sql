-- What is queued for status requests, and when; the triggers that queue it.

-- The one rule of what is queued and when. No row: nothing to ask. `moment` is the clock's, not the start of the transaction: an SMS that is written late in a long
-- one is not from the future. A time of sending that is infinite or yet to come gives no age: such an SMS is as old as its entry, or it would be asked for as
-- one that was just sent until then; and it ends no earlier than it says, where the clock of whoever sent it may be fast. Nothing is added to it: the last year that
-- PostgreSQL knows would refuse it.
create or replace function smslogd.queue_entry(id uuid, gateway_id text, gateway_status text, type text, inserted_at timestamptz, moment timestamptz)
returns setof smslogd.sms_poll language sql stable as $$
  select $1, $2, case when $5 <= $6 - s.life then 2 when $5 <= $6 - interval '10 minutes' then 1 else 0 end::smallint,
         case when $2 is null then greatest($6, least($5, $6 + interval '10 minutes') + s.life) else greatest($6, least($5, $6) + s.first_poll) end,
         case when isfinite($5) then least($5, $6) else $6 end, least($5, $6 + interval '10 minutes') + s.life, $6 + s.give_up,
         0, null::text, timestamptz '-infinity'
    from (select * from smslogd.settings limit 1) s
   where ($3 is null or smslogd.is_open($3))
     and ($2 is not null or $4 <> 'verification' or s.source_tracks_gateway)
$$;

-- A failure to queue never refuses the row: the poller's reconcile finds it later.
create or replace function smslogd.queue_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- a variable: with the call itself for an argument the function would not be inlined
  moment constant timestamptz := clock_timestamp();
begin
  -- what is new in the log is new in the queue: without looking for each entry first this costs half
  insert into smslogd.sms_poll
  select q.* from inserted l
  cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, moment) q;
  return null;
exception
  when unique_violation then
    -- but for an entry that is left of a row that somebody removed by hand: it is the new row's now, but for its fence
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
