/**
 * What a gateway's reply says, in every form of ip2sms.md. Pure: bytes in, one of four kinds out. Nothing of the reply's text leaves this
 * file but a status, an id, a date, and an unknown status word when it is a plain word: the gateway is known to echo requests.
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
      /** the id that the reply names; undefined where it names none (a rejection) */
      readonly id: string | undefined;
      readonly status: Status;
      /** the status word where it is not in our table: at most 40 characters, empty where it is not a plain word */
      readonly word?: string;
      /** milliseconds since 1970; undefined where the date is empty, absent or broken */
      readonly date: number | undefined;
      readonly badDate: boolean;
      /** of a Rejected SMS */
      readonly reason?: RejectReason;
    }
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'unauthorized' }
  | { readonly kind: 'protocol'; readonly why: Fault };

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads a reply to a question about `asked`; undefined after sending, where any one id is right. The form is told by the first character,
 * whatever was asked in. An answer about another id, or without an id where the SMS was not rejected, is a mismatch. Never throws.
 */
export function parseReply(body: Uint8Array, asked: string | undefined): Reply {
  try {
    return judge(read(decode(body), asked), asked);
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

function judge(found: Found, asked: string | undefined): Reply {
  const status = statusOfWord(found.word);
  if (found.id === undefined) {
    // only a rejection with its reason may come without an id: there is no SMS that could have one
    if (status !== 'Rejected' || found.error === undefined)
      throw new ReplyFault(found.error === undefined ? 'mismatch' : 'gateway_error');
  } else if (asked !== undefined && found.id !== asked) {
    throw new ReplyFault('mismatch');
  }
  const date = parseDate(found.date);
  return {
    kind: 'status',
    id: found.id,
    status: status ?? 'Unknown',
    ...(status === undefined ? { word: loggableWord(found.word) } : {}),
    date,
    badDate: date === undefined,
    ...(status === 'Rejected' ? { reason: rejectReason(found.error ?? '') } : {}),
  };
}
