/** Writes pgoutput messages, protocol version 1, the way the server does; and rows as they are read. */
import { textOf, type Receiver, type Tuple } from '../../src/replication/pgoutput.ts';

/** The places of a tuple. */
const FIELDS = ['id', 'phone', 'code', 'insertedAt', 'gatewayId', 'gatewayStatus'] as const;
export type Row = Readonly<Record<(typeof FIELDS)[number], string | null>>;

export function rowOf(tuple: Tuple): Row {
  return Object.fromEntries(FIELDS.map((field, place) => [field, textOf(tuple, place)])) as Row;
}

export function tupleOf(row: Row): Tuple {
  const values = FIELDS.map((field) => Buffer.from(row[field] ?? ''));
  const ends = new Int32Array(FIELDS.length);
  for (let i = 0, end = 0; i < ends.length; i += 1) ends[i] = end += values[i]!.length;
  const begins = ends.map((end, i) => (row[FIELDS[i]!] === null ? -1 : end - values[i]!.length));
  return { bytes: Buffer.concat(values), begins, ends, widths: new Int8Array(FIELDS.length) };
}

/** Tells nothing but what `some` says. */
export function receiver(some: Partial<Receiver>): Receiver {
  const ignored = { begin() {}, insert() {}, large() {}, partial() {}, unreadable() {}, commit() {} };
  return { ...ignored, ...some };
}

/** A text, bytes in binary form, SQL null, or undefined: unchanged and not sent. */
export type Column = string | Buffer | null | undefined;

const text = (value: string) => Buffer.concat([Buffer.from(value, 'utf8'), Buffer.from([0])]);
const int16 = (value: number) => {
  const buffer = Buffer.alloc(2);
  buffer.writeInt16BE(value);
  return buffer;
};
const int32 = (value: number) => {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
};
const int64 = (value: bigint) => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt.asUintN(64, value));
  return buffer;
};

export function begin(commitLsn: bigint): Buffer {
  return Buffer.concat([Buffer.from('B'), int64(commitLsn), int64(0n), int32(700)]);
}

export function commit(commitLsn: bigint, endLsn: bigint, time = 0n): Buffer {
  return Buffer.concat([Buffer.from('C'), Buffer.from([0]), int64(commitLsn), int64(endLsn), int64(time)]);
}

/** `types`: pg_type.oid of each column; default: text */
export function relation(
  oid: number,
  schema: string,
  name: string,
  columns: readonly string[],
  types: readonly number[] = [],
): Buffer {
  const parts = columns.map((column, i) =>
    Buffer.concat([Buffer.from([0]), text(column), int32(types[i] ?? 25), int32(-1)]),
  );
  return Buffer.concat([
    Buffer.from('R'),
    int32(oid),
    text(schema),
    text(name),
    Buffer.from('d'),
    int16(columns.length),
    ...parts,
  ]);
}

function tuple(values: readonly Column[]): Buffer {
  const parts = values.map((value) => {
    if (value === null) return Buffer.from('n');
    if (value === undefined) return Buffer.from('u');
    const bytes = Buffer.from(value as string);
    return Buffer.concat([Buffer.from(typeof value === 'string' ? 't' : 'b'), int32(bytes.length), bytes]);
  });
  return Buffer.concat([int16(values.length), ...parts]);
}

export function insert(oid: number, values: readonly Column[]): Buffer {
  return Buffer.concat([Buffer.from('I'), int32(oid), Buffer.from('N'), tuple(values)]);
}

/** An update without the old row, as with the default replica identity and an unchanged key. */
export function update(oid: number, values: readonly Column[]): Buffer {
  return Buffer.concat([Buffer.from('U'), int32(oid), Buffer.from('N'), tuple(values)]);
}

export function remove(oid: number, values: readonly Column[]): Buffer {
  return Buffer.concat([Buffer.from('D'), int32(oid), Buffer.from('K'), tuple(values)]);
}
