-- Who may do what. Each `smslogd migrate` revokes every privilege from everybody but the owner, then grants those below: to :"role", each role that
-- `migrate --role` was given, and to the roles of sql/roles.sql that exist. One grant is one line: `smslogd doctor` compares them with what the role has.

-- What ALTER DEFAULT PRIVILEGES gave is revoked too. SELECT on the views of verification, which show no personal data, stays, and so does EXECUTE for public
-- on the functions that views call.
do $$
declare
  statement text;
begin
  for statement in
    select distinct format('revoke %s on %s %s from %s cascade', o.privilege, o.kind, o.name, case o.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(o.grantee)) end)
      from (
        select 'schema' as kind, quote_ident(n.nspname) as name, 'all' as privilege, a.grantee, n.nspowner as owner
          from pg_namespace n cross join aclexplode(n.nspacl) a where n.nspname = 'smslogd'
        union all
        select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text,
               case when c.relnamespace = 'smslogd'::regnamespace or c.relkind <> 'v' then 'all' else a.privilege_type end, a.grantee, c.relowner
          from pg_class c
         cross join lateral (
           select grantee, privilege_type from aclexplode(c.relacl)
           union all
           select x.grantee, format('%s (%I)', x.privilege_type, t.attname) from pg_attribute t cross join aclexplode(t.attacl) x where t.attrelid = c.oid) a
         where (c.relnamespace = 'smslogd'::regnamespace or c.oid = 'verification.sms_log'::regclass
                or c.oid in (select smslogd.views()) and a.privilege_type not like 'SELECT%')
           and c.relkind in ('r', 'v', 'S')
        union all
        select 'function', p.oid::regprocedure::text, 'all', a.grantee, p.proowner
          from pg_proc p cross join aclexplode(p.proacl) a
         where (p.pronamespace = 'smslogd'::regnamespace or p.oid = 'verification.sms_delivery_between(date,date)'::regprocedure) and a.grantee <> 0
      ) o
     where o.grantee <> o.owner
  loop
    execute statement;
  end loop;
end $$;

-- the daemon's queries
grant usage on schema smslogd, verification, :"source_schema" to :"role";
grant select on :source to :"role";
grant select, insert, update (gateway_id, gateway_status, status_changed_at, updated_at) on verification.sms_log to :"role";
grant select on verification.sms_today_vs_yesterday, verification.sms_delivery_hourly, verification.sms_delivery_daily, verification.sms_status_daily, verification.sms_delivery_drop, verification.sms_week_against_week, verification.sms_backlog, verification.sms_last_seen, verification.sms_behind to :"role";
grant select on all tables in schema smslogd to :"role";
grant update (life, give_up, first_poll, tracked_since, counted_in) on smslogd.settings to :"role";
grant insert, update on smslogd.checkpoint, smslogd.leader, smslogd.sms_entered to :"role";
grant insert, update, delete on smslogd.sms_poll, smslogd.sms_refused, smslogd.sms_hourly, smslogd.changed_hour to :"role";
grant execute on function smslogd.remove_logged(tid[],timestamptz), smslogd.freeze_hours(timestamptz) to :"role";

-- sms_reader: people who look at figures; sms_dba: people who may see phone numbers and texts
grant usage on schema verification to sms_reader, sms_dba;
grant select on verification.sms_today_vs_yesterday, verification.sms_delivery_hourly, verification.sms_delivery_daily, verification.sms_status_daily, verification.sms_delivery_drop, verification.sms_week_against_week, verification.sms_backlog, verification.sms_stuck, verification.sms_last_seen, verification.sms_resends, verification.sms_delivery_by_prefix, verification.sms_otp_conversion, verification.sms_behind, verification.sms_log_masked to sms_reader, sms_dba;
grant execute on function verification.sms_delivery_between(date, date) to sms_reader, sms_dba;
grant usage on schema smslogd to sms_dba;
grant select on verification.sms_log to sms_dba;
grant select on all tables in schema smslogd to sms_dba;
grant insert, update, delete on smslogd.operator_prefix to sms_dba;

-- sms_writer: services that log their own SMS; sql/writers.sql has what they may write
grant usage on schema verification to sms_writer;
grant insert, select (id), update (gateway_id, gateway_status, updated_at) on verification.sms_log to sms_writer;
