-- Up Migration
-- Stored counters: one row for each UTC hour of inserted_at, type and status. An hour that changed is counted again as a whole, nothing is
-- ever added to. Which hours changed is noted by triggers in the statement that changed the log, whoever ran it; the daemon (src/figures)
-- takes the notes and counts in one transaction, and the views count noted hours themselves, so that figures are right at any moment.

create table if not exists smslogd.sms_hourly (
  hour             timestamptz not null,
  quarter          smallint not null default 0,
  type             text not null,
  status           text not null,
  sms              bigint not null,
  le_2m            bigint not null default 0,
  m2_5             bigint not null default 0,
  m5_30            bigint not null default 0,
  gt_30m           bigint not null default 0,
  buckets          bigint[] not null default '{}',
  oldest           timestamptz,
  newest           timestamptz,
  last_changed_at  timestamptz,
  last_answered_at timestamptz,
  primary key (hour, quarter, type, status)
);
create index if not exists sms_hourly_open_idx on smslogd.sms_hourly (hour) where status in ('Accepted', 'Enroute', 'Pending', 'Unknown', 'none');
comment on table smslogd.sms_hourly is 'Stored counters of the log; hours that stand in changed_hour are out of date until the daemon has counted them again. smslogd.sms_hourly_now is right at any moment';
comment on column smslogd.sms_hourly.hour is 'Start of the UTC hour of inserted_at; -infinity and infinity for times that are not credible';
comment on column smslogd.sms_hourly.quarter is '0 to 3: the quarter of the hour, where days in REPORT_TIMEZONE begin within a UTC hour (settings.quarters); else 0, the whole hour';
comment on column smslogd.sms_hourly.status is 'gateway_status; without one Accepted where a gateway id is known, else none';
comment on column smslogd.sms_hourly.le_2m is 'Delivered rows with a latency of at most 2 minutes; a negative latency counts as 0. A Delivered row without status_changed_at is in no group';
comment on column smslogd.sms_hourly.m2_5 is 'More than 2, at most 5 minutes';
comment on column smslogd.sms_hourly.m5_30 is 'More than 5, at most 30 minutes';
comment on column smslogd.sms_hourly.gt_30m is 'More than 30 minutes';
comment on column smslogd.sms_hourly.buckets is 'Delivered rows in each bucket of smslogd.delivery_bounds() (not summed up), the last one beyond all bounds';
comment on column smslogd.sms_hourly.oldest is 'The earliest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.newest is 'The latest inserted_at; null where none is credible';
comment on column smslogd.sms_hourly.last_changed_at is 'The latest credible status_changed_at';
comment on column smslogd.sms_hourly.last_answered_at is 'The latest updated_at of the rows that have a status_changed_at';

-- Notes are only ever added and taken, never merged: a unique key would make writers of one hour wait for each other.
create table if not exists smslogd.changed_hour (
  hour timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- or notes could not be taken while somebody publishes all tables: this one has no key
alter table smslogd.changed_hour replica identity full;
comment on table smslogd.changed_hour is 'UTC hours of the log that changed since they were counted; to have hours counted again, insert them here';

-- Added to and taken as changed_hour is.
create table if not exists smslogd.sms_removed (
  hour timestamptz,
  type text not null,
  sms  bigint not null
);
alter table smslogd.sms_removed replica identity full;
comment on table smslogd.sms_removed is 'SMS that somebody removed from the log, or gave another type: with those that are counted they make the number of all that ever entered the log. Not of retention, whose SMS stay counted';
comment on column smslogd.sms_removed.hour is 'The UTC hour whose stored counters still have them; null once it was counted again';
comment on column smslogd.sms_removed.sms is 'Less than 0: what had entered when smslogd_sms_total began at 0 again';
