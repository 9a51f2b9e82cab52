import { existsSync, readFileSync } from 'node:fs';
import { loadConfig } from '../../src/settings.ts';
import { createCluster, type Cluster } from '../../src/demo/cluster.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { refreshHourly } from '../../src/figures/counting.ts';
import { noteRecentHour, oldRows, recountHours } from '../../src/figures/counters.ts';
import { readFacts, readHours } from '../../src/figures/readings.ts';
import { createStore } from '../../src/mirror/store.ts';
import { openHours, requeueHour, resetStuck } from '../../src/poller/queue.ts';
import { createPollerStore } from '../../src/poller/store.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { describeSource } from '../../src/source.ts';
import { debianBinaries } from '../support/debian.ts';
import { fillChannel } from '../support/filled.ts';
import { connect } from '../support/postgres.ts';
import { median } from './growth.ts';
import { SETTINGS, type Bench, type Comparison, type Figures } from './stage.ts';

const VIEWS = [
  'sms_today_vs_yesterday',
  'sms_delivery_hourly',
  'sms_delivery_daily',
  'sms_status_daily',
  'sms_delivery_drop',
  'sms_week_against_week',
  'sms_backlog',
  'sms_stuck',
  'sms_last_seen',
  'sms_resends',
  'sms_delivery_by_prefix',
  'sms_otp_conversion',
  'sms_behind',
];
type Statement = readonly [string, (sql: Sql) => Promise<unknown>];
const STATEMENTS: readonly Statement[] = [
  ...VIEWS.map((view): Statement => [view, (sql) => sql.unsafe(`select * from verification.${view}`)]),
  [
    'a day of hours',
    (sql) => sql`select * from verification.sms_delivery_hourly where hour > now() - interval '1 day'`,
  ],
  ['a year of days', (sql) => sql`select * from verification.sms_delivery_between(current_date - 365, current_date)`],
  [
    'a year of hours',
    (sql) =>
      sql`select type, sum(total) from verification.sms_delivery_hourly where hour > now() - interval '1 year' group by 1`,
  ],
  ['daemon: figures', (sql) => readFacts(sql, 'smslogd', 60_000)],
  ['daemon: hours of the page', (sql) => readHours(sql, 24, 60_000)],
  [
    'daemon: count what is moving',
    (sql) => noteRecentHour(sql, 1, 1e12).then(() => recountHours(sql, { wait: true, most: 168, which: 'moving' })),
  ],
  ['daemon: nothing to count', (sql) => recountHours(sql, { wait: true, most: 0 })],
  ['daemon: rows past retention', (sql) => oldRows(sql, '2000-01-01 00:00+00', 50_000)],
  ['daemon: claim', (sql) => poller(sql).claim({ total: 64, old: 16, past: 16 }, [null, null, null])],
  ['daemon: claim without an id', (sql) => poller(sql).claimWithoutGatewayId(500)],
  ['daemon: overdue', (sql) => poller(sql).overdue(500)],
  ['daemon: stuck entries', (sql) => resetStuck(sql, 'true')],
  ['daemon: hours with open SMS', openHours],
  ['daemon: queue an hour', async (sql) => requeueHour(sql, (await openHours(sql))[0] ?? '-infinity', 'true')],
  ['daemon: SMS without a gateway id', (sql) => mirror(sql).waitingForGatewayId(undefined, undefined, 500)],
  ['daemon: is the publication changed', async (sql) => mirror(sql).republished(await describeSource(sql, config))],
];
/** What is not under 200 ms, and why: it looks up each verification of two days in the source by its key, or gives more than 25,000 rows. */
const LIMITS: Readonly<Record<string, number>> = { sms_otp_conversion: 300, sms_delivery_hourly: 400 };
const DAYS = { tiny: 12, short: 268, full: 268 };

const config = loadConfig({ DATABASE_URL: 'postgres://127.0.0.1/postgres' }, ['database']);
const poller = (sql: Sql) => createPollerStore(sql, 18_000);
const mirror = (sql: Sql) => createStore(sql, config);

const STATES = ['waiting', 'new', 'analyzed'] as const;
const TITLES = { waiting: ', every hour waits', new: '', analyzed: ', analyzed' };

export const bench: Bench = {
  name: 'figures',
  measures: `every view, and what the daemon reads of many rows, over ${DAYS.full} days on a PostgreSQL that compiles plans (Debian's, where it is installed), as a DBA's session has it: while every hour waits to be counted, counted and never analyzed, analyzed`,
  comparisons: STATES.flatMap((state) =>
    STATEMENTS.map(([name]): Comparison => {
      const target = { limit: state === 'waiting' ? 1_000 : (LIMITS[name] ?? 200), better: 'less' as const };
      return { title: `${name}${TITLES[state]}`, figure: `${name} ${state}`, unit: 'ms', target };
    }),
  ),
  run: async (stage) => {
    const days = stage.pick(DAYS);
    const repeats = stage.pick({ tiny: 1, short: 3, full: 3 });
    const rows = stage.pick({ tiny: 2_000, short: 1_000_000, full: 10_000_000 });
    const own = existsSync('/usr/lib/postgresql') && stage.scale !== 'tiny';
    // workers of a parallel plan have processor time of their own
    const settings = { ...SETTINGS, autovacuum: 'off', max_parallel_workers_per_gather: 0 };
    const cluster: Cluster = own ? await createCluster({ binaries: debianBinaries(), settings }) : stage.cluster;
    const url = own ? cluster.url('postgres') : (await stage.database({ plain: true })).url;
    const owner = connect(url, { max: 1 });
    // as through a pooler: without the daemon's start-up options; one session, whose processor time is measured
    const pooled = loadConfig({ DATABASE_URL: url, DATABASE_POOLED: 'true' });
    const sql = openDatabase(pooled, { max: 1, name: 'bench' });
    try {
      await createSource(owner);
      await migrate(loadConfig({ DATABASE_URL: url }), { say: () => {} });
      const began = performance.now();
      await fillChannel(owner, rows, days);
      stage.say(`${rows} SMS, made in ${Math.round((performance.now() - began) / 1000)} s`);
      await stage.alternate(
        {
          smslogd: async () => {
            const waiting = await measure(sql, 'waiting', repeats);
            const counting = performance.now();
            await refreshHourly(sql);
            stage.say(`every hour counted in ${Math.round(performance.now() - counting)} ms`);
            const fresh = await measure(sql, 'new', repeats);
            await owner`analyze`;
            return { ...waiting, ...fresh, ...(await measure(sql, 'analyzed', repeats)) };
          },
        },
        { rounds: 1 },
      );
    } finally {
      await Promise.all([owner.end({ timeout: 1 }), sql.end({ timeout: 1 })]);
      if (own) await cluster.remove();
    }
  },
};

/** Milliseconds of the server's processor time (of time, where the system does not tell that): the median of `repeats`. Others on the machine do not count. */
async function measure(sql: Sql, state: (typeof STATES)[number], repeats: number): Promise<Figures> {
  const [session] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
  const clock = `/proc/${session!.pid}/schedstat`;
  const spent = existsSync(clock) ? () => Number.parseInt(readFileSync(clock, 'utf8')) / 1e6 : () => performance.now();
  const figures: Record<string, number> = {};
  for (const [name, run] of STATEMENTS) {
    const times: number[] = [];
    while (times.length < repeats) {
      const before = spent();
      await run(sql);
      times.push(spent() - before);
    }
    figures[`${name} ${state}`] = median(times);
  }
  return figures;
}
