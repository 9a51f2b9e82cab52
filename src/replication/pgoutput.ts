/**
 * Reads pgoutput, protocol version 1, and keeps only what the mirror needs: transaction borders and, of the source table's INSERTs, where six columns
 * lie in the message. Other tables, UPDATE, DELETE, TRUNCATE and messages change nothing in the log and are passed over.
 * Values are text, or binary where the types of those six are known here; but for that both are read alike.
 * Message formats: PostgreSQL's documentation, "Logical Replication Message Formats".
 */
import { SmslogdError } from '../errors.ts';
import type { Lsn } from '../postgres/lsn.ts';
import { LARGEST_VALUE } from '../source.ts';
import { LEFT_OUT } from './condense.ts';

/** The columns that the mirror reads, in the order of a tuple's places. */
const COLUMNS = ['id', 'phone_number', 'code', 'inserted_at', 'gateway_id', 'gateway_status'] as const;
export const [ID, PHONE, CODE, INSERTED_AT, GATEWAY_ID, GATEWAY_STATUS] = [0, 1, 2, 3, 4, 5] as const;

/** pg_type.oid of character(n); its spaces at the end mean nothing, and a cast to text takes them off */
const CHARACTER = 1042;
/** pg_type.oid of the types whose binary form is their text, and of integers with their bytes */
const TEXTS: readonly number[] = [25, CHARACTER, 1043];
const WIDTHS: Readonly<Record<number, number>> = { 20: 8, 21: 2, 23: 4 };
const OF_COLUMN: Readonly<Record<string, readonly number[]>> = { id: [2950], inserted_at: [1114, 1184] };
/** bytes of a binary value of these columns */
const SIZES: Readonly<Record<string, number>> = { id: 16, inserted_at: 8 };

/** A source row as it lies in the server's message, for the time of the call. */
export interface Tuple {
  bytes: Buffer;
  /** where the value of each column begins and ends; begin -1: null, or no such column */
  readonly begins: Int32Array;
  readonly ends: Int32Array;
  /** bytes of a binary integer; 0: it is none */
  widths: Int8Array;
}

export interface Receiver {
  /** `committedAt`: microseconds since 2000-01-01 UTC, as at the commit */
  begin(commitLsn: Lsn, committedAt: bigint): void;
  insert(tuple: Tuple): void;
  /** a row with a value that is larger than what is read */
  large(id: string | null): void;
  /** a row of which the stream lacks needed columns: they are generated, or the table was without them when it was written */
  partial(id: string): void;
  /** a row that cannot even be told from others: the table was without these needed columns when it was written */
  unreadable(columns: readonly string[]): void;
  /** `committedAt`: microseconds since 2000-01-01 UTC */
  commit(endLsn: Lsn, committedAt: bigint): void;
}

/** A column had another type when a row was written: its values can be read as text alone. */
export class OtherType extends Error {}

/** True where each of the columns has a type whose binary form is read. `types`: pg_type.oid by column. */
export function readsBinary(types: ReadonlyMap<string, number>): boolean {
  return COLUMNS.every((column) => !types.has(column) || isRead(column, types.get(column)!));
}

function isRead(column: string, type: number): boolean {
  const known = OF_COLUMN[column];
  return known === undefined ? TEXTS.includes(type) || type in WIDTHS : known.includes(type);
}

interface Relation {
  /** for each column of the relation the index in COLUMNS, or -1 */
  readonly places: Int8Array;
  /** needed columns that it has not */
  readonly absent: readonly string[];
  /** places of those that are a character(n), which the server sends with spaces up to its length */
  readonly padded: readonly number[];
  readonly widths: Int8Array;
  /** bytes that a binary value must have; 0: any */
  readonly sizes: Int8Array;
}

/** The table that is read: by its name, and by its oid whatever its name was when a row was written. */
export interface Decoded {
  readonly schema: string;
  readonly name: string;
  readonly oid: string;
  /** tables that inherit from it */
  readonly children: readonly { readonly oid: string }[];
  /** a row without one of these is told as partial, one without an id as unreadable */
  readonly needed: readonly (typeof COLUMNS)[number][];
  /** the types of its columns when the stream began, if that sends values in binary form */
  readonly binary?: ReadonlyMap<string, number> | undefined;
}

