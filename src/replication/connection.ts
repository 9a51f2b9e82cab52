/**
 * The replication connection. Only this file knows the traps of pg-logical-replication 2.5:
 *
 * - `acknowledge(lsn)` sends lsn + 1. In logical replication every position that a consumer holds is already "the next byte", so one more makes
 *   the slot skip an adjacent commit. Its time is milliseconds where microseconds belong. We write the status update ourselves.
 * - Its timer acknowledges what was received, written or not: it stays off, and a timer of ours repeats what is durable.
 * - Its flow control goes on after a failed handler: it stays off. The first failure is latched here and ends the stream.
 * - Its parser makes Dates and loses microseconds, and what it and `pg` do for each message costs more than the message: from the start of the
 *   streaming on the bytes go through a splitter of ours, and the client sees what is no row and no keepalive.
 * - `isStop()` stays false after a dropped connection, `stop()` waits without limit: only the promise of `subscribe` counts, and the socket is
 *   destroyed at the end. A new service, hence a new connection, for each try.
 */
import type { Socket } from 'node:net';
import type { Client } from 'pg';
import { LogicalReplicationService } from 'pg-logical-replication';
import type { Config } from '../settings.ts';
import { pgConfig, type Opening } from '../postgres/clients.ts';
import { REPLICATION_OPTIONS } from '../postgres/connections.ts';
import { quoteIdentifier, quoteLiteral } from '../postgres/quoting.ts';
import { NO_TRANSACTION_TIMEOUT } from '../postgres/session.ts';
import { codeOf, ServerRefusal, SmslogdError, toSmslogdError } from '../errors.ts';
import { maxLsn, type Lsn } from '../postgres/lsn.ts';
import { runningMs } from '../running-time.ts';
import { createFrames, statusUpdate } from './frames.ts';
import { keepaliveTimes } from './keepalive.ts';
import { requireSame, SERVER, type Server } from './server.ts';

export interface StreamHandlers {
  /** one pgoutput message: `at` to `end` of `bytes`, which are valid during the call only */
  message(bytes: Buffer, at: number, end: number): void;
  /** the server has sent everything before `position`; `asks`: it wants an answer now */
  keepalive(position: Lsn, asks: boolean): void;
}

export interface Stream {
  /** WAL between what the server was last heard to have reached and what is acknowledged */
  readonly lagBytes: number;
  /** Tells the server that everything before `position` is durable here. Never goes back. */
  acknowledge(position: Lsn): void;
  /** Repeats the last acknowledged position. */
  repeat(): void;
  pause(): void;
  resume(): void;
  /**
   * `on`: nobody waits for what comes next. The server sends each small message on its own; read at leisure they come in large pieces, for a
   * fraction of the work. Off: what has come is read at once.
   */
  leisure(on: boolean): void;
  /** Rejects when the stream ends or fails. */
  readonly ended: Promise<never>;
  close(): Promise<void>;
}

type Plugin = Parameters<LogicalReplicationService['subscribe']>[0];

/** Between two reads at leisure; what comes meanwhile must fit into the receive buffer of the kernel. */
const LEISURE_MS = 2;
/** bytes; what Node.js reads at once is 64 KiB, by TLS 16 KiB */
const LARGE = 32_768;

/**
 * Opens the stream at the slot's own position, over a session as `opening` has it, where that leads to `server`. `durable` is what may be acknowledged from the start: the slot's confirmed position or more.
 * `senderTimeoutMs` is this connection's wal_sender_timeout, whatever the server's is. `binary`: values come in binary form where their type has one.
 * Resolves once the server streams; messages may arrive from then on. Throws slot_busy where another consumer has the slot.
 */
