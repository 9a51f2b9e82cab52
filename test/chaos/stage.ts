/**
 * What a campaign acts on: a server of its own, a database as in the field, a gateway, and daemons as processes, each behind its own network path. And the
 * book of what was done to it: a schema that only the test writes.
 */
import { createDatabase, until, type TestDatabase } from '../support/database.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { connect, createServer, OWNER, PASSWORD } from '../support/postgres.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { SERVICE_ROLE } from '../../src/demo/roles.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.ts';
import type { Sql } from 'postgres';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Cluster } from '../../src/demo/cluster.ts';
import { wrongClock } from './clock.ts';

/** Minutes of an SMS's life: short, so that verdicts fall within a round. */
export const LIFE_MINUTES = 0.75;
/** The simulator's delivery times are divided by it. */
const SPEED = 20;
export const GATEWAY = { login: 'chaos-login', password: 'chaos-secret-of-the-gateway' };

export interface Member {
  readonly name: string;
  readonly path: Proxy;
  /** the process of the moment; undefined: none */
  readonly daemon: Daemon | undefined;
  /** where its HTTP is, once it is known */
  readonly url: string | undefined;
  /** performance.now() of its last start, and of its last moment without being frozen */
  readonly startedAt: number;
  frozen: boolean;
  thawedAt: number;
  /** settings beside the usual ones, and the file that its log goes to instead of a pipe; from the next start on */
  settings: Record<string, string>;
  logFile: string | undefined;
  /** every process that it was, the last one included */
  readonly processes: readonly Daemon[];
  start(): void;
  /** SIGKILL, also of a frozen one */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code or signal, and how long that took in ms */
  stop(): Promise<{ code: number | string; ms: number }>;
  freeze(): void;
  thaw(): void;
  /** its clock is wrong by so many ms from now on */
  stepClock(ms: number): void;
}

export interface Stage {
  readonly cluster: Cluster;
  readonly db: TestDatabase;
  /** the superuser, whose sessions no fault ends */
  readonly sql: Sql;
  readonly members: readonly Member[];
  readonly gateway: Simulator;
  readonly gatewayPath: Proxy;
  /** lines of the server's log */
  readonly serverLines: string[];
  /** what the gateway said beside the truth, in the simulator's words, and from when until when; epoch ms */
  readonly said: { readonly words: Readonly<Record<string, number>>; readonly from: number; until: number }[];
  /** a fault since the last calm may have taken rows from the stream, which an audit then finds */
  mayLack: boolean;
  readonly version: number;
  /** what node runs for smslogd; undefined: as the tests do */
  readonly program: readonly string[] | undefined;
  /** kills the postmaster and waits until it is gone */
  killServer(): Promise<void>;
  /** where it does not run; waits for what a crash has left */
  ensureServer(): Promise<void>;
  leader(): Promise<Member | undefined>;
  /** where the owner, the service or the superuser logs in; never behind a path */
  address(role?: 'owner' | 'service'): string;
  close(): Promise<void>;
}

export interface StageOptions {
  readonly binaries?: string;
  readonly daemons: number;
  readonly seed: number;
  /** what node runs for smslogd */
  readonly program?: readonly string[];
}

export async function buildStage({ binaries, daemons, seed, program }: StageOptions): Promise<Stage> {
  const serverLines: string[] = [];
  const cluster = await createServer(
    { max_prepared_transactions: 20, log_line_prefix: '%u ', max_wal_size: '256MB', log_min_messages: 'error' },
    { ...(binaries === undefined ? {} : { binaries }), onLine: (line) => serverLines.push(line) },
  );
  const db = await createDatabase({ adminUrl: cluster.url('postgres') });
  const random = seededRandom(seed);
  const gateway = await startSimulator({ ...GATEWAY, speed: SPEED, random });
  const gatewayUrl = new URL(gateway.url);
  const gatewayPath = await startProxy({ host: gatewayUrl.hostname, port: Number(gatewayUrl.port) });
  gatewayUrl.port = String(gatewayPath.port);
  await db.sql.unsafe(BOOK);
  const members: Member[] = [];
  for (let n = 1; n <= daemons; n += 1) {
    const path = await startProxy({ host: '127.0.0.1', port: cluster.port });
    const clock = join(cluster.directory, `clock-${n}`);
    members.push(createMember(`daemon ${n}`, { db, path, gatewayUrl: gatewayUrl.href, program, clock }));
  }

  const pid = () => {
    try {
      return Number(readFileSync(join(cluster.dataDirectory, 'postmaster.pid'), 'utf8').split('\n')[0]);
    } catch {
      return undefined;
    }
  };
  const stage: Stage = {
    cluster,
    db,
    sql: db.sql,
    members,
    gateway,
    gatewayPath,
    serverLines,
    said: [],
    mayLack: false,
    program,
    version: Number((await db.sql`show server_version_num`)[0]!['server_version_num']),
    async killServer() {
      const postmaster = pid();
      if (postmaster === undefined) return;
      process.kill(postmaster, 'SIGKILL');
      // `stop` returns at once where it is gone
      await cluster.stop('immediate');
    },
    async ensureServer() {
      const answers = await probe(cluster);
      if (answers) return;
      await cluster.stop('immediate');
      // what a killed postmaster has left ends within moments
      await until('the server to start', () =>
        cluster.start().then(
          () => true,
          () => false,
        ),
      );
    },
    async leader() {
      const [row] = await db.sql<{ holder: string | null }[]>`select holder from smslogd.leader`;
      const holder = Number(row?.holder?.split(' ')[1]);
      return members.find(({ daemon }) => daemon?.child.pid === holder);
    },
    address(role) {
      const users = { owner: OWNER, service: SERVICE_ROLE } as const;
      const url = new URL(db.superuser.url);
      if (role !== undefined) [url.username, url.password] = [users[role], PASSWORD];
      return url.href;
    },
    async close() {
      for (const member of members) await member.kill();
      await db.sql.end({ timeout: 0 });
      for (const { path } of members) await path.close();
      await gatewayPath.close();
      await gateway.close();
      await cluster.remove();
    },
  };
  return stage;
}