/** Returns a function that decodes the message from `at` to `end` of `bytes` and tells `receiver`. It throws protocol and OtherType. */
export function createDecoder(source: Decoded, receiver: Receiver): (bytes: Buffer, at?: number, end?: number) => void {
  const oids = new Set([source.oid, ...source.children.map((child) => child.oid)]);
  const relations = new Map<number, Relation | undefined>();
  const begins = new Int32Array(COLUMNS.length);
  const ends = new Int32Array(COLUMNS.length);
  const tuple: Tuple = { bytes: Buffer.alloc(0), begins, ends, widths: new Int8Array(COLUMNS.length) };
  const binary = source.binary !== undefined;

  const readRelation = (bytes: Buffer, start: number, end: number) => {
    const oid = bytes.readUInt32BE(start + 1);
    const [schema, afterSchema] = text(bytes, start + 5);
    const [name, afterName] = text(bytes, afterSchema);
    if (afterName > end) throw wrongLength();
    if ((schema !== source.schema || name !== source.name) && !oids.has(String(oid))) {
      relations.set(oid, undefined);
      return;
    }
    const count = bytes.readInt16BE(afterName + 1);
    const places = new Int8Array(count);
    const padded: number[] = [];
    const widths = new Int8Array(COLUMNS.length);
    const sizes = new Int8Array(COLUMNS.length);
    let at = afterName + 3;
    for (let i = 0; i < count; i += 1) {
      const [column, afterColumn] = text(bytes, at + 1);
      const place = COLUMNS.indexOf(column as (typeof COLUMNS)[number]);
      places[i] = place;
      const type = bytes.readUInt32BE(afterColumn);
      if (place >= 0 && type === CHARACTER) padded.push(place);
      if (place >= 0 && binary) {
        // a time with a zone and one without look alike
        const other = place === INSERTED_AT && type !== source.binary.get(column);
        if (other || !isRead(column, type)) throw new OtherType(`the column ${column} had another type`);
        widths[place] = WIDTHS[type] ?? 0;
        sizes[place] = SIZES[column] ?? WIDTHS[type] ?? 0;
      }
      at = afterColumn + 8;
    }
    if (at !== end) throw wrongLength();
    const absent = source.needed.filter((column) => !places.includes(COLUMNS.indexOf(column)));
    relations.set(oid, { places, absent, padded, widths, sizes });
  };

  /** Finds the values of the tuple from `at` to `end`; true: one of them is too large. */
  const readTuple = (bytes: Buffer, at: number, end: number, relation: Relation): boolean => {
    const { places, padded, widths, sizes } = relation;
    const count = bytes.readInt16BE(at);
    if (count !== places.length) throw wrongLength();
    let position = at + 2;
    let large = false;
    begins.fill(-1);
    tuple.bytes = bytes;
    tuple.widths = widths;
    for (let i = 0; i < count; i += 1) {
      const kind = bytes[position];
      position += 1;
      if (kind === 0x6e || kind === 0x75) continue; // n null, u unchanged
      const place = places[i] ?? -1;
      if (kind === LEFT_OUT) {
        large ||= place >= 0;
        continue;
      }
      // t text, b binary
      if (kind !== 0x74 && kind !== 0x62) throw new SmslogdError('protocol', `unknown kind of column value ${kind}`);
      const length = bytes.readInt32BE(position);
      const begin = position + 4;
      position = begin + length;
      if (length < 0 || position > end) throw wrongLength();
      if (place < 0) continue;
      if (sizes[place] !== 0 && (kind === 0x74 || length !== sizes[place])) throw wrongLength();
      begins[place] = begin;
      ends[place] = position;
      large ||= position - begin > LARGEST_VALUE;
    }
    if (position !== end) throw wrongLength();
    for (const place of padded)
      while (ends[place]! > begins[place]! && bytes[ends[place]! - 1] === 0x20) ends[place]! -= 1;
    // an empty gateway id is none
    if (ends[GATEWAY_ID] === begins[GATEWAY_ID]) begins[GATEWAY_ID] = -1;
    return large;
  };

  const id = () => (begins[ID] === -1 ? null : idOf(tuple.bytes.subarray(begins[ID], ends[ID]), binary));

  const read = (bytes: Buffer, start: number, end: number) => {
    const kind = start < end ? bytes[start]! : 0;
    switch (kind) {
      case 0x49: {
        // Insert: relation, N, tuple
        if (end - start < 8) throw wrongLength();
        const relation = relations.get(bytes.readUInt32BE(start + 1));
        if (relation === undefined) return;
        if (relation.absent.includes('id')) return receiver.unreadable(relation.absent);
        const large = readTuple(bytes, start + 6, end, relation);
        const key = relation.absent.length > 0 ? id() : null;
        // one without an id is read nowhere else: the log rejects it as it is
        if (key !== null) return receiver.partial(key);
        return large ? receiver.large(id()) : receiver.insert(tuple);
      }
      case 0x42: // Begin: commit_lsn, time, transaction
        if (end - start !== 21) throw wrongLength();
        receiver.begin(bytes.readBigUInt64BE(start + 1) as Lsn, bytes.readBigInt64BE(start + 9));
        return;
      case 0x43: // Commit: flags, commit_lsn, end_lsn, time
        if (end - start !== 26) throw wrongLength();
        receiver.commit(bytes.readBigUInt64BE(start + 10) as Lsn, bytes.readBigInt64BE(start + 18));
        return;
      case 0x52:
        readRelation(bytes, start, end);
        return;
      case 0x55: // Update
      case 0x44: // Delete
      case 0x54: // Truncate
      case 0x59: // Type
      case 0x4f: // Origin
      case 0x4d: // Message
        return;
      default:
        throw new SmslogdError('protocol', `unknown kind of replication message ${kind}`);
    }
  };

  return (bytes, start = 0, end = bytes.length) => {
    try {
      read(bytes, start, end);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new SmslogdError('protocol', 'a replication message with inconsistent lengths', { cause: error });
    }
  };
}

/** A value as text; null: SQL null, or no such column. */
export function textOf({ bytes, begins, ends, widths }: Tuple, place: number): string | null {
  const begin = begins[place]!;
  if (begin === -1) return null;
  const width = widths[place]!;
  if (width === 0) return bytes.toString('utf8', begin, ends[place]);
  return String(width === 8 ? bytes.readBigInt64BE(begin) : bytes.readIntBE(begin, width));
}

/** An id, which is 16 bytes in binary form, as text. */
export function idOf(value: Buffer, binary: boolean): string {
  return binary ? value.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-') : value.toString();
}

function wrongLength(): RangeError {
  return new RangeError('a length that cannot be');
}

/** The zero-ended text at `at`, and the position after it. */
function text(bytes: Buffer, at: number): [string, number] {
  const end = bytes.indexOf(0, at);
  if (end === -1) throw new RangeError('a text without an end');
  return [bytes.toString('utf8', at, end), end + 1];
}
