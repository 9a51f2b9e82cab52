/** The way to a server: a TCP connection or a local socket, through TLS where that is wanted and the server has it. */
import { lookup } from 'node:dns/promises';
import { existsSync } from 'node:fs';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import type { Address, Host } from './address.ts';
import { failure, Incoming, opening, TLS_REQUEST } from './messages.ts';
import { tlsError, tlsFailure } from './tls.ts';

/** One place to connect to. */
export interface Place {
  readonly host: Host;
  /** an IP address, or the path of a socket */
  readonly at: string;
  readonly port: number;
}

/** Where PostgreSQL's socket is: Debian's directory, and PostgreSQL's own. */
const SOCKET_DIRECTORIES = ['/var/run/postgresql', '/tmp'];

/** Where a host is: every IP address of its name. */
export async function placesOf(host: Host): Promise<Place[]> {
  const { name, ip, port } = host;
  const file = (directory: string) => `${directory}/.s.PGSQL.${port}`;
  if (ip !== undefined) return [{ host, at: ip, port }];
  if (name.startsWith('/')) return [{ host, at: file(name), port }];
  const socket = SOCKET_DIRECTORIES.map(file).find((path) => existsSync(path));
  if (name === '' && socket !== undefined) return [{ host, at: socket, port }];
  const found = await lookup(name || 'localhost', { all: true });
  return found.map(({ address: at }) => ({ host, at, port }));
}

export const isLocal = ({ at }: Place): boolean => isIP(at) === 0;
export const isLoopback = ({ at }: Place): boolean => /^(?:127\.|::1$|::ffff:127\.)/i.test(at);

export interface Way {
  readonly socket: Socket;
  readonly encrypted: boolean;
}

/** `options`: of TLS, where it is wanted; `buffering`: of the streams. `known` is told every socket. Throws database_tls, or what the socket says. */
export async function openWay(
  place: Place,
  { tls, keepAlive, keepAliveIdle }: Address,
  {
    options,
    buffering,
    known,
  }: { options: ConnectionOptions | undefined; buffering: object; known: (socket: Socket) => void },
): Promise<Way> {
  const where = isLocal(place) ? { path: place.at } : { host: place.at, port: place.port };
  const raw = connect({ ...where, ...buffering });
  known(raw);
  // nobody may be listening when a failure comes
  raw
    .on('error', () => {})
    .setNoDelay(true)
    .setKeepAlive(keepAlive, keepAliveIdle);
  await event(raw, 'connect');
  if (options === undefined || (!tls.direct && !(await takesTls(raw, tls.mode))))
    return { socket: raw, encrypted: false };
  const socket = connectTls({ ...options, ...buffering, socket: raw });
  known(socket);
  socket.on('error', () => {});
  await event(socket, 'secureConnect').catch((error: unknown) => {
    throw tlsFailure(error);
  });
  return { socket, encrypted: true };
}

/** Sends PostgreSQL's SSLRequest. False where the server has no TLS and the address can do without. */
async function takesTls(raw: Socket, mode: string): Promise<boolean> {
  const incoming = new Incoming(raw);
  raw.write(opening(TLS_REQUEST));
  const answer = (await incoming.take(1)).toString('latin1');
  const rest = incoming.release();
  if (rest.length > 0) throw tlsError('the server sent something unencrypted before TLS began');
  if (answer === 'S') return true;
  if (answer !== 'N') throw tlsError('what listens there does not answer as PostgreSQL when it is asked for TLS');
  if (mode === 'prefer' || mode === 'allow') return false;
  throw tlsError(
    `the server has no TLS, and sslmode=${mode} wants it`,
    'Switch TLS on in the server (ssl = on with ssl_cert_file and ssl_key_file), or say sslmode=disable if its network is to be trusted.',
  );
}

/** Waits for an event of a socket; rejects where it fails or closes before. */
function event(socket: Socket, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const settled = (settle: () => void) => () => {
      socket.off(name, done).off('error', failed).off('close', closed);
      settle();
    };
    const done = settled(resolve);
    const closed = settled(() => reject(failure('CONNECTION_CLOSED', 'the server closed the connection')));
    const failed = (error: Error) => settled(() => reject(error))();
    socket.on(name, done).on('error', failed).on('close', closed);
  });
}
