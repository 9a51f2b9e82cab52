/**
 * The end of an answer in its middle, for postgres.js, which takes what is left of that answer over: an error that ends a session is told to the next one's first
 * statement, since it tells errors once the server is ready again, and what has come of a result that an error or the session's end cuts off is counted to the rows
 * of the next statement.
 */
import { codeOf } from '../errors.ts';
import { errorOf, framed } from './messages.ts';

const [DATA_ROW, COMMAND_COMPLETE, ERROR_RESPONSE, NOTICE, READY] = Buffer.from('DCENZ');
/** Codes of a notice after which the session is over: the server goes down at once, or another process of it crashed. */
const FAREWELL = new Set(['57P01', '57P02']);
/** What ends a result that is not complete. */
const COMPLETE = framed('C', Buffer.from('\0'));

/** A session's messages, from the end of its login on. */
export class Answers {
  private pieces: Buffer[] = [];
  private length = 0;
  /** until the next message is whole */
  private needed = 5;
  /** the messages whose answer is not complete, as the last ones were */
  private inRows = false;
  private inError = false;
  /** why the server ended the session, where it said so */
  reason: Error | undefined;

  /** Takes what came, in any pieces, and returns what is whole of it, without the error that ends the session; a result that an error cuts off is completed. */
  take(piece: Buffer): Buffer {
    this.pieces.push(piece);
    this.length += piece.length;
    if (this.length < this.needed) return Buffer.alloc(0);
    const bytes = this.pieces.length === 1 ? piece : Buffer.concat(this.pieces);
    const given: Buffer[] = [];
    let from = 0;
    let at = 0;
    for (;;) {
      const end = at + 5 > bytes.length ? at + 5 : at + 1 + bytes.readUInt32BE(at + 1);
      this.needed = end - at;
      if (end > bytes.length) break;
      const type = bytes[at];
      if (type === ERROR_RESPONSE) {
        const error = errorOf(bytes.subarray(at + 5, end));
        // poolers have one field for it
        if ((error.severity ?? error.severity_local) !== 'ERROR') {
          this.reason ??= error;
          // nothing follows it
          break;
        }
        if (this.inRows) {
          given.push(bytes.subarray(from, at), COMPLETE);
          from = at;
          this.inRows = false;
        }
      }
      if (type === NOTICE) {
        const notice = errorOf(bytes.subarray(at + 5, end));
        if (FAREWELL.has(codeOf(notice) ?? '')) this.reason ??= notice;
      }
      if (type === DATA_ROW) this.inRows = true;
      else if (type === COMMAND_COMPLETE || type === READY) this.inRows = false;
      if (type === ERROR_RESPONSE) this.inError = true;
      else if (type === READY) this.inError = false;
      at = end;
    }
    this.pieces = at === bytes.length ? [] : [bytes.subarray(at)];
    this.length = bytes.length - at;
    const last = bytes.subarray(from, at);
    return given.length === 0 ? last : Buffer.concat([...given, last]);
  }

  /** What completes the answer of a session that is over, so that nothing is left of it. */
  rest(): Buffer {
    return Buffer.concat([
      ...(this.inRows ? [COMPLETE] : []),
      ...(this.inError ? [framed('Z', Buffer.from('I'))] : []),
    ]);
  }
}
