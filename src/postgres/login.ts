/**
 * Makes connections as libpq does, for both clients: host by host, with or without TLS as sslmode says, log in, and look whether the session is of the
 * kind that is wanted. The clients get a socket that is past all this (`clients.ts`): neither of them does these things as libpq, and they differ.
 */
import type { Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { codeOf, ServerRefusal, SmslogdError, toSmslogdError } from '../errors.ts';
import type { Address, Host } from './address.ts';
import { authenticate } from './authentication.ts';
import { CANCEL_REQUEST, failure, framed, Incoming, opening, SESSION, type Message } from './messages.ts';
import { CERTIFICATE_HINT, TlsCutOff, tlsError, tlsFailure, tlsOptions } from './tls.ts';
import { isLocal, isLoopback, openWay, placesOf, type Place } from './transport.ts';

/** What a client says of itself when it begins: application_name, options, replication. */
export type Startup = Readonly<Record<string, string>>;

export interface Session {
  readonly socket: Socket;
  /** the server's messages from the end of the login until it was ready */
  readonly greeting: Buffer;
  /** what came after them */
  readonly rest: Buffer;
  /** Asks the same server to cancel what the session runs: over a connection of its own, which is no session. */
  readonly cancel: () => Promise<void>;
  /** another process answers than the one that greeted; undefined: it was not asked for */
  readonly pooled: boolean | undefined;
}

/** What a login is surrounded by. */
export interface Surroundings {
  /** runs each try, of which a login has several where there are several addresses: what must come before or after it */
  readonly around?: (login: () => Promise<Session>) => Promise<Session>;
  /** the first that is said to the server; `ask` returns the first value of a statement's result */
  readonly first?: (ask: (statement: string) => Promise<string>) => Promise<void>;
  /** is told every socket, also those that come to nothing */
  readonly opened?: (socket: Socket) => void;
}

/** `asks`: who answers. Throws what the last or the most telling try threw. */
export async function logIn(
  address: Address,
  startup: Startup,
  surroundings: Surroundings,
  asks = false,
): Promise<Session> {
  const failures: { readonly host: Host; readonly error: unknown }[] = [];
  for (const host of address.shuffled ? shuffled(address.hosts) : address.hosts) {
    for (const place of await placesOf(host).catch((error: unknown) => (failures.push({ host, error }), []))) {
      try {
        return await logInAt(place, { address, startup, asks, ...surroundings });
      } catch (error) {
        failures.push({ host, error });
        // a host that takes us and refuses the login ends the search, as in libpq: the next one would, too
        if (!leadsOn(error)) throw error;
      }
    }
  }
  const last = failures.at(-1)?.error;
  if (address.hosts.length === 1) throw reachable(last);
  const each = failures.map(({ host, error }) => `${host.name || host.ip}:${host.port} ${wordOf(error)}`).join(', ');
  const fails = address.target === 'any' ? 'can be reached' : `gives a ${address.target} session`;
  throw new SmslogdError('database_unreachable', `no host of the address ${fails} (${each})`, { cause: last });
}

/** Failures of tries that were lost after the server was told who wants to come in. */
const LOST = new WeakSet<object>();

/** Whether the server may have let a try in that failed: the path died before it was heard of. */
export function mayBeLetIn(error: unknown): boolean {
  return LOST.has(error as object);
}

/** A socket's failure that has no name of its own, such as a file that is not there. */
function reachable(error: unknown): unknown {
  if (toSmslogdError(error).code !== 'unexpected') return error;
  return new SmslogdError('database_unreachable', `PostgreSQL cannot be reached (${wordOf(error)})`, { cause: error });
}

function wordOf(error: unknown): string {
  return error instanceof WrongSession ? error.message : (codeOf(error) ?? 'failed');
}

/** Not the kind of session that target_session_attrs asks for. */
class WrongSession extends SmslogdError {
  constructor(is: string) {
    super('database_unreachable', is, {
      hint: 'Let the address name the primary too, or wait for the failover to end.',
    });
  }
}

/** A server that cannot be reached, is starting, or is no primary: another host may be better. */
function leadsOn(error: unknown): boolean {
  if (error instanceof ServerRefusal) return error.code === '57P03';
  return error instanceof WrongSession || !(error instanceof SmslogdError);
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((each) => ({ each, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ each }) => each);
}

/** What is wanted of a session. */
interface Wish extends Surroundings {
  readonly address: Address;
  readonly startup: Startup;
  readonly asks: boolean;
}

/** With TLS, without, or one after the other. */
async function logInAt(place: Place, wish: Wish): Promise<Session> {
  const { tls } = wish.address;
  if (isLocal(place) || tls.mode === 'disable') return attempt(place, wish, undefined);
  const options = () => tlsOptions(tls, place.host.name);
  if (tls.mode !== 'allow' && tls.mode !== 'prefer') return attempt(place, wish, options);
  const [first, second] = tls.mode === 'prefer' ? [options, undefined] : [undefined, options];
  try {
    return await attempt(place, wish, first);
  } catch (error) {
    const failedTls =
      first !== undefined && (error instanceof TlsCutOff || toSmslogdError(error).code === 'database_tls');
    if (!failedTls && !(error instanceof ServerRefusal && error.code.startsWith('28'))) throw error;
    return attempt(place, wish, second).catch((again: unknown) => {
      // "no encryption", where pg_hba.conf wants it, says less than what went wrong with it
      throw isNoEntry(again) || !isNoEntry(error) ? error : again;
    });
  }
}

const isNoEntry = (error: unknown): boolean => error instanceof ServerRefusal && error.code === '28000';

async function attempt(place: Place, wish: Wish, options: (() => ConnectionOptions) | undefined): Promise<Session> {
  const { around = (login) => login() } = wish;
  return around(() => inTime(place, wish, options));
}

/** One try, in the time for it. */
async function inTime(place: Place, wish: Wish, options: (() => ConnectionOptions) | undefined): Promise<Session> {
  const { address } = wish;
  const begun: Begun = { sockets: [], incoming: undefined, owes: false };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const fail = () => reject(failure('CONNECT_TIMEOUT', 'no answer in time'));
    if (address.connectTimeout !== Infinity) timer = setTimeout(fail, address.connectTimeout);
  });
  try {
    return await Promise.race([begin(place, wish, options?.(), begun), late]);
  } catch (error) {
    // neither the server's word nor ours ended it, and nothing that the server asked for was missing
    if (begun.incoming?.refused === false && !begun.owes && isSocketFailure(error)) LOST.add(error);
    for (const socket of begun.sockets) socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** How far a try has come. */
interface Begun {
  readonly sockets: Socket[];
  /** once the server is told who wants to come in */
  incoming: Incoming | undefined;
  /** the server has asked for a proof of the password and does not have it yet: it lets nobody in */
  owes: boolean;
}

function isSocketFailure(error: unknown): error is Error {
  const said = error instanceof SmslogdError || error instanceof ServerRefusal;
  return !said && toSmslogdError(error).code === 'database_unreachable';
}

async function begin(
  place: Place,
  { address, startup, asks, first, opened }: Wish,
  options: ConnectionOptions | undefined,
  begun: Begun,
): Promise<Session> {
  const known = (socket: Socket) => {
    begun.sockets.push(socket);
    opened?.(socket);
  };
  // a walsender's reader stops as soon as it is paused, instead of filling a buffer of its own first
  const buffering = startup['replication'] === undefined ? {} : { readableHighWaterMark: 1, highWaterMark: 1 };
  const open = () => openWay(place, address, { options, buffering, known });
  const { socket, encrypted } = await open();
  const incoming = new Incoming(socket);
  try {
    const said = { user: address.user, database: address.database, client_encoding: 'UTF8', ...startup };
    const words = Object.entries(said).map(([name, value]) => (value === '' ? '' : `${name}\0${value}\0`));
    socket.write(opening(SESSION, Buffer.from(`${words.join('')}\0`)));
    begun.incoming = incoming;
    const readable = !encrypted && !isLocal(place) && !isLoopback(place);
    const owes = (proof: boolean) => (begun.owes = proof);
    await authenticate(socket, incoming, address, { host: place.host, readable, owes });
    const greeting = await untilReady(incoming);
    await requireTarget(socket, incoming, address, greeting);
    const pooled = asks
      ? (await answerTo(socket, incoming, WHO_ANSWERS)) !== String(keyOf(greeting).readInt32BE(0))
      : undefined;
    await first?.(async (statement) => answerTo(socket, incoming, statement));
    const rest = incoming.release();
    const cancel = async () => {
      const way = await open();
      way.socket.resume().end(opening(CANCEL_REQUEST, keyOf(greeting)));
    };
    return { socket, rest, greeting: Buffer.concat(greeting.map(({ whole }) => whole)), cancel, pooled };
  } catch (error) {
    throw named(error, encrypted);
  }
}

/** What the server thinks of our certificate comes after the handshake, or in its own words. */
function named(error: unknown, encrypted: boolean): unknown {
  if (encrypted && /^(?:ERR_SSL|ERR_TLS|EPROTO)/.test(codeOf(error) ?? '')) return tlsFailure(error);
  if (error instanceof ServerRefusal && error.code === 'F0000')
    return tlsError(
      `the server is not set up to check certificates: ${error.message}`,
      "Set ssl_ca_file in the server's configuration to the authority of the client certificates, or let pg_hba.conf ask for scram-sha-256.",
      error,
    );
  const wanted = isNoEntry(error) && error instanceof Error && /client certificate/i.test(error.message);
  return wanted ? tlsError(`the server wants a client certificate: ${error.message}`, CERTIFICATE_HINT, error) : error;
}

/** The messages until the server waits for a statement. */
async function untilReady(incoming: Incoming): Promise<Message[]> {
  for (const messages: Message[] = []; ;) {
    const message = await incoming.message();
    messages.push(message);
    if (message.type === 'Z') return messages;
  }
}

/** Throws WrongSession where target_session_attrs asks for another kind. */
async function requireTarget(
  socket: Socket,
  incoming: Incoming,
  { target }: Address,
  greeting: readonly Message[],
): Promise<void> {
  if (target === 'any') return;
  const told = new Map(
    greeting.filter(({ type }) => type === 'S').map(({ body }) => body.toString().split('\0') as [string, string]),
  );
  const is = async (name: string, statement: string) =>
    (told.get(name) ?? (await answerTo(socket, incoming, statement))) === 'on';
  // a pooler may not pass the parameters on
  const standby = await is(
    'in_hot_standby',
    "select case when pg_catalog.pg_is_in_recovery() then 'on' else 'off' end",
  );
  if (standby) throw new WrongSession('the server is a standby');
  if (target === 'read-write' && (await is('default_transaction_read_only', 'show transaction_read_only')))
    throw new WrongSession('the session is read-only');
}

const WHO_ANSWERS = 'select pg_catalog.pg_backend_pid()';

/** The process and the secret of BackendKeyData; zeros: there was none. */
function keyOf(greeting: readonly Message[]): Buffer {
  return greeting.find(({ type }) => type === 'K')?.body ?? Buffer.alloc(8);
}

/** The first value of a statement's result. */
async function answerTo(socket: Socket, incoming: Incoming, statement: string): Promise<string> {
  socket.write(framed('Q', Buffer.from(`${statement}\0`)));
  const row = (await untilReady(incoming)).find(({ type }) => type === 'D');
  return row?.body.subarray(6).toString() ?? '';
}
