/** What an address of PostgreSQL means, as in libpq: host, login, TLS; and the same as a `pg` configuration for the replication stream and the migrations. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import type { ClientConfig } from 'pg';
import { SmslogdError } from '../errors.ts';

type Tls = { mode: 'off' } | { mode: 'prefer' | 'on'; options: ConnectionOptions };

export interface Address {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly tls: Tls;
}

/** The address as `pg` takes it. `pg` knows no sslmode=prefer: the server is asked whether it takes TLS. */
export async function pgConfig(url: string, options: { name: string }): Promise<ClientConfig> {
  const address = addressOf(url);
  const { tls } = address;
  const encrypted = tls.mode === 'prefer' ? await takesTls(address) : tls.mode === 'on';
  return {
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    password: address.password,
    ssl: encrypted && tls.mode !== 'off' ? tls.options : false,
    application_name: `smslogd ${options.name}`,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
  };
}

/** Sends PostgreSQL's SSLRequest and reads the one byte that answers it. No answer counts as no: connecting then says why. */
async function takesTls({ host, port }: Address): Promise<boolean> {
  if (host.startsWith('/')) return false;
  const socket = connect({ host, port, timeout: 5_000 });
  try {
    const request = Buffer.alloc(8);
    request.writeInt32BE(8, 0);
    request.writeInt32BE(80_877_103, 4);
    socket.once('timeout', () => socket.destroy(new Error('no answer')));
    socket.write(request);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    return answer[0] === 0x53;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

export function addressOf(text: string): Address {
  const url = new URL(text);
  const user = decodeURIComponent(url.username) || process.env['PGUSER'] || 'postgres';
  return {
    // a `host` parameter names a socket directory, as in libpq
    host: url.searchParams.get('host') ?? (url.hostname.replace(/^\[|\]$/g, '') || 'localhost'),
    port: url.port === '' ? 5432 : Number(url.port),
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    user,
    password: decodeURIComponent(url.password) || process.env['PGPASSWORD'] || '',
    tls: tlsOf(url),
  };
}

/** libpq's meanings: require encrypts without checking (unless a root certificate is given), verify-ca and verify-full check. */
function tlsOf({ hostname, searchParams: parameters }: URL): Tls {
  const mode = parameters.get('sslmode') ?? 'prefer';
  if (mode === 'disable' || mode === 'allow') return { mode: 'off' };
  const file = (name: string) => {
    const path = parameters.get(name);
    if (path === null || path === 'system') return undefined;
    try {
      return readFileSync(path);
    } catch (error) {
      throw new SmslogdError('config_invalid', `DATABASE_URL: the file of ${name} cannot be read`, { cause: error });
    }
  };
  const ca = file('sslrootcert');
  const cert = file('sslcert');
  const key = file('sslkey');
  const checked = mode === 'verify-full' || mode === 'verify-ca' || (mode === 'require' && ca !== undefined);
  return {
    mode: mode === 'prefer' ? 'prefer' : 'on',
    options: {
      rejectUnauthorized: checked,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      // both clients give TLS no name where the host is an IP address: Node.js would look for localhost in the certificate
      ...(mode === 'verify-full' ? { host: hostname.replace(/^\[|\]$/g, '') } : {}),
      ...(checked && mode !== 'verify-full' ? { checkServerIdentity: () => undefined } : {}),
    },
  };
}
