import { randomBytes } from 'node:crypto';
import { dropSlotOnceFree, requireRows } from './backlog.ts';
import type { Bench, BenchDatabase, Figures, Stage } from './stage.ts';

export const bench: Bench = {
  name: 'reconcile',
  measures: 'the first copy of a source by the daemon beside one server-side INSERT … SELECT, with the same triggers',
  comparisons: [
    {
      title: 'first copy',
      figure: 'rate',
      unit: 'rows/s',
      against: 'statement',
      reference: 'one INSERT … SELECT',
    },
    { title: 'memory in the first copy', figure: 'memory', unit: 'MiB', target: { limit: 160, better: 'less' } },
  ],
  run: async (stage) => {
    const db = await stage.database();
    const rows = stage.pick({ tiny: 1_000, short: 200_000, full: 10_000_000 });
    await db.sql.unsafe(`
      insert into verification.verifications (id, phone_number, check_digit, status, code, code_expired_at, active, gateway_id, gateway_status, inserted_at)
      select gen_random_uuid(), '+38000' || lpad((n % 10000000)::text, 7, '0'), 1, 'new', 1000 + n % 9000, now(), false, (6614000000000 + n)::text,
             'Accepted', timestamp '2026-01-01' + n * interval '100 milliseconds' from generate_series(1, ${rows}) n`);
    await db.sql`vacuum analyze verification.verifications`;
    stage.say(`${rows} source rows are written`);
    await stage.alternate(
      {
        statement: () => oneStatement(db, rows),
        smslogd: () => firstCopy(stage, db, rows),
      },
      { rounds: stage.pick({ tiny: 1, short: 3, full: 1 }) },
    );
  },
};

async function oneStatement(db: BenchDatabase, rows: number): Promise<Figures> {
  await empty(db);
  const began = performance.now();
  await db.sql`insert into verification.sms_log (id, phone_number, type, body, gateway_id, gateway_status, inserted_at)
               select id, phone_number, 'verification', 'text ' || code, gateway_id, gateway_status, inserted_at at time zone 'UTC'
                 from verification.verifications order by id`;
  return { rate: rows / ((performance.now() - began) / 1000) };
}

async function firstCopy(stage: Stage, db: BenchDatabase, rows: number): Promise<Figures> {
  await empty(db);
  const slot = `copy_${randomBytes(4).toString('hex')}`;
  const daemon = stage.daemon(db.env({ SLOT_NAME: slot }));
  await daemon.line('the reconcile begins', (line) => line.includes('"reconcile begins'));
  const began = performance.now();
  await daemon.line('the reconcile is done', (line) => line.includes('"reconcile done"'));
  const rate = rows / ((performance.now() - began) / 1000);
  const memory = daemon.peakMemory() / 1024 / 1024;
  daemon.kill('SIGTERM');
  await daemon.exited;
  await requireRows(db.sql, 'verification.sms_log', rows);
  await db.sql`delete from smslogd.checkpoint`;
  await dropSlotOnceFree(db.sql, slot);
  return { rate, memory };
}

async function empty({ sql }: BenchDatabase): Promise<void> {
  await sql`truncate verification.sms_log, smslogd.sms_poll, smslogd.changed_hour`;
  await sql`checkpoint`;
}
