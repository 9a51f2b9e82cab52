-- Up Migration
-- What the daemon owns beside the log: settings that SQL needs, the mirror's checkpoint, the poller's queue.
create table if not exists smslogd.settings (
  only_row              boolean primary key default true check (only_row),
  report_timezone       text not null default 'Europe/Kyiv',
  life                  interval not null default '35 minutes',
  give_up               interval not null default '72 hours',
  first_poll            interval not null default '2.5 seconds',
  source_tracks_gateway boolean not null default true,
  frozen_before         timestamptz not null default '-infinity',
  retention_days        integer not null default 0 check (retention_days >= 0),
  quarters              boolean not null default false,
  counted_in            text
);
comment on table smslogd.settings is 'One row: the settings that views and triggers need. report_timezone and retention_days are written by migrate, the others by the daemon.';
comment on column smslogd.settings.counted_in is 'The database that smslogd_sms_total is counted in: in another one, as after a restore, it begins at 0 again';
comment on column smslogd.settings.source_tracks_gateway is 'False where the source has no gateway_id column: mirrored rows without a gateway id are then not judged';
comment on column smslogd.settings.frozen_before is 'Hours before this one are never counted again: retention has removed rows of them';
comment on column smslogd.settings.retention_days is 'RETENTION_DAYS as migrate had it: no younger row can be removed by the daemon; 0: none';
comment on column smslogd.settings.quarters is 'True where the offset of report_timezone is not always a whole hour: the counters are then kept by quarters of an hour. Follows report_timezone';
insert into smslogd.settings default values on conflict do nothing;

create table if not exists smslogd.checkpoint (
  slot_name       text primary key,
  term            bigint not null default 0,
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
comment on column smslogd.checkpoint.term is 'The term of smslogd.leader that may write; a statement of another term writes nothing';
comment on column smslogd.checkpoint.lsn is 'end_lsn of the last source transaction in the log; null before the first';
comment on column smslogd.checkpoint.committed_at is 'Commit time of that source transaction';
comment on column smslogd.checkpoint.horizon is 'Source rows older than this are not the mirror''s (SNAPSHOT=never); null: all are';
comment on column smslogd.checkpoint.reconcile_due is 'Why a reconcile is due; null when none is';
comment on column smslogd.checkpoint.reconcile_after is 'The reconcile has passed this source id';
comment on column smslogd.checkpoint.reconcile_xid is 'Transactions before this one were not all visible when the reconcile began: it looks a second time';
comment on column smslogd.checkpoint.audited_xid is 'While no reconcile is due: every source row of a transaction before this one has been compared with the log';
comment on column smslogd.checkpoint.removed_at is 'Set by teardown: daemons idle until migrate clears it';

create table if not exists smslogd.leader (
  slot_name  text primary key,
  term       bigint not null,
  holder     text,
  mirrors    boolean not null,
  streaming  boolean not null default false,
  renewed_at timestamptz not null,
  expires_at timestamptz not null
) with (fillfactor = 20);
comment on table smslogd.leader is 'Which daemon leads: a lease, renewed each second. Only the leader mirrors, audits, counts, repairs the queue and applies retention';
comment on column smslogd.leader.term is 'Raised when the lease changes hands and when the leader''s mirror starts over: the fence of its writes';
comment on column smslogd.leader.holder is 'Host, process id and a random word of the daemon; null: it was given back';
comment on column smslogd.leader.mirrors is 'False: its LOOPS has no mirror; a daemon that mirrors takes the lease at once';
comment on column smslogd.leader.streaming is 'It reads the slot: where nobody reads it, the holder is dead';

create table if not exists smslogd.sms_refused (
  id         uuid primary key,
  sqlstate   text not null,
  reason     text,
  refused_at timestamptz not null default now()
);
comment on table smslogd.sms_refused is 'Source rows that the log''s constraints or triggers refuse, kept aside so that they block nobody; a reconcile tries them again';
comment on column smslogd.sms_refused.reason is 'The constraint, column or trigger that refused it';

-- Half of each block is left free: a claim changes no indexed column, so that its row stays in its block (HOT) even where all of a block are claimed.
create table if not exists smslogd.sms_poll (
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
create index if not exists sms_poll_due_idx on smslogd.sms_poll (lane, due_at);
create index if not exists sms_poll_waiting_idx on smslogd.sms_poll (id) where gateway_id is null;
comment on table smslogd.sms_poll is 'The poller''s queue: the rows of sms_log that have no final status yet. smslogd heals it from the log; nothing is lost with it.';
comment on column smslogd.sms_poll.lane is '0 young, 1 older than 10 minutes, 2 past its life when it was queued (asked last and slowly)';
comment on column smslogd.sms_poll.due_at is 'When to ask next';
comment on column smslogd.sms_poll.sent_at is 'inserted_at of the SMS; where that is infinite or yet to come, when it was queued';
comment on column smslogd.sms_poll.deadline_at is 'End of its life: the first successful answer after it is the last';
comment on column smslogd.sms_poll.give_up_at is 'Terminated then, even unanswered';
comment on column smslogd.sms_poll.attempt is 'Raised by each claim: the fence of its completion';
comment on column smslogd.sms_poll.leased_until is 'While a request is under way the end of its lease: no daemon claims it before. Not indexed, on purpose';
comment on column smslogd.sms_poll.last_result is 'How the last request ended; the values of smslogd_poll_requests_total{result}';

create table if not exists smslogd.installed (
  object text primary key,
  state  text not null
);
comment on table smslogd.installed is 'What migrate made, each thing with a fingerprint: migrate and doctor find by it what somebody dropped or changed since then';
