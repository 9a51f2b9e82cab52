/**
 * A real PostgreSQL for the demo and the tests: data in a temporary directory, a free port, its own process. As root the server runs as
 * another user.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SmslogdError } from '../errors.ts';
import { ordinaryAccount, platformPackage, usableBinaries, type Binaries } from './binaries.ts';

export type StopMode = 'fast' | 'immediate';

export interface Cluster {
  readonly port: number;
  /** holds the data directory and goes with `remove` */
  readonly directory: string;
  readonly dataDirectory: string;
  /** the address of a database as the superuser, or as `user` with `password` */
  url(database: string, user?: string, password?: string): string;
  start(): Promise<void>;
  /** fast disconnects everybody and checkpoints; immediate is a crash */
  stop(mode?: StopMode): Promise<void>;
  /** copies what it is, stopped, to a directory that other clusters can begin as; removed with it */
  copy(): string;
  /** stops the server at once and deletes what it made */
  remove(): Promise<void>;
}

export interface ClusterOptions {
  /** npm package or directory with the binaries; default: the package of this platform */
  readonly binaries?: string;
  /** postgresql.conf settings beside ours */
  readonly settings?: Readonly<Record<string, string | number>>;
  /** the server takes TCP connections by TLS alone, as `localhost`; PEM texts */
  readonly tls?: { readonly authority: string; readonly certificate: string; readonly key: string };
  /** called for each line of the server's log */
  readonly onLine?: (line: string) => void;
  /** begins as this copy of a cluster by the same binaries, which `Cluster.copy` made, instead of empty */
  readonly from?: string;
}

const SETTINGS = {
  wal_level: 'logical',
  max_replication_slots: 50,
  max_wal_senders: 50,
  max_connections: 200,
  unix_socket_directories: '',
  listen_addresses: '127.0.0.1',
  timezone: 'UTC',
  lc_messages: 'C',
};

/** Creates a cluster and starts it. Throws embedded_postgres if the binaries are missing or do not run. */
export async function createCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const account = process.getuid?.() === 0 ? ordinaryAccount() : undefined;
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-postgres-'));
  if (account !== undefined) chownSync(directory, account.uid, account.gid);
  // a server that is stopping may still write for a moment
  const remains = () => rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  process.once('exit', remains);
  try {
    const bin = await usableBinaries(options.binaries ?? platformPackage(), directory, account);
    // of the server's user alone, or it would not take its key
    const write = (path: string, text: string) => {
      writeFileSync(path, text, { mode: 0o600 });
      if (account !== undefined) chownSync(path, account.uid, account.gid);
    };
    const [passwordFile, dataDirectory] = [join(directory, PASSWORD), join(directory, DATA)];
    const { tls, from } = options;
    if (from === undefined) {
      write(passwordFile, randomBytes(12).toString('hex'));
      const init = ['-D', dataDirectory, '-U', 'postgres', '-A', 'scram-sha-256', `--pwfile=${passwordFile}`];
      await runOnce(bin, 'initdb', [...init, '-E', 'UTF8', '--locale=C', '--no-sync']);
    } else copyFiles(from, directory);
    const password = readFileSync(passwordFile, 'utf8');
    if (tls !== undefined) {
      write(join(directory, AUTHORITY), tls.authority);
      write(join(dataDirectory, 'server.crt'), tls.certificate);
      write(join(dataDirectory, 'server.key'), tls.key);
      write(join(dataDirectory, 'pg_hba.conf'), 'hostssl all all 127.0.0.1/32 scram-sha-256\n');
    }
    const authority = join(directory, AUTHORITY);
    const encrypted = existsSync(authority);
    return await launch(bin, {
      directory,
      dataDirectory,
      password,
      address: (login, port, database) =>
        encrypted
          ? `postgres://${login}@localhost:${port}/${database}?sslmode=verify-full&sslrootcert=${authority}`
          : `postgres://${login}@127.0.0.1:${port}/${database}?sslmode=disable`,
      settings: { ...SETTINGS, ...(encrypted ? { ssl: 'on' } : {}), ...options.settings },
      onLine: options.onLine,
      remains,
    });
  } catch (error) {
    process.off('exit', remains);
    remains();
    throw error;
  }
}

const AUTHORITY = 'authority.crt';
const PASSWORD = 'password';
const DATA = 'data';

