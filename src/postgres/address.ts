/** What an address of PostgreSQL means, with libpq's environment and defaults. */
import { join } from 'node:path';
import { SmslogdError } from '../errors.ts';
import { AddressProblem, parametersOf, SSL_MODES, type Parameters, type SslMode } from './conninfo.ts';
import { homeFolder, userName } from './home.ts';

export interface Host {
  /** a name, an IP address, a directory of a socket; empty: the default socket, else localhost */
  readonly name: string;
  /** the IP address to connect to, where it is said apart from the name */
  readonly ip: string | undefined;
  readonly port: number;
}

export interface TlsSettings {
  readonly mode: SslMode;
  /** a direct handshake, without asking first */
  readonly direct: boolean;
  /** a file, or `system`; undefined: libpq's default file, where it exists. Likewise the next ones. */
  readonly rootCert: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly crl: string | undefined;
  readonly keyPassword: string | undefined;
  readonly sendsCert: boolean;
  readonly sendsName: boolean;
  readonly minVersion: string;
  readonly maxVersion: string | undefined;
}

export interface Address {
  /** to be tried in this order */
  readonly hosts: readonly Host[];
  readonly shuffled: boolean;
  /** the session that is wanted of the hosts */
  readonly target: 'any' | 'read-write' | 'primary';
  readonly database: string;
  readonly user: string;
  /** empty: the password file's */
  readonly password: string;
  readonly passwordFile: string;
  readonly tls: TlsSettings;
  /** sslmode=disable in words: also a password in clear text is meant */
  readonly plainSaid: boolean;
  readonly requireAuth: readonly string[];
  /** of the server's session: -c name=value */
  readonly options: string;
  /** for each host in milliseconds; Infinity: none */
  readonly connectTimeout: number;
  readonly keepAlive: boolean;
  /** in milliseconds */
  readonly keepAliveIdle: number;
}

/** libpq leaves it to the system, which has two hours. */
const KEEPALIVE_IDLE_S = 60;
/** libpq has none: what waits for ever would hold up a daemon. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Throws config_invalid where the address cannot be used. */
export function addressOf(text: string, env: NodeJS.ProcessEnv = process.env): Address {
  try {
    return readAddress(text, env);
  } catch (error) {
    if (!(error instanceof AddressProblem)) throw error;
    throw new SmslogdError('config_invalid', `${error.variable ?? 'the address of PostgreSQL'}: ${error.message}`);
  }
}

/** The same for whoever says himself what is wrong. Throws AddressProblem. */
export function readAddress(text: string, env: NodeJS.ProcessEnv): Address {
  const given = parametersOf(text, env);
  const user = given['user'] ?? userName();
  const words = (name: string) => given[name] || undefined;
  const whole = (name: string) => Number(words(name) ?? 0);
  return {
    hosts: hostsOf(given),
    shuffled: given['load_balance_hosts'] === 'random',
    target: (words('target_session_attrs') ?? 'any') as Address['target'],
    database: words('dbname') ?? user,
    user,
    password: given['password'] ?? '',
    passwordFile: words('passfile') ?? join(homeFolder(), '.pgpass'),
    tls: tlsOf(given),
    plainSaid: given['sslmode'] === 'disable',
    requireAuth: (words('require_auth') ?? '').split(',').filter((word) => word !== ''),
    options: given['options'] ?? '',
    connectTimeout: timeoutOf(words('connect_timeout')),
    keepAlive: given['keepalives'] === undefined || whole('keepalives') !== 0,
    keepAliveIdle: (Math.max(0, whole('keepalives_idle')) || KEEPALIVE_IDLE_S) * 1_000,
  };
}

/** Seconds as in libpq: none where it is not above zero, and at least 2. */
function timeoutOf(seconds: string | undefined): number {
  if (seconds === undefined) return CONNECT_TIMEOUT_MS;
  return Number(seconds) <= 0 ? Infinity : Math.max(2, Number(seconds)) * 1_000;
}

/** One host for each name or, where they are said, for each IP address; a single port is that of all. */
function hostsOf(given: Parameters): Host[] {
  const list = (name: string) => (given[name] || undefined)?.split(',').map((each) => each.trim());
  const names = list('host');
  const ips = list('hostaddr');
  const ports = list('port') ?? [''];
  const count = (ips ?? names ?? ['']).length;
  if (names !== undefined && names.length !== count)
    throw new AddressProblem('an address with as many values of hostaddr as of host');
  if (names?.some((name) => name.startsWith('@')) === true)
    throw new AddressProblem('an address without a socket of the abstract namespace (Node.js 20 cannot reach one)');
  if (ports.length !== 1 && ports.length !== count)
    throw new AddressProblem('an address with a port for all hosts or one for each');
  return Array.from({ length: count }, (_, i) => ({
    name: names?.[i] ?? '',
    ip: ips?.[i] || undefined,
    port: Number(ports[ports.length === 1 ? 0 : i] || 5432),
  }));
}

function tlsOf(given: Parameters): TlsSettings {
  const words = (name: string) => given[name] || undefined;
  const system = given['sslrootcert'] === 'system';
  const mode = (given['sslmode'] ?? (system ? 'verify-full' : 'prefer')) as SslMode;
  const direct = given['sslnegotiation'] === 'direct';
  if (system && mode !== 'verify-full')
    throw new AddressProblem('an address with sslmode=verify-full where it has sslrootcert=system');
  if (direct && SSL_MODES.indexOf(mode) < SSL_MODES.indexOf('require'))
    throw new AddressProblem('an address with sslmode=require or more where it has sslnegotiation=direct');
  return {
    mode,
    direct,
    rootCert: words('sslrootcert'),
    cert: words('sslcert'),
    key: words('sslkey'),
    crl: words('sslcrl'),
    keyPassword: words('sslpassword'),
    sendsCert: given['sslcertmode'] !== 'disable',
    sendsName: given['sslsni'] !== '0',
    minVersion: words('ssl_min_protocol_version') ?? 'TLSv1.2',
    maxVersion: words('ssl_max_protocol_version'),
  };
}
