import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { createFigures, type Figures, type FiguresDeps } from '../../src/figures/gauges.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { freezeHours, oldRows, removeRows } from '../../src/figures/counters.ts';
import { silentLog } from '../../src/log.ts';
import { createMetrics, OUTCOMES, PERIODS, TABLES, type Metrics } from '../../src/metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, STATUSES } from '../../src/status.ts';
import { createDatabase, until, untilNone, type TestDatabase } from '../support/database.ts';

let db: TestDatabase;
let sql: Sql;
let metrics: Metrics;
beforeAll(async () => {
  db = await createDatabase();
  sql = openDatabase(db.config(), { max: 3, name: 'test' });
});
beforeEach(async () => {
  metrics = createMetrics('test');
  await db.sql`truncate verification.sms_log, smslogd.sms_poll`;
  await db.sql`truncate smslogd.sms_entered, smslogd.changed_hour, smslogd.sms_hourly`;
});
afterAll(async () => {
  await sql.end();
  await db.drop();
});

/** A reading is waited for to its end: a scrape of the daemon's goes on without it after two seconds. */
const figuresWith = (options: Partial<FiguresDeps> = { maxAgeMs: 0 }) =>
  createFigures({ config: db.config(), sql, metrics, log: silentLog, waitMs: 60_000, ...options });

/** Series → value, as Prometheus sees them. */
async function series(): Promise<Map<string, number>> {
  const lines = (await metrics.registry.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}

test('gauges, views, stored counters and a count by hand agree', async () => {
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, status_changed_at, inserted_at)
    select '+380000000000', (array['verification', 'medication_request', '2FA'])[1 + g % 3],
           (array['Accepted', 'Enroute', 'Pending', 'Unknown', 'Delivered', 'Delivered', 'Delivered', 'Expired', 'Deleted', 'Undeliverable',
                  'Rejected', 'Unaccepted', 'Terminated', null])[1 + g / 3 % 14],
           at + (array[1, 120, 121, 301, 1801])[1 + g / 5 % 5] * interval '1 second', at
      from (select g, now() - interval '1 hour' * (g * 7 % 47) - interval '1 second' * (g % 3600) as at from generate_series(1, 3000) g) n`;
  await refreshHourly(sql);
  const figures = figuresWith();
  await figures.refresh();
  const now = await series();

  const byHand = await db.sql<{ type: string; period: string; status: string; n: number }[]>`
    select type, case when (inserted_at at time zone 'Europe/Kyiv')::date = (now() at time zone 'Europe/Kyiv')::date then 'today' else 'yesterday' end as period,
           coalesce(gateway_status, 'Accepted') as status, count(*)::int4 as n
      from verification.sms_log
     where (inserted_at at time zone 'Europe/Kyiv')::date >= (now() at time zone 'Europe/Kyiv')::date - 1
     group by 1, 2, 3`;
  for (const type of SMS_TYPES) {
    for (const period of PERIODS) {
      for (const status of [...STATUSES, 'untracked']) {
        const n = byHand.find((row) => row.type === type && row.period === period && row.status === status)?.n ?? 0;
        expect(now.get(`smslogd_period_sms{type="${type}",period="${period}",status="${status}"}`)).toBe(n);
      }
    }
  }
  const views = await db.sql`select * from verification.sms_today_vs_yesterday where period <> 'yesterday_same_time'`;
  for (const row of views) {
    const labels = `type="${row['type']}",period="${row['period']}"`;
    for (const group of ['le_2m', 'm2_5', 'm5_30', 'gt_30m'])
      expect(now.get(`smslogd_period_delivered{${labels},group="${group}"}`)).toBe(Number(row[group]));
    for (const ratio of ['success_ratio', 'known_ratio', 'on_time_ratio'])
      expect(now.get(`smslogd_period_${ratio}{${labels}}`) ?? null).toBe(
        row[ratio] === null ? null : Number(row[ratio]),
      );
  }
  const all = await db.sql`
    select type, count(*)::int4 as sms, date_part('epoch', max(status_changed_at) filter (where gateway_status = 'Delivered')) as last_delivered,
           date_part('epoch', now() - min(inserted_at) filter (where coalesce(gateway_status, 'Accepted') in ('Accepted', 'Enroute', 'Pending', 'Unknown'))) as age
      from verification.sms_log group by type`;
  for (const row of all) {
    expect(now.get(`smslogd_sms_total{type="${row['type']}"}`)).toBe(row['sms']);
    expect(now.get(`smslogd_sms_last_delivered_timestamp_seconds{type="${row['type']}"}`)).toBeCloseTo(
      row['last_delivered'],
      3,
    );
    // the hand's clock is a little later
    expect(Math.abs(now.get(`smslogd_sms_oldest_open_age_seconds{type="${row['type']}"}`)! - row['age'])).toBeLessThan(
      60,
    );
    for (const status of OPEN_STATUSES) {
      const [open] =
        await db.sql`select count(*)::int4 as n from verification.sms_log where type = ${row['type']} and coalesce(gateway_status, 'Accepted') = ${status}`;
      expect(now.get(`smslogd_sms_open{type="${row['type']}",status="${status}"}`)).toBe(open!['n']);
    }
  }
});

test('a ratio over nothing has no series, and goes when its SMS go', async () => {
  const figures = figuresWith();
  await figures.refresh();
  const ratios = async () => [...(await series()).keys()].filter((name) => name.includes('_ratio{'));
  expect(await ratios()).toEqual([]);
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status) values ('+380000000000', 'text', 'Rejected')`;
  await figures.refresh();
  expect((await ratios()).sort()).toEqual([
    'smslogd_period_known_ratio{type="text",period="today"}',
    'smslogd_period_success_ratio{type="text",period="today"}',
  ]);
  await db.sql`delete from verification.sms_log`;
  await figures.refresh();
  expect(await ratios()).toEqual([]);
  expect([...(await series()).keys()].filter((name) => name.includes('last_delivered'))).toEqual([]);
});

