import { userInfo } from 'node:os';
import { expect, test } from 'vitest';
import { addressOf } from '../../src/postgres/address.ts';
import { VARIABLES } from '../../src/postgres/conninfo.ts';

const of = (text: string, env: Record<string, string> = {}) => {
  const { hosts, user, database, password } = addressOf(text, env);
  return {
    hosts: hosts.map(({ name, ip, port }) => [name, ip ?? '', port].join(' ')).join(', '),
    user,
    database,
    password,
  };
};
const me = userInfo().username;

test.for([
  ['postgres://u:p@h:1/d', { hosts: 'h  1', user: 'u', database: 'd', password: 'p' }],
  ['postgresql://h', { hosts: 'h  5432', user: me, database: me, password: '' }],
  ['postgres://', { hosts: '  5432', user: me, database: me, password: '' }],
  ['postgres:///d', { hosts: '  5432', user: me, database: 'd', password: '' }],
  ['postgres://u@/', { hosts: '  5432', user: 'u', database: 'u', password: '' }],
  ['postgres://:p@:1/', { hosts: '  1', user: me, database: me, password: 'p' }],
  // parameters have the last word
  [
    'postgres://u:p@h:1/d?user=U&password=P&host=H&port=2&dbname=D',
    { hosts: 'H  2', user: 'U', database: 'D', password: 'P' },
  ],
  ['postgres://u@/d?host=/run/dir&port=7', { hosts: '/run/dir  7', user: 'u', database: 'd', password: '' }],
  ['postgres://u@%2Frun%2Fdir:7/d', { hosts: '/run/dir  7', user: 'u', database: 'd', password: '' }],
  ['postgres://u@h/d?hostaddr=192.0.2.1', { hosts: 'h 192.0.2.1 5432', user: 'u', database: 'd', password: '' }],
  ['postgres://u@[2001:db8::1]:7/d', { hosts: '2001:db8::1  7', user: 'u', database: 'd', password: '' }],
  ['postgres://u@h1:1,h2:2/d', { hosts: 'h1  1, h2  2', user: 'u', database: 'd', password: '' }],
  ['postgres://u@h1,[::1]:2,h3/d', { hosts: 'h1  5432, ::1  2, h3  5432', user: 'u', database: 'd', password: '' }],
  ['postgres://u@h1,h2/d?port=7', { hosts: 'h1  7, h2  7', user: 'u', database: 'd', password: '' }],
  ['postgres:///d?host=h1,h2&port=1,2', { hosts: 'h1  1, h2  2', user: me, database: 'd', password: '' }],
  // what a WHATWG parser takes for something else
  ['postgres://u:p?a#b@h/d', { hosts: 'h  5432', user: 'u', database: 'd', password: 'p?a#b' }],
  ['postgres://u:p:q@h/d', { hosts: 'h  5432', user: 'u', database: 'd', password: 'p:q' }],
  ['postgres://h/d?password=a+b%20c', { hosts: 'h  5432', user: me, database: 'd', password: 'a+b c' }],
  ['postgres://%D1%8F:%D1%8F@h/a/b', { hosts: 'h  5432', user: 'я', database: 'a/b', password: 'я' }],
] as const)('as libpq: %s', ([text, meaning]) => {
  expect(of(text)).toEqual(meaning);
});

test('what the address leaves out comes from the environment of libpq', () => {
  const env = { PGHOST: 'eh', PGPORT: '9', PGUSER: 'eu', PGDATABASE: 'ed', PGPASSWORD: 'ep' };
  expect(of('postgres://', env)).toEqual({ hosts: 'eh  9', user: 'eu', database: 'ed', password: 'ep' });
  expect(of('postgres://u:p@h:1/d', env)).toEqual({ hosts: 'h  1', user: 'u', database: 'd', password: 'p' });
  expect(of('postgres://u@h', { ...env, PGPORT: '' })).toMatchObject({ hosts: 'h  5432', database: 'ed' });
  expect(addressOf('postgres://h', { PGSSLMODE: 'verify-ca' }).tls.mode).toBe('verify-ca');
  expect(addressOf('postgres://h?sslmode=require', { PGSSLMODE: 'verify-ca' }).tls.mode).toBe('require');
  expect(addressOf('postgres://h', { PGREQUIRESSL: '1' }).tls.mode).toBe('require');
  expect(addressOf('postgres://h', { PGCONNECT_TIMEOUT: '1' }).connectTimeout).toBe(2_000);
});

