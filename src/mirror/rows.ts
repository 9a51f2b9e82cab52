/**
 * The rows of a batch as columns, each a PostgreSQL array in binary form: a value of the stream, its length before it, is an element of such an array as it
 * stands. So each is copied once and none becomes an object. Whether the values are text or binary, what the stream sends is what the sink takes.
 */
import { idOf, textOf, CODE, GATEWAY_ID, ID, INSERTED_AT, PHONE, type Tuple } from '../replication/pgoutput.ts';

/** What is kept of a tuple, in the order of the sink's parameters; the status comes after it. */
const PLACES = [ID, PHONE, CODE, INSERTED_AT, GATEWAY_ID] as const;

/** pg_type.oid: uuid, timestamp, text */
const [UUID, TIMESTAMP, TEXT] = [2950, 1114, 25];
const BINARY_TYPES = [UUID, TEXT, TEXT, TIMESTAMP, TEXT, TEXT];

/** of an array: dimensions, whether there are nulls, type, number of elements, index of the first */
const HEAD = 20;
/** Bytes that are copied one by one: a call costs more. */
const SHORT = 48;

/** Its buffers are used again: fresh ones cost more than what is copied into them. */
export class Rows {
  readonly binary: boolean;
  #length = 0;
  readonly #columns = Array.from({ length: PLACES.length + 1 }, () => new Column());

  constructor(binary: boolean) {
    this.binary = binary;
  }

  get length(): number {
    return this.#length;
  }

  /** Returns how many bytes were added. */
  add(tuple: Tuple, status: string | null): number {
    const { bytes, begins, ends, widths } = tuple;
    this.#length += 1;
    let size = 0;
    for (let i = 0; i < PLACES.length; i += 1) {
      const place = PLACES[i]!;
      const column = this.#columns[i]!;
      if (begins[place] === -1) column.text(null);
      else if (widths[place] !== 0) column.text(textOf(tuple, place));
      else size += column.value(bytes, begins[place]!, ends[place]!);
    }
    this.#columns[PLACES.length]!.text(status);
    return size;
  }

  clear(): void {
    this.#length = 0;
    for (const column of this.#columns) column.clear();
  }

  ids(): (string | null)[] {
    return this.#columns[0]!.elements().map((id) => id && idOf(id, this.binary));
  }

  /** Some of them as rows of their own. */
  pick(indexes: readonly number[]): Rows {
    const some = new Rows(this.binary);
    for (const [i, column] of this.#columns.entries()) {
      const elements = column.elements();
      for (const index of indexes) {
        const value = elements[index]!;
        if (value === null) some.#columns[i]!.text(null);
        else some.#columns[i]!.value(value, 0, value.length);
      }
    }
    some.#length = indexes.length;
    return some;
  }

  /** The sink's parameters; valid until rows are added. */
  arrays(): Buffer[] {
    return this.#columns.map((column, i) => column.array(this.binary ? BINARY_TYPES[i]! : TEXT, this.#length));
  }
}

class Column {
  #bytes = Buffer.allocUnsafe(1_024);
  #end = HEAD;

  clear(): void {
    this.#end = HEAD;
  }

  value(from: Buffer, begin: number, end: number): number {
    const length = end - begin;
    let at = this.#room(length);
    if (length > SHORT) from.copy(this.#bytes, at, begin, end);
    else for (let i = begin; i < end; i += 1, at += 1) this.#bytes[at] = from[i]!;
    return length;
  }

  text(value: string | null): void {
    // what it writes to may be another buffer behind it
    const at = this.#room(value === null ? -1 : Buffer.byteLength(value));
    if (value !== null) this.#bytes.write(value, at);
  }

  elements(): (Buffer | null)[] {
    const all: (Buffer | null)[] = [];
    for (let at = HEAD; at < this.#end;) {
      const length = this.#bytes.readInt32BE(at);
      at += 4;
      all.push(length === -1 ? null : this.#bytes.subarray(at, at + length));
      at += Math.max(0, length);
    }
    return all;
  }

  array(type: number, count: number): Buffer {
    for (const [i, word] of [1, 1, type, count, 1].entries()) this.#bytes.writeInt32BE(word, 4 * i);
    return this.#bytes.subarray(0, this.#end);
  }

  /** Where an element of `length` bytes goes; -1: null. */
  #room(length: number): number {
    const at = this.#end;
    this.#end = at + 4 + Math.max(0, length);
    if (this.#end > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(2 * this.#end);
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#bytes.writeInt32BE(length, at);
    return at + 4;
  }
}
