/**
 * libpq's connection parameters: the table of all that libpq knows, the URL form that carries them, and its environment variables. The URL is read
 * by libpq's rules, which no WHATWG parser keeps: several hosts, socket directories, `+` and `#` as themselves. What cannot be honoured is
 * refused by name; nothing is passed over.
 */
import { nearest } from '../nearest.ts';

/** Parameters by libpq's names; a value may be empty. */
export type Parameters = Readonly<Partial<Record<string, string>>>;

/** An address that cannot be used: `must be` and the form that is wanted, never a value of the address. */
export class AddressProblem extends Error {
  /** the environment variable that is wrong; undefined: the address itself */
  readonly variable: string | undefined;
  readonly form: string;

  constructor(form: string, variable?: string) {
    super(`must be ${form}`);
    this.form = form;
    this.variable = variable;
  }
}

interface Parameter {
  readonly variable?: string;
  /** which values are taken; absent: any */
  readonly takes?: (value: string) => boolean;
  /** the values that are taken, in words */
  readonly form?: string;
  /** why others, which libpq takes, are not */
  readonly because?: string;
}

const ANY = (variable?: string): Parameter => (variable === undefined ? {} : { variable });
const matching = (pattern: RegExp, form: string, variable?: string): Parameter => ({
  ...ANY(variable),
  takes: (value) => pattern.test(value),
  form,
});
const oneOf = (values: readonly string[], variable?: string): Parameter => ({
  ...ANY(variable),
  takes: (value) => values.includes(value),
  form: `one of ${values.filter((value) => value !== '').join(', ')}`,
});
/** Only what changes nothing is taken. */
const only = (values: readonly string[], because: string, variable?: string): Parameter => ({
  ...ANY(variable),
  takes: (value) => values.includes(value.toLowerCase()),
  form: values.filter((value) => value !== '').join(' or ') || 'left out',
  because,
});

const WHOLE = /^\s*[+-]?\d{1,9}\s*$/;
const NO_GSS = 'smslogd does not speak GSSAPI';
const NO_OAUTH = 'smslogd does not log in by OAuth';
const NO_SOCKET_OPTION = 'Node.js cannot set it on a socket';
const WRITER = 'smslogd writes';

const PROTOCOLS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'];
/** Weakest first. */
export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

