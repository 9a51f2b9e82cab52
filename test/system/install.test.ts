/**
 * docs/operations.md, followed: its commands, as they stand there, in a directory of their own, as the roles that the text names, against a server that is
 * verified by an own authority, with passwords from the password file.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createCluster, freePort, type Cluster } from '../../src/demo/cluster.ts';
import { createSource, OWNER_ROLE } from '../../src/demo/source-table.ts';
import { openDatabase, type Sql } from '../../src/postgres/pools.ts';
import { loadConfig } from '../../src/settings.ts';
import { createAuthority, type Authority } from '../support/certificates.ts';
import { until } from '../support/database.ts';
import { PROGRAM } from '../support/program.ts';
import { insertMany } from '../support/verifications.ts';

const PAGE = readFileSync('docs/operations.md', 'utf8');
const SECRET = 'made-up';

let authority: Authority;
let cluster: Cluster;
let sql: Sql;
let scratch: string;
let ports: { gateway: number; http: number };
let running: ChildProcess[];

beforeAll(async () => {
  if (spawnSync('psql', ['--version']).error !== undefined)
    throw new Error('psql is missing: apt-get install postgresql');
  running = [];
  scratch = mkdtempSync(join(tmpdir(), 'smslogd-install-'));
  const shim = `#!/bin/sh\nexec '${process.execPath}' ${PROGRAM.map((word) => `'${word}'`).join(' ')} "$@"\n`;
  writeFileSync(join(scratch, 'smslogd'), shim);
  chmodSync(join(scratch, 'smslogd'), 0o755);
  authority = createAuthority();
  const server = authority.issue({ hosts: ['localhost'] });
  const [ca, certificate, key] = [authority.caFile, server.certFile, server.keyFile].map((path) =>
    readFileSync(path, 'utf8'),
  );
  cluster = await createCluster({
    tls: { authority: ca!, certificate: certificate!, key: key! },
    settings: { fsync: 'off' },
  });
  sql = openDatabase(loadConfig({ DATABASE_URL: cluster.url('postgres') }), { max: 2, name: 'test' });
  await createSource(sql);
  await sql.unsafe(`alter role ${OWNER_ROLE} login password '${SECRET}'`);
  ports = { gateway: await freePort(), http: await freePort() };
});
afterAll(async () => {
  for (const { pid } of running) if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  await sql?.end({ timeout: 1 });
  await cluster?.remove();
  authority?.remove();
  rmSync(scratch, { recursive: true, force: true });
});

/** The blocks under a heading, as they stand there but with this test's names in the place of those that a reader puts in. */
function blocks(heading: string, language: 'sh' | 'sql' = 'sh'): string[] {
  const part = PAGE.split(/^(?=#+ )/m).find((each) => each.startsWith(`${heading}\n`));
  if (part === undefined) throw new Error(`no heading ${heading}`);
  const found = [...part.matchAll(new RegExp(`^( *)\`\`\`${language}\\n(.*?)^ *\`\`\``, 'gms'))];
  if (found.length === 0) throw new Error(`nothing to run under ${heading}`);
  return found.map((row) => filledIn(row[2]!));
}

const client = () => authority.issue({ name: 'smslogd' });
function filledIn(text: string): string {
  const { certFile, keyFile } = text.includes('client.crt') ? client() : { certFile: '', keyFile: '' };
  return text
    .replaceAll('/etc/smslogd/ca.crt', authority.caFile)
    .replaceAll('/etc/smslogd/client.crt', certFile)
    .replaceAll('/etc/smslogd/client.key', keyFile)
    .replaceAll(/\bHOST\b/g, 'localhost')
    .replaceAll(/\bPORT\b/g, String(cluster.port))
    .replaceAll(/\bDATABASE\b/g, 'postgres')
    .replaceAll(/\bOWNER\b/g, OWNER_ROLE)
    .replaceAll(/\bPASSWORD\b/g, SECRET)
    .replaceAll('9465', String(ports.gateway))
    .replaceAll('9464', String(ports.http))
    .replaceAll('smslogd simulate', `smslogd simulate --port ${ports.gateway}`);
}

/** libpq's variables for psql, as the administrator. */
const administrator = () => ({
  PGHOST: 'localhost',
  PGPORT: String(cluster.port),
  PGUSER: 'postgres',
  PGPASSWORD: new URL(cluster.url('postgres')).password,
  PGSSLMODE: 'verify-full',
  PGSSLROOTCERT: authority.caFile,
});
const environment = (env: Record<string, string>) => ({
  PATH: `${scratch}:${process.env['PATH']}`,
  HOME: scratch,
  ...env,
});

/** Runs it as somebody would type it, with no terminal for passwords; returns stdout. */
function shell(commands: string, env: Record<string, string>, input = ''): string {
  const { status, stdout, stderr } = spawnSync('setsid', ['-w', 'sh', '-euc', commands], {
    cwd: scratch,
    env: environment(env),
    input,
    encoding: 'utf8',
  });
  expect({ commands, status, stdout, stderr: status === 0 ? '' : stderr }).toMatchObject({ status: 0 });
  return stdout;
}

function start(command: string, env: Record<string, string>): void {
  running.push(
    spawn('sh', ['-euc', `exec ${command}`], { cwd: scratch, env: environment(env), stdio: 'ignore', detached: true }),
  );
}

/** The value of a setting in section 4. */
const address = (name: string) => filledIn(new RegExp(`^\\| \`${name}\` \\| \`([^\`]+)\``, 'm').exec(PAGE)![1]!);

/** What section 4 tells to set, and the gateway of the rehearsal. */
function settings(): Record<string, string> {
  const gateway = Object.fromEntries(
    [...blocks('## Rehearse an outage')[0]!.matchAll(/(IP2SMS_\w+)=(\S+)/g)].map((row) => [row[1]!, row[2]!]),
  );
  return {
    DATABASE_URL: address('DATABASE_URL'),
    DATABASE_REPLICATION_URL: address('DATABASE_REPLICATION_URL'),
    HTTP_PORT: String(ports.http),
    ...gateway,
  };
}

test('from an empty server to a log that is kept, and away again', async () => {
  // 1. the server, and 2. the roles: the administrator
  for (const statement of blocks('### 1. The server', 'sql')[0]!
    .split('\n')
    .filter((line) => line !== ''))
    shell('psql -v ON_ERROR_STOP=1', administrator(), statement);
  shell(blocks('### 2. The roles')[0]!, administrator(), `${SECRET}\n`.repeat(4));
  // 3. the schema: the owner
  shell(blocks('### 3. The schema')[0]!, { PGPASSWORD: SECRET });
  // 4. the password file and the settings, then 5. and 6.: the daemon
  shell(blocks('### The password')[0]!, {});
  const daemon = settings();
  await insertMany(sql, 30);
  const [, , ...sends] = blocks('## Rehearse an outage')[0]!.trimEnd().split('\n');
  start(/^smslogd simulate[^&]*/.exec(blocks('## Rehearse an outage')[0]!)![0], daemon);
  await until(
    'the gateway answers',
    async () =>
      await fetch(daemon['IP2SMS_URL']!).then(
        () => true,
        () => false,
      ),
  );
  shell(blocks('### 5. Check')[0]!, daemon);
  start('smslogd run', daemon);
  shell(sends.filter((line) => line.startsWith('for ')).join('\n'), { ...daemon, IP2SMS_SOURCE: 'trial' });
  await until('every SMS is in the log, and some status was learned', async () => {
    const [row] =
      await sql`select count(*)::int as n, count(status_changed_at)::int as learned from verification.sms_log`;
    return row!['n'] === 40 && (row!['learned'] as number) > 0;
  });
  // 7. and the rehearsal
  shell(blocks('### 7. Watch')[0]!, daemon);
  expect(shell(blocks('## Rehearse an outage')[1]!, daemon)).toContain('smslogd_poll_breaker_open');
  // away again: the owner with the daemon's address of the stream, who knows both passwords
  shell(blocks('## Remove')[0]!, {
    DATABASE_URL: filledIn(
      'postgres://OWNER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=/etc/smslogd/ca.crt',
    ),
    DATABASE_REPLICATION_URL: daemon['DATABASE_REPLICATION_URL']!,
  });
  expect(await sql`select from pg_replication_slots union all select from pg_publication`).toHaveLength(0);
  for (const { pid } of running.splice(0)) process.kill(-pid!, 'SIGKILL');
  const [owner, admin] = blocks('## Remove', 'sql');
  shell(
    'psql -v ON_ERROR_STOP=1',
    { ...administrator(), PGDATABASE: 'postgres', PGUSER: OWNER_ROLE, PGPASSWORD: SECRET },
    owner,
  );
  shell('psql -v ON_ERROR_STOP=1', administrator(), admin);
  expect(
    (
      await sql`select relname::text as name from pg_class where relnamespace = 'verification'::regnamespace and relkind in ('r', 'v') order by 1`
    ).map((row) => row['name']),
  ).toEqual(['sms_log', 'verifications']);
}, 180_000);

test('every address of the section on connecting is one', () => {
  const addresses = ['### TLS', '### Several hosts'].flatMap((heading) => blocks(heading));
  expect(addresses.length).toBeGreaterThan(2);
  for (const commands of addresses) expect(shell(`${commands}\nsmslogd config`, {})).toContain('DATABASE_URL=postgres');
});
