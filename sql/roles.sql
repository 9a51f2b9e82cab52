-- The roles, for an administrator to run once before `smslogd migrate --role smslogd`:
--   psql -v ON_ERROR_STOP=1 -d DATABASE -f sql/roles.sql
-- Safe to run again. Sets no password: give the first two one with \password, or another way to log in (pg_hba.conf). What each role may do is granted
-- by `smslogd migrate`. The administrator need not be a superuser, CREATEROLE is enough: what it may not do, this file says at its end, and fails.
--
--   smslogd              the daemon's queries (DATABASE_URL): reads the source, inserts and updates the log, owns nothing, may not replicate
--   smslogd_replication  the daemon's stream and slot (DATABASE_REPLICATION_URL): may replicate, has no other privilege
--   sms_writer           services that insert their SMS into the log; grant it to their login roles
--   sms_reader           those who look at the figures: views without personal data
--   sms_dba              those who may read the log itself, phone numbers and texts too
do $$
declare
  name text;
begin
  foreach name in array '{smslogd,smslogd_replication,sms_writer,sms_reader,sms_dba}'::text[] loop
    begin
      if to_regrole(name) is null then execute format('create role %I nologin', name); end if;
    exception
      when duplicate_object or unique_violation or insufficient_privilege then null;
    end;
  end loop;
end $$;

do $$
declare
  name text;
begin
  for name in select rolname from pg_roles where rolname in ('smslogd', 'smslogd_replication') and not rolcanlogin loop
    execute format('alter role %I login', name);
  end loop;
exception when insufficient_privilege then null;
end $$;

-- the attribute, or what a managed server has in its place
do $$
begin
  if exists (select from pg_roles where rolname = 'smslogd_replication' and not rolreplication) then
    if to_regrole('rds_replication') is not null then
      grant rds_replication to smslogd_replication;
    else
      alter role smslogd_replication replication;
    end if;
  end if;
exception when insufficient_privilege then null;
end $$;

-- What PostgreSQL's own log would show of the daemon: the parameters of slow or failing statements, and the row that a constraint refuses (in the
-- line DETAIL). These hold phone numbers and codes, which those who read the server's log may not be allowed to see. The last two are
-- auto_explain's, whether it is loaded or not.
do $$
declare
  setting text;
  refused text[] := '{}';
begin
  if to_regrole('smslogd') is null then return; end if;
  foreach setting in array array['log_parameter_max_length = 0', 'log_parameter_max_length_on_error = 0', 'log_error_verbosity = terse', 'auto_explain.log_verbose = off']
                           || case when current_setting('server_version_num')::int >= 160000 then array['auto_explain.log_parameter_max_length = 0'] end loop
    begin
      execute 'alter role smslogd set ' || setting;
    exception when insufficient_privilege then
      if not exists (select from pg_db_role_setting where setrole = to_regrole('smslogd') and setdatabase = 0 and replace(setting, ' ', '') = any (setconfig)) then
        refused := refused || format('alter role smslogd set %s;', setting);
      end if;
    end;
  end loop;
  if refused <> '{}' then
    raise warning 'smslogd: PostgreSQL''s own log may show phone numbers and codes (see "Personal data" in docs/operations.md). As a superuser run: %', array_to_string(refused, ' ');
  end if;
end $$;

-- A session whose daemon is dead ends soon, also while it waits for a lock. A server on Windows does not support this.
do $$
begin
  alter role smslogd set client_connection_check_interval = '2s';
exception when others then null;
end $$;

do $$
declare
  missing text[];
begin
  select array_agg(says order by place) into missing from (
    select 1 as place, format('As a role with CREATEROLE run: create role %I nologin;', name) as says
      from unnest('{smslogd,smslogd_replication,sms_writer,sms_reader,sms_dba}'::text[]) as name where to_regrole(name) is null
    union all
    select 2, format('As a superuser, or a role with CREATEROLE and ADMIN on it, run: alter role %I login;', rolname)
      from pg_roles where rolname in ('smslogd', 'smslogd_replication') and not rolcanlogin
    union all
    select 3, 'smslogd_replication may not replicate. As a superuser (on Azure a member of azure_pg_admin, on Cloud SQL one of cloudsqlsuperuser) run: '
              'alter role smslogd_replication replication; or on Amazon RDS, as a member of rds_superuser: grant rds_replication to smslogd_replication;'
      from pg_roles r where r.rolname = 'smslogd_replication' and not r.rolreplication and not r.rolsuper
       and not exists (select from pg_auth_members m where m.member = r.oid and m.roleid = to_regrole('rds_replication'))
  ) left_over;
  if exists (select from pg_roles where rolname = 'smslogd' and rolreplication) then
    raise warning 'smslogd: the role smslogd may replicate, hence copy the whole server. Once DATABASE_REPLICATION_URL names smslogd_replication: alter role smslogd noreplication;';
  end if;
  if missing is not null then
    raise exception 'smslogd: what this role may not do is left to be done. %', array_to_string(missing, ' ') using errcode = 'insufficient_privilege';
  end if;
end $$;