/** What the test notes beside what it does, in the same transactions. */
const BOOK = `
create schema chaos;
create table chaos.late (id uuid primary key, at timestamptz not null);
create table chaos.others (id uuid primary key, phone_number text not null, type text not null, body text not null, gateway_id text, inserted_at timestamptz not null);
create table chaos.final (id uuid primary key, status text not null, changed_at timestamptz);
create table chaos.filler (filler text);
grant usage on schema chaos to public;
grant select, insert, update, delete on all tables in schema chaos to public`;

async function probe(cluster: Cluster): Promise<boolean> {
  const sql = connect(cluster.url('postgres'), { max: 1, fetch_types: false, connect_timeout: 5 });
  try {
    await sql`select 1`;
    return true;
  } catch {
    return false;
  } finally {
    await sql.end({ timeout: 0 });
  }
}

interface Surroundings {
  readonly db: TestDatabase;
  readonly path: Proxy;
  readonly gatewayUrl: string;
  readonly program: readonly string[] | undefined;
  /** the file with its clock's error */
  readonly clock: string;
}

function createMember(name: string, { db, path, gatewayUrl, program, clock }: Surroundings): Member {
  const through = (address: string) => {
    const url = new URL(address);
    url.port = String(path.port);
    return url.href;
  };
  const processes: Daemon[] = [];
  let daemon: Daemon | undefined;
  const env = () => {
    const usual = db.env();
    return db.env({
      ...usual,
      DATABASE_URL: through(usual['DATABASE_URL']!),
      DATABASE_REPLICATION_URL: through(usual['DATABASE_REPLICATION_URL']!),
      IP2SMS_URL: gatewayUrl,
      IP2SMS_LOGIN: GATEWAY.login,
      IP2SMS_PASSWORD: GATEWAY.password,
      SMS_STATUSES_EXPIRATION: String(LIFE_MINUTES),
      ...wrongClock(clock),
      ...member.settings,
    });
  };
  const runs = () =>
    daemon !== undefined && daemon.child.exitCode === null && daemon.child.signalCode === null ? daemon : undefined;
  const member = {
    name,
    path,
    settings: {} as Record<string, string>,
    logFile: undefined as string | undefined,
    processes,
    frozen: false,
    thawedAt: -Infinity,
    startedAt: 0,
    url: undefined as string | undefined,
    get daemon() {
      return runs();
    },
    start() {
      if (runs() !== undefined) return;
      member.startedAt = performance.now();
      member.url = undefined;
      const started = startDaemon(env(), program, member.logFile);
      daemon = started;
      processes.push(started);
      void (async () => {
        // where it ends before, it has none
        const url = await started.url().catch(() => undefined);
        if (daemon === started) member.url = url;
      })();
    },
    async kill() {
      const ending = runs();
      daemon = undefined;
      member.frozen = false;
      ending?.kill('SIGKILL');
      await ending?.exited;
    },
    async stop() {
      const ending = runs();
      // one that is frozen would never hear of it
      if (member.frozen) member.thaw();
      daemon = undefined;
      if (ending === undefined) return { code: 0, ms: 0 };
      const began = performance.now();
      ending.kill('SIGTERM');
      const code = await ending.exited;
      return { code, ms: performance.now() - began };
    },
    freeze() {
      if (runs() === undefined) return;
      member.frozen = true;
      daemon!.kill('SIGSTOP');
    },
    thaw() {
      runs()?.kill('SIGCONT');
      member.frozen = false;
      member.thawedAt = performance.now();
    },
    stepClock: (ms: number) => writeFileSync(clock, String(ms)),
  };
  return member;
}
