/** The gateway's replies in all known formats. Pure: values in, text out. */
import { gatewayDate } from './dates.ts';

export const FORMS = ['classic', 'element', 'detail', 'lists'] as const;
/** of an XML reply; JSON has only one format */
export type Form = (typeof FORMS)[number];

export const SPELLINGS = ['own', 'other', 'upper'] as const;
/** of the status words: our own, synonyms, or capitals */
export type Spelling = (typeof SPELLINGS)[number];

const OTHER_WORDS: Readonly<Record<string, string>> = {
  Enroute: 'sent',
  Pending: 'waiting',
  Deleted: 'canceled',
};

/** A status as the gateway spells it. */
export function spelled(spelling: Spelling, status: string): string {
  if (spelling === 'upper') return status.toUpperCase();
  return spelling === 'other' ? (OTHER_WORDS[status] ?? status.toLowerCase()) : status;
}

export interface Answer {
  readonly id?: string | undefined;
  /** epoch ms, or the text itself; undefined: an empty date; null: none at all */
  readonly date?: number | string | null | undefined;
  readonly state: string;
  /** the reason of a rejection */
  readonly error?: string | undefined;
  /** repeated from the request */
  readonly extId?: string | undefined;
}

export function xmlReply(form: Form, { id, date, state, error, extId }: Answer): string {
  const dated = date === null ? '' : ` date='${escapeXml(dateText(date))}'`;
  const word = `<state${error === undefined ? '' : ` error='${escapeXml(error)}'`}>${escapeXml(state)}</state>`;
  const ext = extId === undefined ? '' : ` ext_id='${escapeXml(extId)}'`;
  if (id === undefined) return `<status${dated}${ext}>${word}</status>`;
  const own = escapeXml(id);
  if (form === 'element') return `<status${dated}${ext}><id>${own}</id>${word}</status>`;
  if (form === 'detail') {
    return (
      `<status${dated} reports="waiting"><state>sending</state><total>1</total><queued>0</queued>` +
      `<detail${ext}><id>${own}</id>${word}</detail></status>`
    );
  }
  if (form === 'lists') {
    // another id comes first: a client that takes the first state takes a wrong one
    return (
      `<status groupid='${GROUP}'${dated}${ext}><id>${NEIGHBOUR}</id><id>${own}</id>` +
      `<state>Enroute</state>${word}</status>`
    );
  }
  return `<status id='${own}'${dated}${ext}>${word}</status>`;
}

const GROUP = '1000001';
const NEIGHBOUR = '1000002';

/** The id is written as digits, as the gateway does, even if a double cannot hold them. */
export function jsonReply({ id, date, state, error }: Answer): string {
  if (error !== undefined) return JSON.stringify({ error });
  const dated = date === null ? '' : `"date":${JSON.stringify(dateText(date))},`;
  // a number with most, a text with some
  const took = id?.endsWith('0') === true ? '"3"' : '3';
  const number = id === undefined ? 'null' : /^[1-9][0-9]*$/.test(id) ? id : JSON.stringify(id);
  return `{"state":{"value":${JSON.stringify(state)}},"id":${number},${dated}"execTime":${took}}`;
}

function dateText(date: number | string | undefined): string {
  if (date === undefined) return '';
  return typeof date === 'number' ? gatewayDate(date) : date;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
  '"': '&quot;',
};

function escapeXml(text: string): string {
  return text.replaceAll(/[&<>'"]/g, (character) => ENTITIES[character]!);
}
