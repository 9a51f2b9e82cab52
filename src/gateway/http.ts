/**
 * The only file that uses undici: one POST at a time on each connection, bounded in time and size, with its body always read to the end. No redirects, no
 * HTTP/2, no pipelining. It handles undici's events directly, because a stream and a signal for each reply would double the cost of a request.
 */
import { buildConnector, EnvHttpProxyAgent, Pool, type Dispatcher } from 'undici';
import { codeOf, SmslogdError } from '../errors.ts';
import { tlsTroubleOf } from '../tls-failure.ts';
import type { GatewayTls } from './certificates.ts';
import { parseDate } from './date.ts';
import type { Deadline, Deadlines } from './deadlines.ts';

const MAX_REPLY_BYTES = 16 * 1024;
const NOTHING = new Uint8Array();

/** How a request ended, before its body is parsed. */
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
  /** `cause`: the code of the failure, such as ECONNREFUSED or CERT_HAS_EXPIRED */
  | { readonly kind: 'network'; readonly cause?: string }
  /** not HTTP, or more than 16 KiB */
  | { readonly kind: 'garbage' }
  /** nothing was sent: the gateway id has invalid characters */
  | { readonly kind: 'unsendable' };

export interface Poster {
  /** `again`: retries once if the connection was reset before the first byte. Never rejects. */
  post(headers: Readonly<Record<string, string>>, body: string, again: boolean): Promise<Exchange>;
  /** ends the requests in flight as `network` */
  close(): Promise<void>;
}

/**
 * Opens no connection before the first request. `timeout`: milliseconds, also to connect; `deadlines` apply to the whole request. Uses a proxy from the
 * environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY). Throws config_invalid for one that is none.
 */
export function createPoster(
  address: URL,
  connections: number,
  timeout: number,
  deadlines: Deadlines,
  tls: GatewayTls = {},
): Poster {
  const options = {
    connections,
    pipelining: 1,
    allowH2: false,
    maxResponseSize: MAX_REPLY_BYTES,
    headersTimeout: timeout,
    bodyTimeout: timeout,
    keepAliveTimeout: 30_000,
    // the gateway may ask for less in its Keep-Alive header, not for more
    keepAliveMaxTimeout: 30_000,
    connect: connectorOf(tls, timeout),
  };
  const name = PROXIES[address.protocol]?.find((each) => (process.env[each] ?? '') !== '');
  const pool =
    name === undefined
      ? new Pool(address.origin, options)
      : throughProxy(name, (uri) => new EnvHttpProxyAgent({ ...options, ...uri, requestTls: { ...tls } }));
  const path = `${address.pathname}${address.search}`;
  return {
    post: (headers, body, again) =>
      new Promise((resolve) => {
        const request = { origin: address.origin, method: 'POST', path, headers, body } as const;
        const send = () => void pool.dispatch(request, reply);
        const reply = new Reply(resolve, deadlines, again ? send : undefined);
        send();
      }),
    close: () => pool.destroy(),
  };
}

/** The names that most programs use, by the scheme of the address, as they are looked up. */
const PROXIES: Readonly<Record<string, readonly string[]>> = {
  'https:': ['https_proxy', 'HTTPS_PROXY'],
  'http:': ['http_proxy', 'HTTP_PROXY'],
};

export const PROXY_NAMES: readonly string[] = Object.values(PROXIES).flat();

/** The agent for the proxy in the variable `name`; as for curl, one without a scheme speaks HTTP. */
function throughProxy<T>(name: string, agent: (uri: { httpProxy: string; httpsProxy: string }) => T): T {
  const given = process.env[name] ?? '';
  const uri = given.includes('://') ? given : `http://${given}`;
  try {
    return agent({ httpProxy: uri, httpsProxy: uri });
  } catch (cause) {
    const sentence = `wrong settings:\n  ${name}: must be an address such as http://proxy.example:3128`;
    throw new SmslogdError('config_invalid', sentence, { cause });
  }
}

/** With TLS 1.3 the gateway checks our certificate after the handshake; without this undici would report only the end of the connection. */
function connectorOf(tls: GatewayTls, timeout: number): buildConnector.connector {
  const connector = buildConnector({ ...tls, allowH2: false, timeout });
  return (options, done) =>
    connector(options, (...result) => {
      const [, socket] = result;
      socket?.prependOnceListener('error', (error) => {
        if (tlsTroubleOf(codeOf(error) ?? '') !== undefined) socket.destroy(error);
      });
      done(...result);
    });
}

