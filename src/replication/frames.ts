/**
 * The messages of the replication connection: splits the bytes into them, and writes the one that acknowledges. While the server streams, nearly
 * all is CopyData: row changes and keepalives, three small messages for each transaction. They are handed on where they lie, without an object or
 * a copy for each; every other message is left to the client library, which sees it whole. A large one is condensed while it comes.
 */
import type { Lsn } from '../postgres/lsn.ts';
import { SmslogdError } from '../errors.ts';
import { createCondenser, type Condenser } from './condense.ts';

export interface FrameHandlers {
  /** the payload of one XLogData message: `at` to `end` of `bytes`, which are valid during the call only */
  data(bytes: Buffer, at: number, end: number): void;
  /** the server has sent everything before `position`; `asks`: it wants an answer now */
  keepalive(position: Lsn, asks: boolean): void;
  /** any other message, whole with its head */
  other(message: Buffer): void;
}

const HEAD = 5;
/** within a CopyData message: its head, kind, start of the data, end of the server's WAL, time */
const PAYLOAD = HEAD + 1 + 8 + 8 + 8;
/** head, kind, position, time, whether it asks for a reply */
const KEEPALIVE = HEAD + 1 + 8 + 8 + 1;

/** Bytes of a message that is put together; what describes a table is always less. */
const WHOLE = 131_072;
/** Bytes of the longest message that is kept whole; only a row change may be longer. */
const LONGEST = 1_048_576;

/**
 * Returns a function that takes the bytes as they come, in pieces of any size. What a handler throws, it throws, and must not be called again. Throws
 * protocol where the lengths cannot be those of messages.
 */
export function createFrames(handlers: FrameHandlers): (piece: Buffer) => void {
  let parts: Buffer[] = [];
  let held = 0;
  let needed = HEAD;
  let large: Condenser | undefined;

  return (piece) => {
    let bytes = piece;
    let at = 0;
    if (large !== undefined) {
      at = large.take(piece, 0);
      if (large.message === undefined) return;
      handlers.data(large.message, PAYLOAD, large.message.length);
      large = undefined;
    } else if (held > 0) {
      parts.push(piece);
      held += piece.length;
      if (held < needed) return;
      bytes = Buffer.concat(parts, held);
    }
    for (;;) {
      const left = bytes.length - at;
      needed = left < HEAD ? HEAD : 1 + bytes.readInt32BE(at + 1);
      if (needed < HEAD) throw wrongLength();
      if (left < needed) {
        if (needed > WHOLE && bytes[at] === 0x64) {
          // its kind is to be seen first
          if (left === HEAD) needed = HEAD + 1;
          else if (bytes[at + HEAD] === 0x77) {
            large = createCondenser(needed, PAYLOAD);
            at = large.take(bytes, at);
          }
        }
        if (needed > LONGEST && large === undefined) throw wrongLength();
        break;
      }
      const end = at + needed;
      if (bytes[at] !== 0x64) handlers.other(bytes.subarray(at, end));
      else if (needed > HEAD && bytes[at + HEAD] === 0x77) {
        if (needed < PAYLOAD) throw wrongLength();
        handlers.data(bytes, at + PAYLOAD, end);
      } else if (needed > HEAD && bytes[at + HEAD] === 0x6b) {
        if (needed !== KEEPALIVE) throw wrongLength();
        handlers.keepalive(bytes.readBigUInt64BE(at + HEAD + 1) as Lsn, bytes[at + HEAD + 17] === 1);
      }
      at = end;
    }
    held = bytes.length - at;
    parts = held === 0 ? [] : [bytes.subarray(at)];
  };
}

function wrongLength(): SmslogdError {
  return new SmslogdError('protocol', 'a replication message with an invalid length');
}

/** A standby status update: everything before `position` is written, flushed and applied here. `ask`: the server is to answer at once. */
export function statusUpdate(position: Lsn, ask: boolean): Buffer {
  const message = Buffer.alloc(34);
  message.write('r');
  for (const at of [1, 9, 17]) message.writeBigUInt64BE(position, at);
  message.writeBigInt64BE(nowMicros(), 25);
  message.writeUInt8(ask ? 1 : 0, 33);
  return message;
}

/** The time by our clock; microseconds since 2000-01-01 UTC. */
export function nowMicros(): bigint {
  return BigInt(Date.now()) * 1000n - 946_684_800_000_000n;
}
