-- What services that log their own SMS may write: rows of their types, and what the gateway answers for these. A gateway id is set once, a final
-- status stays. Only the daemon and the owner may write the date of a status; they follow their own rules, and for them this costs one lookup a statement.
create or replace function smslogd.guard_writers() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if has_column_privilege(tg_relid, 'status_changed_at', 'update') then
    return null;
  end if;
  if tg_level = 'ROW' then
    raise exception 'smslogd: a gateway id and a final status stay as they are' using errcode = 'insufficient_privilege';
  end if;
  if exists (select from changed where type = 'verification') then
    raise exception 'smslogd: verifications are logged by smslogd alone' using errcode = 'insufficient_privilege';
  end if;
  return null;
end $$;
revoke all on function smslogd.guard_writers() from public;

create or replace trigger smslogd_guard_inserted after insert on verification.sms_log
  referencing new table as changed for each statement execute function smslogd.guard_writers();
create or replace trigger smslogd_guard_updated after update on verification.sms_log
  referencing new table as changed for each statement execute function smslogd.guard_writers();
-- the condition is resolved here: a writer may look nothing up in this schema
create or replace trigger smslogd_guard_final after update of gateway_id, gateway_status on verification.sms_log
  for each row when (old.gateway_id is not null and new.gateway_id is distinct from old.gateway_id
                     or new.gateway_status is distinct from old.gateway_status and (new.gateway_status is null or not smslogd.is_open(old.gateway_status)))
  execute function smslogd.guard_writers();

-- An empty gateway id is none, as in the source: it could never be asked for, and would stand in the way of the real one.
create or replace function smslogd.no_gateway_id() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  new.gateway_id := null;
  return new;
end $$;
revoke all on function smslogd.no_gateway_id() from public;
create or replace trigger smslogd_no_gateway_id before insert or update of gateway_id on verification.sms_log
  for each row when (new.gateway_id = '') execute function smslogd.no_gateway_id();