const PARAMETERS: Readonly<Record<string, Parameter>> = {
  host: ANY('PGHOST'),
  hostaddr: matching(/^[0-9a-fA-F:.,\s%\w]*$/, 'IP addresses', 'PGHOSTADDR'),
  port: { ...ANY('PGPORT'), takes: isPortList, form: 'a port from 1 to 65535 for all hosts, or one for each' },
  dbname: ANY('PGDATABASE'),
  user: ANY('PGUSER'),
  password: ANY('PGPASSWORD'),
  passfile: ANY('PGPASSFILE'),
  connect_timeout: matching(WHOLE, 'seconds', 'PGCONNECT_TIMEOUT'),
  options: ANY('PGOPTIONS'),
  application_name: only([''], 'smslogd names each of its connections by what it is for', 'PGAPPNAME'),
  fallback_application_name: ANY(),
  client_encoding: only(['utf8', 'utf-8', 'unicode', 'auto', ''], 'smslogd works in UTF-8', 'PGCLIENTENCODING'),
  target_session_attrs: {
    ...oneOf(['any', 'read-write', 'primary'], 'PGTARGETSESSIONATTRS'),
    because: WRITER,
  },
  load_balance_hosts: oneOf(['disable', 'random'], 'PGLOADBALANCEHOSTS'),
  keepalives: matching(WHOLE, '0 or 1'),
  keepalives_idle: matching(WHOLE, 'seconds'),
  keepalives_interval: only(['0', ''], NO_SOCKET_OPTION),
  keepalives_count: only(['0', ''], NO_SOCKET_OPTION),
  tcp_user_timeout: only(['0', ''], NO_SOCKET_OPTION),
  sslmode: oneOf(SSL_MODES, 'PGSSLMODE'),
  sslnegotiation: oneOf(['postgres', 'direct'], 'PGSSLNEGOTIATION'),
  sslrootcert: ANY('PGSSLROOTCERT'),
  sslcert: ANY('PGSSLCERT'),
  sslkey: ANY('PGSSLKEY'),
  sslpassword: ANY(),
  sslcertmode: only(['allow', 'disable'], 'smslogd cannot tell whether the server asked for it', 'PGSSLCERTMODE'),
  sslcrl: ANY('PGSSLCRL'),
  sslcrldir: only([''], 'name one file with sslcrl', 'PGSSLCRLDIR'),
  sslsni: oneOf(['0', '1'], 'PGSSLSNI'),
  sslcompression: only(['0', ''], 'nobody compresses TLS any more', 'PGSSLCOMPRESSION'),
  sslkeylogfile: only([''], 'it would hold the keys of connections with personal data'),
  ssl_min_protocol_version: oneOf([...PROTOCOLS, ''], 'PGSSLMINPROTOCOLVERSION'),
  ssl_max_protocol_version: oneOf([...PROTOCOLS, ''], 'PGSSLMAXPROTOCOLVERSION'),
  min_protocol_version: only(['3.0', ''], 'smslogd speaks 3.0', 'PGMINPROTOCOLVERSION'),
  max_protocol_version: only(['3.0', '3.2', 'latest', ''], 'smslogd speaks 3.0', 'PGMAXPROTOCOLVERSION'),
  require_auth: { ...ANY('PGREQUIREAUTH'), takes: isAuthList, form: "a list of libpq's methods, all or none with !" },
  channel_binding: only(['disable', 'prefer'], 'smslogd has no channel binding', 'PGCHANNELBINDING'),
  gssencmode: only(['disable', 'prefer'], NO_GSS, 'PGGSSENCMODE'),
  krbsrvname: only([], NO_GSS, 'PGKRBSRVNAME'),
  gsslib: only([], NO_GSS, 'PGGSSLIB'),
  gssdelegation: only(['0', ''], NO_GSS, 'PGGSSDELEGATION'),
  requirepeer: only([''], 'Node.js cannot tell whose a socket is', 'PGREQUIREPEER'),
  service: only([], 'smslogd reads no service file; write its parameters into the address', 'PGSERVICE'),
  servicefile: only([], 'smslogd reads no service file; write its parameters into the address', 'PGSERVICEFILE'),
  replication: only([], 'smslogd sets it where it streams'),
  scram_client_key: only([], 'smslogd logs in with a password'),
  scram_server_key: only([], 'smslogd logs in with a password'),
  oauth_issuer: only([], NO_OAUTH),
  oauth_client_id: only([], NO_OAUTH),
  oauth_client_secret: only([], NO_OAUTH),
  oauth_scope: only([], NO_OAUTH),
};

/** The environment variables that libpq reads and smslogd honours or refuses. */
export const VARIABLES: readonly string[] = Object.values(PARAMETERS).flatMap(({ variable }) => variable ?? []);

const AUTH_METHODS = ['password', 'md5', 'gss', 'sspi', 'scram-sha-256', 'oauth', 'creds', 'none'];

function isAuthList(list: string): boolean {
  const words = list.split(',');
  const refused = words.filter((word) => word.startsWith('!')).length;
  return (
    list === '' ||
    ((refused === 0 || refused === words.length) && words.every((word) => AUTH_METHODS.includes(word.replace('!', ''))))
  );
}

function isPortList(list: string): boolean {
  return list.split(',').every((port) => /^\s*(?:\d{1,5})?\s*$/.test(port) && (port.trim() === '' || isPort(port)));
}

function isPort(port: string): boolean {
  return Number(port) >= 1 && Number(port) <= 65_535;
}

/** All parameters of an address: what it says itself, and what the environment says beside it. Throws AddressProblem. */
export function parametersOf(address: string, env: NodeJS.ProcessEnv): Parameters {
  const said = parseUrl(address);
  for (const [name, value] of Object.entries(said)) check(name, value ?? '', undefined);
  const rest: Record<string, string> = {};
  for (const [name, { variable }] of Object.entries(PARAMETERS)) {
    const value = variable === undefined ? undefined : env[variable];
    // an empty variable is none, as everywhere in our settings
    if (said[name] !== undefined || value === undefined || value === '') continue;
    check(name, value, variable);
    rest[name] = value;
  }
  if (rest['sslmode'] === undefined && env['PGREQUIRESSL']?.startsWith('1') === true) rest['sslmode'] = 'require';
  return { ...rest, ...said };
}

