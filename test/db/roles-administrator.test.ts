/**
 * sql/roles.sql, run by an administrator who is no superuser, as managed servers have them: statement after statement, as psql does. On servers of its own
 * without any role of ours, and without TLS, of which the file knows nothing.
 */
import { existsSync, readFileSync } from 'node:fs';
import postgres, { type Sql } from 'postgres';
import { afterEach, expect, test } from 'vitest';
import { createCluster, type Cluster } from '../../src/demo/cluster.ts';

const DEBIAN = '/usr/lib/postgresql/15/bin';
const STATEMENTS = readFileSync('sql/roles.sql', 'utf8').split(/(?<=^end \$\$;)$/m);
let cluster: Cluster | undefined;
let clients: Sql[] = [];
afterEach(async () => {
  await Promise.all(clients.map((sql) => sql.end({ timeout: 1 })));
  clients = [];
  await cluster?.remove();
});

/** Runs the file; returns what it warns of, and what it fails with. */
async function roles(url: string): Promise<{ warnings: string[]; failure: string | undefined }> {
  const warnings: string[] = [];
  const sql = postgres(url, { max: 1, onnotice: (notice) => warnings.push(notice['message'] ?? '') });
  clients.push(sql);
  let failure: string | undefined;
  for (const statement of STATEMENTS)
    await sql
      .unsafe(statement)
      .simple()
      .catch((error: Error) => void (failure = error.message));
  return { warnings, failure };
}

test.each([['the embedded PostgreSQL', undefined] as const, ['PostgreSQL 15 of Debian', DEBIAN] as const])(
  'on %s it does what that role may, names what is left and for whom, and fails; after that it is content',
  async (_, binaries) => {
    if (binaries !== undefined && !existsSync(binaries)) throw new Error('apt-get install postgresql-15');
    cluster = await createCluster({ settings: { fsync: 'off' }, ...(binaries === undefined ? {} : { binaries }) });
    const admin = postgres(cluster.url('postgres'), { max: 1, onnotice: () => {} });
    clients.push(admin);
    await admin.unsafe(`create role administrator login createrole password 'made-up'`);
    const url = cluster.url('postgres', 'administrator', 'made-up');
    const first = await roles(url);
    expect(first.failure).toContain('alter role smslogd_replication replication;');
    for (const group of ['azure_pg_admin', 'cloudsqlsuperuser', 'rds_replication'])
      expect(first.failure).toContain(group);
    expect(first.warnings.join(' ')).toContain('alter role smslogd set log_parameter_max_length = 0;');
    const made = await admin`
      select rolname as name, rolcanlogin as login, rolreplication as replicates from pg_roles where rolname ~ '^(smslogd|sms_)' order by 1`;
    expect(made.map((row) => ({ ...row }))).toEqual([
      { name: 'sms_dba', login: false, replicates: false },
      { name: 'sms_reader', login: false, replicates: false },
      { name: 'sms_writer', login: false, replicates: false },
      { name: 'smslogd', login: true, replicates: false },
      { name: 'smslogd_replication', login: true, replicates: false },
    ]);
    // the superuser runs what the warning says
    const [, statements = ''] = /run: (.*)$/.exec(first.warnings.join(' ')) ?? [];
    await admin.unsafe(statements);
    expect((await roles(url)).warnings).toEqual([]);
    // as on Amazon RDS
    await admin.unsafe('create role rds_replication; grant rds_replication to administrator with admin option');
    expect((await roles(url)).failure).toBeUndefined();
    const [member] = await admin`select pg_has_role('smslogd_replication', 'rds_replication', 'member') as is`;
    expect(member).toEqual({ is: true });
  },
);
