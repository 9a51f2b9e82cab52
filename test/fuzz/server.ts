/** What PostgreSQL's server says while a connection is made, what is written in addresses and settings, and what HTTP clients ask. */
import * as fc from 'fast-check';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeOf, ServerRefusal } from '../../src/errors.ts';
import { prefersOpenMetrics } from '../../src/http/accept.ts';
import { hostCheck } from '../../src/http/hosts.ts';
import { readAddress } from '../../src/postgres/address.ts';
import { AddressProblem } from '../../src/postgres/conninfo.ts';
import { Answers } from '../../src/postgres/last-word.ts';
import { framed, Incoming } from '../../src/postgres/messages.ts';
import { passwordOf } from '../../src/postgres/passfile.ts';
import { createScram } from '../../src/postgres/scram.ts';
import { loadConfig, settingNames } from '../../src/settings.ts';
import { cuts, orRefused, pieces, spoiled, spoiledText } from './bytes.ts';

const SECRET = 'Zs3cr3tQ';

/** The messages that come of `all`, and why no more come. */
async function messagesOf(all: readonly Buffer[]): Promise<{ types: string; bytes: number; why: unknown }> {
  const socket = Object.assign(new EventEmitter(), { resume() {}, pause() {} });
  const incoming = new Incoming(socket as unknown as Socket);
  let types = '';
  let bytes = 0;
  const read = (async () => {
    for (;;) {
      const { type, body } = await incoming.message();
      types += type;
      bytes += body.length;
    }
  })().catch((error: unknown) => error);
  for (const piece of all) socket.emit('data', piece);
  socket.emit('close');
  const why = await read;
  return { types, bytes, why };
}

const LOGIN = Buffer.concat([
  framed('R', Buffer.from([0, 0, 0, 0])),
  framed('S', Buffer.from('TimeZone\0UTC\0')),
  framed('N', Buffer.from('SNOTICE\0\0')),
  framed('K', Buffer.alloc(8)),
  framed('Z', Buffer.from('I')),
]);
const REFUSAL = framed('E', Buffer.from('SFATAL\0C28P01\0Mno\0\0'));

export const loginMessages = fc.asyncProperty(
  fc.array(fc.tuple(fc.constantFrom('R', 'S', 'K', 'Z', 'N'), fc.uint8Array({ maxLength: 40 })), { maxLength: 10 }),
  cuts,
  async (messages, sizes) => {
    const all = Buffer.concat(messages.map(([type, body]) => framed(type, Buffer.from(body))));
    const kept = messages.filter(([type]) => type !== 'N');
    const { types, bytes, why } = await messagesOf(pieces(all, sizes));
    deepEqual(
      [types, bytes],
      [kept.map(([type]) => type).join(''), kept.reduce((sum, [, body]) => sum + body.length, 0)],
    );
    equal(codeOf(why), 'CONNECTION_CLOSED');
  },
);

export const spoiledLogins = fc.asyncProperty(spoiled([LOGIN, REFUSAL]), cuts, async (bytes, sizes) => {
  const { why } = await messagesOf(pieces(bytes, sizes));
  ok(
    why instanceof ServerRefusal || ['CONNECTION_CLOSED', 'PROTOCOL_VIOLATION'].includes(codeOf(why) ?? ''),
    String(why),
  );
});

const REFUSED = framed('E', Buffer.from('SERROR\0VERROR\0C23505\0Mtwice\0\0'));
/** PgBouncer names the severity in one field alone. */
const REFUSED_BY_POOLER = framed('E', Buffer.from('SERROR\0C08P01\0Mrefused\0\0'));
const COMPLETE = framed('C', Buffer.from('\0'));
const ENDED = framed('E', Buffer.from('SFATAL\0VFATAL\0C57P01\0Mended\0\0'));

export const lastWords = fc.property(
  fc.array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((body) => framed('D', Buffer.from(body))),
      fc.constantFrom(REFUSED, REFUSED_BY_POOLER, framed('D', ENDED), framed('Z', Buffer.from('I'))),
    ),
    { maxLength: 10 },
  ),
  fc.boolean(),
  cuts,
  (messages, ends, sizes) => {
    const before = Buffer.concat(messages);
    const answers = new Answers();
    const passed = pieces(ends ? Buffer.concat([before, ENDED]) : before, sizes).map((piece) => answers.take(piece));
    // an error in the middle of a result completes it
    const given = messages.flatMap((each, n) =>
      each.toString('latin1', 0, 1) === 'E' && messages[n - 1]?.toString('latin1', 0, 1) === 'D'
        ? [COMPLETE, each]
        : [each],
    );
    deepEqual(Buffer.concat(passed), Buffer.concat(given));
    equal(codeOf(answers.reason), ends ? '57P01' : undefined);
    // what is passed on is whole, so that what completes it can follow at any time
    for (const each of passed)
      for (let at = 0; at < each.length; at += 1 + each.readUInt32BE(at + 1)) ok(at + 5 <= each.length);
  },
);

