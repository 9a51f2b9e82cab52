/** The replication connection: frames in every split, and what they carry. */
import * as fc from 'fast-check';
import { deepEqual, equal } from 'node:assert/strict';
import { codeOf } from '../../src/errors.ts';
import { formatLsn, parseLsn } from '../../src/postgres/lsn.ts';
import { createFrames } from '../../src/replication/frames.ts';
import {
  CODE,
  createDecoder,
  GATEWAY_ID,
  ID,
  idOf,
  OtherType,
  PHONE,
  textOf,
  type Tuple,
} from '../../src/replication/pgoutput.ts';
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
const OID = 16_400;
const THE_ID = '00000000-0000-4000-8000-000000000001';
const ID_BYTES = THE_ID.replaceAll('-', '');
const PLACES = [PHONE, CODE, GATEWAY_ID];

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

/** The types of NAMES where values come in binary form. */
const TYPES = [25, 1043, 23, 2950, 1043, 1043, 1114];
const BINARY = { ...SOURCE, binary: new Map(NAMES.map((name, i) => [name, TYPES[i]!])) };

type Heard = readonly unknown[];

/** What is heard of bytes that come in `pieces`, and whether they are refused in the end. */
function hear(all: readonly Buffer[], source: typeof SOURCE | typeof BINARY): { heard: Heard[]; refused: boolean } {
  const heard: Heard[] = [];
  const idIn = ({ bytes, begins, ends }: Tuple) =>
    begins[ID] === -1 ? null : idOf(bytes.subarray(begins[ID], ends[ID]), 'binary' in source);
  const decode = createDecoder(source, {
    begin: (at) => heard.push(['begin', at]),
    insert: (tuple) => heard.push(['row', idIn(tuple), ...PLACES.map((place) => textOf(tuple, place))]),
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
  const refused = orRefused(
    () => {
      for (const piece of all) frames(piece);
      return 'taken';
    },
    (error) => codeOf(error) === 'protocol' || error instanceof OtherType,
  );
  return { heard, refused: refused === undefined };
}

const lsn = fc.bigInt(0n, 2n ** 64n - 1n);
const value: fc.Arbitrary<Column> = fc.oneof(
  fc.constant(null),
  fc.constant(undefined),
  fc.string({ unit: 'binary', maxLength: 30 }),
);
const code = fc.oneof(fc.constant(null), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }));
const int32 = (number: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(number);
  return bytes;
};
const bytesOf = (column: Column) => (typeof column === 'string' ? Buffer.from(column) : column);

interface Message {
  readonly bytes: Buffer;
  readonly heard: readonly Heard[];
}
const row = (values: readonly Column[], ...told: readonly unknown[]): Message => ({
  bytes: data(insert(OID, values)),
  heard: [['row', ...told]],
});
const note = fc.string({ maxLength: 30 });
const textRow = fc
  .tuple(value, value, note)
  .map(([phone, code, note]) =>
    row([note, phone, code, THE_ID, '7', null, '2026-11-20 10:00:00'], THE_ID, phone ?? null, code ?? null, '7'),
  );
const binaryRow = fc
  .tuple(value, code, note, fc.uint8Array({ minLength: 8, maxLength: 8 }))
  .map(([phone, code, note, at]) => {
    const values = [
      note,
      bytesOf(phone),
      code === null ? null : int32(code),
      Buffer.from(ID_BYTES, 'hex'),
      Buffer.from('7'),
      null,
    ];
    return row([...values, Buffer.from(at)], THE_ID, phone ?? null, code === null ? null : String(code), '7');
  });
/** A message and what is heard of it. */
const message = (rows: fc.Arbitrary<Message>): fc.Arbitrary<Message> =>
  fc.oneof(
    lsn.map((at) => ({ bytes: data(begin(at)), heard: [['begin', at]] })),
    lsn.map((at) => ({ bytes: data(commit(0n, at)), heard: [['commit', at]] })),
    fc.tuple(lsn, fc.boolean()).map(([at, asks]) => ({ bytes: keepalive(at, asks), heard: [['keepalive', at, asks]] })),
    rows,
    note.map((text) => ({ bytes: data(update(OID, [text])), heard: [] })),
    fc.string({ unit: 'binary-ascii', maxLength: 30 }).map((text) => {
      const bytes = framed('N', Buffer.from(text));
      return { bytes, heard: [['other', bytes.toString('latin1')]] };
    }),
  );
const RELATION = relation(OID, SOURCE.schema, SOURCE.name, NAMES, TYPES);
const FORMS = [
  { source: SOURCE, rows: textRow },
  { source: BINARY, rows: binaryRow },
] as const;

export const replicationFrames = fc.property(
  fc.oneof(
    ...FORMS.map(({ source, rows }) => fc.tuple(fc.constant(source), fc.array(message(rows), { maxLength: 12 }))),
  ),
  cuts,
  ([source, messages], sizes) => {
    const all = Buffer.concat([data(RELATION), ...messages.map(({ bytes }) => bytes)]);
    deepEqual(hear(pieces(all, sizes), source), { heard: messages.flatMap(({ heard }) => heard), refused: false });
  },
);

const INSERTS = [
  insert(OID, ['n', '+380000000001', '1', THE_ID, '7', null, 't']),
  insert(OID, ['x'.repeat(200), null, undefined, THE_ID, null, null, null]),
  insert(OID, [
    null,
    Buffer.from('+380000000001'),
    int32(1),
    Buffer.from(ID_BYTES, 'hex'),
    null,
    null,
    Buffer.alloc(8),
  ]),
];
const EXAMPLES = [
  Buffer.concat([data(RELATION), data(begin(1n)), data(INSERTS[0]!), data(commit(1n, 2n))]),
  Buffer.concat([keepalive(7n, true), data(RELATION), framed('N', Buffer.from('SNOTICE\0'))]),
  ...INSERTS.map((each) => Buffer.concat([data(RELATION), data(each)])),
];
const source = fc.constantFrom(SOURCE, BINARY);

/** What is spoiled is refused, or read as something else, and that does not depend on how the bytes come. */
export const spoiledFrames = fc.property(spoiled(EXAMPLES), source, cuts, (bytes, source, sizes) => {
  deepEqual(hear(pieces(bytes, sizes), source), hear([bytes], source));
});

/** Lengths within a message are its own: what comes behind it is never read as a part of it. */
export const spoiledMessages = fc.property(
  fc.array(spoiled([RELATION, begin(1n), commit(1n, 2n), ...INSERTS]), { minLength: 1, maxLength: 4 }),
  source,
  (messages, source) => {
    const all = [RELATION, ...messages, begin(3n)].map(data);
    deepEqual(hear([Buffer.concat(all)], source), hear(all, source));
  },
);

export const lsns = fc.property(fc.oneof(lsn, spoiledText(['0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF'])), (at) => {
  if (typeof at === 'bigint')
    return equal(parseLsn(formatLsn(parseLsn(formatLsn(at as ReturnType<typeof parseLsn>)))), at);
  const read = orRefused(
    () => parseLsn(at),
    (error) => error instanceof RangeError,
  );
  if (read !== undefined) equal(formatLsn(read), at.toUpperCase().replace(/(^|\/)0+(?=[^/])/g, '$1'));
});
