-- What the daemon's role needs and nothing else; applied by `smslogd migrate --role NAME`.
grant usage on schema smslogd, verification, :"source_schema" to :"role";
grant select on :source to :"role";
grant select, insert, update, delete on verification.sms_log to :"role";
grant select, insert, update, delete on all tables in schema smslogd to :"role";
revoke insert, update, delete on smslogd.migrations from :"role";
