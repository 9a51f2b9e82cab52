import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.ts';
import { maskAddress } from '../../src/masking.ts';

test.each([
  ['postgres://user:secret@db:5432/name', 'postgres://****@db:5432/name'],
  ['postgresql://one:1,two:2/name?sslmode=verify-full', 'postgresql://one:1,two:2/name?sslmode=verify-full'],
  // a parser takes this for the host "user" and the port 12
  ['postgres://user:12/34secret@db/name', 'postgres://****@db/name'],
  ['postgres://user:1@2@db/name', 'postgres://****@db/name'],
  ['postgres://user:12?secret@db/name', 'postgres://****'],
  ['postgres://user:12#secret@db/name', 'postgres://****@db/name'],
  ['https://user:12#secret@gateway.example/', 'https://****'],
  ['postgres:///name?host=/run&password=secret&port=1', 'postgres:///name?host=/run&password=****&port=1'],
  ['postgres:///name?host=db&p%61ssword=secret', 'postgres:///name?host=db&****'],
  ['postgres:///name?host=db&PASSWORD=secret', 'postgres:///name?host=db&****'],
  ['postgres:///name?passfile=secret', 'postgres:///name?passfile=****'],
  ['postgres:///name?password=se#cret', 'postgres:///name?password=****#****'],
  ['postgres:///name?password=s&ecret', 'postgres:///name?password=****&****'],
  ['postgres:///name?password=s?ecret', 'postgres:///name?password=****'],
  ['postgres:///name?password=s@ecret', 'postgres://****'],
  ['https://gateway.example/ip2sms/', 'https://gateway.example/ip2sms/'],
  ['https://gateway.example/ip2sms/?host=secret&key', 'https://gateway.example/ip2sms/?****&****'],
  ['HTTPS://user@gateway.example/#secret', 'HTTPS://****@gateway.example/#****'],
  ['host=db password=secret', '****'],
])('%s is shown as %s', (address, shown) => {
  expect(maskAddress(address)).toBe(shown);
});

const secret = fc.string({ unit: 'binary', minLength: 4, maxLength: 24 });
const login = fc.constantFrom('', 'u', 'u:', 'u:1', 'u:1/', 'u:12?a=', 'u:1@', 'u#', ':');
/** Addresses around a secret as it stands, wherever a user may write one. */
const addresses: readonly ((secret: string, login: string) => string)[] = [
  (text, before) => `postgres://${before}${text}@d/n`,
  (text, before) => `postgres://${before}${text}@d/n?sslmode=require`,
  (text) => `postgres://u@d/n?password=${text}`,
  (text) => `postgres://d/n?password=${text}&sslmode=require#f`,
  (text) => `postgres://d/n?p%61ssword=${text}`,
  (text, before) => `https://${before}${text}@g/i/`,
  (text) => `https://g/i/?k=${text}`,
  (text) => `https://u:p@g/i/?k=1&l=${text}&m=2#n`,
  (text) => `https://g/i/#${text}`,
];

test('four characters of a secret in a row are never shown, whatever the secret is made of', () => {
  fc.assert(
    fc.property(secret, login, fc.constantFrom(...addresses), fc.boolean(), (text, before, address, encoded) => {
      const written = encoded ? encodeURIComponent(text) : text;
      const shown = maskAddress(address(written, before));
      // what is shown of the same address around another secret is no part of this one
      const frame = maskAddress(address('', before));
      const pieces = Array.from({ length: Math.max(0, written.length - 3) }, (_, at) => written.slice(at, at + 4));
      expect(pieces.filter((piece) => shown.includes(piece) && !frame.includes(piece))).toEqual([]);
    }),
    { numRuns: 2_000 },
  );
});

test.each(['config', 'doctor', 'run', 'verify', 'migrate', 'teardown'])(
  'nothing that `%s` says has a part of a password in it',
  async (name) => {
    const said: string[] = [];
    const secrets = ['1/2@hunter', '12?hunter', '12#hunter', 'hunter2', '1:hunter@3', 'hun%74er%2F'];
    for (const each of secrets) {
      const env = {
        DATABASE_URL: `postgres://u:${each}@127.0.0.1:1/n?connect_timeout=1`,
        IP2SMS_URL: `http://u:${each}@127.0.0.1:1/ip2sms/?k=hunter`,
        IP2SMS_LOGIN: 'hunter',
        IP2SMS_PASSWORD: 'hunter',
        LOOPS: 'none',
      };
      const io = { print: (line: string) => said.push(line), complain: (line: string) => said.push(line) };
      await commandLine([name], {
        env: name === 'run' ? env : { ...env, LOOPS: 'mirror' },
        ...io,
        stdoutIsTerminal: false,
      });
    }
    expect(said.length).toBeGreaterThanOrEqual(secrets.length);
    expect(said.join('\n')).not.toMatch(/hunt|unte|nter|%74er/);
  },
);
