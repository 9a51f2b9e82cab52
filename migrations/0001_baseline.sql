-- Up Migration
-- Everything that holds data: tables, columns, indexes and what they mean. Functions, triggers, views and grants stand in sql/.
do $$
begin
  if not exists (select from pg_catalog.pg_namespace where nspname = 'verification') then
    create schema verification;
  end if;
end $$;

-- The log: the contract's nine fields in one plain table. Its primary key is the final safeguard of "exactly once".
-- Both defaults are the moment, not the start of the transaction: an SMS that is written late in a long one lives as long as any other.
-- No index, index predicate or BRIN may name gateway_status, status_changed_at or updated_at: no status update would be HOT then.
create table if not exists verification.sms_log (
  id                uuid primary key default gen_random_uuid(),
  phone_number      text not null,
  type              text not null check (type in ('verification', 'medication_request', 'text', '2FA')),
  body              text,
  gateway_id        text,
  gateway_status    text check (gateway_status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Expired', 'Deleted',
                                                   'Undeliverable', 'Rejected', 'Unaccepted', 'Terminated')),
  status_changed_at timestamptz,
  updated_at        timestamptz not null default clock_timestamp(),
  inserted_at       timestamptz not null default clock_timestamp()
) with (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);

create index if not exists sms_log_phone_number_inserted_at_idx on verification.sms_log (phone_number, inserted_at desc);
create index if not exists sms_log_gateway_id_idx on verification.sms_log (gateway_id);
-- new page ranges of a BRIN index must not wait for a vacuum
create index if not exists sms_log_inserted_at_idx on verification.sms_log using brin (inserted_at) with (autosummarize = on);
-- An hour is counted through this one, whatever the order of the log's rows: a first copy writes them in the order of their ids, and new rows take the
-- places of those that retention removed. Both make the BRIN index name every block.
create index if not exists sms_log_time_idx on verification.sms_log (inserted_at);

comment on table verification.sms_log is 'Every SMS, once: written by smslogd (type verification) and by the services that send the other types. Holds personal data.';
comment on column verification.sms_log.id is 'For a mirrored row the id of its verification';
comment on column verification.sms_log.phone_number is 'As in the source, +380XXXXXXXXX; personal data';
comment on column verification.sms_log.type is 'verification, medication_request, text or 2FA';
comment on column verification.sms_log.body is 'The SMS text; of a mirrored row put together from OTP_CODE_TEXT and the code; personal data';
comment on column verification.sms_log.gateway_id is 'The id in the gateway''s reply: 7 to 25 digits as text; may contain the phone number';
comment on column verification.sms_log.gateway_status is 'Accepted, Enroute, Pending, Unknown (open); Delivered, Expired, Deleted, Undeliverable, Rejected, Unaccepted, Terminated (final, never changes); null while no gateway id is known';
comment on column verification.sms_log.status_changed_at is 'The date in the gateway''s reply; of Terminated and Unaccepted the time of the verdict; null until the first reply';
comment on column verification.sms_log.updated_at is 'When this row was last written';
comment on column verification.sms_log.inserted_at is 'When the SMS was created; of a mirrored row the verification''s own inserted_at';

create table if not exists smslogd.settings (
  only_row              boolean primary key default true check (only_row),
  report_timezone       text not null default 'Europe/Kyiv',
  life                  interval not null default '35 minutes',
  give_up               interval not null default '72 hours',
  first_poll            interval not null default '2.5 seconds',
  tracked_since         timestamptz not null default '-infinity',
  frozen_before         timestamptz not null default '-infinity',
  retention_days        integer not null default 0 check (retention_days >= 0),
  counted_in            text
);
insert into smslogd.settings default values on conflict do nothing;
comment on table smslogd.settings is 'One row: the settings that views and triggers need. report_timezone and retention_days are written by migrate, the others by the daemon.';
comment on column smslogd.settings.counted_in is 'The database that smslogd_sms_total is counted in: in another one, as after a restore, it starts at 0 again';
comment on column smslogd.settings.tracked_since is 'When the source got its gateway_id column: mirrored rows without a gateway id that were inserted before are not judged. infinity: it has none; -infinity: it was always there';
comment on column smslogd.settings.frozen_before is 'Hours before this one are never counted again: retention has removed rows of them';
comment on column smslogd.settings.retention_days is 'RETENTION_DAYS as migrate had it: no younger row can be removed by the daemon; 0: none';

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
  audit_due       boolean not null default false,
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
comment on column smslogd.checkpoint.audit_due is 'The slot was found ahead of lsn, or the source got its gateway ids, and no audit of what may have been passed over has ended since';
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
comment on table smslogd.leader is 'Which daemon leads: a lease, renewed every one and a half seconds. Only the leader mirrors, audits, counts, repairs the queue and applies retention';
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
comment on table smslogd.sms_refused is 'Source rows that the log''s constraints or triggers refuse, set aside so that they block no other row; audits and reconciles try them again';
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
comment on table smslogd.sms_poll is 'The poller''s queue: the rows of sms_log that have no final status yet. smslogd refills it from the log; nothing is lost with it.';
comment on column smslogd.sms_poll.lane is '0 young, 1 older than 10 minutes, 2 past its life when it was queued (asked last and slowly)';
comment on column smslogd.sms_poll.due_at is 'When to ask next';
comment on column smslogd.sms_poll.sent_at is 'inserted_at of the SMS; where that is infinite or yet to come, when it was queued';
comment on column smslogd.sms_poll.deadline_at is 'End of its life: the first successful answer after it is the last';
comment on column smslogd.sms_poll.give_up_at is 'When it becomes Terminated, even without an answer';
comment on column smslogd.sms_poll.attempt is 'Raised by each claim: the fence of its completion';
comment on column smslogd.sms_poll.leased_until is 'While a request is under way the end of its lease: no daemon claims it before. Not indexed, on purpose';
comment on column smslogd.sms_poll.last_result is 'How the last request ended; the values of smslogd_poll_requests_total{result}';

