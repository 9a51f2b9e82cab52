/**
 * A large message while it arrives. A row can have values of up to a gigabyte, and the message of an INSERT has all of them: it is never put together.
 * Its bytes pass by, and what is kept is a message of the same form without the values that are too large; in the place of each stands a mark.
 * Of any other large message its head alone is kept: the mirror reads none.
 */
import { SmslogdError } from '../errors.ts';
import { LARGEST_VALUE } from '../source.ts';

/** In the place of a column's kind: its value was too large and is not here. */
export const LEFT_OUT = 0x78;

/** Values up to so many bytes are always kept, larger ones as long as they are no more than this together: one row does not fill the memory. */
const SMALL = 1_024;
const TOGETHER = 1_048_576;

const TEXT = 0x74;
const BINARY = 0x62;
const INSERT = 0x49;

export interface Condenser {
  /** Takes what is here of the message from `at` on; returns where the rest of `bytes` begins. */
  take(bytes: Buffer, at: number): number;
  /** what is kept; undefined: the message is not over */
  readonly message: Buffer | undefined;
}

/** `length`: of the whole message; `head`: bytes before the replication message that it carries. */
export function createCondenser(length: number, head: number): Condenser {
  const kept: Buffer[] = [];
  let left = length;
  let together = 0;
  let columns = 0;
  /** what comes next, and how many bytes of it are still to come */
  let part: 'head' | 'kind' | 'length' | 'value' | 'rest' = 'head';
  // the head, then Insert: kind, relation, N, number of columns
  let wanted = head + 8;
  let skip = false;
  let field: Buffer[] = [];
  let kind = Buffer.alloc(0);

  const next = () => {
    [part, wanted] = columns > 0 ? ['kind', 1] : ['rest', left];
    columns -= 1;
    skip = part === 'rest';
  };
  const valueOf = (size: number) => {
    if (size < 0) throw new SmslogdError('protocol', 'a column value with a negative length');
    const fits = size <= SMALL || (size <= LARGEST_VALUE && together + size <= TOGETHER);
    if (size > SMALL && fits) together += size;
    return fits;
  };
  const ended = () => {
    const bytes = Buffer.concat(field);
    field = [];
    if (part === 'head') {
      kept.push(bytes);
      columns = bytes[head] === INSERT ? bytes.readInt16BE(head + 6) : 0;
      return next();
    }
    if (part === 'kind' && (bytes[0] === TEXT || bytes[0] === BINARY)) {
      kind = bytes;
      [part, wanted] = ['length', 4];
      return;
    }
    if (part === 'length') {
      const size = bytes.readInt32BE(0);
      skip = !valueOf(size);
      kept.push(skip ? Buffer.of(LEFT_OUT) : Buffer.concat([kind, bytes]));
      [part, wanted] = ['value', size];
      return;
    }
    kept.push(bytes);
    next();
  };

  return {
    take(bytes, from) {
      let at = from;
      while (left > 0 && (at < bytes.length || wanted === 0)) {
        const end = at + Math.min(wanted, left, bytes.length - at);
        // a copy: the bytes are valid for now only
        if (!skip) field.push(Buffer.from(bytes.subarray(at, end)));
        wanted -= end - at;
        left -= end - at;
        at = end;
        if (wanted === 0) ended();
      }
      return at;
    },
    get message() {
      return left === 0 ? Buffer.concat(kept) : undefined;
    },
  };
}
