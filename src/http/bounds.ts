/**
 * What clients can take from the daemon. The port has no login, so connections, requests and time are bounded: a flood must not delay an SMS, and a
 * probe must get its answer during one.
 *
 * - A new connection beyond the limit replaces the oldest one of the address that has the most: the probe's is always new, and seldom of a flood's address.
 *   The backlog is smaller than the limit, so that the connections of one burst don't replace each other before they are read.
 * - A request that is pipelined behind an answer that is not sent yet is the cheapest way to make work: of all connections together few of them are
 *   answered in a second, and a connection that sends more is ended. Other requests are always answered.
 * - An answer that the client does not take in time ends its connection.
 */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { Socket } from 'node:net';

export const BOUNDS = {
  connections: 512,
  backlog: 256,
  /** requests on one connection */
  requests: 100,
  /** pipelined requests of all connections between two checks */
  pipelined: 64,
  headersMs: 5_000,
  requestMs: 10_000,
  /** from a request to the last byte of its answer, handed to the kernel */
  answerMs: 10_000,
  idleMs: 5_000,
  /** between two checks */
  checkMs: 1_000,
  headerBytes: 8_192,
};

/** A connection: its answers that are not sent yet, and since when the first of them waits. */
interface Held {
  readonly address: string;
  count: number;
  since: number;
}

/** A server that calls `answer` for as many requests as its bounds allow. */
export function boundedServer(answer: RequestListener, bounds = BOUNDS): Server {
  const connections = new Map<Socket, Held>();
  /** the open ones of each address */
  const open = new Map<string, number>();
  let pipelined = 0;
  const forget = (socket: Socket) => {
    const address = connections.get(socket)?.address;
    if (address === undefined) return;
    connections.delete(socket);
    const left = open.get(address)! - 1;
    if (left > 0) open.set(address, left);
    else open.delete(address);
  };
  const end = (socket: Socket) => {
    forget(socket);
    socket.destroy();
  };
  const makeRoom = () => {
    const most = Math.max(...open.values());
    for (const [socket, { address }] of connections) if (open.get(address) === most) return end(socket);
  };
  const server = createServer(
    {
      headersTimeout: bounds.headersMs,
      requestTimeout: bounds.requestMs,
      keepAliveTimeout: bounds.idleMs,
      connectionsCheckingInterval: bounds.headersMs,
      maxHeaderSize: bounds.headerBytes,
    },
    (request, response) => {
      const { socket } = request;
      const own = connections.get(socket);
      // of a connection that was ended here, what it had pipelined still comes
      if (own === undefined) return;
      if (own.count === 0) own.since = performance.now();
      else if ((pipelined += 1) > bounds.pipelined) return end(socket);
      own.count += 1;
      response.once('finish', () => {
        own.count -= 1;
        own.since = performance.now();
      });
      answer(request, response);
    },
  );
  server.maxRequestsPerSocket = bounds.requests;
  server.on('dropRequest', (_, socket: Socket) => end(socket));
  server.on('connection', (socket: Socket) => {
    check ??= setInterval(checkAll, bounds.checkMs).unref();
    if (connections.size >= bounds.connections) makeRoom();
    const address = socket.remoteAddress ?? '';
    connections.set(socket, { address, count: 0, since: 0 });
    open.set(address, (open.get(address) ?? 0) + 1);
    socket.once('close', () => forget(socket));
    socket.prependListener('data', (piece: Buffer) => {
      const heads = blankLines(piece);
      if (heads <= 1 || pipelined + heads <= bounds.pipelined) return;
      end(socket);
      // Node.js goes through all requests of a piece, also of a connection that is ended: of zeros there is none
      piece.fill(0);
    });
  });
  /** runs from a connection on until there is none */
  let check: NodeJS.Timeout | undefined;
  const checkAll = () => {
    pipelined = 0;
    const since = performance.now() - bounds.answerMs;
    for (const [socket, own] of connections) if (own.count > 0 && own.since < since) end(socket);
    if (connections.size > 0) return;
    clearInterval(check);
    check = undefined;
  };
  server.once('close', () => clearInterval(check));
  return server;
}

/** How many heads of requests end in what was read at once. */
function blankLines(piece: Buffer): number {
  return piece.toString('latin1').split(/\n\r?\n/).length - 1;
}
