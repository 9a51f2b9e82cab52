-- Who runs the functions that views and triggers call: whoever reads the view or writes the log, with rights of their own. So everybody may, also where the owner's
-- default privileges or a later REVOKE say otherwise; only roles that may use the schema can name one. The others are kept: triggers' own, and what removes rows.
do $$
declare
  each regprocedure;
begin
  for each in
    select oid from pg_proc
     where pronamespace = 'smslogd'::regnamespace and prorettype <> 'trigger'::regtype and proname not in ('remove_logged', 'freeze_hours')
       and not has_function_privilege('public', oid, 'execute')
  loop
    execute format('grant execute on function %s to public', each);
  end loop;
end $$;
