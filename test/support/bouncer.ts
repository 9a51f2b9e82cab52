/** A real PgBouncer in transaction mode, which Debian has, with TLS that is verified on both ways. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { freePort } from '../../src/demo/cluster.ts';
import { createAuthority } from './certificates.ts';

export interface Bouncer {
  /** the address through it */
  readonly url: string;
  /** resolves when it takes connections again; what goes through it is cut */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export interface Bounced {
  /** the address without it, of localhost by TLS */
  readonly url: string;
  /** server connections */
  readonly pool: number;
  /** lines of its settings beside ours */
  readonly more?: readonly string[];
}

/** Throws where the program is missing. */
export async function startBouncer({ url: direct, pool, more = [] }: Bounced): Promise<Bouncer> {
  if (spawnSync('pgbouncer', ['--version']).error !== undefined)
    throw new Error('PgBouncer is missing: apt-get install pgbouncer');
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-pgbouncer-'));
  chmodSync(directory, 0o755);
  const port = await freePort();
  const file = (name: string, lines: readonly string[]) => {
    writeFileSync(join(directory, name), lines.map((line) => `${line}\n`).join(''));
    return join(directory, name);
  };
  const url = new URL(direct);
  const serverAuthority = readFileSync(url.searchParams.get('sslrootcert')!, 'utf8');
  const users = file('users.txt', [`"${url.username}" "${url.password}"`]);
  const authority = createAuthority();
  const { certFile, keyFile } = authority.issue({ hosts: ['localhost'] });
  chmodSync(keyFile, 0o644);
  const settings = file('pgbouncer.ini', [
    '[databases]',
    `* = host=localhost port=${url.port}`,
    '[pgbouncer]',
    'listen_addr = 127.0.0.1',
    `listen_port = ${port}`,
    'unix_socket_dir =',
    'auth_type = scram-sha-256',
    `auth_file = ${users}`,
    'pool_mode = transaction',
    `default_pool_size = ${pool}`,
    'client_tls_sslmode = require',
    `client_tls_cert_file = ${certFile}`,
    `client_tls_key_file = ${keyFile}`,
    'server_tls_sslmode = verify-full',
    `server_tls_ca_file = ${file('server-ca.crt', [serverAuthority])}`,
    ...more,
  ]);
  let bouncer: ChildProcess | undefined;
  const start = async () => {
    // it does not run as root
    const child = spawn('pgbouncer', [...(process.getuid?.() === 0 ? ['-u', 'nobody'] : []), settings], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    bouncer = child;
    const said: string[] = [];
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stderr }).on('line', (line) => {
        said.push(line);
        if (line.includes('process up')) resolve();
      });
      child.once('exit', () => reject(new Error(`PgBouncer ended:\n${said.join('\n')}`)));
    });
  };
  const stop = async () => {
    if (bouncer === undefined || bouncer.exitCode !== null || bouncer.signalCode !== null) return;
    const gone = once(bouncer, 'exit');
    bouncer.kill('SIGKILL');
    await gone;
  };
  const close = async () => {
    await stop();
    rmSync(directory, { recursive: true });
    authority.remove();
  };
  // it must not outlive this process
  process.prependOnceListener('exit', () => void bouncer?.kill('SIGKILL'));
  try {
    await start();
  } catch (error) {
    await close();
    throw error;
  }
  url.port = String(port);
  url.searchParams.set('sslrootcert', authority.caFile);
  return {
    url: url.href,
    restart: async () => {
      await stop();
      await start();
    },
    close,
  };
}
