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
  -- What PostgreSQL's own log would show of the daemon: the parameters of slow or failing statements, and the row that a constraint refuses (in the
  -- line DETAIL). These hold phone numbers and codes, and whoever reads the server's log may not be one who may see them.
  begin
    alter role smslogd set log_parameter_max_length = 0;
    alter role smslogd set log_parameter_max_length_on_error = 0;
    alter role smslogd set log_error_verbosity = terse;
    -- the same for auto_explain, whether it is loaded or not
    alter role smslogd set auto_explain.log_verbose = off;
    if current_setting('server_version_num')::int >= 160000 then
      alter role smslogd set auto_explain.log_parameter_max_length = 0;
    end if;
  exception when insufficient_privilege then
    raise warning 'only a superuser can keep phone numbers and codes out of the server''s log: see "Personal data" in docs/operations.md';
  end;
end $$;