test('what comes from the database is not there before it was read, and then all of it is', async () => {
  const names = [...(await metrics.registry.metrics()).matchAll(/^# HELP (\S+) .*\(database/gm)].map(
    ([, name]) => name!,
  );
  expect(names).toEqual(expect.arrayContaining(['smslogd_sms_total', 'smslogd_sms_open', 'smslogd_poll_due']));
  const shown = async () => {
    const now = [...(await series()).keys()].map((key) => key.replace(/\{.*/, ''));
    return names.map((name) => [name, now.filter((each) => each === name).length] as const);
  };
  expect((await shown()).filter(([, count]) => count > 0)).toEqual([]);
  await figuresWith().refresh();
  const closed = [
    ['smslogd_sms_total', SMS_TYPES.length],
    ['smslogd_period_sms', SMS_TYPES.length * PERIODS.length * (STATUSES.length + 1)],
    ['smslogd_period_delivered', SMS_TYPES.length * PERIODS.length * 4],
    ['smslogd_sms_open', SMS_TYPES.length * OPEN_STATUSES.length],
    ['smslogd_sms_oldest_open_age_seconds', SMS_TYPES.length],
    ['smslogd_sms_overdue_age_seconds', SMS_TYPES.length],
    ['smslogd_recent_sms', SMS_TYPES.length * OUTCOMES.length],
    ['smslogd_slot_wal_status', 4],
    ['smslogd_slot_active', 1],
    ['smslogd_poll_due', 1],
  ];
  expect(await shown()).toEqual(expect.arrayContaining(closed));
});

/** What Prometheus' increase() makes of the scrapes of one series, without its extrapolation. */
function increase(scrapes: readonly (number | undefined)[]): number {
  const there = scrapes.filter((value) => value !== undefined);
  return there.slice(1).reduce((sum, value, i) => sum + (value < there[i]! ? value : value - there[i]!), 0);
}

test('increase() of smslogd_sms_total is what entered the log, whatever is deleted and however often the daemon is restarted', async () => {
  const insert = (rows: number, age = '0 s') =>
    db.sql`insert into verification.sms_log (phone_number, type, inserted_at)
           select '+380000000000', 'text', now() - ${age}::text::interval from generate_series(1, ${rows})`;
  const scrapes: (number | undefined)[] = [];
  let figures = figuresWith();
  const scrape = async () => {
    await figures.refresh();
    scrapes.push((await series()).get('smslogd_sms_total{type="text"}'));
  };
  const restart = (options?: Parameters<typeof figuresWith>[0]) => {
    metrics = createMetrics('test');
    figures = figuresWith(options);
  };
  let entered = 0;
  const step = async (rows: number, what: () => unknown) => {
    await what();
    await scrape();
    entered += rows;
    expect(increase(scrapes)).toBe(entered);
  };

  await insert(5_000);
  await step(0, () => {});
  expect(scrapes).toEqual([5_000]);
  await step(0, async () => {
    await db.sql`delete from verification.sms_log where id = (select id from verification.sms_log limit 1)`;
    restart();
  });
  await step(273, () => insert(273));
  // while no daemon runs
  await step(10, async () => {
    await insert(10);
    restart();
  });
  await step(20, async () => {
    await db.sql`delete from verification.sms_log where id in (select id from verification.sms_log limit 100)`;
    await insert(20);
  });
  await step(0, async () => {
    await refreshHourly(sql);
    restart();
  });
  await step(7, async () => {
    await db.sql`truncate verification.sms_log`;
    await insert(7);
    restart();
  });
  // more hours than are counted at once
  await step(300, async () => {
    await db.sql`insert into verification.sms_log (phone_number, type, inserted_at)
                 select '+380000000000', 'text', now() - interval '20 days' - g * interval '1 hour' from generate_series(1, 300) g`;
    await refreshHourly(sql);
  });
  await step(1, async () => {
    await db.sql`delete from verification.sms_log where inserted_at < now() - interval '19 days'`;
    await insert(1);
    restart();
  });
  await step(0, async () => {
    await refreshHourly(sql);
    restart();
  });
  // another type: it has entered as this one
  await step(0, async () => {
    await db.sql`update verification.sms_log set type = '2FA' where id = (select id from verification.sms_log limit 1)`;
    restart();
  });
  // retention: its hours stay as they were counted, and may be emptied
  await step(30, async () => {
    await insert(30, '5 days');
    await refreshHourly(sql);
  });
  await step(0, async () => {
    await refreshHourly(sql);
    await db.sql`update smslogd.settings set retention_days = 2`;
    await freezeHours(sql, 2);
    const [frozen] = await db.sql<{ at: string }[]>`select frozen_before::text as at from smslogd.settings`;
    const places = (await oldRows(sql, frozen!.at, 20)).map(({ place }) => place);
    expect(await removeRows(sql, places, frozen!.at)).toBe(20);
    await db.sql`delete from verification.sms_log where inserted_at < now() - interval '3 days'`;
    restart();
  });
  expect(await db.sql`select count(*)::int as rows from verification.sms_log`).toEqual([{ rows: 8 }]);

  // a first reading that takes longer than a scrape waits
  await db.sql.begin(async (tx) => {
    await tx`lock table smslogd.settings in access exclusive mode`;
    restart({ maxAgeMs: 0, waitMs: 50, limitMs: 30_000 });
    await scrape();
    expect(scrapes.at(-1)).toBeUndefined();
  });
  await until('the first reading', async () => {
    await scrape();
    return scrapes.at(-1) !== undefined;
  });
  expect(increase(scrapes)).toBe(entered);
  await db.sql`update smslogd.settings set frozen_before = '-infinity', retention_days = 0`;
});

const insert = (into: TestDatabase, rows: number) =>
  into.sql`insert into verification.sms_log (phone_number, type) select '+380000000000', 'text' from generate_series(1, ${rows})`;

test('a database that was restored as it was before is no reset: what enters it is counted on', async () => {
  const copy = await createDatabase();
  const copySql = openDatabase(copy.config(), { max: 1, name: 'test' });
  try {
    const total = async (figures: Figures) => {
      await figures.refresh();
      return (await series()).get('smslogd_sms_total{type="text"}')!;
    };
    await insert(db, 100);
    const before = await total(figuresWith());
    // as a dump and its restore have it: all but the database itself is as it was, at a time with fewer rows
    const [settings] = await db.sql`select counted_in from smslogd.settings`;
    await copy.sql`update smslogd.settings set counted_in = ${settings!['counted_in'] as string}`;
    await insert(copy, 60);
    const restored = () => figuresWith({ config: copy.config(), sql: copySql, maxAgeMs: 0 });
    metrics = createMetrics('test');
    const figures = restored();
    const scrapes = [before, await total(figures)];
    await insert(copy, 5);
    scrapes.push(await total(figures));
    metrics = createMetrics('test');
    scrapes.push(await total(restored()));
    expect(increase(scrapes)).toBe(5);
    // and for a process that lives through it
    metrics = createMetrics('test');
    const living = restored();
    const high = await total(living);
    await copy.sql`alter table verification.sms_log disable trigger all`;
    await copy.sql`delete from verification.sms_log where id in (select id from verification.sms_log limit 50)`;
    await copy.sql`insert into smslogd.changed_hour select smslogd.hour_of(now()) union select smslogd.hour_of(now() - interval '1 hour')`;
    await copy.sql`alter table verification.sms_log enable trigger all`;
    expect(await total(living)).toBe(high);
    await insert(copy, 3);
    expect(await total(living)).toBe(high + 3);
  } finally {
    await copySql.end();
    await copy.drop();
  }
});

test('slot, checkpoint and queue figures are those of this slot', async () => {
  const figures = figuresWith();
  // what belongs to another slot, and a slot of this name that is not this database's
  await db.sql`insert into smslogd.checkpoint (slot_name, lsn, reconcile_due, removed_at) values ('another', '0/1', 'test', now())`;
  await db.sql`insert into smslogd.leader (slot_name, term, holder, mirrors, streaming, renewed_at, expires_at)
               values ('another', 1, 'another', true, true, now(), now())`;
  await db.sql`select pg_create_physical_replication_slot(${db.name})`;
  await figures.refresh();
  expect(
    [...(await series()).keys()].filter((name) => /slot_retained|slot_safe|checkpoint_timestamp/.test(name)),
  ).toEqual([]);
  expect(figures.facts).toMatchObject({ checkpoint: null, reconcile: null, removed: false, leader: null, slot: null });
  await db.sql`select pg_drop_replication_slot(${db.name})`;
  await db.sql`delete from smslogd.leader`;

  await db.sql`select pg_create_logical_replication_slot(${db.name}, 'pgoutput')`;
  await db.sql`insert into smslogd.checkpoint (slot_name, lsn, updated_at) values (${db.name}, '0/1', to_timestamp(1234567890))`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               values ('+380000000000', 'text', '1234567', 'Accepted', now() - interval '1 minute')`;
  await db.sql`update smslogd.sms_poll set due_at = now()`;
  // one that is not due, and one that is being asked for
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id) select '+380000000000', 'text', id from unnest('{2,3}'::text[]) id`;
  await db.sql`update smslogd.sms_poll set due_at = now() + interval '1 hour' where gateway_id = '2'`;
  await db.sql`update smslogd.sms_poll set due_at = now(), leased_until = now() + interval '1 hour' where gateway_id = '3'`;
  // two that came into the log past their life, of which one is due
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               select '+380000000000', 'text', id, 'Accepted', now() - interval '2 days' from unnest('{4,5}'::text[]) id`;
  await db.sql`update smslogd.sms_poll set due_at = now() + case gateway_id when '4' then interval '0' else interval '1 hour' end where lane = 2`;
  await figures.refresh();
  const now = await series();
  expect(now.get('smslogd_slot_retained_wal_bytes')).toBeGreaterThanOrEqual(0);
  expect(now.has('smslogd_slot_safe_wal_bytes')).toBe(false);
  expect(now.get('smslogd_slot_wal_status{status="reserved"}')).toBe(1);
  expect(now.get('smslogd_slot_wal_status{status="lost"}')).toBe(0);
  expect(now.get('smslogd_slot_active')).toBe(0);
  expect(now.get('smslogd_checkpoint_timestamp_seconds')).toBe(1234567890);
  expect(now.get('smslogd_poll_due')).toBe(2);
  expect(figures.facts?.history_due).toBe(1);
  await db.sql`delete from smslogd.checkpoint`;
});

test('the oldest SMS past its life is told for each type, without those that came into the log past it', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               select '+380000000000', type, '1', 'Accepted', now() - age
                 from (values ('text', interval '2 minutes'), ('text', interval '1 minute'), ('2FA', interval '3 minutes'),
                              ('medication_request', interval '1 minute'), ('medication_request', interval '2 days')) sms (type, age)`;
  await db.sql`update smslogd.sms_poll set deadline_at = now() - interval '61 seconds' where sent_at < now() - interval '90 seconds'`;
  await figuresWith().refresh();
  const now = await series();
  const age = (type: string) => now.get(`smslogd_sms_overdue_age_seconds{type="${type}"}`)!;
  expect([age('verification'), age('medication_request')]).toEqual([0, 0]);
  expect(age('text')).toBeGreaterThanOrEqual(120);
  expect(age('2FA')).toBeGreaterThanOrEqual(180);
  expect(age('text')).toBeLessThan(age('2FA'));
});

test('an SMS whose life of two hours has just ended is being asked for, and not overdue', async () => {
  await db.sql`update smslogd.settings set life = '2 hours'`;
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_id, gateway_status, inserted_at)
               values ('+380000000000', '2FA', '1', 'Accepted', now() - interval '119 minutes 50 seconds')`;
  await db.sql`update smslogd.settings set life = '35 minutes'`;
  await db.sql`update smslogd.sms_poll set deadline_at = now() - interval '1 second'`;
  const figures = figuresWith();
  await figures.refresh();
  expect(figures.facts?.overdue).toEqual([]);
});

const settled = (type: string, status: string, at: string) => db.sql`
  insert into verification.sms_log (phone_number, type, gateway_status, status_changed_at, inserted_at)
  values ('+380000000000', ${type}, ${status}, ${at}::text::timestamptz, ${at}::text::timestamptz)`;
const lastDelivered = async (type: string) =>
  (await series()).get(`smslogd_sms_last_delivered_timestamp_seconds{type="${type}"}`);

test('the last delivery of a type is a delivery of its own, however long ago', async () => {
  await settled('text', 'Delivered', '2026-01-01 10:00+00');
  await settled('text', 'Rejected', '2026-01-02 10:00+00');
  await settled('2FA', 'Delivered', '2026-01-03 10:00+00');
  await refreshHourly(sql);
  await figuresWith().refresh();
  expect(await lastDelivered('text')).toBe(Date.parse('2026-01-01T10:00Z') / 1000);
  expect(await lastDelivered('2FA')).toBe(Date.parse('2026-01-03T10:00Z') / 1000);
});

test('the size of each table of ours is told, with its indexes', async () => {
  await figuresWith().refresh();
  const now = await series();
  for (const table of TABLES) expect(now.get(`smslogd_table_bytes{table="${table}"}`)).toBeGreaterThan(8_000);
  const [log] = await db.sql`select pg_total_relation_size('verification.sms_log')::float8 as bytes`;
  expect(now.get('smslogd_table_bytes{table="sms_log"}')).toBe(log!['bytes']);
});

test('the database is asked once at a time, and not again while the values are fresh', async () => {
  const figures = figuresWith({});
  await Promise.all([figures.refresh(), figures.refresh()]);
  const first = figures.facts;
  expect(first).toBeDefined();
  await figures.refresh();
  expect(figures.facts).toBe(first);
});

test('a database that does not answer in time fails no scrape: the last values stay and the failure is counted', async () => {
  await db.sql`insert into verification.sms_log (phone_number, type, gateway_status) values ('+380000000000', 'text', 'Accepted')`;
  const figures = figuresWith({ maxAgeMs: 0, waitMs: 50, limitMs: 2_000 });
  await until('a first reading', async () => {
    await figures.refresh();
    return figures.facts !== undefined;
  });
  await db.sql.begin(async (tx) => {
    await tx`lock table smslogd.settings in access exclusive mode`;
    const failures = async () => (await series()).get('smslogd_errors_total{code="database_busy"}') ?? 0;
    const before = await failures();
    // resolves though the table stays locked
    await figures.refresh();
    expect((await series()).get('smslogd_sms_open{type="text",status="Accepted"}')).toBe(1);
    // the first may have joined a reading that was under way before the lock
    await until('the failure to be counted', async () => {
      await figures.refresh();
      return (await failures()) > before;
    });
  });
  await until('a new reading', async () => {
    const last = figures.facts;
    await figures.refresh();
    return figures.facts !== last;
  });
});

/** The series of all gauges that come from the database. */
const gaugesShown = async () => {
  const told = [...(await metrics.registry.metrics()).matchAll(/^# HELP (\S+) .*\(database\)\n# TYPE \S+ gauge/gm)];
  const names = told.map(([, name]) => name!);
  expect(names).toContain('smslogd_recent_sms');
  return [...(await series()).keys()].filter((key) => names.includes(key.replace(/\{.*/, '')));
};

test('a daemon that cannot read the figures for long shows none: of several the others tell how the channel is', async () => {
  const figures = figuresWith({ maxAgeMs: 0, keepMs: 1_000 });
  await figures.refresh();
  const before = await gaugesShown();
  const entered = 'smslogd_sms_total{type="text"}';
  expect(before).not.toHaveLength(0);
  await db.sql`alter table smslogd.sms_poll rename to sms_poll_away`;
  try {
    await untilNone('no figures', async () => {
      await figures.refresh();
      return (await gaugesShown()).length;
    });
    // a counter that went would come back as a reset, and the alert on stale figures needs the time of the last
    const now = await series();
    expect([now.get(entered), now.get('smslogd_figures_timestamp_seconds')]).toEqual([0, figures.facts!.at]);
  } finally {
    await db.sql`alter table smslogd.sms_poll_away rename to sms_poll`;
  }
  await figures.refresh();
  expect((await gaugesShown()).toSorted()).toEqual(before.toSorted());
});

test('of failures in a row each kind is said, not the first alone', async () => {
  const codes: unknown[] = [];
  const log = pino({}, { write: (line: string) => void codes.push((JSON.parse(line) as { code: unknown }).code) });
  const figures = figuresWith({ log, maxAgeMs: 0, limitMs: 1_000 });
  await db.sql.begin(async (tx) => {
    await tx`lock table smslogd.settings in access exclusive mode`;
    await figures.refresh();
    await figures.refresh();
  });
  await db.sql`alter table smslogd.sms_poll rename to sms_poll_away`;
  try {
    await figures.refresh();
  } finally {
    await db.sql`alter table smslogd.sms_poll_away rename to sms_poll`;
  }
  expect(codes).toEqual(['database_busy', 'object_missing']);
});

test('what became of the SMS of 2 to 12 minutes ago is shown, and nothing of younger and older ones', async () => {
  const sms = (type: string, status: string | null, ageSeconds: number, tookSeconds: number | null) => db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    select '+380000000000', ${type}, ${status}, at, at + ${tookSeconds} * interval '1 second'
      from (select now() - ${ageSeconds} * interval '1 second' as at) a`;
  await sms('verification', 'Delivered', 130, 120);
  await sms('verification', 'Delivered', 710, 0);
  await sms('verification', 'Delivered', 400, 121);
  await sms('verification', 'Rejected', 400, 3);
  await sms('verification', 'Accepted', 400, null);
  await sms('verification', null, 400, null);
  await sms('text', null, 400, null);
  await sms('verification', 'Delivered', 90, 1);
  await sms('verification', 'Delivered', 740, 1);
  const figures = figuresWith();
  const recent = async (type: string) => {
    await figures.refresh();
    const now = await series();
    return Object.fromEntries(
      OUTCOMES.map((outcome) => [outcome, now.get(`smslogd_recent_sms{type="${type}",outcome="${outcome}"}`)]),
    );
  };
  expect(await recent('verification')).toEqual({ on_time: 2, late: 1, undelivered: 1, waiting: 2, untracked: 0 });
  expect(await recent('text')).toEqual({ on_time: 0, late: 0, undelivered: 0, waiting: 1, untracked: 0 });
  // where the source has no gateway ids, its SMS are not waited for; those of other services are
  await db.sql`update smslogd.settings set tracked_since = 'infinity'`;
  try {
    expect(await recent('verification')).toEqual({ on_time: 2, late: 1, undelivered: 1, waiting: 1, untracked: 1 });
    expect((await recent('text'))['waiting']).toBe(1);
  } finally {
    await db.sql`update smslogd.settings set tracked_since = '-infinity'`;
  }
  await db.sql`delete from verification.sms_log`;
  expect(Object.values(await recent('verification'))).toEqual([0, 0, 0, 0, 0]);
});

test('the last 24 hours are those of the hourly view', async () => {
  await db.sql`
    insert into verification.sms_log (phone_number, type, gateway_status, inserted_at, status_changed_at)
    select '+380000000000', 'text', 'Delivered', at, at + took * interval '1 second'
      from (select now() - g * interval '1 hour' as at, took from generate_series(0, 30) g, unnest('{5,5,1000}'::int[]) took) sms`;
  const hours = await figuresWith().hours();
  expect(hours).toHaveLength(24);
  expect(hours!.at(-1)).toMatchObject({ type: 'text', total: 3, delivered: 3, le_2m: 2, open: 0, untracked: 0 });
  const [view] =
    await db.sql`select date_part('epoch', max(hour)) as hour, min(p95_seconds) as p95 from verification.sms_delivery_hourly`;
  expect(hours!.at(-1)).toMatchObject({ hour: view!['hour'], p95: view!['p95'] });
  expect(hours!.at(-1)!.p50).toBeLessThan(hours!.at(-1)!.p95! / 2);
});
