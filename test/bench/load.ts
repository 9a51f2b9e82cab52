import { randomBytes } from 'node:crypto';
import { until } from '../support/database.ts';
import { connect } from '../support/postgres.ts';
import { dropSlotOnceFree } from './backlog.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

const CLIENTS = 4;
const PHONES = 100_000;

/** What somebody writes who wants the log without a daemon. */
const TRIGGER = `
create function public.log_verification() returns trigger language plpgsql as $$
begin
  insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
  values (new.id, new.phone_number, 'verification', 'text ' || new.code, new.gateway_id, new.gateway_status, new.inserted_at at time zone 'UTC')
  on conflict (id) do nothing;
  return null;
end $$;
create trigger log_verification after insert on verification.verifications for each row execute function public.log_verification();
alter table verification.verifications disable trigger log_verification;`;

export const bench: Bench = {
  name: 'load',
  measures: `the OTP service's transactions (deactivate the older ones, insert), ${CLIENTS} clients at full speed`,
  comparisons: [
    {
      title: 'transactions beside a trigger',
      figure: 'tps',
      unit: '/s',
      against: 'trigger',
      reference: 'a trigger that writes the log',
      target: { ratio: 1, better: 'more' },
    },
    {
      title: 'latency p50 beside a trigger',
      figure: 'p50',
      unit: 'ms',
      against: 'trigger',
      reference: 'a trigger that writes the log',
      target: { ratio: 1, better: 'less' },
    },
    { title: 'transactions beside nothing', figure: 'tps', unit: '/s', against: 'nothing', reference: 'neither' },
    { title: 'latency p50 beside nothing', figure: 'p50', unit: 'ms', against: 'nothing', reference: 'neither' },
  ],
  run: async (stage) => {
    const db = await stage.database();
    await db.sql.unsafe(TRIGGER);
    await stage.alternate({
      smslogd: () => mirrored(stage, db),
      trigger: async () => {
        await db.sql`alter table verification.verifications enable trigger log_verification`;
        const figures = await otpWork(stage, db);
        await db.sql`alter table verification.verifications disable trigger log_verification`;
        return figures;
      },
      nothing: () => otpWork(stage, db),
    });
  },
};

async function mirrored(stage: Stage, db: BenchDatabase): Promise<Figures> {
  const slot = `load_${randomBytes(4).toString('hex')}`;
  const daemon = stage.daemon(db.env({ SLOT_NAME: slot, SNAPSHOT: 'never' }));
  await daemon.line('it streams', (line) => line.includes('"the mirror streams"'));
  const figures = await otpWork(stage, db);
  await until('the log to have every row', async () => {
    const [row] =
      await db.sql`select (select count(*) from verification.sms_log) = (select count(*) from verification.verifications) as all`;
    return row?.['all'] === true;
  });
  daemon.kill('SIGTERM');
  await daemon.exited;
  await dropSlotOnceFree(db.sql, slot);
  return figures;
}

async function otpWork(stage: Stage, { url, sql }: BenchDatabase): Promise<Figures> {
  await sql`truncate verification.verifications, verification.sms_log, smslogd.sms_poll`;
  const clients = connect(url, { max: CLIENTS });
  const delays: number[] = [];
  const seconds = stage.pick({ tiny: 0.2, short: 4, full: 20 });
  const began = performance.now();
  const until = began + seconds * 1000;
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      while (performance.now() < until) {
        const phone = `+38000${String(Math.floor(Math.random() * PHONES)).padStart(7, '0')}`;
        const start = performance.now();
        await clients.begin(async (tx) => {
          await tx`update verification.verifications set active = false, status = 'canceled' where phone_number = ${phone} and active`;
          await tx`insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, gateway_id, gateway_status, inserted_at)
                   values (gen_random_uuid(), ${phone}, 1, 'new', 1234, now() + interval '5 minutes', (random() * 1e13)::int8::text, 'Accepted', now() at time zone 'UTC')
                   on conflict do nothing`;
        });
        delays.push(performance.now() - start);
      }
    }),
  );
  const tps = delays.length / ((performance.now() - began) / 1000);
  await clients.end();
  delays.sort((a, b) => a - b);
  return { tps, p50: delays[delays.length >> 1]!, p99: delays[Math.floor(delays.length * 0.99)]! };
}
