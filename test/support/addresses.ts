/** Addresses, passwords and certificates that psql and smslogd must take alike; made up, all of them. */
import type { CertificateOptions } from './certificates.ts';

export interface Case {
  readonly url: string;
  readonly env?: Record<string, string>;
  /** ~/.pgpass */
  readonly passfile?: string;
  readonly mode?: number;
  /** files of ~/.postgresql, each a copy of another */
  readonly files?: Readonly<Record<string, string>>;
  /** psql gets in and smslogd refuses: docs/operations.md, "Differences from libpq" */
  readonly refused?: true;
}

/** Words in capital letters stand for what the test has: ports, directories, files. */
export const CASES: readonly Case[] = [
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app' },
  { url: 'postgresql://daemon:made-up@localhost:PORT/app?sslmode=disable' },
  { url: 'postgres://daemon:wrong@127.0.0.1:PORT/app' },
  { url: 'postgres://daemon:wrong@127.0.0.1:PORT/app?password=made-up' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?dbname=postgres' },
  { url: 'postgres://postgres@127.0.0.1:PORT/app?user=daemon&password=made-up' },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED/app?port=PORT' },
  { url: 'postgres://daemon:made-up@nowhere.invalid/app?host=127.0.0.1&port=PORT' },
  { url: 'postgres://daemon:made-up@nowhere.invalid:PORT/app?hostaddr=127.0.0.1' },
  { url: 'postgres://daemon@/app?host=SOCKETS&port=PORT' },
  { url: 'postgres://daemon@:PORT/app?host=SOCKETS&sslmode=verify-full' },
  { url: 'postgres://daemon@ENCODED:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/a%2Fb%20c' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/a/b%20c' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT' },
  {
    url: 'postgres://',
    env: { PGHOST: '127.0.0.1', PGPORT: 'PORT', PGUSER: 'daemon', PGPASSWORD: 'made-up', PGDATABASE: 'app' },
  },
  {
    url: 'postgres://127.0.0.1:PORT',
    env: { PGUSER: 'daemon', PGPASSWORD: 'made-up', PGDATABASE: 'app', PGSSLMODE: 'disable' },
  },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', env: { PGOPTIONS: '-c work_mem=3MB', PGPASSWORD: 'made-up' } },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?options=-c%20work_mem%3D5MB' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?options=-c+work_mem%3D5MB' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '127.0.0.1:PORT:app:daemon:made-up\n*:*:*:*:wrong\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '*:*:*:*:wrong\n127.0.0.1:PORT:app:daemon:made-up\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: String.raw`127.0.0.1:PORT:app:d\aemon:made\-up` },
  {
    url: 'postgres://daemon@127.0.0.1:CLOSED,localhost:PORT/app',
    passfile: '127.0.0.1:*:*:*:wrong\nlocalhost:*:*:*:made-up\n',
  },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED,127.0.0.1:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1,localhost/app?port=PORT' },
  { url: 'postgres://daemon:made-up@127.0.0.1:CLOSED,127.0.0.1:PORT/app?target_session_attrs=read-write' },
  {
    url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?target_session_attrs=primary&options=-c%20default_transaction_read_only%3Don',
  },
  {
    url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?target_session_attrs=read-write&options=-c%20default_transaction_read_only%3Don',
  },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT,127.0.0.1:PORT/app?port=PORT,PORT,PORT' },
  { url: 'postgres://daemon:made-up@[::1:PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?sslmod=require' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?ssl=true' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?ssl=verify-full' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?sslmode=' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?' },
  { url: 'postgres://daemon:made%zz@127.0.0.1:PORT/app' },
  ...['disable', 'allow', 'prefer', 'require'].flatMap((mode) =>
    ['daemon', 'onlytls', 'onlyplain'].map((role) => ({
      url: `postgres://${role}:made-up@127.0.0.1:PORT/app?sslmode=${mode}`,
    })),
  ),
  ...['prefer', 'require', 'verify-ca', 'verify-full'].flatMap((mode) =>
    ['', '&sslrootcert=CA', '&sslrootcert=OTHER'].flatMap((root) =>
      ['127.0.0.1', 'localhost'].map((host) => ({
        url: `postgres://daemon:made-up@${host}:PORT/app?sslmode=${mode}${root}`,
      })),
    ),
  ),
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full', files: { 'root.crt': 'CA' } },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=require', files: { 'root.crt': 'OTHER' } },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full&hostaddr=127.0.0.1&sslrootcert=CA' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?ssl_min_protocol_version=TLSv1.3&sslmode=require' },
  // the environment
  { url: 'postgres://daemon:made-up@localhost:PORT/app', env: { PGSSLMODE: 'verify-full', PGSSLROOTCERT: 'CA' } },
  { url: 'postgres://daemon:made-up@localhost:PORT/app', env: { PGSSLMODE: 'verify-full', PGSSLROOTCERT: 'OTHER' } },
  { url: 'postgres:///app', env: { PGHOST: 'SOCKETS', PGPORT: 'PORT', PGUSER: 'daemon' } },
  { url: 'postgres://daemon:made-up@nowhere.invalid:PORT/app', env: { PGHOSTADDR: '127.0.0.1' } },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app', env: { PGOPTIONS: '-c work_mem=3MB --statement-timeout=9s' } },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app', env: { PGREQUIRESSL: '1', PGGSSENCMODE: 'disable' } },
  // the password file
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '*:*:*:*:made-up' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '*:*:*:*:made-up', mode: 0o640 },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '# a comment\r\n\r\n127.0.0.1:PORT:app:daemon:made-up\r\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '127.0.0.1:PORT:app:daemon\n*:*:*:*:made-up\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '127.0.0.1:PORT:app:daemon:\n*:*:*:*:made-up\n' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', passfile: '127.0.0.1:PORT:app:daemon:made-up:more\n' },
  { url: 'postgres://co%3Alon@127.0.0.1:PORT/app', passfile: String.raw`*:*:*:co\:lon:pa\:ss\\word` },
  { url: 'postgres://co%3Alon@127.0.0.1:PORT/app', passfile: String.raw`*:*:*:co\:lon:pa:ss\\word` },
  {
    url: 'postgres://daemon@/app?host=nowhere.invalid&hostaddr=127.0.0.1&port=PORT',
    passfile: 'nowhere.invalid:*:*:*:made-up',
  },
  {
    url: 'postgres://daemon@/app?host=nowhere.invalid&hostaddr=127.0.0.1&port=PORT',
    passfile: '127.0.0.1:*:*:*:made-up',
  },
  { url: 'postgres://daemon@/app?hostaddr=127.0.0.1&port=PORT', passfile: '127.0.0.1:*:*:*:made-up' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app?passfile=PASSWORDS' },
  { url: 'postgres://daemon@127.0.0.1:PORT/app', env: { PGPASSFILE: 'PASSWORDS' } },
  // the URL's form
  { url: 'postgres://daemon:made-up@[::1]:PORT/app' },
  { url: 'postgres://daemon:made-up@/app?hostaddr=::1&port=PORT' },
  { url: 'postgres://daemon@/app?host=@ABSTRACT&port=PORT', refused: true },
  { url: 'postgres://daemon@%40ABSTRACT:PORT/app', refused: true },
  { url: 'postgres://co%3Alon:pa%3Ass%5Cword@127.0.0.1:PORT/app' },
  { url: 'postgres://co%3alon:pa:ss%5cword@127.0.0.1:PORT/app' },
  { url: 'postgres://da%65mon:made-u%70@127.0.0.1:PORT/%61pp' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app#part' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?sslmode=disable&sslmode=require' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT,/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:0/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORTx/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:%20PORT/app' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app ' },
  { url: 'POSTGRES://daemon:made-up@127.0.0.1:PORT/app' },
  { url: 'postgres://daemon:made-up@/app?host=127.0.0.1,127.0.0.1&port=CLOSED,PORT' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?connect_timeout=2&keepalives=0&gssencmode=disable' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?connect_timeout=soon' },
  { url: 'postgres://daemon:made-up@127.0.0.1:PORT/app?options=-c%20search_path%3Da%5C%20b%20-c%20work_mem%3D7MB' },
  // certificates of clients
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require' },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require&sslcert=CERT&sslkey=KEY' },
  { url: 'postgres://bycert@localhost:PORT/app', env: { PGSSLCERT: 'CERT', PGSSLKEY: 'KEY' } },
  { url: 'postgres://bycert@localhost:PORT/app', files: { 'postgresql.crt': 'CERT', 'postgresql.key': 'KEY' } },
  { url: 'postgres://bycert@localhost:PORT/app', files: { 'postgresql.crt': 'CERT' } },
  { url: 'postgres://daemon:made-up@localhost:PORT/app', files: { 'postgresql.crt': 'CERT' } },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require&sslcert=CERT&sslkey=OPEN' },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=prefer&sslcert=CERT&sslkey=OPEN' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=prefer&sslcert=CERT&sslkey=OPEN' },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require&sslcert=CERT&sslkey=LOCKED' },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require&sslcert=CERT&sslkey=LOCKED&sslpassword=key-secret' },
  { url: 'postgres://bycert@localhost:PORT/app?sslmode=require&sslcert=CERT&sslkey=LOCKED&sslpassword=another' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=require&sslcert=/nowhere/a.crt', refused: true },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full&sslrootcert=/nowhere/ca.crt' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=prefer&sslrootcert=/nowhere/ca.crt', refused: true },
  // revocation lists
  {
    url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full&sslrootcert=CA&sslcrl=/nowhere/ca.crl',
    refused: true,
  },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-full&sslrootcert=CA&sslcrl=REVOKED' },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=verify-ca&sslrootcert=CA&sslcrl=UNREVOKED' },
  {
    url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=require',
    files: { 'root.crt': 'CA', 'root.crl': 'REVOKED' },
  },
  { url: 'postgres://daemon:made-up@localhost:PORT/app?sslmode=require', files: { 'root.crl': 'REVOKED' } },
  { url: `postgres://${encodeURIComponent('пан')}:${encodeURIComponent('пароль№1 ﬁ…')}@127.0.0.1:PORT/app` },
];

