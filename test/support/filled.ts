/** A log as the years leave it, made within seconds: what the benches measure on. */
import type { Sql } from 'postgres';

/** Fills the log by `work` without its triggers, and without its indexes but the key: these are made afterwards. */
export async function fillAtOnce(sql: Sql, work: () => Promise<unknown>): Promise<void> {
  const indexes = await sql<{ name: string; ddl: string }[]>`
    select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as ddl from pg_index
     where indrelid = 'verification.sms_log'::regclass and not indisprimary`;
  for (const { name } of indexes) await sql.unsafe(`drop index ${name}`);
  const always = await sql<{ name: string }[]>`
    select quote_ident(tgname) as name from pg_trigger where tgrelid = 'verification.sms_log'::regclass and tgenabled = 'A'`;
  await sql`alter table verification.sms_log disable trigger user`;
  await work();
  await sql`alter table verification.sms_log enable trigger user`;
  for (const { name } of always) await sql.unsafe(`alter table verification.sms_log enable always trigger ${name}`);
  for (const { ddl } of indexes) await sql.unsafe(ddl);
}

/** `rows` SMS of the last `days` days in log and source, some of the last three days open and queued; every hour waits to be counted. */
export async function fillChannel(sql: Sql, rows: number, days: number): Promise<void> {
  await fillAtOnce(
    sql,
    () => sql`
      insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, status_changed_at, updated_at, inserted_at)
      select gen_random_uuid(), '+38000' || lpad((n::int8 * 7919 % 10000000)::text, 7, '0'),
             case n % 20 when 0 then 'medication_request' when 1 then 'text' when 2 then '2FA' else 'verification' end,
             'A text as long as they are: 1234', (5614000000000 + n)::text, status, at + late, at + late, at
        from generate_series(1, ${rows}::int4) n
       cross join lateral (select now() - n * (make_interval(days => ${days}::int4) / ${rows}::float8) as at,
                                  interval '1 second' * (3 + n % 97 + case when n % 50 = 0 then 300 else 0 end) as late) t
       cross join lateral (select case when at > now() - interval '72 hours' and n % 100 = 7 then 'Enroute' when n % 100 < 94 then 'Delivered'
                                       when n % 100 < 97 then 'Undeliverable' when n % 100 < 98 then 'Expired' else 'Terminated' end as status) s`,
  );
  await sql`
    insert into verification.verifications
    select id, phone_number, 1, case gateway_status when 'Delivered' then 'verified' else 'expired' end, 1234, (inserted_at + interval '5 minutes') at time zone 'UTC',
           false, gateway_id, gateway_status, 0, inserted_at at time zone 'UTC'
      from verification.sms_log where type = 'verification'`;
  await sql`
    insert into smslogd.sms_poll
    select q.* from verification.sms_log l cross join lateral smslogd.queue_entry(l.id, l.gateway_id, l.gateway_status, l.type, l.inserted_at, now()) q
     where l.gateway_status = 'Enroute'`;
  await sql`insert into smslogd.changed_hour select distinct smslogd.hour_of(inserted_at) from verification.sms_log`;
}
