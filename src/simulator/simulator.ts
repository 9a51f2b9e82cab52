/**
 * An IP2SMS gateway over HTTP, built to the facts that are known of the real one; gateway.ts decides what it says.
 *
 *   POST /ip2sms/           sending         POST /clients.php   both, as some installations have it
 *   POST /ip2sms-request/   status          GET, PUT /truth     for rehearsals: what became of the SMS (truth-endpoint.ts)
 *
 * A request that is not recognised is answered with 200 and a text that repeats it: a client must neither trust the 200 nor log the text.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SmslogdError } from '../errors.ts';
import type { Fate } from './fate.ts';
import { drawFault, type Faults } from './faults.ts';
import { createGateway, type GatewayOptions, type Service } from './gateway.ts';
import { answerTruth } from './truth-endpoint.ts';

export interface SimulatorOptions extends Partial<GatewayOptions> {
  /** default: any free one */
  readonly port?: number;
  /** default 127.0.0.1 */
  readonly host?: string;
  readonly login: string;
  readonly password: string;
  readonly faults?: Faults;
}

/** How many requests there were, by what became of them. */
export interface Requests {
  status: number;
  send: number;
  /** a wrong login, really or by a fault */
  unauthorized: number;
  unrecognized: number;
  /** those that a fault befell; only where it merely spoiled the reply, they are counted above as well */
  faults: number;
}

export interface Simulator {
  /** where SMS are sent: http://HOST:PORT/ip2sms/ */
  readonly url: string;
  readonly requests: Readonly<Requests>;
  /** SMS that are known */
  readonly size: number;
  /** truth that was made elsewhere */
  load(id: string, fate: Fate): void;
  /** sends from within the process: as over HTTP, without its faults and refusals */
  send(phone: string): { id: string; fate: Fate };
  fate(id: string): Fate | undefined;
  setFaults(faults: Faults): void;
  /** ends the connections, whatever is under way on them */
  close(): Promise<void>;
}

/** A longer request body is not kept. */
const MAX_BODY = 64 * 1024;

const SENDING = '/ip2sms/';
const SERVICES = new Map<string, Service>([
  [SENDING, 'send'],
  ['/ip2sms-request/', 'status'],
  ['/clients.php', 'both'],
]);
const PLAIN = 'text/plain; charset=utf-8';
const NOT_RECOGNIZED = 'Request not recognized - xml parse failed. Request text: ';

/** Starts listening. Throws port_in_use. */
export async function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const { host = '127.0.0.1', random = Math.random, now = Date.now } = options;
  const gateway = createGateway({ ...options, random, now });
  const authorization = `Basic ${Buffer.from(`${options.login}:${options.password}`).toString('base64')}`;
  const requests: Requests = { status: 0, send: 0, unauthorized: 0, unrecognized: 0, faults: 0 };
  let faults = options.faults ?? {};

  const respond = (response: ServerResponse, status: number, type: string, body: string, more = {}) => {
    const date = new Date(now() + (faults.skewMs ?? 0)).toUTCString();
    response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), date, ...more });
    response.end(body);
  };

  const answer = (request: IncomingMessage, response: ServerResponse, service: Service, text: string) => {
    const fault = drawFault(faults, random);
    if (fault !== undefined) requests.faults += 1;
    if (request.headers.authorization !== authorization || fault === 'unauthorized') {
      requests.unauthorized += 1;
      return respond(response, 401, PLAIN, '401 Unauthorized', { 'www-authenticate': 'Basic realm="ip2sms"' });
    }
    if (fault === 'silence') return;
    if (fault === 'reset') return void request.socket.resetAndDestroy();
    if (fault === 'error')
      return respond(response, 503, 'text/html', '<html><body>503 Service Unavailable</body></html>');
    if (fault === 'busy') {
      return respond(response, 429, PLAIN, 'Too many requests', { 'retry-after': String(faults.retryAfter ?? 1) });
    }
    if (fault === 'plain') return respond(response, 200, PLAIN, NOT_RECOGNIZED + text);
    const json = (request.headers['content-type'] ?? '').startsWith('application/json');
    const reply = gateway.reply({ service, json, text }, faults, fault);
    requests[reply?.to ?? 'unrecognized'] += 1;
    if (reply === undefined) return respond(response, 200, PLAIN, NOT_RECOGNIZED + text);
    const body = fault === 'broken' ? reply.text.slice(0, reply.text.length / 2) : reply.text;
    respond(response, 200, json ? 'application/json; charset=utf-8' : 'text/xml; charset=utf-8', body);
  };

  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const path = request.url?.split('?', 1)[0] ?? '/';
    if (path === '/truth') {
      if (request.headers.authorization === authorization) return answerTruth(gateway.truth, request, response);
      return respond(response, 401, PLAIN, '401 Unauthorized');
    }
    const service = SERVICES.get(path);
    if (service === undefined) return respond(response, 404, PLAIN, '404 Not Found');
    if (request.method !== 'POST') return respond(response, 405, PLAIN, '405 Method Not Allowed', { allow: 'POST' });
    request.setEncoding('utf8');
    let text = '';
    request.on('data', (chunk: string) => {
      if (text.length <= MAX_BODY) text += chunk;
    });
    request.on('end', () => {
      if (text.length > MAX_BODY) return respond(response, 413, PLAIN, '413 Payload Too Large');
      const wait = (faults.latencyMs ?? 0) + (faults.jitterMs ?? 0) * random();
      if (wait > 0) setTimeout(answer, wait, request, response, service, text);
      else answer(request, response, service, text);
    });
  });

  server.listen(options.port ?? 0, host);
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new SmslogdError('port_in_use', `the simulator cannot listen on ${host}, port ${options.port ?? 0}`, {
      cause,
      hint: 'Choose another port, or stop what listens there.',
    });
  }
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}${SENDING}`,
    requests,
    get size() {
      return gateway.truth.size;
    },
    load: (id, fate) => gateway.truth.set(id, fate),
    send: (phone) => gateway.send(phone),
    fate: (id) => gateway.truth.get(id),
    setFaults: (next) => {
      faults = next;
    },
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
