-- How retention removes rows of the log.

-- Retention (src/figures/retention.ts) removes rows through this: the daemon's role may not delete from the log. Only rows of frozen hours go, and
-- none of the last day, whatever is asked for; a row that somebody holds stays for the next time, so nobody is waited for. Log before queue and
-- both by id, as everywhere. The queue entry goes along, since a gateway id can hold the phone number.
create or replace function smslogd.remove_logged(places tid[], before timestamptz) returns integer
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
