-- How retention removes rows of the log. What is removed is bounded by settings.retention_days, which only migrate writes.

-- Freezes the counters of the hours before `before`, unless some of these wait to be counted; true if this call did it. The daemon's role may not set
-- the mark itself: it could then empty the log.
create or replace function smslogd.freeze_hours(before timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- a mark that is yet to come was set while the clock was fast: no hour would be counted until then
  update smslogd.settings set frozen_before = smslogd.hour_of(now()) where frozen_before > now();
  if coalesce(before > now() - nullif((select retention_days from smslogd.settings), 0) * interval '1 day', true) then
    raise exception 'smslogd: RETENTION_DAYS in the database keeps these rows' using errcode = 'object_not_in_prerequisite_state';
  end if;
  update smslogd.settings s set frozen_before = before
   where s.frozen_before < before
     and not exists (select from smslogd.changed_hour n where n.hour >= s.frozen_before and n.hour < before);
  return found;
end $$;
revoke all on function smslogd.freeze_hours(timestamptz) from public;

-- Retention (src/figures/retention.ts) removes rows through this: the daemon's role may not delete from the log. Only rows of frozen hours go, and
-- none of the last day, whatever is requested; a row that is locked stays for the next time, so this waits for no lock. Log before queue and
-- both by id, as everywhere. The queue entry goes along, since a gateway id can hold the phone number.
create or replace function smslogd.remove_logged(places tid[], before timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  removed integer;
begin
  if coalesce(before > (select least(frozen_before, now() - nullif(retention_days, 0) * interval '1 day') from smslogd.settings), true)
     or not exists (select from smslogd.settings where retention_days > 0) then
    raise exception 'smslogd: only hours that are frozen and past RETENTION_DAYS may be removed' using errcode = 'object_not_in_prerequisite_state';
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
