-- Up Migration
-- The stored counters put together to days of REPORT_TIMEZONE, so that questions over years read few rows. Triggers on sms_hourly sum up the days of
-- the hours that changed, whole, in the transaction that changed them, whoever it was: a day is always the sum of its stored hours. What
-- is frozen in the hours is therefore frozen in the days. A change of the zone sums up every day again.

create table if not exists smslogd.sms_daily (
  day              date not null,
  type             text not null,
  status           text not null,
  sms              bigint not null,
  le_2m            bigint not null,
  m2_5             bigint not null,
  m5_30            bigint not null,
  gt_30m           bigint not null,
  buckets          bigint[] not null,
  p50              float8,
  p95              float8,
  p99              float8,
  oldest           timestamptz,
  newest           timestamptz,
  last_changed_at  timestamptz,
  last_answered_at timestamptz,
  primary key (day, type, status)
) with (fillfactor = 75);
comment on table smslogd.sms_daily is 'smslogd.sms_hourly by day, with the same columns; kept by its triggers. Days with hours in changed_hour are out of date as these are';
comment on column smslogd.sms_daily.p50 is 'Percentiles of buckets in seconds; only Delivered has them';
comment on column smslogd.sms_daily.day is 'Day of inserted_at in REPORT_TIMEZONE; -infinity and infinity for times that are not credible';
