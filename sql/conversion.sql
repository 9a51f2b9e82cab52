-- Whether one-time codes were used. The only figures that need the source table, which only the text of this query names, because its owner may
-- change or drop it at any time. Columns that are absent give null. `migrate` replaces :source and :timezone.
--
-- A statement that reads the table keeps its lock until its transaction ends, and the owner's DDL waits for that, and everybody behind the DDL. So each
-- chunk of about an eighth of a second is read in a subtransaction that is then rolled back, which releases the lock; variables keep what was read. While the
-- lock is not free it is requested again and again, each time briefly: requests for a stronger lock would wait behind ours. The verifications of
-- a chunk are found by their key, whatever the statistics of the tables say.
create or replace function smslogd.otp_conversion(first date, last date)
returns table (day date, total bigint, matched bigint, delivered bigint, delivered_expired bigint, verified bigint, verified_undelivered bigint)
language plpgsql volatile security definer rows 8
set search_path = pg_catalog, pg_temp set lock_timeout = '300ms'
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off as $$
declare
  source text;
  expired text;
  verified_sql text;
  query text;
  lo timestamptz;
  hi timestamptz;
  day_end timestamptz;
  began timestamptz;
  piece interval := '15 minutes';
  n bigint[];
begin
  for day, lo, day_end in select d.day, d.lo, d.hi from smslogd.days(first, last) d loop
    total := 0; matched := 0; delivered := 0; delivered_expired := 0; verified := 0; verified_undelivered := 0;
    while lo < day_end loop
      hi := least(lo + piece, day_end);
      loop
        began := clock_timestamp();
        begin
          -- looked up each time, as it may change in between: a table of this function's own owner, or none. Nothing is cast, which may be somebody's function
          select max(case when attname = 'id' and atttypid = 'uuid'::regtype then c.oid::regclass::text end),
                 max(case when attname = 'code_expired_at' then
                            case when atttypid = 'timestamp'::regtype then format('s.code_expired_at at time zone %L', :timezone)
                                 when atttypid = 'timestamptz'::regtype then 's.code_expired_at' end end),
                 max(case when attname = 'status' then $c$lower(concat(s.status)) in ('verified', 'completed')$c$ end)
            into source, expired, verified_sql
            from pg_class c join pg_attribute a on a.attrelid = c.oid and attnum > 0 and not attisdropped and attname in ('id', 'code_expired_at', 'status')
           where c.oid = to_regclass(:source) and c.relkind in ('r', 'p') and pg_get_userbyid(c.relowner) = current_user;
          query := format($q$
            select array[count(*), count(s.id), count(*) filter (where s.id is not null and l.gateway_status = 'Delivered'),
                         %1$s, %2$s, %3$s]
              from verification.sms_log l left join %4$s s on s.id = l.id
             where l.type = 'verification' and l.inserted_at >= $1 and l.inserted_at < $2$q$,
            coalesce($f$count(*) filter (where l.gateway_status = 'Delivered' and l.status_changed_at > $f$ || expired || ')', 'null'),
            coalesce('count(*) filter (where ' || verified_sql || ')', 'null'),
            coalesce('count(*) filter (where ' || verified_sql || $f$ and l.gateway_status is distinct from 'Delivered')$f$, 'null'),
            coalesce(source, '(select null::uuid as id) '));
          execute query into n using lo, hi;
          raise exception using errcode = 'SMS00';
        exception
          when sqlstate 'SMS00' then exit;
          when lock_not_available then perform pg_sleep(0.5);
          -- the owner changed it just now, or it is not what it was
          when undefined_table or undefined_column or undefined_function or datatype_mismatch or wrong_object_type or insufficient_privilege then
            n := array[(select count(*) from verification.sms_log l where l.type = 'verification' and l.inserted_at >= lo and l.inserted_at < hi),
                       0, 0, null, null, null];
            exit;
        end;
      end loop;
      total := total + n[1]; matched := matched + n[2]; delivered := delivered + n[3];
      delivered_expired := delivered_expired + n[4]; verified := verified + n[5]; verified_undelivered := verified_undelivered + n[6];
      lo := hi;
      piece := least(interval '1 day', greatest(interval '1 minute',
        piece * least(2, 125 / greatest(1, 1000 * date_part('epoch', clock_timestamp() - began)))));
    end loop;
    return next;
  end loop;
end $$;
comment on function smslogd.otp_conversion(date, date) is 'verification.sms_otp_conversion for other days';

create or replace view verification.sms_otp_conversion as
select c.day, c.total, c.matched, c.delivered, c.delivered_expired, c.verified, c.verified_undelivered,
       smslogd.ratio(c.delivered, c.matched) as delivered_ratio, smslogd.ratio(c.verified, c.matched) as verified_ratio
  from smslogd.moment m cross join lateral smslogd.otp_conversion(m.today - 1, m.today) c
 order by c.day desc;
comment on view verification.sms_otp_conversion is 'What the codes of verification SMS came to, today and yesterday in REPORT_TIMEZONE; SMS whose verification is gone from the source are only in total. Reads log and source themselves, without making the owner''s DDL wait; for other days call smslogd.otp_conversion(first, last)';
