/** A TCP proxy whose connections can be cut, held, slowed or stalled: what a network path that fails looks like from both ends. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export interface Proxy {
  readonly port: number;
  /** connections so far */
  readonly connections: number;
  /** all that the target has sent, where the proxy keeps it */
  received(): Buffer;
  /**
   * passes nothing on of every connection of this moment, for ever, not even its end; later ones are forwarded. `targetEndsMs`: the target ends them after
   * so many milliseconds, as by TCP keepalive; without it never. `ports`: only those that the target sees from these
   */
  stall(targetEndsMs?: number, ports?: readonly number[]): void;
  /** while true nothing is passed on of any connection, not even an end */
  holds: boolean;
  /** resets every connection of this moment */
  cut(): void;
  /** the same, or an orderly end, of which the target hears nothing, ever */
  leave(how: 'reset' | 'end'): void;
  /** milliseconds that each piece takes longer */
  delayMs: number;
  /** what becomes of new connections: those that are refused are closed at once, the ignored ones get no answer */
  newcomers: 'forwarded' | 'refused' | 'ignored';
  close(): Promise<void>;
}

interface Connection {
  readonly client: Socket;
  readonly upstream: Socket;
  stalled: boolean;
}

/** `keeps`: for `received`. */
export async function startProxy(target: { host: string; port: number }, { keeps = false } = {}): Promise<Proxy> {
  const open = new Set<Connection>();
  const ignored = new Set<Socket>();
  const chunks: Buffer[] = [];
  const waiting = new Set<() => void>();
  let holds = false;
  let connections = 0;

  /** Resolves when this connection may pass something on; for one that stalled never. */
  const passable = async (connection: Connection) => {
    for (;;) {
      if (!connection.stalled && !holds) return;
      await new Promise<void>((resolve) => waiting.add(resolve));
    }
  };
  const forward = async (connection: Connection, from: Socket, to: Socket) => {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        if (keeps && from === connection.upstream) chunks.push(chunk);
        if (proxy.delayMs > 0) await delay(proxy.delayMs);
        await passable(connection);
        if (!to.write(chunk)) await once(to, 'drain');
      }
    } catch {
      // either end was reset
    }
    await passable(connection);
    open.delete(connection);
    from.destroy();
    to.destroySoon();
  };

  const server = createServer((client) => {
    connections += 1;
    client.on('error', () => {});
    if (proxy.newcomers !== 'forwarded') {
      if (proxy.newcomers === 'refused') client.destroy();
      else ignored.add(client);
      return;
    }
    const upstream = connect(target);
    upstream.on('error', () => client.destroy());
    const connection: Connection = { client, upstream, stalled: false };
    open.add(connection);
    void forward(connection, client, upstream);
    void forward(connection, upstream, client);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');

  const proxy: Proxy = {
    port: (server.address() as { port: number }).port,
    get connections() {
      return connections;
    },
    received: () => Buffer.concat(chunks),
    stall: (targetEndsMs, ports) => {
      for (const connection of open) {
        if (ports?.includes(connection.upstream.localPort ?? 0) === false) continue;
        connection.stalled = true;
        if (targetEndsMs !== undefined) setTimeout(() => connection.upstream.resetAndDestroy(), targetEndsMs).unref();
      }
    },
    get holds() {
      return holds;
    },
    set holds(next) {
      holds = next;
      const woken = [...waiting];
      waiting.clear();
      for (const wake of woken) wake();
    },
    cut: () => {
      for (const { client, upstream } of open) for (const socket of [client, upstream]) socket.resetAndDestroy();
    },
    leave: (how) => {
      proxy.stall();
      for (const { client } of open)
        if (how === 'end') client.end();
        else client.resetAndDestroy();
    },
    delayMs: 0,
    newcomers: 'forwarded',
    close: async () => {
      for (const { client, upstream } of open) for (const socket of [client, upstream]) socket.destroy();
      for (const socket of ignored) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return proxy;
}
