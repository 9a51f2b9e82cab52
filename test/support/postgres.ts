/** One real PostgreSQL for a whole test run, with a migrated template database that each test file clones. */
import postgres from 'postgres';
import type { TestProject } from 'vitest/node';
import { loadConfig } from '../../src/config.ts';
import { createCluster, type Cluster } from '../../src/demo/cluster.ts';
import { migrate } from '../../src/schema.ts';
import { SOURCE_DDL } from '../../src/demo/source-table.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** superuser address of the database `postgres` */
    postgresUrl: string;
  }
}

export const TEMPLATE = 'smslogd_template';

/**
 * A cluster with the migrated template, as a whole run has one; for tests that need a server of their own. SMSLOGD_TEST_POSTGRES names a
 * package, or a file that a package exports, with other binaries than those of PostgreSQL 18.
 */
export async function createServer(settings: Record<string, string | number> = {}): Promise<Cluster> {
  const binaries = process.env['SMSLOGD_TEST_POSTGRES'];
  const cluster = await createCluster({
    ...(binaries === undefined ? {} : { package: binaries }),
    settings: { fsync: 'off', log_min_messages: 'error', ...settings },
  });
  const admin = postgres(cluster.url('postgres'), { max: 1, onnotice: () => {} });
  await admin.unsafe(`create database ${TEMPLATE}`);
  await admin.end();
  const template = postgres(cluster.url(TEMPLATE), { max: 1, onnotice: () => {} });
  await template.unsafe(SOURCE_DDL);
  await template.end();
  await migrate(loadConfig({ DATABASE_URL: cluster.url(TEMPLATE) }), { say: () => {} });
  return cluster;
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const cluster = await createServer();
  project.provide('postgresUrl', cluster.url('postgres'));
  return () => cluster.remove();
}
