/**
 * Gives both clients, postgres.js and `pg`, a socket that is logged in already. Each of them writes a StartupMessage of its own first: that is swallowed, and
 * what the server said after the login is read again, so that a client finds parameters, process id and the end of the greeting where it expects them.
 */
import { Socket } from 'node:net';
import type { ClientConfig } from 'pg';
import { addressOf, type Address } from './address.ts';
import { logIn, type Session, type Startup } from './login.ts';
import { CANCEL_REQUEST, framed } from './messages.ts';

/** AuthenticationOk */
const WELCOME = framed('R', Buffer.alloc(4));

/**
 * A connection as `pg` takes it, logged in: for one client, which must be connected soon. `name` and `options` are those of the session;
 * `replication`: of a walsender, read without a buffer between.
 */
export async function pgConfig(
  url: string,
  { name, options = '', replication = false }: { name: string; options?: string; replication?: boolean },
): Promise<ClientConfig & { readonly socket: Socket }> {
  const address = addressOf(url);
  const startup = startupOf(address, name, options);
  const session = await logIn(address, replication ? { ...startup, replication: 'database' } : startup, () => {});
  const socket = readySocket(session);
  return {
    socket,
    stream: () => socket,
    ssl: false,
    user: address.user,
    database: address.database,
    password: '',
    connectionTimeoutMillis: 10_000,
  };
}

/** What postgres.js takes as `socket`. It never rejects: a failure comes from the socket itself, which is where postgres.js looks for it. */
export async function postgresSocket(session: Promise<Session>): Promise<Socket> {
  try {
    return readySocket(await session);
  } catch (error) {
    const socket = new Socket();
    // not before it is written to: only then does postgres.js clean up after it
    socket.write = () => {
      socket.destroy(error as Error);
      return false;
    };
    return socket;
  }
}

/** How a session presents itself. `options`: ours, which come after those of the address. */
export function startupOf(address: Address, name: string, options: string): Startup {
  return {
    application_name: `smslogd ${name}`,
    options: [address.options, options].filter((words) => words !== '').join(' '),
  };
}

function readySocket({ socket, greeting, rest, again }: Session): Socket {
  socket.unshift(Buffer.concat([WELCOME, greeting, rest]));
  // nobody may be listening yet
  socket.on('error', () => {});
  // `pg` connects itself
  socket.connect = () => {
    process.nextTick(() => socket.emit(socket.destroyed ? 'close' : 'connect'));
    return socket;
  };
  const write = socket.write.bind(socket) as (bytes: Uint8Array, done?: unknown) => boolean;
  socket.write = (first: Uint8Array | string, ...more: unknown[]) => {
    socket.write = write;
    const bytes = Buffer.from(first as Uint8Array);
    if (bytes.readInt32BE(4) === CANCEL_REQUEST) {
      // of postgres.js: a connection of its own, which is not for a session
      const close = () => void socket.destroy();
      again().then((way) => way.end(bytes).on('close', close), close);
      return true;
    }
    socket.resume();
    for (const done of more) if (typeof done === 'function') (done as () => void)();
    return true;
  };
  return socket;
}
