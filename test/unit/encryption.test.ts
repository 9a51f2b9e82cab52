import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates, type PeerCertificate } from 'node:tls';
import { afterAll, expect, onTestFinished, test, vi } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { encryptionCheck } from '../../src/doctor/encryption.ts';
import { addressOf } from '../../src/postgres/address.ts';
import { tlsOptions } from '../../src/postgres/tls.ts';

const check = (env: Record<string, string>) => encryptionCheck.run({ env, config: loadConfig(env) });

vi.stubEnv('HOME', '/nowhere');
afterAll(() => void vi.unstubAllEnvs());

test.for([
  ['postgres://u@db.example/d', 'FAIL'],
  ['postgres://u@db.example/d?sslmode=prefer', 'FAIL'],
  ['postgres://u@db.example/d?sslmode=require', 'FAIL'],
  ['postgres://u@localhost,db.example/d', 'FAIL'],
  ['postgres://u@localhost/d?hostaddr=192.0.2.1', 'FAIL'],
  ['postgres://u@db.example/d?sslmode=disable', 'warn'],
  ['postgres://u@db.example/d?sslmode=verify-full', 'ok'],
  ['postgres://u@db.example/d?sslmode=verify-ca', 'ok'],
  ['postgres://u@db.example/d?sslrootcert=system', 'ok'],
  ['postgres://u@localhost/d', 'ok'],
  ['postgres://u@127.0.0.1/d', 'ok'],
  ['postgres://u@[::1]/d', 'ok'],
  ['postgres://u@db.example/d?hostaddr=127.0.0.1', 'ok'],
  ['postgres://u@%2Frun%2Fpostgresql/d', 'ok'],
  ['postgres:///d', 'ok'],
] as const)('a network that could read along or answer itself is told of: %s is %s', async ([url, level]) => {
  const { says, ...finding } = await check({ DATABASE_URL: url });
  expect(finding).toMatchObject({ level });
  expect(says.includes('DATABASE_URL:')).toBe(level !== 'ok');
});

test('each address is judged, and the one that is wrong is named', async () => {
  const safe = 'postgres://u@localhost/d';
  const unsafe = 'postgres://u@db.example/d';
  expect(await check({ DATABASE_URL: safe, DATABASE_REPLICATION_URL: unsafe })).toMatchObject({
    level: 'FAIL',
    says: expect.stringMatching(/^DATABASE_REPLICATION_URL: /),
    fix: expect.stringContaining('sslrootcert=FILE'),
  });
});

test.each([
  ['*.db.example', 'one.db.example', true],
  ['*.DB.example', 'One.db.example', true],
  ['*.db.example', 'two.one.db.example', false],
  ['*.db.example', 'db.example', false],
  ['*.db.example', '.db.example', false],
  ['o*.db.example', 'one.db.example', false],
  ['db.example', 'one.db.example', false],
])('a certificate for %s is one for %s: %s', (name, host, fits) => {
  const { tls } = addressOf(`postgres://u@${host}/d?sslmode=verify-full&sslrootcert=system`);
  const seen = { subjectaltname: `DNS:${name}`, subject: { CN: host } } as PeerCertificate;
  expect(tlsOptions(tls, host).checkServerIdentity!(host, seen) === undefined).toBe(fits);
});

test('a root certificate is parsed once, and again when its file has another one', () => {
  const directory = mkdtempSync(join(tmpdir(), 'smslogd-root-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'root.crt');
  const { tls } = addressOf(`postgres://u@db.example/d?sslmode=verify-full&sslrootcert=${file}`);
  const contextWith = (certificate: string) => {
    writeFileSync(file, certificate);
    return tlsOptions(tls, 'db.example').secureContext;
  };
  const [one, other] = rootCertificates;
  const first = contextWith(one!);
  expect(contextWith(one!)).toBe(first);
  const second = contextWith(other!);
  expect(second).not.toBe(first);
  expect(contextWith(other!)).toBe(second);
});
