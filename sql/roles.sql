-- The roles, for an administrator to run once before `smslogd migrate --role smslogd`:
--   psql -f sql/roles.sql
-- Safe to run again. Sets no password: give smslogd one with \password smslogd, or another way to log in (pg_hba.conf).
-- What each role may do is granted by `smslogd migrate`.
--
--   smslogd     the daemon: reads the source and its changes (REPLICATION), inserts and updates the log, owns nothing
--   sms_writer  services that insert their SMS into the log; grant it to their login roles
--   sms_reader  those who look at the figures: views without personal data
--   sms_dba     those who may read the log itself, phone numbers and texts too
do $$
declare
  name text;
begin
  foreach name in array '{smslogd,sms_writer,sms_reader,sms_dba}'::text[] loop
    begin
      execute format('create role %I nologin', name);
    exception when duplicate_object or unique_violation then
      null;
    end;
  end loop;
  if not (select rolcanlogin and rolreplication from pg_roles where rolname = 'smslogd') then
    alter role smslogd login replication;
  end if;
end $$;
