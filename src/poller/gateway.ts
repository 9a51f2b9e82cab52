/**
 * The only file that knows undici: one POST at a time to the gateway, bounded in time and size, its body always read to the end. No redirects,
 * no HTTP/2, no pipelining. Requests are built with escaping, and an id that is not plain is never sent.
 */
import { Pool } from 'undici';
import type { Config } from '../config.ts';
import { parseDate } from './date.ts';
import type { Credentials } from './credentials.ts';

const MAX_REPLY_BYTES = 16 * 1024;
const NOTHING = new Uint8Array();
const PLAIN_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** How one request ended, before its body is understood. */
export type Exchange =
  | {
      readonly kind: 'response';
      readonly status: number;
      readonly body: Uint8Array;
      readonly retryAfterMs: number | undefined;
      /** the gateway's clock minus ours in milliseconds, from the Date header */
      readonly clockOffsetMs: number | undefined;
    }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'network' }
  /** not HTTP, or more than 16 KiB */
  | { readonly kind: 'garbage' }
  /** nothing was sent: the id is not one that may be */
  | { readonly kind: 'unsendable' };

export interface Sms {
  /** digits only */
  readonly to: string;
  readonly text: string;
}

export interface Gateway {
  askStatus(gatewayId: string): Promise<Exchange>;
  sendSms(sms: Sms): Promise<Exchange>;
  /** ends every request that is under way as `network` */
  close(): Promise<void>;
}

type GatewayConfig = Pick<
  Config,
  | 'IP2SMS_URL'
  | 'IP2SMS_STATUS_URL'
  | 'IP2SMS_FORMAT'
  | 'IP2SMS_SOURCE'
  | 'IP2SMS_TIMEOUT_MS'
  | 'IP2SMS_MAX_CONCURRENCY'
  | 'SMS_STATUSES_EXPIRATION'
>;

/** `credentials` is asked for each request. Opens no connection before the first request. */
export function createGateway(config: GatewayConfig, credentials: () => Credentials): Gateway {
  const json = config.IP2SMS_FORMAT === 'json';
  const timeout = config.IP2SMS_TIMEOUT_MS;
  const sending = new URL(config.IP2SMS_URL ?? '');
  const asking = new URL(config.IP2SMS_STATUS_URL ?? '');
  const open = (address: URL, connections: number) =>
    new Pool(address.origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      maxResponseSize: MAX_REPLY_BYTES,
      connectTimeout: timeout,
      headersTimeout: timeout,
      bodyTimeout: timeout,
      keepAliveTimeout: 30_000,
      // the gateway may ask for less in its Keep-Alive header, not for more
      keepAliveMaxTimeout: 30_000,
    });
  const askPool = open(asking, config.IP2SMS_MAX_CONCURRENCY);
  const sendPool = open(sending, 1);
  const contentType = json ? 'application/json; charset=utf-8' : 'text/xml; charset=utf-8';

  const post = async (pool: Pool, address: URL, body: string, signal: AbortSignal): Promise<Exchange> => {
    const { login, password } = credentials();
    const response = await pool.request({
      method: 'POST',
      path: `${address.pathname}${address.search}`,
      headers: {
        authorization: `Basic ${Buffer.from(`${login}:${password}`).toString('base64')}`,
        'content-type': contentType,
        // without it any coding would be right
        'accept-encoding': 'identity',
      },
      body,
      signal,
    });
    const header = (name: string) => {
      const value = response.headers[name];
      return Array.isArray(value) ? value[0] : value;
    };
    let reply: Uint8Array = NOTHING;
    try {
      reply = await response.body.bytes();
    } catch (error) {
      // the reply had begun: no reason to ask again at once. What is no 200 has said all by then: the page with it may be long, or cut.
      if (response.statusCode === 200) return ended(error);
    }
    const sentDate = parseDate(header('date') ?? '');
    return {
      kind: 'response',
      status: response.statusCode,
      body: reply,
      retryAfterMs: readRetryAfter(header('retry-after'), Date.now()),
      // the header has whole seconds: half a second is its mean error
      clockOffsetMs: sentDate === undefined ? undefined : sentDate + 500 - Date.now(),
    };
  };

  return {
    async askStatus(gatewayId) {
      if (!PLAIN_ID.test(gatewayId)) return { kind: 'unsendable' };
      const body = json ? jsonQuestion(gatewayId) : `<request id="${gatewayId}">status</request>`;
      const signal = AbortSignal.timeout(timeout);
      try {
        return await post(askPool, asking, body, signal);
      } catch (error) {
        // the gateway closed an idle connection while we were writing: no answer had begun, and asking twice does no harm
        if (!isReset(error) || askPool.destroyed) return ended(error);
        return await post(askPool, asking, body, signal).catch(ended);
      }
    },
    async sendSms(sms) {
      const validity = Math.max(1, Math.round(config.SMS_STATUSES_EXPIRATION));
      const body = json ? jsonMessage(sms, config.IP2SMS_SOURCE) : xmlMessage(sms, config.IP2SMS_SOURCE, validity);
      // never twice: the first one may have been taken
      return await post(sendPool, sending, body, AbortSignal.timeout(timeout)).catch(ended);
    },
    async close() {
      await Promise.all([askPool.destroy(), sendPool.destroy()]);
    },
  };
}

function jsonQuestion(id: string): string {
  // a JSON number has no leading zero, and an id must keep its own
  const number = /^(?:0|[1-9]\d*)$/.test(id) ? id : JSON.stringify(id);
  return `{"extended":true,"id":${number},"value":"state"}`;
}

function jsonMessage({ to, text }: Sms, source: string | undefined): string {
  return JSON.stringify({
    id: 'single',
    extended: true,
    ...(source === undefined ? {} : { source }),
    to: [{ msisdn: to }],
    body: { value: text },
  });
}

function xmlMessage({ to, text }: Sms, source: string | undefined, validityMinutes: number): string {
  const from = source === undefined ? '' : ` source="${escapeXml(source)}"`;
  return (
    `<message><service id="single"${from} validity="+${validityMinutes} min"/><to>${escapeXml(to)}</to>` +
    `<body content-type="text/plain">${escapeXml(text)}</body></message>`
  );
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
};

/** Escapes for XML text and attributes; characters that XML 1.0 has not at all are left out. */
export function escapeXml(text: string): string {
  return (
    // UTF-8 has no lone surrogates: they become U+FFFD
    Buffer.from(text)
      .toString()
      // oxlint-disable-next-line no-control-regex -- these are the characters that must not be there
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '')
      .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
  );
}

/** Retry-After in seconds or as a date, as milliseconds from `now`; undefined where it is neither. */
export function readRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  const date = parseDate(value);
  return date === undefined ? undefined : Math.max(0, date - now);
}

function ended(error: unknown): Exchange {
  const { name = '', code = '' } = error as { name?: string; code?: string };
  if (name === 'TimeoutError' || name === 'AbortError' || code.endsWith('_TIMEOUT')) return { kind: 'timeout' };
  if (name === 'HTTPParserError' || GARBAGE.has(code)) return { kind: 'garbage' };
  return { kind: 'network' };
}

const GARBAGE = new Set([
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
]);

function isReset(error: unknown): boolean {
  const { code = '' } = error as { code?: string };
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET';
}