/** What SASLprep changes, forbids or does not know, and what it is in doubt about as PostgreSQL judges before it normalizes. */
export const PASSWORDS = [
  ...[
    'plain',
    'пароль№1',
    'no\u00a0break',
    'em\u2003space',
    'ﬁne',
    'и\u0306од',
    'wait…',
    'soft\u00adhyphen',
    'Ⅳ',
    'ＡＢ',
    '½',
    'Å',
  ],
  ...[
    '\u00ad',
    '\u200b',
    'a\u200db',
    '👨\u200d👩',
    '😀ﬁ',
    'ﬁ\u0007',
    'ﬁ\u0085',
    'ﬁ\ue000',
    'ﬁ\u202e',
    'ﬁ\ufffd',
    'ﬁ\u0221',
    'ﬁ₿',
  ],
  ...[
    'אב',
    'אa',
    'א1',
    '1א',
    'אבﬁ',
    'א№א',
    '№א',
    'א™',
    'א℃א',
    '\ufb1d',
    'ا\u0653',
    'ﻻ',
    'ﷺ',
    'א\u05b7',
    'ℵﬁ',
    'אﾞא',
    'א⼀א',
  ],
  ...['ᴬx', '🄰x', '℻x', 'x\u0340', 'x\u0341', '㋿', '\u1112\u1161\u11ab', 'ｶﾞ', 'ẛ̣', 'Ω'],
];

/** A server's certificate, and the hosts of addresses that lead to it. */
export const NAMES: readonly (CertificateOptions & { readonly asked: readonly string[] })[] = [
  { hosts: ['127.0.0.1'], name: 'db.example', asked: ['127.0.0.1', '127.0.0.2', 'db.example', ''] },
  { hosts: ['DNS:127.0.0.1'], asked: ['127.0.0.1'] },
  { hosts: ['db.example'], name: '127.0.0.1', asked: ['127.0.0.1', 'db.example'] },
  { hosts: ['db.example'], name: 'other.example', asked: ['other.example', 'DB.Example', 'db.example.'] },
  { hosts: ['*.example.org'], asked: ['db.example.org', 'a.db.example.org', 'example.org', '.example.org'] },
  { hosts: ['*.internal'], asked: ['db.internal', 'internal'] },
  { hosts: ['db*.example.org'], asked: ['db1.example.org', 'db*.example.org'] },
  { name: '*.example.org', asked: ['db.example.org', 'example.org'] },
  { name: '127.0.0.1', asked: ['127.0.0.1', 'localhost'] },
  { hosts: ['::1'], asked: ['::1', '0:0:0:0:0:0:0:1'] },
];
