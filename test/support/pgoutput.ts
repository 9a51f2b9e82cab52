/** Writes pgoutput messages, protocol version 1, the way the server does. */
/** A text, SQL null, or undefined: unchanged and not sent. */
export type Column = string | null | undefined;

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

export function relation(oid: number, schema: string, name: string, columns: readonly string[]): Buffer {
  const parts = columns.map((column) => Buffer.concat([Buffer.from([0]), text(column), int32(25), int32(-1)]));
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
    const bytes = Buffer.from(value, 'utf8');
    return Buffer.concat([Buffer.from('t'), int32(bytes.length), bytes]);
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
