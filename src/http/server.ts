/**
 * The HTTP side of the daemon: metrics for Prometheus, health for whoever restarts and balances, the status page for people. It only
 * reads what the parts know of themselves; nothing on it is personal, and nothing can be changed through it.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Config } from '../settings.ts';
import { codeOf, reactionTo, SmslogdError } from '../errors.ts';
import type { Figures } from '../figures/gauges.ts';
import type { Health } from '../health.ts';
import { prefersOpenMetrics } from './accept.ts';
import { BOUNDS, boundedServer } from './bounds.ts';
import { hostCheck } from './hosts.ts';
import { shared } from './shared.ts';
import { logProblem, type Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { gatherFacts } from '../page/facts.ts';
import { DOCUMENT_POLICY, documents } from '../page/documents.ts';
import { PAGE_POLICY, statusPage } from '../page/page.ts';
import { watchRequests, type RecentRequests } from '../page/requests.ts';
import { createSettling } from '../page/settling.ts';
import { pause } from '../supervise.ts';

export interface HttpDeps {
  readonly config: Pick<Config, 'HTTP_HOST' | 'HTTP_PORT' | 'LATENCY_SOURCE'> &
    Partial<Pick<Config, 'HTTP_ALLOWED_HOSTS'>>;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly figures: Figures;
  readonly log: Log;
  readonly version: string;
  /** asks the database; absent: /readyz does not depend on it */
  readonly databaseAnswers?: () => Promise<boolean>;
  /** a monotonic clock in milliseconds */
  readonly now?: () => number;
}

export interface HttpServer {
  /** the port in use, also where HTTP_PORT is 0 */
  readonly port: number;
  /** Lets running answers end for a second, then closes all. */
  close(): Promise<void>;
}

interface Answer {
  readonly status?: number;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
}

type Route = (request: IncomingMessage) => Promise<Answer> | Answer;

const READY_LIMIT_MS = 1_000;
const CLOSE_LIMIT_MS = 1_000;

const HEADERS = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
};

/** Listens on HTTP_HOST:HTTP_PORT. Throws port_in_use. */
export async function startHttp(deps: HttpDeps): Promise<HttpServer> {
  const requests = watchRequests(deps.metrics);
  const failed = (error: unknown): Answer => {
    const problem = logProblem(deps.log, 'warn', error, { part: 'http' });
    deps.metrics.errors.inc({ code: problem.code });
    return { status: 500, body: 'the answer could not be made\n' };
  };
  const routes = routesOf(deps, requests, failed);
  let known!: (host: string | undefined) => boolean;
  const server = boundedServer((request, response) => {
    respond(routes, known, request, response).catch((error: unknown) => {
      const answer = failed(error);
      if (response.headersSent) response.destroy();
      else send(request, response, answer);
    });
  });
  try {
    await listen(server, deps.config);
  } catch (error) {
    requests.stop();
    server.close();
    throw error;
  }
  const { address, port } = server.address() as AddressInfo;
  known = hostCheck(address, deps.config.HTTP_ALLOWED_HOSTS ?? []);
  // without a listener a connection that cannot be accepted (no file descriptor is free) would end the process
  server.on('error', failed);
  return { port, close: () => close(server, requests) };
}