export async function openStream(
  config: Config,
  opening: Opening,
  options: { server: Server; durable: Lsn; senderTimeoutMs: number; binary: boolean; handlers: StreamHandlers },
): Promise<Stream> {
  const { socket, ...client } = await pgConfig(config.DATABASE_REPLICATION_URL ?? '', {
    ...opening,
    options: `${REPLICATION_OPTIONS} -c datestyle=ISO -c timezone=UTC -c wal_sender_timeout=${options.senderTimeoutMs}`,
    replication: true,
  });
  const service = new LogicalReplicationService(client, {
    acknowledge: { auto: false, timeoutSeconds: 0 },
    flowControl: { enabled: false },
  });
  let durable = options.durable;
  let serverPosition = options.durable;
  let connection: Connection | undefined;
  let paused = false;
  let atLeisure = false;
  let rest: NodeJS.Timeout | undefined;
  /** bytes since the last look, and the look at the end of this turn: by TLS each message is a piece of its own */
  let came = 0;
  let turn: NodeJS.Immediate | undefined;
  let lastHeard = runningMs();
  let failed = false;
  let fail!: (error: unknown) => void;
  const failure = new Promise<never>((_, reject) => {
    fail = (error) => {
      failed = true;
      reject(error instanceof Error ? error : new SmslogdError('stream_ended', 'the replication stream failed'));
    };
  });
  failure.catch(() => {});

  /** pg's parser must never see an exception of ours, and after the first failure nothing more may be taken. */
  const guarded = (work: () => void) => {
    if (failed) return;
    lastHeard = runningMs();
    try {
      work();
    } catch (error) {
      fail(error);
    }
  };
  const goOn = () => {
    clearTimeout(rest);
    rest = undefined;
    if (!paused) connection?.stream.resume();
  };
  const read = (piece: Buffer) => {
    frames(piece);
    came += piece.length;
    if (atLeisure && rest === undefined) turn ??= setImmediate(mayRest);
  };
  const mayRest = () => {
    turn = undefined;
    // much in one turn: more is waiting already
    const much = came >= LARGE;
    came = 0;
    if (much || !atLeisure) return;
    connection?.stream.pause();
    rest = setTimeout(goOn, LEISURE_MS);
  };
  const frames = createFrames({
    data: (bytes, at, end) => options.handlers.message(bytes, at, end),
    keepalive: (position, asks) => {
      serverPosition = maxLsn(serverPosition, position);
      options.handlers.keepalive(position, asks);
    },
    other: (message) => toClient(message),
  });
  let toClient: (bytes: Buffer) => void;
  const plugin = pgoutput(config.PUBLICATION_NAME, options.binary, options.server, (client) => {
    // the connection is silent before its query: a message begins with the next byte
    connection = (client as unknown as { connection: Connection }).connection;
    const { stream } = connection;
    toClient = stream.listeners('data')[0] as typeof toClient;
    stream.removeAllListeners('data');
    stream.on('data', (piece: Buffer) => guarded(() => read(piece)));
  });
  service.on('error', fail);

  let streaming = false;
  const status = (ask: boolean) => {
    if (streaming) connection?.sendCopyFromChunk(statusUpdate(durable, ask));
  };
  const { interval, silence } = keepaliveTimes(options.senderTimeoutMs);
  const timer = setInterval(() => {
    if (!paused && runningMs() - lastHeard > silence) {
      fail(new SmslogdError('stream_stalled', `no byte from the server for ${Math.round(silence / 1000)} s`));
    }
    status(true);
  }, interval);

  const started = new Promise<boolean>((resolve) => {
    service.once('start', () => resolve((streaming = true)));
  });
  const subscribed = service
    .subscribe(plugin, config.SLOT_NAME, '0/00000000')
    .then(() => {
      throw new SmslogdError('stream_ended', 'the server ended the replication stream');
    })
    .catch((error: unknown) => {
      throw streamError(error, config, streaming);
    });
  subscribed.catch(fail);

  const close = async () => {
    clearInterval(timer);
    clearTimeout(rest);
    clearImmediate(turn);
    failed = true;
    streaming = false;
    // a socket that rests would not see the server's goodbye
    connection?.stream.resume();
    await Promise.race([service.stop().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 500).unref())]);
    socket.destroy();
    service.removeAllListeners();
    service.on('error', () => {});
  };

  try {
    await Promise.race([started, failure]);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    get lagBytes() {
      return Math.max(0, Number(serverPosition - durable));
    },
    acknowledge: (position) => {
      durable = maxLsn(durable, position);
      status(false);
    },
    repeat: () => status(false),
    pause: () => {
      paused = true;
      connection?.stream.pause();
    },
    resume: () => {
      paused = false;
      lastHeard = runningMs();
      goOn();
    },
    leisure: (on) => {
      atLeisure = on;
      if (!on) goOn();
    },
    ended: failure,
    close,
  };
}

/** The plug-in starts the stream; `beforeStart` gets the connected client. The publication's name is quoted twice: as an identifier in the list, and the list as a literal. */
function pgoutput(publication: string, binary: boolean, server: Server, beforeStart: (client: Client) => void): Plugin {
  const list = quoteLiteral(quoteIdentifier(publication));
  return {
    options: {},
    name: 'pgoutput',
    parse: () => undefined,
    start: async (client: Client, slot: string, lsn: string) => {
      requireSame(server, (await client.query<Server>(SERVER)).rows[0]);
      await client.query(NO_TRANSACTION_TIMEOUT);
      beforeStart(client);
      const options = `proto_version '1', publication_names ${list}, binary '${binary}'`;
      return client.query(`START_REPLICATION SLOT ${quoteIdentifier(slot)} LOGICAL ${lsn} (${options})`);
    },
  };
}

interface Connection {
  readonly stream: Socket;
  sendCopyFromChunk(chunk: Buffer): void;
}

/** START_REPLICATION has its own meanings of some SQLSTATEs. */
function streamError(error: unknown, config: Config, streaming: boolean): SmslogdError {
  const code = codeOf(error);
  const cause = { cause: error };
  if (code === '55006')
    return new SmslogdError('slot_busy', `the slot ${config.SLOT_NAME} is in use by another consumer`, cause);
  if (code === '42704') {
    // the server looks for the slot when the stream begins and for the publication when it first has something to send; its words may be of any language
    return streaming
      ? new SmslogdError('publication_missing', `the publication ${config.PUBLICATION_NAME} does not exist`, cause)
      : new SmslogdError('slot_missing', `the slot ${config.SLOT_NAME} does not exist`, cause);
  }
  if (code === '58P01') return new SmslogdError('slot_lost', `the slot ${config.SLOT_NAME} has lost its WAL`, cause);
  if (code === undefined && error instanceof Error && /Connection terminated|timeout/i.test(error.message)) {
    return new SmslogdError('stream_ended', 'the replication connection was dropped', cause);
  }
  // before the first row the server's words can contain no row values; those of 55000 say what the slot is not fit for
  const words = !streaming && code === '55000' && error instanceof Error;
  const named = toSmslogdError(words ? new ServerRefusal(code, error.message) : error);
  if (!streaming || named.code !== 'database_failed') return named;
  return new SmslogdError('decoding_failed', `the server cannot send what is in its WAL (${code})`, cause);
}