-- Status first: what is open, and the latest hour of a status, are found by the key.
create table if not exists smslogd.sms_hourly (
  status           text not null,
  type             text not null,
  hour             timestamptz not null,
  sms              bigint not null,
  le_2m            bigint not null default 0,
  m2_5             bigint not null default 0,
  m5_30            bigint not null default 0,
  gt_30m           bigint not null default 0,
  buckets          bigint[],
  oldest           timestamptz,
  newest           timestamptz,
  last_changed_at  timestamptz,
  last_answered_at timestamptz,
  primary key (status, type, hour)
);
create index if not exists sms_hourly_hour_idx on smslogd.sms_hourly (hour);
comment on table smslogd.sms_hourly is 'Stored counters of the log by UTC hour, type and status; hours that stand in changed_hour are out of date until the daemon has counted them again. smslogd.hour_counts is right at any moment';
comment on column smslogd.sms_hourly.hour is 'Start of the UTC hour of inserted_at; -infinity and infinity for times that are not credible';
comment on column smslogd.sms_hourly.status is 'gateway_status; without one Accepted where a gateway id is known, none where it is waited for, untracked where the source had no gateway ids';
comment on column smslogd.sms_hourly.le_2m is 'Delivered rows with a latency of at most 2 minutes; a negative latency counts as 0. A Delivered row without status_changed_at is in no group';
comment on column smslogd.sms_hourly.m2_5 is 'More than 2, at most 5 minutes';
comment on column smslogd.sms_hourly.m5_30 is 'More than 5, at most 30 minutes';
comment on column smslogd.sms_hourly.gt_30m is 'More than 30 minutes';
comment on column smslogd.sms_hourly.buckets is 'Delivered rows with at most the latency of each bound in smslogd.delivery_bounds(), and last all of them; cumulative, as in Prometheus. Null where no latency is known';
comment on column smslogd.sms_hourly.oldest is 'The earliest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.newest is 'The latest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.last_changed_at is 'The latest credible status_changed_at';
comment on column smslogd.sms_hourly.last_answered_at is 'The latest updated_at of the rows that have a status_changed_at';

-- Notes are only ever added and taken, never merged: a unique key would make writers of one hour wait for each other.
create table if not exists smslogd.changed_hour (
  hour    timestamptz not null,
  type    text,
  entered integer not null default 0
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- or notes could not be taken while somebody publishes all tables: this one has no key
alter table smslogd.changed_hour replica identity full;
comment on table smslogd.changed_hour is 'UTC hours of the log that changed since they were counted; to have hours counted again, insert them here';
comment on column smslogd.changed_hour.entered is 'SMS of this type that entered the log; added to sms_entered when the hour is counted';

create table if not exists smslogd.sms_entered (
  type   text not null,
  sms    bigint not null,
  writer integer not null default 0,
  primary key (type, writer)
) with (fillfactor = 20);
comment on table smslogd.sms_entered is 'How many SMS ever entered the log of this database, beside those that changed_hour still notes: what smslogd_sms_total shows';
comment on column smslogd.sms_entered.writer is '0: what was noted; else the server process that could not note it, each of which has its own sum, so that none waits for another';

-- Prefixes of Ukrainian mobile numbers, for verification.sms_delivery_by_prefix. Edit them as you like: migrate never touches them again.
create table if not exists smslogd.operator_prefix (
  prefix   text primary key check (prefix ~ '^\+[0-9]{1,7}$'),
  operator text not null
);
comment on table smslogd.operator_prefix is 'The operator that first issued numbers with this prefix; numbers are portable. The longest matching prefix counts. Yours to edit';
comment on column smslogd.operator_prefix.prefix is 'Beginning of a phone number, + and at most 7 digits: no whole number';
insert into smslogd.operator_prefix (prefix, operator)
select * from (values
  ('+38067', 'Kyivstar'), ('+38068', 'Kyivstar'), ('+38077', 'Kyivstar'), ('+38096', 'Kyivstar'), ('+38097', 'Kyivstar'), ('+38098', 'Kyivstar'),
  ('+38050', 'Vodafone'), ('+38066', 'Vodafone'), ('+38075', 'Vodafone'), ('+38095', 'Vodafone'), ('+38099', 'Vodafone'),
  ('+38063', 'lifecell'), ('+38073', 'lifecell'), ('+38093', 'lifecell'), ('+38091', 'TriMob'), ('+38092', 'PEOPLEnet'), ('+38094', 'Intertelecom')) as known (prefix, operator)
 where not exists (select from smslogd.operator_prefix);

create table if not exists smslogd.installed (
  object text primary key,
  state  text not null
);
comment on table smslogd.installed is 'What migrate made, each thing with a fingerprint: migrate and doctor use it to find what was dropped or changed since then';
