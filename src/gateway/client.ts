/** The two requests to the gateway, in XML and JSON. Values are escaped, and a gateway id with other characters than the allowed ones is never sent. */
import type { Config } from '../settings.ts';
import { gatewayTls, type GatewayTls } from './certificates.ts';
import type { Credentials } from './credentials.ts';
import { createDeadlines } from './deadlines.ts';
import { createPoster, type Exchange, type Poster } from './http.ts';

export type { Exchange };

const PLAIN_ID = /^[A-Za-z0-9_-]{1,64}$/;

export interface Sms {
  /** digits only */
  readonly to: string;
  readonly text: string;
}

export interface Gateway {
  askStatus(gatewayId: string): Promise<Exchange>;
  sendSms(sms: Sms): Promise<Exchange>;
  /** ends the requests in flight as `network` */
  close(): Promise<void>;
}

type GatewayConfig = Pick<
  Config,
  | 'IP2SMS_URL'
  | 'IP2SMS_STATUS_URL'
  | 'IP2SMS_CA_FILE'
  | 'IP2SMS_CERT_FILE'
  | 'IP2SMS_KEY_FILE'
  | 'IP2SMS_FORMAT'
  | 'IP2SMS_SOURCE'
  | 'IP2SMS_TIMEOUT_MS'
  | 'IP2SMS_MAX_CONCURRENCY'
  | 'SMS_STATUSES_EXPIRATION'
>;

/** Calls `credentials` for each request; `tls`: where the files were read before. Opens no connection before the first request. */
export function createGateway(
  config: GatewayConfig,
  credentials: () => Credentials,
  tls: GatewayTls = gatewayTls(config),
): Gateway {
  const json = config.IP2SMS_FORMAT === 'json';
  const timeout = config.IP2SMS_TIMEOUT_MS;
  const deadlines = createDeadlines(timeout);
  const open = (address: string | undefined, connections: number) =>
    createPoster(new URL(address ?? ''), connections, timeout, deadlines, tls);
  const asking = open(config.IP2SMS_STATUS_URL, config.IP2SMS_MAX_CONCURRENCY);
  const sending = open(config.IP2SMS_URL, 1);

  let known: Credentials | undefined;
  let headers: Readonly<Record<string, string>> = {};
  const post = (poster: Poster, body: string, again: boolean): Promise<Exchange> => {
    const { login, password } = credentials();
    if (login !== known?.login || password !== known.password) {
      known = { login, password };
      headers = {
        authorization: `Basic ${Buffer.from(`${login}:${password}`).toString('base64')}`,
        'content-type': json ? 'application/json; charset=utf-8' : 'text/xml; charset=utf-8',
        // without it the gateway could use any coding
        'accept-encoding': 'identity',
      };
    }
    return poster.post(headers, body, again);
  };

  return {
    async askStatus(gatewayId) {
      if (!PLAIN_ID.test(gatewayId)) return { kind: 'unsendable' };
      return await post(asking, json ? jsonQuestion(gatewayId) : `<request id="${gatewayId}">status</request>`, true);
    },
    async sendSms(sms) {
      const validity = Math.max(1, Math.round(config.SMS_STATUSES_EXPIRATION));
      const body = json ? jsonMessage(sms, config.IP2SMS_SOURCE) : xmlMessage(sms, config.IP2SMS_SOURCE, validity);
      // no retry: the gateway may have accepted the first request
      return await post(sending, body, false);
    },
    async close() {
      await Promise.all([asking.close(), sending.close()]);
    },
  };
}

function jsonQuestion(id: string): string {
  // a JSON number has no leading zeros, which an id may have
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

/** Escapes for XML text and attributes; characters that XML 1.0 does not allow are omitted. */
export function escapeXml(text: string): string {
  return (
    // lone surrogates become U+FFFD, because UTF-8 has none
    Buffer.from(text)
      .toString()
      // oxlint-disable-next-line no-control-regex -- these are the characters to remove
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '')
      .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
  );
}