/** Copies what makes a cluster, each file with its owner. */
function copyFiles(from: string, to: string): void {
  const files = [AUTHORITY, PASSWORD, DATA].map((name) => join(from, name)).filter((file) => existsSync(file));
  execFileSync('cp', ['-a', ...files, to]);
}

interface Plan {
  readonly directory: string;
  readonly dataDirectory: string;
  readonly password: string;
  readonly address: (login: string, port: number, database: string) => string;
  readonly settings: Readonly<Record<string, string | number>>;
  readonly onLine: ClusterOptions['onLine'];
  readonly remains: () => void;
}

async function launch(bin: Binaries, plan: Plan): Promise<Cluster> {
  const port = await freePort();
  // in the file, as an administrator would do it: ALTER SYSTEM takes precedence
  const lines = Object.entries(plan.settings).map(([name, value]) => `${name} = '${value}'\n`);
  appendFileSync(join(plan.dataDirectory, 'postgresql.conf'), lines.join(''));
  let server: ChildProcess | undefined;

  const start = async () => {
    const child = spawn(join(bin.directory, 'postgres'), ['-D', plan.dataDirectory, '-p', String(port)], {
      env: bin.env,
      ...bin.account,
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
      cwd: plan.directory,
    });
    server = child;
    await readyToAccept(child, plan.onLine);
  };
  const stop = async (mode: StopMode = 'fast') => {
    const child = server;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    const gone = once(child, 'exit');
    child.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    await gone;
  };
  // stop the server however this process ends
  const lastResort = () => void server?.kill('SIGQUIT');
  process.prependOnceListener('exit', lastResort);

  await start().catch(async (error: unknown) => {
    await stop('immediate');
    process.off('exit', lastResort);
    throw error;
  });
  return {
    port,
    directory: plan.directory,
    dataDirectory: plan.dataDirectory,
    url: (database, user = 'postgres', password = plan.password) => plan.address(`${user}:${password}`, port, database),
    start,
    stop,
    copy: () => {
      const copy = join(plan.directory, 'copy');
      mkdirSync(copy);
      copyFiles(plan.directory, copy);
      return copy;
    },
    remove: async () => {
      await stop('immediate');
      process.off('exit', lastResort);
      process.off('exit', plan.remains);
      plan.remains();
    },
  };
}

/** Resolves when the server is ready; rejects with its last log lines if it exits before. */
async function readyToAccept(child: ChildProcess, onLine: ClusterOptions['onLine']): Promise<void> {
  const lines = createInterface({ input: child.stderr! });
  if (onLine !== undefined) lines.on('line', onLine);
  const words: string[] = [];
  await new Promise<void>((ready, failed) => {
    lines.on('line', (line) => {
      words.push(line);
      if (words.length > 20) words.shift();
      if (line.includes('database system is ready to accept connections')) ready();
    });
    child.once('error', failed);
    child.once('exit', () =>
      failed(new SmslogdError('embedded_postgres', `PostgreSQL did not start:\n${words.join('\n')}`)),
    );
  });
  // read the pipe to its end, so that the server never blocks on it; it does not keep this process alive
  child.unref();
  (child.stderr as unknown as { unref(): void }).unref();
}

const OTHER_USER =
  'As root the server runs as another user, who must be able to reach the temporary directory: set TMPDIR to one.';

async function runOnce(bin: Binaries, program: string, flags: string[]): Promise<void> {
  // in its own process group: Ctrl-C in a terminal goes to this process alone
  const child = spawn(join(bin.directory, program), flags, {
    env: bin.env,
    ...bin.account,
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
    cwd: '/',
  });
  const lastResort = () => void (child.pid !== undefined && process.kill(-child.pid, 'SIGKILL'));
  process.prependOnceListener('exit', lastResort);
  let words = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (words += chunk));
  const [failure] = await Promise.race([once(child, 'close'), once(child, 'error')]).catch((error: unknown) => [error]);
  process.off('exit', lastResort);
  if (failure === 0) return;
  throw new SmslogdError(
    'embedded_postgres',
    `${program} failed: ${failure instanceof Error ? failure.message : words}`,
    bin.account === undefined ? {} : { hint: OTHER_USER },
  );
}

/** A free port of 127.0.0.1. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}
