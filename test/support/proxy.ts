/** A TCP proxy that can stop forwarding without closing anything: what a dead network path looks like from both ends. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export interface Proxy {
  readonly port: number;
  /** connections so far */
  readonly connections: number;
  /** all that the target has sent */
  received(): Buffer;
  /** passes nothing on of every connection of this moment, not even its end; later ones are forwarded */
  stall(): void;
  /** what becomes of new connections: those that are refused are closed at once, the ignored ones get no answer */
  newcomers: 'forwarded' | 'refused' | 'ignored';
  close(): Promise<void>;
}

export async function startProxy(target: { host: string; port: number }): Promise<Proxy> {
  const sockets = new Set<Socket>();
  const chunks: Buffer[] = [];
  let connections = 0;
  let newcomers: Proxy['newcomers'] = 'forwarded';
  const server = createServer((client) => {
    connections += 1;
    if (newcomers !== 'forwarded') {
      sockets.add(client.on('error', () => {}));
      if (newcomers === 'refused') client.destroy();
      return;
    }
    const upstream = connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    upstream.on('data', (chunk: Buffer) => chunks.push(chunk));
    client.pipe(upstream);
    upstream.pipe(client);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    get connections() {
      return connections;
    },
    received: () => Buffer.concat(chunks),
    stall: () => {
      for (const socket of sockets) socket.removeAllListeners('close').unpipe().pause();
    },
    get newcomers() {
      return newcomers;
    },
    set newcomers(next) {
      newcomers = next;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
