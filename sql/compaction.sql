-- While a transaction is open somewhere, vacuum cannot clean up behind any statement that came after it. What the daemon changes all the time would
-- grow, and be slower to read, for as long as that lasts. So such a table is written anew, with its living rows alone (src/compaction.ts says when): not
-- by VACUUM FULL or CLUSTER, which keep what that transaction could still see, but by a change of a column's type to the same type, which does
-- not. Whoever looks at the table with a snapshot that is older finds it empty. The log and its counters are never written anew.
create or replace function smslogd.compact_checkpoint() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  alter table smslogd.checkpoint alter column epoch type bigint using epoch + 0;
end $$;

create or replace function smslogd.compact_sms_poll() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  alter table smslogd.sms_poll alter column lane type smallint using (lane + 0)::smallint;
end $$;

-- a column that a view reads cannot be changed
create or replace function smslogd.compact_changed_hour() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  noted timestamptz[];
begin
  lock table smslogd.changed_hour in access exclusive mode;
  noted := array(select n.hour from smslogd.changed_hour n);
  truncate smslogd.changed_hour;
  insert into smslogd.changed_hour select * from unnest(noted);
end $$;
revoke all on function smslogd.compact_checkpoint(), smslogd.compact_sms_poll(), smslogd.compact_changed_hour() from public;