/** Collects one reply and resolves once with how it ended. */
class Reply implements Dispatcher.DispatchHandler {
  private readonly resolve: (exchange: Exchange) => void;
  private readonly deadline: Deadline;
  private again: (() => void) | undefined;
  private controller: Dispatcher.DispatchController | undefined;
  private over = false;
  private status = 0;
  private retryAfter: string | undefined;
  private date: string | undefined;
  private body: Uint8Array = NOTHING;

  constructor(resolve: (exchange: Exchange) => void, deadlines: Deadlines, again: (() => void) | undefined) {
    this.resolve = resolve;
    this.again = again;
    this.deadline = deadlines.begin(() => {
      this.failed(TIMEOUT);
      this.controller?.abort(TIMEOUT);
    });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    // it timed out while it waited for a connection: another daemon may have claimed the SMS
    if (this.over || this.late()) controller.abort(TIMEOUT);
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    // 1xx: the reply follows
    if (status < 200) return;
    this.status = status;
    this.retryAfter = first(headers['retry-after']);
    this.date = first(headers['date']);
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.body = this.body.length === 0 ? chunk : Buffer.concat([this.body, chunk]);
  }

  onResponseEnd(): void {
    this.ended(this.response(this.body));
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.failed(error);
  }

  private late(): boolean {
    return performance.now() >= this.deadline.endsAt;
  }

  private failed(error: Error): void {
    if (this.over) return;
    const { again } = this;
    // the gateway closed an idle connection while we were writing: no answer had started, and a status request is safe to repeat
    if (again !== undefined && this.status === 0 && isReset(error) && !this.late()) {
      this.again = undefined;
      again();
      return;
    }
    // for other statuses than 200 the head is enough: the body may be long, or truncated
    this.ended(this.status === 0 || this.status === 200 ? exchangeOf(error) : this.response(NOTHING));
  }

  private response(body: Uint8Array): Exchange {
    const now = Date.now();
    const gatewayTime = timeOf(this.date);
    return {
      kind: 'response',
      status: this.status,
      body,
      retryAfterMs: readRetryAfter(this.retryAfter, gatewayTime ?? now),
      // the header has whole seconds: on average it is half a second behind
      clockOffsetMs: gatewayTime === undefined ? undefined : gatewayTime + 500 - now,
    };
  }

  private ended(exchange: Exchange): void {
    if (this.over) return;
    this.over = true;
    this.deadline.end();
    this.resolve(exchange);
  }
}

function first(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

/** Retry-After in seconds or as a date, as milliseconds from `now` (the gateway's time, if known); undefined if it is neither. */
export function readRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,40}$/.test(value.trim())) return Number(value) * 1000;
  const date = parseDate(value);
  return date === undefined ? undefined : Math.max(0, date - now);
}

let known: { readonly text: string; readonly at: number | undefined } = { text: '', at: undefined };

/** The gateway's time from its Date header, cached because many replies have the same. */
function timeOf(date: string | undefined): number | undefined {
  if (date === undefined) return undefined;
  if (known.text !== date) known = { text: date, at: parseDate(date) };
  return known.at;
}

const TIMEOUT = Object.assign(new Error('the request timed out'), { name: 'TimeoutError' });

function exchangeOf(error: Error): Exchange {
  const { name = '', code = '' } = error as { name?: string; code?: string };
  const refusal = /^Proxy response \((\d{3})\)/.exec(error.message)?.[1];
  if (refusal !== undefined) return { kind: 'network', cause: `PROXY_${refusal}` };
  if (name === 'TimeoutError' || name === 'AbortError' || code.endsWith('_TIMEOUT')) return { kind: 'timeout' };
  if (name === 'HTTPParserError' || GARBAGE.has(code)) return { kind: 'garbage' };
  const cause = codeOf(error);
  return { kind: 'network', ...(cause !== undefined && /^[A-Z][A-Z0-9_]{1,60}$/.test(cause) ? { cause } : {}) };
}

const GARBAGE = new Set([
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  // a status code of 000
  'ERR_ASSERTION',
]);

function isReset(error: Error): boolean {
  const { code = '' } = error as { code?: string };
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'UND_ERR_SOCKET';
}
