/**
 * What a bench is and what it works on.
 *
 * A bench is a module test/bench/NAME.ts with one exported `bench`, named in BENCHES of test/bench/bench.ts. Its `run` prepares what it needs (a
 * database of its own on the run's server), then calls `stage.alternate` with its sides: `smslogd` and what it is compared with. Each side is
 * one measurement and returns its figures by name; the frame runs the sides in turns, drops a first round where the bench says so, and makes
 * the table of medians, spreads and ratios. Nothing is asserted about speed; a wrong result (a row too few) throws.
 *
 *   export const bench: Bench = {
 *     name: 'queue',
 *     measures: 'claim and complete without HTTP',
 *     comparisons: [{ title: 'rows/s', figure: 'rate', unit: '/s', against: 'worker', reference: 'graphile-worker', target: { ratio: 2, better: 'more' } }],
 *     run: async (stage) => {
 *       const db = await stage.database();
 *       await stage.alternate({ smslogd: async () => ({ rate: … }), worker: async () => ({ rate: … }) }, { rounds: 3 });
 *     },
 *   };
 */
import { randomBytes } from 'node:crypto';
import type { Sql } from 'postgres';
import { loadConfig, type Config } from '../../src/settings.ts';
import type { Cluster } from '../../src/demo/cluster.ts';
import { createSource } from '../../src/demo/source-table.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { connect } from '../support/postgres.ts';

/** tiny: does the machinery work (the tests); short: the default; full: the sizes of the targets */
export type Scale = 'tiny' | 'short' | 'full';

/** What one measurement of one side gives, by name. */
export type Figures = Readonly<Record<string, number>>;

export interface Comparison {
  /** distinguishes the lines of one bench in the table */
  readonly title: string;
  /** name among the figures that a side returns */
  readonly figure: string;
  readonly unit: string;
  /** the side that smslogd is compared with; undefined: only a limit */
  readonly against?: string;
  /** the reference in words, for the table */
  readonly reference?: string;
  /** a ratio smslogd / reference, or a limit on smslogd's own figure; `better` says which side of it is good */
  /** undefined: only shown */
  readonly target?: ({ readonly ratio: number } | { readonly limit: number }) & { readonly better: 'more' | 'less' };
}

export interface Bench {
  readonly name: string;
  /** a sentence */
  readonly measures: string;
  readonly comparisons: readonly Comparison[];
  run(stage: Stage): Promise<void>;
}

export interface BenchDatabase {
  readonly name: string;
  readonly url: string;
  readonly sql: Sql;
  /** the daemon's settings on this database: mirror only, quiet */
  env(more?: Record<string, string>): Record<string, string>;
  config(more?: Record<string, string>): Config;
}

export interface Stage {
  readonly scale: Scale;
  /** the value for the scale */
  pick<T>(values: Readonly<Record<Scale, T>>): T;
  /** the run's server: settings as SETTINGS says, durable as in the field */
  readonly cluster: Cluster;
  /** superuser's connections to the database postgres */
  readonly admin: Sql;
  /** a new database with the source table and smslogd's schema; `plain`: empty */
  database(options?: { plain?: boolean }): Promise<BenchDatabase>;
  /** smslogd run as a process, compiled as users run it */
  daemon(env: Record<string, string>): Daemon;
  /** what several benches share is made once */
  share<T>(name: string, make: () => Promise<T>): Promise<T>;
  /** Runs the sides in turns, `rounds` times (default 3; 1 when tiny), every other round in reverse order. */
  alternate(sides: Readonly<Record<string, () => Promise<Figures>>>, options?: { rounds?: number }): Promise<void>;
  /** a line of progress */
  say(line: string): void;
}

/**
 * Not as in the field: one superuser and no TLS, for what smslogd is compared with too, so that the figures are of the work and not of encryption.
 * The server of a run: durable (fsync, full_page_writes and synchronous_commit as they come), room for WAL so that no checkpoint falls on one
 * side only. A subscription that is enabled again does not wait five seconds for its worker.
 */
export const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '16GB',
  checkpoint_timeout: '1h',
  max_replication_slots: 100,
  track_commit_timestamp: 'on',
  wal_retrieve_retry_interval: '100ms',
  log_min_messages: 'error',
};

export interface StageOptions {
  readonly scale: Scale;
  readonly cluster: Cluster;
  /** the program's words for node; default: the source by tsx */
  readonly program?: readonly string[];
  /** only smslogd's side is measured */
  readonly ownOnly: boolean;
  readonly say: (line: string) => void;
  /** told of each measurement */
  readonly measured: (side: string, figures: Figures) => void;
}

export interface OpenStage extends Stage {
  /** ends every process, connection and database that the benches left */
  close(): Promise<void>;
}

export function createStage({ scale, cluster, program, ownOnly, say, measured }: StageOptions): OpenStage {
  const admin = connect(cluster.url('postgres'), { max: 2 });
  const releasers: (() => Promise<unknown>)[] = [() => admin.end({ timeout: 1 })];
  const shared = new Map<string, Promise<unknown>>();
  let migrated: Promise<void> | undefined;
  return {
    scale,
    cluster,
    admin,
    say,
    pick: (values) => values[scale],
    database: async ({ plain = false } = {}) => {
      const name = `bench_${randomBytes(4).toString('hex')}`;
      if (!plain) await (migrated ??= makeTemplate(cluster, admin));
      await admin.unsafe(`create database ${name} template ${plain ? 'template0' : TEMPLATE} strategy file_copy`);
      const url = cluster.url(name);
      const sql = connect(url, { max: 4 });
      releasers.push(() => sql.end({ timeout: 1 }));
      const env = (more: Record<string, string> = {}) => ({
        DATABASE_URL: url,
        HTTP_PORT: '0',
        LOOPS: 'mirror',
        LOG_LEVEL: 'info',
        ...more,
      });
      const config = (more?: Record<string, string>) => loadConfig(env(more), ['database']);
      return { name, url, sql, env, config };
    },
    daemon: (env) => {
      const daemon = startDaemon(env, program);
      releasers.push(async () => {
        daemon.kill('SIGKILL');
        await daemon.exited;
      });
      return daemon;
    },
    share: async <T>(name: string, make: () => Promise<T>) => {
      if (!shared.has(name)) shared.set(name, make());
      return (await shared.get(name)) as T;
    },
    alternate: async (sides, { rounds = 3 } = {}) => {
      const chosen = Object.entries(sides).filter(([side]) => !ownOnly || side === 'smslogd');
      for (let round = 0; round < (scale === 'tiny' ? 1 : rounds); round += 1) {
        for (const [side, measure] of round % 2 === 0 ? chosen : chosen.toReversed()) {
          const figures = await measure();
          say(`${side.padEnd(10)} ${describe(figures)}`);
          measured(side, figures);
        }
      }
    },
    close: async () => {
      while (releasers.length > 0) await releasers.pop()!().catch(() => {});
    },
  };
}

/** What the databases with source and schema are clones of. */
const TEMPLATE = 'bench_template';

async function makeTemplate(cluster: Cluster, admin: Sql): Promise<void> {
  await admin.unsafe(`create database ${TEMPLATE}`);
  const url = cluster.url(TEMPLATE);
  const sql = connect(url, { max: 1 });
  await createSource(sql);
  await sql.end();
  await migrate(loadConfig({ DATABASE_URL: url }, ['database']), { say: () => {} });
}

function describe(figures: Figures): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name} ${round(value)}`)
    .join(', ');
}

/** Three digits that count. */
export function round(value: number): string {
  return Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}
