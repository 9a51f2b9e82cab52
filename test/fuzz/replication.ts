/** The replication connection: frames in every split, and what they carry. */
import * as fc from 'fast-check';
import { deepEqual, equal } from 'node:assert/strict';
import { codeOf } from '../../src/errors.ts';
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts';
import { createFrames } from '../../src/replication/frames.ts';
import { CODE, createDecoder, GATEWAY_ID, ID, PHONE, textOf } from '../../src/replication/pgoutput.ts';
import { begin, commit, insert, relation, update, type Column } from '../support/pgoutput.ts';
import { cuts, orRefused, pieces, spoiled, spoiledText } from './bytes.ts';

const SOURCE = {
  schema: 'verification',
  name: 'verifications',
  oid: '16400',
  children: [],
  needed: ['id', 'phone_number', 'code', 'inserted_at'],
} as const;
const NAMES = ['note', 'phone_number', 'code', 'id', 'gateway_id', 'gateway_status', 'inserted_at'];
const THE_ID = '00000000-0000-4000-8000-000000000001';

function framed(kind: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind, 'latin1');
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, body]);
}
const data = (payload: Buffer) => framed('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(24), payload]));
function keepalive(position: bigint, asks: boolean): Buffer {
  const body = Buffer.alloc(18);
  body.write('k');
  body.writeBigUInt64BE(position, 1);
  body[17] = asks ? 1 : 0;
  return framed('d', body);
}

type Heard = readonly unknown[];

/** What is heard of bytes that come in `pieces`. Throws protocol. */
function hear(all: readonly Buffer[]): Heard[] {
  const heard: Heard[] = [];
  const decode = createDecoder(SOURCE, {
    begin: (at) => heard.push(['begin', at]),
    insert: (tuple) => heard.push(['row', ...[ID, PHONE, CODE, GATEWAY_ID].map((place) => textOf(tuple, place))]),
    large: (id) => heard.push(['large', id]),
    partial: (id) => heard.push(['partial', id]),
    unreadable: () => heard.push(['unreadable']),
    commit: (end) => heard.push(['commit', end]),
  });
  const frames = createFrames({
    data: decode,
    keepalive: (position, asks) => heard.push(['keepalive', position, asks]),
    other: (message) => heard.push(['other', message.toString('latin1')]),
  });
  for (const piece of all) frames(piece);
  return heard;
}

const lsn = fc.bigInt(0n, 2n ** 64n - 1n);
const value: fc.Arbitrary<Column> = fc.oneof(
  fc.constant(null),
  fc.constant(undefined),
  fc.string({ unit: 'binary', maxLength: 30 }),
);
/** A message and what is heard of it. */
const message: fc.Arbitrary<{ bytes: Buffer; heard: readonly Heard[] }> = fc.oneof(
  lsn.map((at) => ({ bytes: data(begin(at)), heard: [['begin', at]] })),
  lsn.map((at) => ({ bytes: data(commit(0n, at)), heard: [['commit', at]] })),
  fc.tuple(lsn, fc.boolean()).map(([at, asks]) => ({ bytes: keepalive(at, asks), heard: [['keepalive', at, asks]] })),
  fc.tuple(value, value, fc.string({ maxLength: 30 })).map(([phone, code, note]) => ({
    bytes: data(insert(16_400, [note, phone, code, THE_ID, '7', null, '2026-11-20 10:00:00'])),
    heard: [['row', THE_ID, phone ?? null, code ?? null, '7']],
  })),
  fc.string({ maxLength: 30 }).map((note) => ({ bytes: data(update(16_400, [note])), heard: [] })),
  fc.string({ unit: 'binary-ascii', maxLength: 30 }).map((text) => {
    const bytes = framed('N', Buffer.from(text));
    return { bytes, heard: [['other', bytes.toString('latin1')]] };
  }),
);
const RELATION = data(relation(16_400, SOURCE.schema, SOURCE.name, NAMES));
const EXAMPLES = [
  Buffer.concat([
    RELATION,
    data(begin(1n)),
    data(insert(16_400, ['n', '+380000000001', '1', THE_ID, '7', null, 't'])),
    data(commit(1n, 2n)),
  ]),
  Buffer.concat([keepalive(7n, true), RELATION, framed('N', Buffer.from('SNOTICE\0'))]),
  Buffer.concat([RELATION, data(insert(16_400, ['x'.repeat(200), null, undefined, THE_ID, null, null, null]))]),
];
const isProtocol = (error: unknown) => codeOf(error) === 'protocol';

export const replicationFrames = fc.property(fc.array(message, { maxLength: 12 }), cuts, (messages, sizes) => {
  const all = Buffer.concat([RELATION, ...messages.map(({ bytes }) => bytes)]);
  deepEqual(
    hear(pieces(all, sizes)),
    messages.flatMap(({ heard }) => heard),
  );
});

/** What is spoiled is refused, or read as something else; lengths within a message are not compared with its own. */
export const spoiledFrames = fc.property(spoiled(EXAMPLES), cuts, (bytes, sizes) => {
  orRefused(() => hear([bytes]), isProtocol);
  orRefused(() => hear(pieces(bytes, sizes)), isProtocol);
});

export const lsns = fc.property(fc.oneof(lsn, spoiledText(['0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF'])), (at) => {
  if (typeof at === 'bigint')
    return equal(parseLsn(formatLsn(parseLsn(formatLsn(at as ReturnType<typeof parseLsn>)))), at);
  const read = orRefused(
    () => parseLsn(at),
    (error) => error instanceof RangeError,
  );
  if (read !== undefined) equal(formatLsn(read), at.toUpperCase().replace(/(^|\/)0+(?=[^/])/g, '$1'));
});
