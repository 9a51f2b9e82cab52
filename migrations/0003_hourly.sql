-- Up Migration
-- Stored counters: one row for each UTC hour of inserted_at, type and status. Recomputed for the hours that changed, never added to.
create table smslogd.sms_hourly (
  hour        timestamptz not null,
  type        text not null,
  status      text not null,
  sms         bigint not null,
  le_2m       bigint not null default 0,
  m2_5        bigint not null default 0,
  m5_30       bigint not null default 0,
  gt_30m      bigint not null default 0,
  on_time_due bigint not null default 0,
  buckets     bigint[] not null default '{}',
  updated_at  timestamptz not null default now(),
  primary key (hour, type, status)
);
