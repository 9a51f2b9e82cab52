/**
 * A simulated IP2SMS gateway over HTTP; gateway.ts decides about the answers.
 *
 *   POST /ip2sms/           sending         POST /clients.php   both, as some installations have it
 *   POST /ip2sms-request/   status          GET, PUT /truth     the fates of the SMS (truth-endpoint.ts)
 *                                           GET, PUT, DELETE /faults   the faults (faults-endpoint.ts)
 *
 * As the real gateway does, it answers an unrecognized request with 200 and a text that repeats it: a client must neither trust the 200 nor log the text.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SmslogdError } from '../errors.ts';
import type { Fate } from './fate.ts';
import { answerFaults, type FaultsControl } from './faults-endpoint.ts';
import { drawFault, drawLatency, type Faults } from './faults.ts';
import { createSimulatedGateway, type GatewayOptions, type Service } from './gateway.ts';
import { INSTEAD, SPOILED } from './spoiled.ts';
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

/** The numbers of requests by their result. */
export interface Requests {
  status: number;
  send: number;
  /** a wrong login, or the fault of it */
  unauthorized: number;
  unrecognized: number;
  /** requests with a fault; if it only changed the reply's content they are also counted above */
  faults: number;
}

export interface Simulator {
  /** where SMS are sent: http://HOST:PORT/ip2sms/ */
  readonly url: string;
  readonly requests: Readonly<Requests>;
  /** SMS that are known */
  readonly size: number;
  /** loads fates */
  load(id: string, fate: Fate): void;
  /** sends from within the process: as over HTTP, without faults and rejections */
  send(phone: string): { id: string; fate: Fate };
  fate(id: string): Fate | undefined;
  readonly faults: Faults;
  setFaults(faults: Faults): void;
  /** closes all connections at once */
  close(): Promise<void>;
}

/** The longest request body that is read. */
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
  const gateway = createSimulatedGateway({ ...options, random, now });
  const authorization = `Basic ${Buffer.from(`${options.login}:${options.password}`).toString('base64')}`;
  const requests: Requests = { status: 0, send: 0, unauthorized: 0, unrecognized: 0, faults: 0 };
  const control: FaultsControl = { requests, now, faults: options.faults ?? {} };

  const respond = (response: ServerResponse, status: number, type: string, body: string, more = {}) => {
    head(response, status, type, Buffer.byteLength(body), more).end(body);
  };
  const head = (response: ServerResponse, status: number, type: string, length: number, more = {}) => {
    const date = new Date(now() + (control.faults.skewMs ?? 0)).toUTCString();
    return response.writeHead(status, { 'content-type': type, 'content-length': length, date, ...more });
  };

  const answer = (request: IncomingMessage, response: ServerResponse, service: Service, text: string) => {
    const { faults } = control;
    const fault = drawFault(faults, random, now());
    if (fault !== undefined) requests.faults += 1;
    if (request.headers.authorization !== authorization || fault === 'unauthorized') {
      requests.unauthorized += 1;
      return respond(response, 401, PLAIN, '401 Unauthorized', { 'www-authenticate': 'Basic realm="ip2sms"' });
    }
    const instead = fault === undefined ? undefined : INSTEAD[fault];
    if (instead !== undefined) {
      const say = (status: number, type: string, body: string, more?: Record<string, string>) =>
        respond(response, status, type, body, more);
      return instead(say, request, faults);
    }
    if (fault === 'plain') return respond(response, 200, PLAIN, NOT_RECOGNIZED + text);
    const json = (request.headers['content-type'] ?? '').startsWith('application/json');
    const reply = gateway.reply({ service, json, text }, faults, fault);
    requests[reply?.to ?? 'unrecognized'] += 1;
    if (reply === undefined) return respond(response, 200, PLAIN, NOT_RECOGNIZED + text);
    const type = json ? 'application/json; charset=utf-8' : 'text/xml; charset=utf-8';
    const spoil = fault === undefined ? undefined : SPOILED[fault];
    if (spoil === undefined) return respond(response, 200, type, reply.text);
    spoil(response, { type, text: reply.text }, (length, more) => head(response, 200, type, length, more));
  };

  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const path = request.url?.split('?', 1)[0] ?? '/';
    if (path === '/truth') {
      if (request.headers.authorization !== authorization) return respond(response, 401, PLAIN, '401 Unauthorized');
      gateway.release(control.faults);
      return answerTruth(gateway.truth, request, response);
    }
    const service = SERVICES.get(path);
    if (path !== '/faults') {
      if (service === undefined) return respond(response, 404, PLAIN, '404 Not Found');
      if (request.method !== 'POST') return respond(response, 405, PLAIN, '405 Method Not Allowed', { allow: 'POST' });
    } else if (request.headers.authorization !== authorization)
      return respond(response, 401, PLAIN, '401 Unauthorized');
    request.setEncoding('utf8');
    let text = '';
    request.on('data', (chunk: string) => {
      if (text.length <= MAX_BODY) text += chunk;
    });
    request.on('end', () => {
      if (text.length > MAX_BODY) return respond(response, 413, PLAIN, '413 Payload Too Large');
      if (service === undefined) return answerFaults(control, request, response, text);
      const wait = drawLatency(control.faults, random);
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
    send: (phone) => gateway.send(phone, control.faults),
    fate: (id) => gateway.truth.get(id),
    get faults() {
      return control.faults;
    },
    setFaults: (next) => {
      control.faults = next;
    },
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
