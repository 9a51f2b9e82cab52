/** A real HTTP server in the gateway's place, scripted by the test, that counts what it is asked. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

export interface Asked {
  readonly id: string;
  readonly path: string;
  /** performance.now() */
  readonly at: number;
  readonly authorization: string | undefined;
  readonly contentType: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Scripted {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  /** answers after so long; it may never come */
  readonly afterMs?: number;
}

/** Answers one request; `reset` closes the connection without a byte. */
export type Script = (asked: Asked, response: ServerResponse) => Scripted | 'reset' | 'handled' | Promise<Scripted>;

export interface TestGateway {
  readonly url: string;
  readonly asked: Asked[];
  /** the answers from now on */
  script: Script;
  /** how often `id` was asked for */
  count(id: string): number;
  close(): Promise<void>;
}

/** The classic reply; `date` in the gateway's form. */
export function reply(id: string, state: string, date = 'Wed, 28 Mar 2007 12:35:00 +0300'): Scripted {
  return { body: `<status id='${id}' date='${date}'><state>${state}</state></status>` };
}

/** An instant as the gateway writes it. */
export function gatewayDate(instant: Date): string {
  return instant.toUTCString().replace('GMT', '+0000');
}

export async function startGateway(script: Script): Promise<TestGateway> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void answer(request, response);
  });
  const gateway: TestGateway = {
    url: '',
    asked,
    script,
    count: (id) => asked.filter((each) => each.id === id).length,
    close: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const one: Asked = {
      id: /id="?:?"?([A-Za-z0-9_-]+)/.exec(body.replace('"id":', 'id='))?.[1] ?? '',
      path: request.url ?? '',
      at: performance.now(),
      authorization: request.headers.authorization,
      contentType: request.headers['content-type'],
      headers: request.headers,
      body,
    };
    asked.push(one);
    const scripted = await gateway.script(one, response);
    if (scripted === 'handled') return;
    if (scripted === 'reset') {
      request.socket.resetAndDestroy();
      return;
    }
    if (scripted.afterMs !== undefined) await new Promise((resolve) => setTimeout(resolve, scripted.afterMs).unref());
    if (response.destroyed) return;
    response.writeHead(scripted.status ?? 200, { 'content-type': 'text/xml; charset=utf-8', ...scripted.headers });
    response.end(scripted.body ?? '');
  }
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(gateway, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/ip2sms/` });
}
