/**
 * One connection for statements whose parameters are in PostgreSQL's binary form, which neither client sends: each is one message of ours and one answer.
 * It is opened for the first statement, and again for the next one after it was lost.
 */
import type { Socket } from 'node:net';
import type { Config } from '../settings.ts';
import { addressOf } from './address.ts';
import { startupOf, type Opening } from './clients.ts';
import { errorOf, framed, Incoming } from './messages.ts';
import { isPooled, logInForQueries } from './pooler.ts';
import { SESSION_OPTIONS } from './session.ts';

/** Bytes are sent as they are, in binary form; null: SQL null. */
export type Parameter = string | Buffer | null;

export interface Direct {
  /** The first row of what `statement` gives, as texts. One at a time: the next one waits for its answer. */
  row(statement: string, parameters: readonly Parameter[]): Promise<(string | null)[]>;
  /** Cuts it: what waits for an answer fails with CONNECTION_CLOSED. */
  drop(): void;
  /** Ends the session once what was sent is done. */
  end(): void;
}

interface Session {
  readonly socket: Socket;
  readonly incoming: Incoming;
  /** the statements that it knows, by name; undefined: the next statement may meet another session of the server */
  readonly prepared: Map<string, string> | undefined;
}

export function openDirect(config: Config, { name, ...surroundings }: Opening): Direct {
  const sockets = new Set<Socket>();
  let session: Session | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  let names = 0;

  const connect = async (): Promise<Session> => {
    const address = addressOf(config.DATABASE_URL ?? '');
    const { socket, rest } = await logInForQueries(config, address, {
      startup: startupOf(address, name, SESSION_OPTIONS),
      pooled: startupOf(address, name, ''),
      opened: (opened) => void sockets.add(opened.once('close', () => sockets.delete(opened))),
      ...surroundings,
    });
    socket.unshift(rest);
    // nobody may be listening when it ends
    socket.on('error', () => {});
    return { socket, incoming: new Incoming(socket), prepared: isPooled(config) ? undefined : new Map() };
  };

  const run = async (statement: string, parameters: readonly Parameter[]): Promise<(string | null)[]> => {
    if (session === undefined || session.socket.destroyed) session = await connect();
    const { socket, incoming, prepared } = session;
    const known = prepared?.get(statement);
    const as = known ?? (prepared === undefined ? '' : `s${(names += 1)}`);
    const parse = known === undefined ? [framed('P', Buffer.from(`${as}\0${statement}\0\0\0`))] : [];
    socket.write(Buffer.concat([...parse, bind(as, parameters), EXECUTE]));
    let row: (string | null)[] | undefined;
    let refused: ReturnType<typeof errorOf> | undefined;
    try {
      for (;;) {
        const { type, body } = await incoming.any();
        // 1 parsed, D row, E error, Z ready for the next
        if (type === '1') prepared?.set(statement, as);
        else if (type === 'D') row ??= valuesOf(body);
        else if (type === 'E') refused = errorOf(body);
        else if (type === 'Z') break;
      }
    } catch (error) {
      // the server says why before it closes the connection
      throw refused ?? error;
    }
    // somebody's DISCARD, as a pooler's that was not found
    if (refused?.routine === 'FetchPreparedStatement' && prepared?.delete(statement) === true)
      return await run(statement, parameters);
    if (refused !== undefined) throw refused;
    return row ?? [];
  };

  return {
    row: (statement, parameters) => {
      const answer = turn.then(async () => await run(statement, parameters));
      turn = answer.catch(() => {});
      return answer;
    },
    drop: () => {
      session = undefined;
      for (const socket of sockets) socket.destroy();
    },
    end: () => {
      session?.socket.end(framed('X', Buffer.alloc(0)));
      session = undefined;
    },
  };
}

/** Execute without a limit of rows, Sync */
const EXECUTE = Buffer.concat([framed('E', Buffer.alloc(5)), framed('S', Buffer.alloc(0))]);

function bind(statement: string, parameters: readonly Parameter[]): Buffer {
  const values = parameters.map((value) => (typeof value === 'string' ? Buffer.from(value) : value));
  const count = parameters.length;
  const head = Buffer.alloc(statement.length + 6 + 2 * count);
  // portal, statement, number of formats
  head.write(statement, 1);
  let at = head.writeInt16BE(count, statement.length + 2);
  for (const value of parameters) at = head.writeInt16BE(Buffer.isBuffer(value) ? 1 : 0, at);
  head.writeInt16BE(count, at);
  // the values, each after its length; the results as text
  const parts = values.flatMap((value) => (value === null ? [NULL] : [int32(value.length), value]));
  return framed('B', Buffer.concat([head, ...parts, Buffer.alloc(2)]));
}

const int32 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const NULL = int32(-1);

function valuesOf(body: Buffer): (string | null)[] {
  const values: (string | null)[] = [];
  for (let at = 2; at < body.length;) {
    const length = body.readInt32BE(at);
    at += 4;
    values.push(length === -1 ? null : body.toString('utf8', at, at + length));
    at += Math.max(0, length);
  }
  return values;
}
