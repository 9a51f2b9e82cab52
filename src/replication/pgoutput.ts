/**
 * Reads pgoutput, protocol version 1, and keeps only what the mirror needs: transaction borders and, of the source table's INSERTs, six columns as
 * the text that the server sent. Other tables, UPDATE, DELETE, TRUNCATE and messages change nothing in the log and are passed over.
 * Message formats: PostgreSQL's documentation, "Logical Replication Message Formats".
 */
import { SmslogdError } from '../errors.ts';
import type { Lsn } from '../postgres/lsn.ts';
import { LARGEST_VALUE } from '../source.ts';
import { LEFT_OUT } from './condense.ts';

/** The columns that the mirror reads, in the order of a Row's fields. */
const COLUMNS = ['id', 'phone_number', 'code', 'inserted_at', 'gateway_id', 'gateway_status'] as const;

/** pg_type.oid of character(n); its spaces at the end mean nothing, and a cast to text takes them off */
const CHARACTER = 1042;
/** bytes of a tuple that is read as one text */
const SMALL = 2_048;

/** A source row as text; null: SQL null, or no such column. */
export interface Row {
  readonly id: string;
  readonly phone: string | null;
  readonly code: string | null;
  readonly insertedAt: string | null;
  readonly gatewayId: string | null;
  readonly gatewayStatus: string | null;
  /** a value is larger than what is read: but for the id it has none */
  readonly large: boolean;
}

export interface Receiver {
  begin(commitLsn: Lsn): void;
  insert(row: Row): void;
  /** a row of which the stream lacks needed columns: they are generated, or the table was without them when it was written */
  partial(id: string): void;
  /** a row that cannot even be told from others: the table was without these needed columns when it was written */
  unreadable(columns: readonly string[]): void;
  /** `committedAt`: microseconds since 2000-01-01 UTC */
  commit(endLsn: Lsn, committedAt: bigint): void;
}

interface Relation {
  /** for each column of the relation the index in COLUMNS, or -1 */
  readonly places: Int8Array;
  /** needed columns that it has not */
  readonly absent: readonly string[];
  /** places in a Row of those that are a character(n), which the server sends with spaces up to its length */
  readonly padded: readonly number[];
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
}

/** Returns a function that decodes the message that begins at `at` of `bytes` and tells `receiver`. It throws protocol. */
export function createDecoder(source: Decoded, receiver: Receiver): (bytes: Buffer, at?: number) => void {
  const oids = new Set([source.oid, ...source.children.map((child) => child.oid)]);
  const relations = new Map<number, Relation | undefined>();
  const values: (string | null)[] = Array.from({ length: COLUMNS.length }, () => null);
  /** where each column's value begins and ends; begin -1: null or not sent */
  const begins = new Int32Array(COLUMNS.length);
  const ends = new Int32Array(COLUMNS.length);

  const readRelation = (bytes: Buffer, start: number) => {
    const oid = bytes.readUInt32BE(start + 1);
    const [schema, afterSchema] = text(bytes, start + 5);
    const [name, afterName] = text(bytes, afterSchema);
    if ((schema !== source.schema || name !== source.name) && !oids.has(String(oid))) {
      relations.set(oid, undefined);
      return;
    }
    const count = bytes.readInt16BE(afterName + 1);
    const places = new Int8Array(count);
    const padded: number[] = [];
    let at = afterName + 3;
    for (let i = 0; i < count; i += 1) {
      const [column, afterColumn] = text(bytes, at + 1);
      const place = COLUMNS.indexOf(column as (typeof COLUMNS)[number]);
      places[i] = place;
      if (place >= 0 && bytes.readUInt32BE(afterColumn) === CHARACTER) padded.push(place);
      at = afterColumn + 8;
    }
    const absent = source.needed.filter((column) => !places.includes(COLUMNS.indexOf(column)));
    relations.set(oid, { places, absent, padded });
  };

  /** Reads the tuple at `at` into `values`; true: one of them is too large, and nothing but the id is read. */
  const readTuple = (bytes: Buffer, at: number, places: Int8Array): boolean => {
    const count = bytes.readInt16BE(at);
    let position = at + 2;
    let large = false;
    begins.fill(-1);
    for (let i = 0; i < count; i += 1) {
      const kind = bytes[position];
      position += 1;
      if (kind === 0x6e || kind === 0x75) continue; // n null, u unchanged
      if (kind === LEFT_OUT) {
        large ||= (places[i] ?? -1) >= 0;
        continue;
      }
      if (kind !== 0x74) throw new SmslogdError('protocol', `unknown kind of column value ${kind}`);
      const end = position + 4 + bytes.readInt32BE(position);
      const place = places[i] ?? -1;
      if (place >= 0) {
        begins[place] = position + 4;
        ends[place] = end;
        large ||= end - position - 4 > LARGEST_VALUE;
      }
      position = end;
    }
    if (large) begins.fill(-1, 1);
    // one text for the whole tuple, cut into values, is cheaper than a text for each. As long as its bytes, it is ASCII all through, but for
    // what stands between the values, and positions in it are positions in the bytes.
    // Of a large one the values would keep the whole alive, big columns that nobody asked for too.
    const whole = position - at <= SMALL ? bytes.toString('utf8', at, position) : '';
    const plain = whole.length === position - at;
    for (let place = 0; place < values.length; place += 1) {
      const begin = begins[place]!;
      const end = ends[place]!;
      if (begin === -1) values[place] = null;
      else values[place] = plain ? whole.slice(begin - at, end - at) : bytes.toString('utf8', begin, end);
    }
    return large;
  };

  const row = (large: boolean): Row => {
    const [id, phone, code, insertedAt, gatewayId, gatewayStatus] = values as [string, ...(string | null)[]];
    return {
      id,
      phone: phone ?? null,
      code: code ?? null,
      insertedAt: insertedAt ?? null,
      gatewayId: gatewayId || null,
      gatewayStatus: gatewayStatus ?? null,
      large,
    };
  };

  return (bytes, start = 0) => {
    const kind = bytes[start] ?? 0;
    switch (kind) {
      case 0x49: {
        // Insert
        const relation = relations.get(bytes.readUInt32BE(start + 1));
        if (relation === undefined) return;
        if (relation.absent.includes('id')) return receiver.unreadable(relation.absent);
        const large = readTuple(bytes, start + 6, relation.places);
        if (relation.absent.length > 0) return receiver.partial(values[0]!);
        for (const place of relation.padded) values[place] = values[place]?.replace(/ +$/, '') ?? null;
        return receiver.insert(row(large));
      }
      case 0x42: // Begin
        receiver.begin(bytes.readBigUInt64BE(start + 1) as Lsn);
        return;
      case 0x43: // Commit: flags, commit_lsn, end_lsn, time
        receiver.commit(bytes.readBigUInt64BE(start + 10) as Lsn, bytes.readBigInt64BE(start + 18));
        return;
      case 0x52:
        readRelation(bytes, start);
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
}

/** The zero-ended text at `at`, and the position after it. */
function text(bytes: Buffer, at: number): [string, number] {
  const end = bytes.indexOf(0, at);
  return [bytes.toString('utf8', at, end), end + 1];
}
