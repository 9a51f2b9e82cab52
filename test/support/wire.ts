/** A path to the server's WAL sender that reads what goes over it, and can change, add or hold back what the server sends. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

export interface Status {
  readonly position: bigint;
  /** the server is to answer */
  readonly asks: boolean;
  /** number of the connection that it came by, from 1 */
  readonly connection: number;
}

export interface Wire {
  /** for DATABASE_REPLICATION_URL */
  readonly url: string;
  /** every status update of the consumer so far */
  readonly statuses: readonly Status[];
  /** what is handed on in one piece instead of a message of the stream */
  pass: (message: Buffer) => readonly Buffer[];
  /** sends to the consumer of the latest connection */
  send(messages: readonly Buffer[]): void;
  close(): Promise<void>;
}

const HEAD = 5;
const PAYLOAD = HEAD + 25;

/** The kind of the change that a message of the stream carries, as B, I or C; empty: it carries none. */
export function kindOf(message: Buffer): string {
  return message[HEAD] === 0x77 ? String.fromCodePoint(message[PAYLOAD]!) : '';
}

/** The position at `at` of the change that a message carries. */
export const positionAt = (message: Buffer, at: number) => message.readBigUInt64BE(PAYLOAD + at);

/** The same message with a change of a kind that no version knows. */
export function unknownKind(message: Buffer): Buffer {
  const other = Buffer.from(message);
  other.write('z', PAYLOAD);
  return other;
}

export function keepalive(position: bigint, asks: boolean): Buffer {
  const message = Buffer.alloc(HEAD + 18);
  message.write('d');
  message.writeInt32BE(message.length - 1, 1);
  message.write('k', HEAD);
  message.writeBigUInt64BE(position, HEAD + 1);
  message.writeInt8(asks ? 1 : 0, HEAD + 17);
  return message;
}

export async function startWire(target: string): Promise<Wire> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  const statuses: Status[] = [];
  let connections = 0;
  let consumer: Socket | undefined;
  const server = createServer((client) => {
    connections += 1;
    const connection = connections;
    consumer = client;
    const upstream = connect(Number(port), hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on('data', (piece) => upstream.write(piece));
    // the very first message of a client has no kind
    const statusesOf = split(0, (message) => {
      if (message[0] !== 0x64 || message[HEAD] !== 0x72) return;
      statuses.push({ position: message.readBigUInt64BE(HEAD + 9), asks: message.at(-1) === 1, connection });
    });
    client.on('data', statusesOf);
    const fromServer = split(1, (message) => {
      const parts = message[0] === 0x64 ? wire.pass(message) : [message];
      if (parts.length > 0) client.write(Buffer.concat(parts));
    });
    upstream.on('data', fromServer);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(target);
  url.port = String((server.address() as { port: number }).port);
  const wire: Wire = {
    url: url.href,
    statuses,
    pass: (message) => [message],
    send: (messages) => void consumer?.write(Buffer.concat(messages)),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return wire;
}

/** Cuts bytes into messages. `before`: bytes before the length of the first one, which all others have one of. */
function split(before: number, each: (message: Buffer) => void): (piece: Buffer) => void {
  let rest = Buffer.alloc(0);
  let kind = before;
  return (piece) => {
    rest = Buffer.concat([rest, piece]);
    while (rest.length >= kind + 4) {
      const length = kind + rest.readInt32BE(kind);
      if (rest.length < length) return;
      const message = rest.subarray(0, length);
      rest = rest.subarray(length);
      kind = 1;
      each(message);
    }
  };
}
