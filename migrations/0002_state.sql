-- Up Migration
-- What the daemon owns beside the log: settings that SQL needs, the mirror's checkpoint, the poller's queue and its triggers.
create table smslogd.settings (
  only_row              boolean primary key default true check (only_row),
  report_timezone       text not null default 'Europe/Kyiv',
  life                  interval not null default '35 minutes',
  give_up               interval not null default '72 hours',
  first_poll            interval not null default '2.5 seconds',
  source_tracks_gateway boolean not null default true
);
comment on table smslogd.settings is 'One row: the settings that views and triggers need. report_timezone is written by migrate, the others by the daemon when it starts.';
comment on column smslogd.settings.source_tracks_gateway is 'False where the source has no gateway_id column: mirrored rows without a gateway id are then not judged';
insert into smslogd.settings default values;

create table smslogd.checkpoint (
  slot_name       text primary key,
  epoch           bigint not null default 0,
  lsn             pg_lsn,
  committed_at    timestamptz,
  updated_at      timestamptz not null default now(),
  system_id       text,
  source_timezone text,
  horizon         timestamptz,
  reconcile_due   text,
  reconcile_after uuid,
  reconcile_xid   xid8,
  audited_xid     xid8,
  removed_at      timestamptz
) with (fillfactor = 20);
comment on table smslogd.checkpoint is 'How far the mirror is, one row for each slot; written in the same statement as the rows';
comment on column smslogd.checkpoint.epoch is 'Raised by each daemon that acquires the slot; a sink statement of an older epoch writes nothing';
comment on column smslogd.checkpoint.lsn is 'end_lsn of the last source transaction in the log; null before the first';
comment on column smslogd.checkpoint.committed_at is 'Commit time of that source transaction';
comment on column smslogd.checkpoint.horizon is 'Source rows older than this are not the mirror''s (SNAPSHOT=never); null: all are';
comment on column smslogd.checkpoint.reconcile_due is 'Why a reconcile is due; null when none is';
comment on column smslogd.checkpoint.reconcile_after is 'The reconcile has passed this source id';
comment on column smslogd.checkpoint.reconcile_xid is 'Transactions before this one were not all visible when the reconcile began: it looks a second time';
comment on column smslogd.checkpoint.audited_xid is 'While no reconcile is due: every source row of a transaction before this one has been compared with the log';
comment on column smslogd.checkpoint.removed_at is 'Set by teardown: daemons idle until migrate clears it';

create table smslogd.sms_refused (
  id         uuid primary key,
  sqlstate   text not null,
  reason     text,
  refused_at timestamptz not null default now()
);
comment on table smslogd.sms_refused is 'Source rows that the log''s constraints or triggers refuse, kept aside so that they block nobody; a reconcile tries them again';
comment on column smslogd.sms_refused.reason is 'The constraint, column or trigger that refused it';

-- Half of each block is left free: a claim changes no indexed column, so that its row stays in its block (HOT) even where all of a block are claimed.
create table smslogd.sms_poll (
  id          uuid primary key,
  gateway_id  text,
  lane        smallint not null,
  due_at      timestamptz not null,
  sent_at     timestamptz not null,
  deadline_at timestamptz not null,
  give_up_at  timestamptz not null,
  attempt     integer not null default 0,
  last_result text,
  leased_until timestamptz not null default '-infinity',
  -- one entry that no claim can take or count would stop them all
  constraint sms_poll_possible check (lane in (0, 1, 2) and attempt >= 0 and due_at >= 'epoch' and due_at < 'infinity'
                                      and isfinite(sent_at) and isfinite(give_up_at) and deadline_at < 'infinity' and leased_until < 'infinity')
) with (fillfactor = 45, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);
create index sms_poll_due_idx on smslogd.sms_poll (lane, due_at);
create index sms_poll_waiting_idx on smslogd.sms_poll (id) where gateway_id is null;
comment on table smslogd.sms_poll is 'The poller''s queue: the rows of sms_log that have no final status yet. smslogd heals it from the log; nothing is lost with it.';
comment on column smslogd.sms_poll.lane is '0 young, 1 older than 10 minutes, 2 past its life when it was queued (asked last and slowly)';
comment on column smslogd.sms_poll.due_at is 'When to ask next';
comment on column smslogd.sms_poll.sent_at is 'inserted_at of the SMS; where that is infinite or yet to come, when it was queued';
comment on column smslogd.sms_poll.deadline_at is 'End of its life: the first successful answer after it is the last';
comment on column smslogd.sms_poll.give_up_at is 'Terminated then, even unanswered';
comment on column smslogd.sms_poll.attempt is 'Raised by each claim: the fence of its completion';
comment on column smslogd.sms_poll.leased_until is 'While a request is under way the end of its lease: no daemon claims it before. Not indexed, on purpose';
comment on column smslogd.sms_poll.last_result is 'How the last request ended; the values of smslogd_poll_requests_total{result}';