function check(name: string, value: string, variable: string | undefined): void {
  const { takes, form = '', because } = PARAMETERS[name] ?? {};
  if (takes === undefined || takes(value)) return;
  const reason = because === undefined ? '' : ` (${because})`;
  if (variable !== undefined) throw new AddressProblem(`${form}${reason}`, variable);
  throw new AddressProblem(
    form === 'left out' ? `an address without ${name}${reason}` : `an address whose ${name} is ${form}${reason}`,
  );
}

const URL_FORM = 'postgres://user@host:port/database';
const PREFIX = /^postgres(?:ql)?:\/\//;

/** libpq's conninfo_uri_parse_options. An empty part counts as left out, an empty parameter does not. */
function parseUrl(text: string): Record<string, string> {
  const prefix = PREFIX.exec(text)?.[0];
  if (prefix === undefined)
    throw new AddressProblem(/^\s*[a-z_]+\s*=/.test(text) ? `${URL_FORM}; keyword=value is not taken` : URL_FORM);
  const said: Record<string, string> = {};
  const part = (name: string, value: string | undefined) => {
    if (value !== undefined && value !== '') said[name] = decode(value);
  };
  let rest = text.slice(prefix.length);
  // a login ends before the first slash
  const login = /^([^@/:]*)(?::([^@/]*))?@/.exec(rest);
  if (login !== null) {
    part('user', login[1]);
    part('password', login[2]);
    rest = rest.slice(login[0].length);
  }
  const hosts: string[] = [];
  const ports: string[] = [];
  for (;;) {
    const host = /^(?:\[([^\]]+)\]|([^:/?,[][^:/?,]*)|)(?::([^/?,]*))?(?=[,/?]|$)/.exec(rest);
    if (host === null) throw new AddressProblem(`${URL_FORM}, an IPv6 address in [brackets]`);
    hosts.push(host[1] ?? host[2] ?? '');
    ports.push(host[3] ?? '');
    rest = rest.slice(host[0].length);
    if (!rest.startsWith(',')) break;
    rest = rest.slice(1);
  }
  part('host', hosts.join(','));
  part('port', ports.join(','));
  const [path, query] = splitAt(rest, '?');
  // no host has one: the password ended too early, and a piece of it would be shown where no host can be reached
  if ([...hosts, ...(hosts.length > 1 ? [path] : [])].some((text) => text.includes('@')))
    throw new AddressProblem('an address in which an @ of the password is written %40');
  part('dbname', path.slice(1));
  for (const pair of query === undefined || query === '' ? [] : query.split('&')) {
    const [keyword, value] = splitAt(pair, '=');
    if (value === undefined || value.includes('='))
      throw new AddressProblem(
        'an address whose parameters are name=value, with %3D for a = and %26 for an & in a value',
      );
    const name = decode(keyword);
    const plain = decode(value);
    // as JDBC writes it
    if (name === 'ssl' && plain === 'true') said['sslmode'] = 'require';
    else if (Object.hasOwn(PARAMETERS, name)) said[name] = plain;
    else throw unknown(name, query?.includes('@') === true);
  }
  return said;
}

/** `unsafe`: what is taken for a name may be a piece of a password with a slash in it. */
function unknown(name: string, unsafe: boolean): AddressProblem {
  // other drivers' word for it
  const best = name === 'ssl' ? 'sslmode' : nearest(name.toLowerCase(), Object.keys(PARAMETERS));
  const said = !unsafe && /^[A-Za-z_]{1,40}$/.test(name) ? `${name}, which` : 'a parameter that';
  return new AddressProblem(`an address without ${said} libpq does not know; the nearest is ${best}`);
}

function splitAt(text: string, mark: string): [string, string | undefined] {
  const at = text.indexOf(mark);
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function decode(text: string): string {
  try {
    const plain = decodeURIComponent(text);
    if (!plain.includes('\0')) return plain;
  } catch {
    // told below
  }
  throw new AddressProblem('an address in which a percent sign is written %25');
}
