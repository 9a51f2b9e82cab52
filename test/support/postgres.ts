/** Real PostgreSQL for a test run, one server for each worker, as in the field, with a migrated template database that each test file clones. */
import postgres, { type Options, type Sql } from 'postgres';
import type { TestProject } from 'vitest/node';
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';
import { loadConfig } from '../../src/settings.ts';
import { createCluster, type Cluster, type ClusterOptions } from '../../src/demo/cluster.ts';
import { createRoles, DAEMON_ROLE } from '../../src/demo/roles.ts';
import { migrate } from '../../src/schema/migrate.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';
import { createAuthority } from './certificates.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** superuser addresses of the database `postgres`, one for each worker */
    postgresUrls: readonly string[];
  }
}

export const TEMPLATE = 'smslogd_template';
/** of the source table, with all that docs/operations.md gives it */
export const OWNER = 'otp_owner';
/** of every role but the superuser */
export const PASSWORD = 'made-up';

/** Of a run: what its servers begin as, a directory; the workers inherit it. */
const BEGINNING = 'SMSLOGD_TEST_BEGINNING';
/** Of a run: the addresses of its servers. */
const SERVERS = 'SMSLOGD_TEST_SERVERS';

/**
 * A server with the roles, TLS by a CA of its own, and the migrated template, as a whole run has one; for tests that need a server of their own.
 * SMSLOGD_TEST_POSTGRES names other binaries than those of PostgreSQL 18. What a run has made once, its further servers are copies
 * of, with its system identifier; `unrelated`: this one is none.
 */
export async function createServer(
  settings: Record<string, string | number> = {},
  { unrelated = false, ...more }: { binaries?: string; unrelated?: boolean; onLine?: (line: string) => void } = {},
): Promise<Cluster> {
  const { SMSLOGD_TEST_POSTGRES: binaries, [BEGINNING]: beginning } = process.env;
  const begun = !unrelated && more.binaries === undefined && beginning !== undefined;
  const cluster = await createCluster({
    ...(binaries === undefined ? {} : { binaries }),
    settings: { fsync: 'off', log_min_messages: 'error', ...settings },
    ...more,
    ...(begun ? { from: beginning } : { tls: serverTls() }),
  });
  if (!begun) await fill(cluster);
  return cluster;
}

export function serverTls(): NonNullable<ClusterOptions['tls']> {
  const authority = createAuthority();
  const { certFile, keyFile } = authority.issue({ hosts: ['localhost'] });
  const [ca, certificate, key] = [authority.caFile, certFile, keyFile].map((file) => readFileSync(file, 'utf8'));
  authority.remove();
  return { authority: ca!, certificate: certificate!, key: key! };
}

/** Makes the roles and the template. */
async function fill(cluster: Cluster): Promise<void> {
  const admin = connect(cluster.url('postgres'), { max: 1 });
  await createRoles(admin, PASSWORD);
  await admin.unsafe(`create role ${OWNER} login password '${PASSWORD}'`);
  await admin.unsafe(`create database ${TEMPLATE}`);
  await admin.unsafe(`grant create on database ${TEMPLATE} to ${OWNER}`);
  await admin.end();
  const url = cluster.url(TEMPLATE, OWNER, PASSWORD);
  const owner = connect(url, { max: 1 });
  await owner.unsafe(SOURCE_DDL);
  await owner.end();
  await migrate(loadConfig({ DATABASE_URL: url }), { role: DAEMON_ROLE, say: () => {} });
}

/**
 * The test's own hand in a database: its client takes arrays and checks the server's certificate. Its socket sends at once what it is given: the messages
 * of TLS would else wait for acknowledgements that the server's system delays by 40 ms.
 */
export function connect(address: string, options: Options<Record<string, never>>): Sql {
  const { hostname: host, port, pathname, username, password, searchParams } = new URL(address);
  const authority = searchParams.get('sslrootcert');
  const own = {
    socket: () => createConnection({ host, port: Number(port), noDelay: true }),
    host,
    port: Number(port),
    database: pathname.slice(1),
    username,
    password,
    ssl: authority === null ? false : { secureContext: contextOf(authority), servername: host },
    onnotice: () => {},
  };
  return postgres({ ...own, ...options });
}

const contexts = new Map<string, SecureContext>();

/** To parse a certificate takes as long as the rest of a login. */
function contextOf(authority: string): SecureContext {
  const context = contexts.get(authority) ?? createSecureContext({ ca: readFileSync(authority) });
  contexts.set(authority, context);
  return context;
}

/**
 * A server for each worker: a new slot waits for every transaction that is open on its server, and those of another file may be open for half a minute.
 * The projects of a run share them.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { [SERVERS]: servers } = process.env;
  if (servers !== undefined) {
    project.provide('postgresUrls', JSON.parse(servers) as string[]);
    return async () => {};
  }
  // each server is to end with this process
  process.setMaxListeners(0);
  // of the databases of files that run for a minute autovacuum would look at another one every few seconds, each time in a process of its own
  const settings = { autovacuum_naptime: '5min' };
  const clusters = [await createServer(settings)];
  await clusters[0]!.stop();
  process.env[BEGINNING] = clusters[0]!.copy();
  await clusters[0]!.start();
  const workers = Math.min(project.config.maxWorkers, project.vitest.state.getPaths().length);
  while (clusters.length < workers) clusters.push(await createServer(settings));
  const urls = clusters.map((cluster) => cluster.url('postgres'));
  process.env[SERVERS] = JSON.stringify(urls);
  project.provide('postgresUrls', urls);
  return async () => {
    await Promise.all(clusters.map((cluster) => cluster.remove()));
  };
}