-- The one rule of what is queued and when. No row: nothing to ask. A time of sending that is infinite or later than now gives no age: such an SMS is
-- as old as its entry, or it would be asked for as one that was just sent until then. Nothing is added to it: the last year that PostgreSQL knows would refuse it.
create function smslogd.queue_entry(id uuid, gateway_id text, gateway_status text, type text, inserted_at timestamptz)
returns setof smslogd.sms_poll language sql stable as $$
  select $1, $2,
         case when $5 <= now() - s.life then 2 when $5 <= now() - interval '10 minutes' then 1 else 0 end::smallint,
         case when $2 is null then greatest(now(), least($5, now()) + s.life)
              else greatest(now(), least($5, now()) + s.first_poll) end,
         case when isfinite($5) then least($5, now()) else now() end, least($5, now()) + s.life, now() + s.give_up, 0, null::text, timestamptz '-infinity'
    from smslogd.settings s
   where ($3 is null or $3 in ('Accepted', 'Enroute', 'Pending', 'Unknown'))
     and ($2 is not null or $4 <> 'verification' or s.source_tracks_gateway)
$$;

-- A failure to queue never refuses the row: the poller's reconcile finds it later.
create function smslogd.queue_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  -- what is new in the log is new in the queue: without looking for each entry first this costs half
  insert into smslogd.sms_poll
  select q.* from inserted l
  cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at) q;
  return null;
exception
  when unique_violation then
    -- but for an entry that is left of a row that somebody removed by hand: it is the new row's now, but for its fence
    begin
      insert into smslogd.sms_poll
      select q.* from inserted l
      cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at) q
      on conflict (id) do update set gateway_id = excluded.gateway_id, lane = excluded.lane, due_at = excluded.due_at, sent_at = excluded.sent_at,
        deadline_at = excluded.deadline_at, give_up_at = excluded.give_up_at, leased_until = excluded.leased_until;
    exception when others then
      raise warning 'smslogd: rows are logged but not queued yet (%)', sqlstate;
    end;
    return null;
  when others then
    raise warning 'smslogd: rows are logged but not queued yet (%)', sqlstate;
    return null;
end $$;

create function smslogd.queue_completed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into smslogd.sms_poll as p
  select q.* from smslogd.queue_entry(new.id, new.gateway_id, new.gateway_status, new.type, new.inserted_at) q
  on conflict (id) do update set gateway_id = excluded.gateway_id, due_at = excluded.due_at, lane = excluded.lane,
    leased_until = excluded.leased_until;
  return null;
exception when others then
  raise warning 'smslogd: a row is completed but not queued yet (%)', sqlstate;
  return null;
end $$;
revoke all on function smslogd.queue_inserted(), smslogd.queue_completed() from public;

create trigger smslogd_queue_inserted after insert on verification.sms_log
  referencing new table as inserted for each statement execute function smslogd.queue_inserted();
create trigger smslogd_queue_completed after update of gateway_id on verification.sms_log
  for each row when (new.gateway_id is distinct from old.gateway_id) execute function smslogd.queue_completed();
