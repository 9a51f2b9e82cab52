/**
 * Reads pgoutput, protocol version 1, and keeps only what the mirror needs: transaction borders and, of the source table's INSERTs and UPDATEs,
 * six columns as the text that the server sent. Other tables, DELETE, TRUNCATE and messages change nothing in the log and are passed over.
 * Message formats: PostgreSQL's documentation, "Logical Replication Message Formats".
 */
import { SmslogdError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';

/** The columns that the mirror reads, in the order of a Row's fields. */
const COLUMNS = ['id', 'phone_number', 'code', 'inserted_at', 'gateway_id', 'gateway_status'] as const;

/** A source row as text; null: SQL null, or no such column, or (in an UPDATE) an unchanged value that was not sent. */
export interface Row {
  readonly id: string;
  readonly phone: string | null;
  readonly code: string | null;
  readonly insertedAt: string | null;
  gatewayId: string | null;
  gatewayStatus: string | null;
}

export interface Receiver {
  begin(commitLsn: Lsn): void;
  insert(row: Row): void;
  update(row: Row): void;
  /** a row that cannot be read: the table was without these needed columns when it was written */
  unreadable(columns: readonly string[]): void;
  /** `committedAt`: microseconds since 2000-01-01 UTC */
  commit(endLsn: Lsn, committedAt: bigint): void;
}

interface Relation {
  /** for each column of the relation the index in COLUMNS, or -1 */
  readonly places: Int8Array;
  /** needed columns that it has not */
  readonly absent: readonly string[];
}

/** The table that is read: by its name, and by its oid whatever its name was when a row was written. */
export interface Decoded {
  readonly schema: string;
  readonly name: string;
  readonly oid: string;
  /** a row of a time when the table was without one of these cannot be read */
  readonly needed: readonly (typeof COLUMNS)[number][];
}

/** Returns a function that decodes one message and tells `receiver`. It throws protocol. */
export function createDecoder(source: Decoded, receiver: Receiver): (message: Buffer) => void {
  const relations = new Map<number, Relation | undefined>();
  const values: (string | null)[] = Array.from({ length: COLUMNS.length }, () => null);

  const readRelation = (message: Buffer) => {
    const oid = message.readUInt32BE(1);
    const [schema, afterSchema] = text(message, 5);
    const [name, afterName] = text(message, afterSchema);
    if ((schema !== source.schema || name !== source.name) && String(oid) !== source.oid) {
      relations.set(oid, undefined);
      return;
    }
    const count = message.readInt16BE(afterName + 1);
    const places = new Int8Array(count);
    let at = afterName + 3;
    for (let i = 0; i < count; i += 1) {
      const [column, afterColumn] = text(message, at + 1);
      places[i] = COLUMNS.indexOf(column as (typeof COLUMNS)[number]);
      at = afterColumn + 8;
    }
    const absent = source.needed.filter((column) => !places.includes(COLUMNS.indexOf(column)));
    relations.set(oid, { places, absent });
  };

  /** Reads the tuple at `at` into `values`; returns the position after it. */
  const readTuple = (message: Buffer, at: number, places: Int8Array): number => {
    const count = message.readInt16BE(at);
    let position = at + 2;
    values.fill(null);
    for (let i = 0; i < count; i += 1) {
      const kind = message[position];
      position += 1;
      if (kind === 0x6e || kind === 0x75) continue; // n null, u unchanged
      if (kind !== 0x74) throw new SmslogdError('protocol', `unknown kind of column value ${kind}`);
      const end = position + 4 + message.readInt32BE(position);
      const place = places[i] ?? -1;
      if (place >= 0) values[place] = message.toString('utf8', position + 4, end);
      position = end;
    }
    return position;
  };

  const row = (): Row => {
    const [id, phone, code, insertedAt, gatewayId, gatewayStatus] = values as [string, ...(string | null)[]];
    return {
      id,
      phone: phone ?? null,
      code: code ?? null,
      insertedAt: insertedAt ?? null,
      gatewayId: gatewayId || null,
      gatewayStatus: gatewayStatus ?? null,
    };
  };

  return (message) => {
    const kind = message[0] ?? 0;
    switch (kind) {
      case 0x49: {
        // Insert
        const relation = relations.get(message.readUInt32BE(1));
        if (relation === undefined) return;
        if (relation.absent.length > 0) return receiver.unreadable(relation.absent);
        readTuple(message, 6, relation.places);
        return receiver.insert(row());
      }
      case 0x55: {
        // Update; the old key or the old row may stand before the new one
        const relation = relations.get(message.readUInt32BE(1));
        if (relation === undefined) return;
        if (relation.absent.length > 0) return receiver.unreadable(relation.absent);
        let at = 6;
        if (message[5] !== 0x4e) at = readTuple(message, at, relation.places) + 1;
        readTuple(message, at, relation.places);
        if (values[0] !== null) receiver.update(row());
        return;
      }
      case 0x42: // Begin
        receiver.begin(message.readBigUInt64BE(1) as Lsn);
        return;
      case 0x43: // Commit: flags, commit_lsn, end_lsn, time
        receiver.commit(message.readBigUInt64BE(10) as Lsn, message.readBigInt64BE(18));
        return;
      case 0x52:
        readRelation(message);
        return;
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
function text(message: Buffer, at: number): [string, number] {
  const end = message.indexOf(0, at);
  return [message.toString('utf8', at, end), end + 1];
}