/** What costs work is made once a second, however many ask; `failed` answers where it cannot be made. */
function routesOf(
  deps: HttpDeps,
  requests: RecentRequests,
  failed: (error: unknown) => Answer,
): ReadonlyMap<string, Route> {
  const { metrics, health, figures, databaseAnswers, now = () => performance.now() } = deps;
  const once = (make: () => Promise<Answer>) =>
    shared(async () => {
      const answer = await make().catch(failed);
      return { ...answer, body: Buffer.from(answer.body) };
    }, now);
  const readiness = shared(() => notReady(health, databaseAnswers), now);
  const settling = createSettling();
  const facts = shared(() => gatherFacts({ ...deps, requests, readiness, settling }), now);
  const metricsIn = (registry: Metrics['registry'] | Metrics['openMetrics']) =>
    once(async () => {
      await figures.refresh();
      return { type: registry.contentType, body: await registry.metrics() };
    });
  const textMetrics = metricsIn(metrics.registry);
  const openMetrics = metricsIn(metrics.openMetrics);
  return new Map<string, Route>([
    ['/metrics', (request) => (prefersOpenMetrics(request.headers.accept) ? openMetrics() : textMetrics())],
    [
      '/healthz',
      () => {
        const silent = health.silentLoops();
        return silent.length === 0
          ? { body: 'ok\n' }
          : { status: 503, body: `loops that do not turn: ${silent.join(', ')}\n` };
      },
    ],
    [
      '/readyz',
      async () => {
        const reason = await readiness();
        return reason === undefined ? { body: 'ready\n' } : { status: 503, body: `not ready: ${reason}\n` };
      },
    ],
    ['/', once(async () => html(PAGE_POLICY, statusPage(await facts())))],
    [
      '/status.json',
      once(async () => ({ type: 'application/json; charset=utf-8', body: `${JSON.stringify(await facts())}\n` })),
    ],
    ...[...documents()].map(([path, page]): [string, Route] => [path, once(async () => html(DOCUMENT_POLICY, page()))]),
  ]);
}

const html = (policy: string, body: string): Answer => ({
  type: 'text/html; charset=utf-8',
  headers: { 'content-security-policy': policy },
  body,
});

/** Why the daemon does not do its work now; undefined: it does. */
async function notReady(health: Health, databaseAnswers: HttpDeps['databaseAnswers']): Promise<string | undefined> {
  const { mirrorState, pollerProblem, databaseProblem, starting } = health;
  if (starting) return 'the daemon waits for the database';
  if (health.loops.includes('mirror') && mirrorState !== 'streaming' && mirrorState !== 'standby') {
    return `the mirror is ${mirrorState}`;
  }
  if (pollerProblem !== undefined) return `the poller is stopped: ${pollerProblem}`;
  // what passes by itself, as a lock that is held for a moment, keeps no leader from its work
  if (databaseProblem !== undefined && reactionTo(databaseProblem) === 'slow')
    return `the lease cannot be read or renewed: ${databaseProblem}`;
  if (databaseAnswers === undefined) return undefined;
  const limit = new AbortController();
  const answered = await Promise.race([
    databaseAnswers().catch(() => false),
    pause(READY_LIMIT_MS, limit.signal).then(() => false),
  ]);
  limit.abort();
  return answered ? undefined : 'the database does not answer';
}

async function respond(
  routes: ReadonlyMap<string, Route>,
  known: (host: string | undefined) => boolean,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (!known(request.headers.host)) {
    const body = 'this host name is not served: open the address of this host, or name it in HTTP_ALLOWED_HOSTS\n';
    send(request, response, { status: 403, body });
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    // what it sends is not read: the connection goes
    const headers = { allow: 'GET, HEAD', connection: 'close' };
    send(request, response, { status: 405, headers, body: 'GET and HEAD only\n' });
    return;
  }
  const route = routes.get((request.url ?? '/').split('?', 1)[0] ?? '/');
  send(request, response, route === undefined ? { status: 404, body: 'not found\n' } : await route(request));
}

function send(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  const body = Buffer.isBuffer(answer.body) ? answer.body : Buffer.from(answer.body);
  response.writeHead(answer.status ?? 200, {
    ...HEADERS,
    'content-type': answer.type ?? 'text/plain; charset=utf-8',
    'content-length': body.length,
    ...answer.headers,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

async function listen(server: Server, { HTTP_HOST: host, HTTP_PORT: port }: HttpDeps['config']): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      const reason = codeOf(error);
      if (reason === 'EADDRINUSE') {
        reject(new SmslogdError('port_in_use', `another program listens on ${host} port ${port}`, { cause: error }));
      } else {
        reject(
          new SmslogdError('config_invalid', `HTTP_HOST and HTTP_PORT: cannot listen there (${reason ?? error.name})`, {
            cause: error,
          }),
        );
      }
    });
    server.listen({ host, port, backlog: BOUNDS.backlog }, resolve);
  });
}

async function close(server: Server, requests: RecentRequests): Promise<void> {
  requests.stop();
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const limit = new AbortController();
  await Promise.race([closed, pause(CLOSE_LIMIT_MS, limit.signal)]);
  limit.abort();
  server.closeAllConnections();
  await closed;
}
