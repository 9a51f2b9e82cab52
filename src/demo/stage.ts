/** The demo's environment: PostgreSQL with the source and the log, the gateway simulator, free ports, and a file for the daemon's log. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, type Config } from '../settings.ts';
import { openDatabase, type Sql } from '../postgres/pools.ts';
import { migrate } from '../schema/migrate.ts';
import { startSimulator, type Simulator } from '../simulator/simulator.ts';
import { createCluster, freePort } from './cluster.ts';
import { createRoles, DAEMON_ROLE, REPLICATION_ROLE, SERVICE_ROLE } from './roles.ts';
import { createSource } from './source-table.ts';

const DATABASE = 'ehealth';
/** High, because SMS past their deadline use at most a tenth of it, and the whole history is past its deadline. */
const MAX_CONCURRENCY = 400;
const LATENCY = { latencyMs: 3, jitterMs: 4 };

export interface Stage {
  readonly postgres: string;
  readonly simulator: Simulator;
  /** as the owner of the source */
  readonly owner: Sql;
  /** as the service that inserts into the log */
  readonly writer: Sql;
  readonly config: Config;
  /** the daemon's settings */
  readonly settings: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** http://127.0.0.1:PORT of the daemon */
  readonly web: string;
  /** the address for psql */
  readonly psql: string;
}

/** Creates the environment; `release` is called with a releaser for each resource, in the order of creation. */
export async function setStage(random: () => number, release: (undo: () => Promise<void>) => void): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-demo-'));
  const remains = () => rmSync(directory, { recursive: true, force: true });
  process.once('exit', remains);
  release(async () => {
    process.off('exit', remains);
    remains();
  });

  const password = randomBytes(12).toString('hex');
  const simulator = await startSimulator({ login: 'demo', password, faults: LATENCY, random });
  release(() => simulator.close());

  const cluster = await createCluster({ settings: { max_slot_wal_keep_size: '2GB' } });
  release(() => cluster.remove());
  const [postgres] = await inDatabase(cluster.url('postgres'), async (sql) => {
    await sql.unsafe(`create database ${DATABASE}`);
    return await sql<{ version: string }[]>`select current_setting('server_version') as version`;
  });

  const port = await freePort();
  const settings = {
    DATABASE_URL: cluster.url(DATABASE, DAEMON_ROLE, password),
    DATABASE_REPLICATION_URL: cluster.url(DATABASE, REPLICATION_ROLE, password),
    IP2SMS_URL: simulator.url,
    IP2SMS_LOGIN: 'demo',
    IP2SMS_PASSWORD: password,
    IP2SMS_MAX_CONCURRENCY: String(MAX_CONCURRENCY),
    HTTP_PORT: String(port),
  };
  const ownerUrl = cluster.url(DATABASE);
  const open = (url: string, max: number) => {
    const sql = openDatabase(loadConfig({ DATABASE_URL: url }), { max, name: 'demo', transactions: true });
    release(() => sql.end({ timeout: 1 }));
    return sql;
  };
  const owner = open(ownerUrl, 8);
  await createSource(owner);
  await createRoles(owner, password);
  const config = loadConfig({ ...settings, DATABASE_URL: ownerUrl, DATABASE_REPLICATION_URL: ownerUrl });
  await migrate(config, { role: DAEMON_ROLE, say: () => {} });
  return {
    postgres: postgres?.version ?? '',
    simulator,
    owner,
    writer: open(cluster.url(DATABASE, SERVICE_ROLE, password), 2),
    config,
    settings,
    logFile: join(directory, 'daemon.log'),
    web: `http://127.0.0.1:${port}`,
    psql: ownerUrl.replace('?sslmode=disable', ''),
  };
}

async function inDatabase<T>(url: string, work: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = openDatabase(loadConfig({ DATABASE_URL: url }), { max: 1, name: 'demo', transactions: true });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}
