-- What a status counts as. The lists of statuses and types stand here and in src/status.ts alone; a test holds them equal.
--
-- Bodies in the standard's form (return, begin atomic) are resolved when the function is made, not when it runs: readers, who may not look things up in this
-- schema, run them through views.

create or replace function smslogd.types() returns text[] language sql immutable parallel safe
return '{verification,medication_request,text,2FA}'::text[];

create or replace function smslogd.statuses() returns text[] language sql immutable parallel safe
return '{Accepted,Enroute,Pending,Unknown,Delivered,Expired,Deleted,Undeliverable,Rejected,Unaccepted,Terminated}'::text[];

-- Not final: to be asked for. A status that is neither null nor one of these never changes again.
create or replace function smslogd.open_statuses() returns text[] language sql immutable parallel safe
return '{Accepted,Enroute,Pending,Unknown}'::text[];

create or replace function smslogd.is_open(status text) returns boolean language sql immutable parallel safe
return status = any (smslogd.open_statuses());

-- Whether a row without a gateway id waits for one, and is judged if none comes: not if its source had no gateway ids when it was inserted.
create or replace function smslogd.is_tracked(type text, inserted_at timestamptz, tracked_since timestamptz) returns boolean language sql immutable parallel safe
return type <> 'verification' or coalesce(inserted_at >= nullif(tracked_since, 'infinity'), false);

-- The status under which a row of the log is counted: without one it is Accepted where a gateway id is known, none where it is waited for, else untracked.
create or replace function smslogd.counted_status(gateway_status text, gateway_id text, type text, inserted_at timestamptz, tracked_since timestamptz)
returns text language sql immutable parallel safe
return coalesce(gateway_status, case when gateway_id is not null then 'Accepted' when smslogd.is_tracked(type, inserted_at, tracked_since) then 'none' else 'untracked' end);

-- The groups of `sms` SMS that are counted under a status. processed: neither Accepted nor Enroute. open and final split all that can be asked for.
-- A row that waits for its gateway id is open, as Accepted.
create or replace function smslogd.status_groups(counted_status text, sms bigint)
returns table (status text, processed bigint, delivered bigint, open bigint, final bigint, untracked bigint, waiting bigint)
language sql immutable rows 1 parallel safe begin atomic
  select s.status,
         case when s.status not in ('Accepted', 'Enroute', 'untracked') then sms else 0 end,
         case when s.status = 'Delivered' then sms else 0 end,
         case when smslogd.is_open(s.status) then sms else 0 end,
         case when smslogd.is_open(s.status) or s.status = 'untracked' then 0 else sms end,
         case when s.status = 'untracked' then sms else 0 end,
         case when counted_status = 'none' and s.status = 'Accepted' then sms else 0 end
    from (select case counted_status when 'none' then 'Accepted' else counted_status end as status) s;
end;