export const scram = fc.asyncProperty(
  spoiledText(['r=NONCEabc,s=c2FsdA==,i=2', 'v=c2lnbmF0dXJl', 'e=invalid-proof']),
  fc.string({ unit: 'binary', maxLength: 20 }),
  async (said, password) => {
    const login = createScram(password);
    const nonce = login.first.slice('n,,n=*,r='.length);
    // what no server of PostgreSQL says only costs time
    const challenge = said.replace('NONCE', nonce).replace(/i=\d+/, 'i=2');
    const answer = await login.answer(challenge);
    ok(answer === undefined || answer.includes(',p='));
    equal(login.proves(said), false);
  },
);

const ADDRESSES = [
  `postgres://smslogd:${SECRET}@db.example:5432/ehealth?sslmode=verify-full&target_session_attrs=read-write`,
  `postgresql://u:${SECRET}@[::1]:5433,h2:5434/db?connect_timeout=5&options=-c%20a%3Db`,
  'postgres:///db?host=/var/run/postgresql&keepalives=1&require_auth=!none',
];
const isAddressProblem = (error: unknown) => {
  if (!(error instanceof AddressProblem)) return false;
  ok(!error.message.includes(SECRET));
  return true;
};

export const spoiledAddresses = fc.property(spoiledText(ADDRESSES), (text) => {
  const address = orRefused(() => readAddress(text, { PGUSER: 'u' }), isAddressProblem);
  for (const { port } of address?.hosts ?? []) ok(Number.isInteger(port) && port > 0 && port < 65_536);
});

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }).filter((text) => !text.includes('\0'));

export const addresses = fc.property(
  name,
  name,
  name,
  fc.integer({ min: 1, max: 65_535 }),
  (user, password, database, port) => {
    const [u, p, d] = [user, password, database].map(encodeURIComponent);
    const read = readAddress(`postgres://${u}:${p}@db.example:${port}/${d}`, {});
    deepEqual([read.user, read.password, read.database, read.hosts[0]?.port], [user, password, database, port]);
  },
);

let folder: string;
function passwordFile(text: string): string {
  const path = join(folder, 'pgpass');
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}
const escaped = (text: string) => text.replace(/[\\:]/g, '\\$&');
const field = fc.string({ minLength: 1, maxLength: 12 });

export const passwordFiles = fc
  .property(
    field,
    field,
    field,
    spoiledText(['h:5432:db:u:x', '*:*:*:*:y', '#']),
    (user, database, password, noise) => {
      const address = readAddress('postgres://u@h/db', { PGPASSFILE: passwordFile('') });
      const host = { name: 'db.example', ip: undefined, port: 5432 };
      const line = `db.example:5432:${escaped(database)}:${escaped(user)}:${escaped(password)}`;
      passwordFile(`# ${noise.replaceAll('\n', ' ')}\n${line}\n${noise}`);
      equal(passwordOf({ ...address, user, database }, host), password);
      passwordFile(noise);
      orRefused(
        () => passwordOf({ ...address, user, database }, host),
        (error) => codeOf(error) === 'database_auth',
      );
    },
  )
  .beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'smslogd-fuzz-'));
  })
  .afterEach(() => rmSync(folder, { recursive: true }));

const VALUES = [
  'xml',
  '64',
  '0.5',
  'mirror,poller',
  'Europe/Kyiv',
  'https://h/ip2sms/',
  'verification.verifications',
  ...ADDRESSES,
];

export const settings = fc.property(
  fc.dictionary(fc.constantFrom(...settingNames()), fc.oneof(fc.constantFrom(...VALUES), spoiledText(VALUES)), {
    maxKeys: 6,
  }),
  (env) => {
    const config = orRefused(
      () => loadConfig(env),
      (error) => codeOf(error) === 'config_invalid' && !(error as Error).message.includes(SECRET),
    );
    if (config !== undefined) ok(Number.isInteger(config.IP2SMS_MAX_CONCURRENCY) && config.IP2SMS_MAX_CONCURRENCY > 0);
  },
);

export const acceptHeaders = fc.property(
  spoiledText([
    'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
    'text/html',
  ]),
  (accept) => {
    const open = prefersOpenMetrics(accept);
    // who names neither form nor all forms gets the text
    if (open) ok(/openmetrics|application\/\*|\*\/\*/i.test(accept));
  },
);

const local = hostCheck('127.0.0.1', ['smslogd.example']);
export const hostHeaders = fc.property(
  spoiledText([
    'localhost:9464',
    '127.0.0.1',
    '[::1]:9464',
    'evil.example',
    'smslogd.example:80',
    '127.0.0.1.evil.example',
  ]),
  (host) => {
    if (!local(host)) return;
    const { hostname } = new URL(`http://${host}`);
    ok(/^(?:localhost|smslogd\.example)\.?$|^127\.|^\[::1\]$|^\[::ffff:7f/.test(hostname), hostname);
  },
);
