-- What the daemon's role needs and nothing else; applied by `smslogd migrate --role NAME`, as often as one likes.
grant usage on schema smslogd, verification, :"source_schema" to :"role";
grant select on :source to :"role";
grant select, insert, update (gateway_id, gateway_status, status_changed_at, updated_at) on verification.sms_log to :"role";
grant select on verification.sms_today_vs_yesterday, verification.sms_delivery_hourly, verification.sms_delivery_daily, verification.sms_status_daily, verification.sms_delivery_drop, verification.sms_week_against_week, verification.sms_backlog, verification.sms_last_seen, verification.sms_behind to :"role";
grant select on all tables in schema smslogd to :"role";
grant update (life, give_up, first_poll, source_tracks_gateway, counted_in) on smslogd.settings to :"role";
grant insert, update on smslogd.checkpoint, smslogd.leader, smslogd.sms_entered to :"role";
grant insert, update, delete on smslogd.sms_poll, smslogd.sms_refused, smslogd.sms_hourly, smslogd.changed_hour to :"role";
grant execute on function smslogd.remove_logged(tid[],timestamptz), smslogd.freeze_hours(timestamptz) to :"role";
