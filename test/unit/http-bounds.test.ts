import type { Server, ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { once } from 'node:events';
import { afterEach, expect, test, vi } from 'vitest';
import { BOUNDS, boundedServer } from '../../src/http/bounds.ts';
import { until } from '../support/database.ts';

let server: Server;
let clients: Socket[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  for (const client of clients) client.destroy();
  clients = [];
  server.closeAllConnections();
  await new Promise((resolve) => void server.close(resolve));
});

const GET = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n';
/** Larger than what the kernel takes for a client that does not read. */
const HUGE = Buffer.alloc(32 * 1024 * 1024);

let answered = 0;
/** answers that are not given yet */
let held: ServerResponse[] = [];
/** `body` null: the test gives the answers. */
async function serve(bounds: Partial<typeof BOUNDS> = {}, body: Buffer | string | null = 'ok'): Promise<void> {
  answered = 0;
  held = [];
  server = boundedServer(
    (_, response) => {
      answered += 1;
      if (body === null) held.push(response);
      else response.end(body);
    },
    { ...BOUNDS, checkMs: 20, ...bounds },
  );
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
}

/** A connection that sends `text` and does not read. */
async function client(text = '', localAddress = '127.0.0.1'): Promise<Socket> {
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  clients.push(socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(text);
  return socket;
}
/** A connection whose first request has come to the server. */
async function asking(text: string): Promise<Socket> {
  const [socket] = await Promise.all([client(text), once(server, 'request')]);
  return socket.resume();
}
/** All that comes until the server ends the connection. */
async function read(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (piece: Buffer) => (text += piece.toString('latin1')));
  await once(socket, 'close');
  return text;
}
const answersIn = (text: string) => text.split('HTTP/1.1 200 OK').length - 1;
const connections = () =>
  new Promise<number>((resolve, reject) =>
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
  );

test('a connection beyond the limit takes the place of the oldest one', async () => {
  await serve({ connections: 3 });
  // of those of another address, which has none any more
  for (let i = 0; i < 4; i += 1) (await client('', '127.0.0.2')).destroy();
  await until('them to have gone', async () => (await connections()) === 0);
  const oldest = await client();
  const ended = once(oldest, 'close');
  oldest.resume();
  for (let i = 0; i < 3; i += 1) await client();
  await ended;
  expect(await connections()).toBe(3);
  const last = await client(GET);
  const [piece] = (await once(last, 'data')) as [Buffer];
  expect(piece.toString()).toContain('200 OK');
});

test('it takes that of the oldest one of the address that has the most: who asks slowly is heard beside a flood from elsewhere', async () => {
  await serve({ connections: 3 });
  // what its address had before does not count
  (await client()).destroy();
  await until('it to have gone', async () => (await connections()) === 0);
  const slow = await client();
  for (let i = 0; i < 20; i += 1) await client('', '127.0.0.2');
  const another = await client('', '127.0.0.3');
  await until('all to be met', async () => (await connections()) === 3);
  for (const socket of [slow, another]) {
    socket.write(GET);
    const [piece] = (await once(socket, 'data')) as [Buffer];
    expect(piece.toString()).toContain('200 OK');
  }
});

test('what is pipelined on one connection is answered, up to the limit of requests', async () => {
  await serve({ requests: 10, idleMs: 100 });
  expect(answersIn(await read(await client(GET.repeat(9))))).toBe(9);
  expect(await read(await client(GET.repeat(30)))).not.toContain(' 503 ');
  expect(answered).toBe(19);
});

test('who asks only after each answer is answered, however often', async () => {
  await serve({ pipelined: 1, checkMs: 60_000 });
  const socket = await client();
  for (let i = 0; i < 5; i += 1) {
    socket.write(GET);
    const [piece] = (await once(socket, 'data')) as [Buffer];
    expect(piece.toString()).toContain('200 OK');
  }
});

