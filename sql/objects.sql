-- What stands in the database of all that smslogd made, each thing with a fingerprint. `migrate` keeps the fingerprints in smslogd.installed when it
-- has applied the files of sql/; what differs from them later was dropped, switched off or replaced by somebody. It looks at names and texts
-- alone, never at object ids, so that a restored database is as the dumped one was.
create or replace function smslogd.objects() returns table (object text, state text)
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  with ours as (
    select c.*, n.nspname || '.' || c.relname as name, pg_get_userbyid(c.relowner) as owner
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'smslogd' or n.nspname = 'verification' and (c.relname = 'sms_log' or c.relkind = 'v' and c.relname like 'sms\_%')
  )
  select o.object, md5(o.state)
    from (
      select 'schema smslogd' as object, pg_get_userbyid(nspowner)::text as state from pg_namespace where nspname = 'smslogd'
      union all
      select 'table ' || name, owner::text from ours where relkind = 'r'
      union all
      select 'column ' || o.name || '.' || a.attname, concat_ws('|', format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
        from ours o join pg_attribute a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where o.relkind = 'r' and o.relnamespace = 'smslogd'::regnamespace
      union all
      -- of the log those that are ours: others are made and dropped as one likes
      select 'index ' || split_part(o.name, '.', 1) || '.' || i.relname, pg_get_indexdef(i.oid) || x.indisvalid::text
        from ours o join pg_index x on x.indrelid = o.oid join pg_class i on i.oid = x.indexrelid
       where o.relnamespace = 'smslogd'::regnamespace
          or i.relname in ('sms_log_phone_number_inserted_at_idx', 'sms_log_gateway_id_idx', 'sms_log_inserted_at_idx', 'sms_log_time_idx')
      union all
      select 'view ' || name, concat_ws('|', owner, reloptions::text, pg_get_viewdef(oid)) from ours where relkind = 'v'
      union all
      select 'trigger ' || t.tgname || ' on ' || o.name, pg_get_triggerdef(t.oid) || t.tgenabled::text
        from ours o join pg_trigger t on t.tgrelid = o.oid where not t.tgisinternal and t.tgname like 'smslogd%'
      union all
      select format('function %s.%s(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
             concat_ws('|', pg_get_userbyid(p.proowner), has_function_privilege('public', p.oid, 'execute'), l.lanname, p.prosrc, p.prosecdef, p.provolatile, p.proparallel, p.proconfig::text,
                       pg_get_function_arguments(p.oid), pg_get_function_result(p.oid))
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
       where n.nspname = 'smslogd' or n.nspname = 'verification' and p.proname like 'sms\_%'
      union all
      select format('body of function %s', p.oid::regprocedure), pg_get_function_sqlbody(p.oid)
        from pg_proc p where p.pronamespace = 'smslogd'::regnamespace and p.prosqlbody is not null
      union all
      -- another major version, a restore or pg_upgrade writes the text of a view or of such a body in its own way
      select 'server', concat_ws('|', current_setting('server_version_num')::int / 10000, 'smslogd.installed'::regclass::oid, system_identifier)
        from pg_control_system()
    ) o
$$;

-- What is missing or is not what `migrate` had made; without those that it would not know how to compare here.
create or replace function smslogd.altered_objects() returns table (object text, missing boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select i.object, o.object is null
    from smslogd.installed i left join smslogd.objects() o on o.object = i.object
   where i.state is distinct from o.state and i.object !~ '^(file|role|server)\M'
     and (i.object !~ '^(view|body) ' or o.object is null
          or exists (select from smslogd.installed s join smslogd.objects() n using (object, state) where s.object = 'server'))
   order by 1
$$;