const problem = (text: string, env: Record<string, string> = {}): string => {
  try {
    addressOf(text, env);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
};

test.for([
  ['sslmod=verify-full', 'sslmode'],
  ['ssl_mode=verify-full', 'sslmode'],
  ['SSLMODE=verify-full', 'sslmode'],
  ['ssl=verify-full', 'sslmode'],
  ['ssl=1', 'sslmode'],
  ['pasword=secret', 'password'],
  ['sslrootcrt=/secret', 'sslrootcert'],
  ['target_session_attr=any', 'target_session_attrs'],
  ['connect_timeot=1', 'connect_timeout'],
  ['uselibpqcompat=true', ''],
] as const)('an unknown parameter is refused and the nearest named: %s', ([parameter, nearest]) => {
  const said = problem(`postgres://u:secret@h/d?${parameter}`);
  expect(said).toContain(`${parameter.split('=')[0]}, which libpq does not know; the nearest is ${nearest}`);
  expect(said).not.toContain('secret');
});

test.for([
  ['channel_binding=require', 'channel_binding'],
  ['gssencmode=require', 'gssencmode'],
  ['krbsrvname=secret', 'krbsrvname'],
  ['service=secret', 'service'],
  ['requirepeer=secret', 'requirepeer'],
  ['sslcompression=1', 'sslcompression'],
  ['sslcrldir=/secret', 'sslcrldir'],
  ['keepalives_count=3', 'keepalives_count'],
  ['tcp_user_timeout=1000', 'tcp_user_timeout'],
  ['replication=database', 'replication'],
  ['client_encoding=LATIN1', 'client_encoding'],
  ['application_name=secret', 'application_name'],
  ['target_session_attrs=standby', 'target_session_attrs'],
  ['target_session_attrs=read-only', 'target_session_attrs'],
  ['target_session_attrs=prefer-standby', 'target_session_attrs'],
  ['sslmode=verify', 'sslmode'],
  ['sslmode=', 'sslmode'],
  ['sslmode=verify-full&sslmode=secret', 'sslmode'],
  ['port=secret', 'port'],
  ['port=65536', 'port'],
  ['port=1,2', 'port'],
  ['host=a,b,c&hostaddr=192.0.2.1', 'hostaddr'],
  ['connect_timeout=secret', 'connect_timeout'],
  ['sslrootcert=system&sslmode=require', 'sslmode=verify-full'],
  ['sslnegotiation=direct', 'sslmode=require'],
  ['require_auth=md5,!none', 'require_auth'],
  ['oauth_issuer=secret', 'oauth_issuer'],
  ['sslmode', 'name=value'],
  ['a=b=secret', 'name=value'],
  ['password=%zzsecret', '%25'],
  ['password=%00secret', '%25'],
])('what cannot be honoured is refused by name, without its value: %s', ([parameter, name]) => {
  const said = problem(`postgres://u:secret@h/d?${parameter}`);
  expect(said).toMatch(/^the address of PostgreSQL: must be /);
  expect(said).toContain(name);
  expect(said).not.toContain('secret');
});

test('so is what the environment says, by the name of the variable', () => {
  const wrong = {
    PGSSLMODE: 'secret',
    PGPORT: 'secret',
    PGSERVICE: 'secret',
    PGCHANNELBINDING: 'require',
    PGAPPNAME: 'secret',
  };
  for (const [name, value] of Object.entries(wrong)) {
    expect(VARIABLES).toContain(name);
    expect(problem('postgres://h', { [name]: value })).toMatch(new RegExp(`^${name}: must be (?!.*secret)`));
  }
});

test.for([
  [problem('postgres://h?application_name=x'), 'must be an address without application_name ('],
  [problem('postgres://h', { PGAPPNAME: 'x' }), 'PGAPPNAME: must be left out ('],
  [problem('postgres://h?sslcrldir=x'), 'must be an address without sslcrldir ('],
  [problem('postgres://h', { PGSSLMINPROTOCOLVERSION: 'TLSv9' }), /TLSv1\.3$/],
])('a refusal says the form that is wanted, also where only nothing is: %s', ([said, form]) => {
  expect(said).toMatch(form!);
});

test('keyword=value, other schemes and a wrong IPv6 address are refused without their content', () => {
  for (const text of [
    'host=h password=secret',
    'mysql://u:secret@h',
    'u:secret@h',
    'postgres://u:secret@[::1',
    'postgres://u:secret@[]/d',
  ])
    expect(problem(text)).toMatch(
      /^the address of PostgreSQL: must be postgres:\/\/user@host:port\/database(?!.*secret)/,
    );
});

test('a piece of a password with a slash in it is not taken for the name of a parameter that may be shown', () => {
  expect(problem('postgres://u:pass/word?secret=x@h/d')).not.toContain('secret');
});

test.for(['secret@h/d', 'x,secret@h/d', 'secret@h1,h2/d', 'x,secret/y@h/d'])(
  'nor is what follows an @ in a password taken for hosts that may be shown: p@%s',
  (rest) => {
    expect(problem(`postgres://u:p@${rest}`)).toMatch(/@ of the password is written %40$/);
  },
);

test('system roots are never checked by less than verify-full', () => {
  expect(addressOf('postgres://h?sslrootcert=system', {}).tls.mode).toBe('verify-full');
  for (const mode of ['disable', 'allow', 'prefer', 'require', 'verify-ca'])
    expect(problem(`postgres://h?sslrootcert=system&sslmode=${mode}`)).toContain('sslmode=verify-full');
});