test('of requests that come one by one before the answers to others so many are answered on all connections, one more ends its own, and the first of another is answered', async () => {
  await serve({ pipelined: 2, checkMs: 60_000 }, null);
  const sockets: Socket[] = [];
  server.on('connection', (socket: Socket) => sockets.push(socket));
  const both = [await client(GET), await client(GET)];
  await until('both to be heard', () => answered === 2);
  for (const [i, socket] of both.entries()) {
    socket.write(GET);
    await until('another request of each to be heard', () => answered === 3 + i);
  }
  const [one] = both as [Socket];
  one.write(GET.slice(0, -1));
  await until('all but the end of one more to be read', () => sockets[0]!.bytesRead === 3 * GET.length - 1);
  // another one is read with that end
  one.write(`\n${GET}`);
  expect(await read(one)).toBe('');
  expect(answered).toBe(4);
  await client(GET);
  await until('that of another connection to be heard', () => answered === 5);
});

test('the time of an answer is that since its request, or since the answer before it', async () => {
  let clock = 10_000;
  vi.spyOn(performance, 'now').mockImplementation(() => clock);
  await serve({ answerMs: 200 }, null);
  const first = await asking(GET);
  clock += 150;
  const second = await asking(GET);
  const slow = await asking(GET.repeat(2));
  clock += 100;
  await once(first, 'close');
  // another request behind it gives an answer no more time
  second.write(GET);
  await once(server, 'request');
  held[2]!.end('ok');
  await once(slow, 'data');
  clock += 150;
  await once(second, 'close');
  held[3]!.end('ok');
  const [piece] = (await once(slow, 'data')) as [Buffer];
  expect(piece.toString()).toContain('200 OK');
});

test('what is read at once with more requests than are answered in a second is not gone through', async () => {
  await serve({ pipelined: 20, checkMs: 60_000 });
  let seen = 0;
  server.on('request', () => (seen += 1));
  expect(await read(await client(GET.repeat(1_000)))).toBe('');
  expect(seen).toBe(0);
});

test('a flood of pipelined requests that nobody reads is answered in small part, and the first request of every other connection always', async () => {
  await serve({ pipelined: 4, checkMs: 60_000 }, HUGE);
  const flood = await Promise.all(Array.from({ length: 30 }, () => client(GET.repeat(40))));
  await Promise.all(flood.map((socket) => read(socket)));
  expect(answered).toBeLessThanOrEqual(30 + 4);
  const probe = await client(GET);
  const [piece] = (await once(probe, 'data')) as [Buffer];
  expect(piece.toString('latin1', 0, 15)).toBe('HTTP/1.1 200 OK');
});

test.each([
  ['an answer that is not read', GET, HUGE],
  ['an answer of which little is read', GET, HUGE],
  ['no request at all', '', 'ok'],
  ['a request whose head comes slowly', 'GET / HTTP/1.1\r\nHost: local', 'ok'],
  ['a request whose body never comes', 'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n', 'ok'],
  ['a request and then silence', GET, 'ok'],
])('a connection with %s is ended', async (what, text, body) => {
  await serve({ headersMs: 100, requestMs: 200, answerMs: 200, idleMs: 100 }, body);
  const socket = await client(text);
  // the server ends it: a client that reads nothing learns of it from the server's side alone
  if (what.includes('little')) {
    const sip = setInterval(() => void socket.read(1), 10);
    socket.once('close', () => clearInterval(sip));
  } else if (body !== HUGE) socket.resume();
  await expect(until('the connection to be ended', async () => (await connections()) === 0)).resolves.toBeUndefined();
});

test('a connection that has asked for nothing yet is heard after the time of an answer', async () => {
  await serve({ answerMs: 200 }, HUGE);
  const quiet = await client();
  await client(GET);
  await until('the one that does not read to be ended', async () => (await connections()) === 1);
  quiet.write(GET);
  const [piece] = (await once(quiet, 'data')) as [Buffer];
  expect(piece.toString('latin1', 0, 15)).toBe('HTTP/1.1 200 OK');
});

test('what has gone takes no place, and after each check as much pipelined as before is answered', async () => {
  await serve({ connections: 3, pipelined: 4, idleMs: 100 });
  const rests = vi.spyOn(globalThis, 'clearInterval');
  const all = async () => answersIn(await read(await client(GET.repeat(4)))) === 4;
  expect(await all()).toBe(true);
  await until('the checks to rest', () => rests.mock.calls.length > 0);
  const quiet = await client();
  for (let i = 0; i < 4; i += 1) await until('all to be answered', all);
  quiet.write(GET);
  const [piece] = (await once(quiet, 'data')) as [Buffer];
  expect(piece.toString()).toContain('200 OK');
});
