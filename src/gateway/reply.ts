/**
 * Parses a reply of the gateway, in all known formats. Pure: bytes in, one of four kinds out. The gateway is known to echo requests, so nothing of the text
 * leaves this file except a status, an id, a date, and an unknown status word if it is a plain word.
 */
import type { RejectReason } from '../metrics.ts';
import { loggableWord, statusOfWord, type Status } from '../status.ts';
import { parseDate } from './date.ts';
import { readJson } from './reply-json.ts';
import { rejectReason } from './reject-reason.ts';
import { ReplyFault, type Fault, type Found } from './reply-fault.ts';
import { readXml } from './reply-xml.ts';

export type Reply =
  | {
      readonly kind: 'status';
      /** the id in the reply; undefined if it has none (a rejection) */
      readonly id: string | undefined;
      readonly status: Status;
      /** an unknown status word: at most 40 characters, empty if it is not a plain word */
      readonly word?: string;
      /** milliseconds since 1970; undefined if the date is empty, absent or invalid */
      readonly date: number | undefined;
      /** of a Rejected SMS */
      readonly reason?: RejectReason;
    }
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'unauthorized' }
  | { readonly kind: 'protocol'; readonly why: Fault };

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Parses a reply to a status request for `asked`; undefined after sending, when any id is valid. The first character tells the format. An answer about another
 * id, or without an id unless the SMS was rejected, is a mismatch. Never throws.
 */
export function parseReply(body: Uint8Array, asked: string | undefined): Reply {
  try {
    return validate(read(decode(body), asked), asked);
  } catch (error) {
    const why = error instanceof ReplyFault ? error.why : 'xml';
    if (why === 'mismatch' || why === 'unauthorized') return { kind: why };
    return { kind: 'protocol', why };
  }
}

function decode(body: Uint8Array): string {
  try {
    return utf8.decode(body).trim();
  } catch {
    throw new ReplyFault('encoding');
  }
}

function read(text: string, asked: string | undefined): Found {
  if (text === '') throw new ReplyFault('empty');
  if (text.startsWith('<')) return readXml(text, asked);
  if (text.startsWith('{')) return readJson(text);
  if (/^401\b|^unauthori[sz]ed\b/i.test(text)) throw new ReplyFault('unauthorized');
  throw new ReplyFault(/^request not recognized/i.test(text) ? 'not_recognized' : 'plain_text');
}

function validate(found: Found, asked: string | undefined): Reply {
  const status = statusOfWord(found.word);
  if (found.id === undefined) {
    // only a rejection with a reason may have no id: the gateway created no SMS
    if (status !== 'Rejected' || found.error === undefined)
      throw new ReplyFault(found.error === undefined ? 'mismatch' : 'gateway_error');
  } else if (asked !== undefined && found.id !== asked) {
    throw new ReplyFault('mismatch');
  }
  return {
    kind: 'status',
    id: found.id,
    status: status ?? 'Unknown',
    ...(status === undefined ? { word: loggableWord(found.word) } : {}),
    date: parseDate(found.date),
    ...(status === 'Rejected' ? { reason: rejectReason(found.error ?? '') } : {}),
  };
}
