/**
 * Gives both clients, postgres.js and `pg`, a socket that is logged in already. Each of them writes a StartupMessage of its own first: that is swallowed, and
 * what the server said after the login is read again, so that a client finds parameters, process id and the end of the greeting where it expects them.
 */
import { Socket } from 'node:net';
import type { ClientConfig } from 'pg';
import { addressOf, type Address } from './address.ts';
import { logIn, type Session, type Startup, type Surroundings } from './login.ts';
import { Answers } from './last-word.ts';
import { framed } from './messages.ts';

/** How the server knows a session, and what its login is surrounded by. */
export interface Opening extends Surroundings {
  /** application_name, after our own */
  readonly name: string;
}

/** AuthenticationOk */
const WELCOME = framed('R', Buffer.alloc(4));

/**
 * A connection as `pg` takes it, logged in: for one client, which must be connected soon. `options` are those of the session; `replication`: of a walsender,
 * read without a buffer between.
 */
export async function pgConfig(
  url: string,
  { name, options = '', replication = false, ...surroundings }: Opening & { options?: string; replication?: boolean },
): Promise<ClientConfig & { readonly socket: Socket }> {
  const address = addressOf(url);
  const startup = startupOf(address, name, options);
  const as = replication ? { ...startup, replication: 'database' } : startup;
  const socket = readySocket(await logIn(address, as, surroundings));
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
    const socket = readySocket(await session);
    const emit = socket.emit.bind<(event: string | symbol, ...words: unknown[]) => boolean>(socket);
    const answers = new Answers();
    const given = (bytes: Buffer) => bytes.length > 0 && emit('data', bytes);
    socket.emit = (event: string | symbol, ...words: unknown[]) => {
      if (event === 'data') return given(answers.take(words[0] as Buffer));
      // between the two events of a failure postgres.js would take a statement, and when it is connected again tell it as done with no rows: what waits fails at
      // the end alone, with the server's reason or CONNECTION_CLOSED
      if (event === 'error') return false;
      if (event !== 'close') return emit(event, ...words);
      given(answers.rest());
      if (answers.reason !== undefined) emit('error', answers.reason);
      return emit(event, false);
    };
    return socket;
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

function readySocket({ socket, greeting, rest }: Session): Socket {
  socket.unshift(Buffer.concat([WELCOME, greeting, rest]));
  // nobody may be listening yet
  socket.on('error', () => {});
  // `pg` connects itself
  socket.connect = () => {
    process.nextTick(() => socket.emit(socket.destroyed ? 'close' : 'connect'));
    return socket;
  };
  const write = socket.write.bind(socket) as (bytes: Uint8Array, done?: unknown) => boolean;
  socket.write = (_: Uint8Array | string, ...more: unknown[]) => {
    socket.write = write;
    socket.resume();
    for (const done of more) if (typeof done === 'function') (done as () => void)();
    return true;
  };
  return socket;
}
