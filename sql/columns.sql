-- The views that readers may read, and what their columns mean. None of them shows a phone number, a text, a code or a gateway id.
create or replace function smslogd.views() returns setof regclass language sql stable set search_path = pg_catalog, pg_temp as $$
  select ('verification.' || name)::regclass
    from unnest('{sms_today_vs_yesterday,sms_delivery_hourly,sms_delivery_daily,sms_status_daily,sms_delivery_drop,sms_week_against_week,sms_backlog,sms_stuck,sms_last_seen,
                  sms_resends,sms_delivery_by_prefix,sms_otp_conversion,sms_behind,sms_log_masked}'::text[]) as name
$$;

-- columns of one name mean one thing in every view
do $$
declare
  meaning constant jsonb := '{
    "period": "today, yesterday_same_time (up to the same wall-clock time as now) or yesterday; this_week, last_week_same_time or last_week",
    "hour": "Start of the hour, an instant: shown in the session''s time zone",
    "local_hour": "Start of the hour on the clocks of REPORT_TIMEZONE; one comes twice when they are set back",
    "day": "Day in REPORT_TIMEZONE",
    "type": "verification, medication_request, text or 2FA",
    "total": "All SMS",
    "processed": "SMS whose status is neither Accepted nor Enroute; those without any status are not among them",
    "delivered": "SMS that are Delivered",
    "undelivered": "processed - delivered",
    "success_ratio": "delivered / processed; null over nothing. Blind to SMS that are stuck: read it beside on_time_ratio",
    "le_2m": "Delivered within 2 minutes: status_changed_at - inserted_at, negative counts as 0",
    "m2_5": "Delivered in more than 2, at most 5 minutes",
    "m5_30": "Delivered in more than 5, at most 30 minutes",
    "gt_30m": "Delivered in more than 30 minutes",
    "open": "SMS without a final status: Accepted (those that wait for their gateway id too), Enroute, Pending or Unknown",
    "oldest_open_age": "Age of the oldest SMS that is open; null where none is",
    "known_ratio": "SMS with a final status / all; null over nothing",
    "on_time_ratio": "The first figure to look at: Delivered within 2 minutes / all SMS that are at least 2 minutes old, whatever their status; null over nothing",
    "untracked": "SMS without a status whose delivery cannot be followed, because their source had no gateway ids; in total, on_time_ratio and known_ratio, not in processed and open",
    "settled": "True once the period is over and none of its SMS is open: its figures stay",
    "waiting": "SMS without a gateway id, which is waited for until the end of their life: then they are Unaccepted. They are open and count as Accepted",
    "p50_seconds": "Half were delivered within so many seconds; approximate, from merged buckets",
    "p95_seconds": "95 of 100 were delivered within so many seconds; approximate, from merged buckets, 3600 at most",
    "p99_seconds": "99 of 100 were delivered within so many seconds; approximate, from merged buckets, 3600 at most",
    "status": "One of the eleven statuses, or untracked; Accepted where the gateway id is still waited for",
    "sms": "SMS that have this status now",
    "share": "sms / all SMS of the day and type",
    "usual_total": "SMS in that hour on an average day of the 7 before",
    "usual_on_time_ratio": "on_time_ratio of that hour in the 7 days before, taken together",
    "on_time_drop": "usual_on_time_ratio - on_time_ratio: 0.2 means 20 of 100 fewer on time than usual; null where either is",
    "usual_success_ratio": "success_ratio of that hour in the 7 days before, taken together",
    "success_drop": "usual_success_ratio - success_ratio; null where either is",
    "sms_lost": "How many SMS were late or undelivered beyond the usual: total, times the larger of the two drops",
    "hours": "Changed hours that are shown with their former counts; the daemon recounts them, the youngest first",
    "oldest_hour": "The oldest of them; null where there is none",
    "oldest_inserted_at": "When the oldest of them was created",
    "oldest_age": "Age of the oldest of them",
    "age": "How long ago it was created",
    "past_life": "True past SMS_STATUSES_EXPIRATION: the next answer is the last",
    "attempts": "How often it was claimed for a status request",
    "last_result": "How the last request for it ended, as in smslogd_poll_requests_total{result}; null before the first",
    "next_due_at": "When its next status request is due",
    "give_up_at": "When it becomes Terminated, even without an answer",
    "last_inserted_at": "When the youngest SMS was created",
    "last_delivered_at": "When the last delivery was, by the gateway''s date",
    "last_answered_at": "When an answer about such an SMS was last written: the last poll that brought news. Polls that bring none are in smslogd_poll_last_success_timestamp_seconds",
    "resends": "SMS that followed another one of the type to the same phone within 10 minutes",
    "resend_ratio": "resends / total",
    "phones": "How many phones got resends",
    "prefix": "As in smslogd.operator_prefix; null for all others",
    "operator": "The operator that first issued numbers with this prefix, or other",
    "matched": "SMS whose verification is still in the source; the figures beside it are of these",
    "delivered_expired": "Delivered after the code had expired",
    "verified": "Verifications that succeeded; null where the source has no status",
    "verified_undelivered": "Verified though the SMS is not Delivered as far as is known",
    "delivered_ratio": "delivered / matched",
    "verified_ratio": "verified / matched: of 100 codes sent, so many were used",
    "id": "As in sms_log",
    "phone_number": "The prefix and the last two digits",
    "gateway_status": "As in sms_log",
    "status_changed_at": "As in sms_log",
    "updated_at": "As in sms_log",
    "inserted_at": "As in sms_log"
  }';
  each record;
begin
  for each in
    select a.attrelid::regclass as view, a.attname, meaning ->> a.attname as comment
      from smslogd.views() v (view) join pg_attribute a on a.attrelid = v.view and a.attnum > 0 and meaning ? a.attname
  loop
    execute format('comment on column %s.%I is %L', each.view, each.attname, each.comment);
  end loop;
end $$;
