import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createFrames } from '../../src/replication/frames.ts';
import { createDecoder } from '../../src/replication/pgoutput.ts';
import { LARGEST_VALUE } from '../../src/source.ts';
import { insert, receiver, relation, rowOf, update, type Row } from '../support/pgoutput.ts';

const SOURCE = {
  schema: 'verification',
  name: 'verifications',
  oid: '16400',
  children: [],
  needed: ['id', 'phone_number', 'code', 'inserted_at'],
} as const;
/** The needed columns among others. */
const COLUMNS = [
  'note',
  'phone_number',
  'code',
  'picture',
  'id',
  'gateway_id',
  'gateway_status',
  'inserted_at',
  'json',
];
const ID = '00000000-0000-4000-8000-000000000001';

const framed = (payload: Buffer) => {
  const head = Buffer.alloc(30);
  head.write('d', 0, 'latin1');
  head.writeInt32BE(29 + payload.length, 1);
  head.write('w', 5, 'latin1');
  return Buffer.concat([head, payload]);
};

type Large = { readonly large: string | null };
const reading = (rows: (Row | Large)[]) =>
  receiver({ insert: (tuple) => rows.push(rowOf(tuple)), large: (id) => rows.push({ large: id }) });

/** What comes of `messages`, whose bytes are cut into pieces of `sizes`, again and again; `other`: of the other kinds, how many. */
function read(messages: readonly Buffer[], sizes: readonly number[]): (Row | Large)[] {
  const rows: (Row | Large)[] = [];
  const decode = createDecoder(SOURCE, reading(rows));
  const data = (bytes: Buffer, at: number, end: number) => {
    expect(end - at).toBeLessThan(1_100_000);
    decode(bytes, at, end);
  };
  const frames = createFrames({ data, keepalive() {}, other() {} });
  const all = Buffer.concat(messages.map(framed));
  for (let at = 0, i = 0; at < all.length; i += 1) {
    const size = sizes[i % sizes.length]!;
    frames(Buffer.from(all.subarray(at, at + size)));
    at += size;
  }
  return rows;
}

const value = fc.oneof(
  fc.constant(null),
  fc.string({ maxLength: 20 }),
  fc.constantFrom(1, 1_024, 1_025, LARGEST_VALUE, LARGEST_VALUE + 1, 300_000).map((size) => 'x'.repeat(size)),
);
const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(65_536, 4_096)), {
  minLength: 1,
  maxLength: 20,
});

test('a row of any size is read wherever its bytes are cut, but for its values if one that is needed is too large', () => {
  fc.assert(
    fc.property(fc.array(fc.array(value, { minLength: 8, maxLength: 8 }), { maxLength: 4 }), sizes, (tuples, cuts) => {
      const sent = tuples.map((row) => row.toSpliced(4, 0, ID));
      const rows = read(
        [relation(1, 'verification', 'verifications', COLUMNS), ...sent.map((row) => insert(1, row))],
        [...cuts, 65_536],
      );
      const expected = sent.map(([, phone, code, , id, gatewayId, gatewayStatus, insertedAt]) => {
        const needed = [phone, code, gatewayId, gatewayStatus, insertedAt];
        const large = needed.some((each) => (each ?? '').length > LARGEST_VALUE);
        if (large) return { large: id };
        return { id, phone, code, gatewayId: gatewayId === '' ? null : gatewayId, gatewayStatus, insertedAt };
      });
      expect(rows).toEqual(expected);
    }),
    { numRuns: 60 },
  );
}, 60_000);

test('a large message of another kind or of another table is passed over', () => {
  const big = 'x'.repeat(400_000);
  const small = insert(1, [null, '+380000000001', '1', null, ID, null, null, 't', null]);
  const rows = read(
    [
      relation(1, 'verification', 'verifications', COLUMNS),
      relation(2, 'public', 'others', ['picture']),
      update(1, [big, big, big, null, ID, null, null, null, null]),
      insert(2, [big]),
      small,
    ],
    [1_000],
  );
  expect(rows).toEqual([expect.objectContaining({ id: ID, code: '1' })]);
});

test('a row of 200 MB takes no memory', () => {
  const rows: (Row | Large)[] = [];
  const decode = createDecoder(SOURCE, reading(rows));
  const frames = createFrames({ data: decode, keepalive() {}, other() {} });
  frames(framed(relation(1, 'verification', 'verifications', COLUMNS)));
  const whole = framed(insert(1, [null, '+380000000001', 'CODE', null, ID, null, null, 't', null]));
  const at = whole.indexOf('CODE');
  const size = 200_000_000;
  whole.writeInt32BE(size, at - 4);
  whole.writeInt32BE(whole.length - 1 + size - 4, 1);
  const before = process.memoryUsage().rss;
  // its length is known before its kind
  frames(whole.subarray(0, 5));
  frames(whole.subarray(5, at));
  const piece = Buffer.alloc(50_000);
  for (let sent = 0; sent < size; sent += piece.length) frames(piece);
  frames(whole.subarray(at + 4));
  expect(rows).toEqual([{ large: ID }]);
  expect(process.memoryUsage().rss - before).toBeLessThan(50_000_000);
});

test.each([
  ['that are together more than is kept', Array.from({ length: 20 }, () => LARGEST_VALUE), '+380000000001'],
  ['that are not kept', [1_200_000], 'x'.repeat(2_000)],
])('a row keeps its own values behind others %s', (_, lengths, phone) => {
  const others = lengths.map((length) => 'x'.repeat(length));
  const names = others.map((_, i) => `note${i}`);
  const rows = read(
    [
      relation(1, 'verification', 'verifications', [...names, ...COLUMNS]),
      insert(1, [...others, null, phone, '1', null, ID, '7', null, 't', null]),
    ],
    [10_000],
  );
  expect(rows).toEqual([{ id: ID, phone, code: '1', gatewayId: '7', gatewayStatus: null, insertedAt: 't' }]);
});
