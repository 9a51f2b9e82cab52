/** Parses a client's request: a status request or a message to send, in XML or JSON. Undefined: not recognized. */
import { parseXml, XmlElement } from '@rgrove/parse-xml';
import * as z from 'zod';

export interface Message {
  /** single, bulk or individual */
  readonly mode: string;
  readonly source: string | undefined;
  readonly uniqueKey: string | undefined;
  readonly to: readonly { readonly number: string; readonly extId: string | undefined }[];
  readonly body: string;
}

const XML_STATUS =
  /^\s*(?:<\?xml[^>]*\?>\s*)?<request\s+id\s*=\s*(["'])([A-Za-z0-9_-]{1,64})\1\s*>\s*(?:status|state)\s*<\/request>\s*$/;
const JSON_ID = /"id"\s*:\s*"?([A-Za-z0-9_-]{1,64})"?\s*[,}]/;
const JSON_STATE = /"value"\s*:\s*"(?:state|status)"/;

/** The id of a status request. It uses regular expressions, because thousands come each second and a JSON id must keep all its digits. */
export function askedId(text: string, json: boolean): string | undefined {
  if (!json) return XML_STATUS.exec(text)?.[2];
  return JSON_STATE.test(text) ? JSON_ID.exec(text)?.[1] : undefined;
}

/** The message of a sending request. */
export function sentMessage(text: string, json: boolean): Message | undefined {
  try {
    return json ? jsonMessage(JSON.parse(text)) : xmlMessage(text);
  } catch {
    return undefined;
  }
}

function xmlMessage(text: string): Message | undefined {
  const { root } = parseXml(text);
  if (root?.name !== 'message') return undefined;
  const children = root.children.filter((node) => node instanceof XmlElement);
  const service = children.find(({ name }) => name === 'service');
  if (service === undefined) return undefined;
  const { id, source, uniq_key: uniqueKey } = service.attributes;
  return {
    mode: id ?? 'single',
    source,
    uniqueKey,
    to: children
      .filter(({ name }) => name === 'to')
      .map((to) => ({ number: to.text.trim(), extId: to.attributes['ext_id'] })),
    body: children.find(({ name }) => name === 'body')?.text ?? '',
  };
}

const JSON_MESSAGE = z.object({
  id: z.string().default('single'),
  source: z.string().optional(),
  uniq_key: z.string().optional(),
  to: z.array(z.object({ msisdn: z.coerce.string(), ext_id: z.coerce.string().optional() })),
  body: z.object({ value: z.string().default('') }),
});

function jsonMessage(value: unknown): Message {
  const { id, source, uniq_key: uniqueKey, to, body } = JSON_MESSAGE.parse(value);
  return {
    mode: id,
    source,
    uniqueKey,
    to: to.map(({ msisdn, ext_id: extId }) => ({ number: msisdn, extId })),
    body: body.value,
  };
}

/** Why the gateway rejects `message`, in its own words; undefined if it accepts it. The caller checks for used keys. */
export function refusal(message: Message, isUsed: (uniqueKey: string) => boolean): string | undefined {
  if (message.body.trim() === '') return 'Message text not found';
  if (message.mode !== 'single' && message.to.length < 2) {
    return '2 or more numbers required for bulk or individual mode';
  }
  const numbers = message.to.map(({ number }) => number.replace(/^\+/, ''));
  if (numbers.length === 0 || !numbers.every((number) => /^[0-9]{10,15}$/.test(number)))
    return 'Invalid abonent number';
  const foreign = numbers.find((number) => !number.startsWith('380') || number.length !== 12);
  if (foreign !== undefined) return `Unknown operator code ${foreign.slice(0, 3)}`;
  // an alpha name has at most 11 characters; without one the account's own is used
  if (message.source !== undefined && !/^[\x20-\x7e]{1,11}$|^\+?[0-9]{3,15}$/.test(message.source)) {
    return 'Invalid source number';
  }
  if (message.uniqueKey !== undefined && isUsed(message.uniqueKey)) return 'uniq_key dupe';
  return undefined;
}

/** Reasons about the account or the text, for the fault `reject`. */
export const CHANCE_REFUSALS = [
  'Prepaid messages limit exceed',
  'Prepaid bill error',
  'Text don`t match allowed templates',
] as const;
