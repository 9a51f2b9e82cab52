/**
 * Replies as a gateway should not give them, byte by byte over a socket, each with what the poller must make of it. A careless reader would take
 * most of them for Delivered. Every one repeats the mark, which must not be found in any log.
 */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import type { PollResult } from '../../src/metrics.ts';

export const MARK = 'echoedbythegateway';
/** An id that nobody asked for. */
const OTHER = '7999999999';
const DATE = 'Wed, 28 Mar 2007 12:35:00 +0300';

export interface Hostile {
  readonly result: PollResult;
  /** answers one request for `id`; `trap` is the address of a place where nobody should come */
  readonly serve: (socket: Socket, id: string, trap: string) => void;
}

const delivered = (id: string) => `<status id='${id}' date='${DATE}' by='${MARK}'><state>Delivered</state></status>`;
const deliveredJson = (id: string) => `{"state":{"value":"Delivered"},"id":${id},"date":"${DATE}","by":"${MARK}"}`;

/** One whole answer, with the length of `body` unless `headers` says something about it. */
function http(body: string | Buffer, headers: readonly string[] = [], line = 'HTTP/1.1 200 OK'): Buffer {
  const bytes = Buffer.from(body);
  const framed = headers.some((header) => /^(content-length|transfer-encoding):/i.test(header));
  const head = [line, `server: ${MARK}`, ...headers, ...(framed ? [] : [`content-length: ${bytes.length}`])];
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), bytes]);
}

/** `make` gives the bytes of the answer; the connection stays open. */
function says(result: PollResult, make: (id: string, trap: string) => string | Buffer): Hostile {
  return { result, serve: (socket, id, trap) => socket.write(make(id, trap)) };
}

/** The same, and then the connection is closed. */
function saysAndGoes(result: PollResult, make: (id: string) => string | Buffer): Hostile {
  return { result, serve: (socket, id) => socket.end(make(id)) };
}

const body = (result: PollResult, make: (id: string) => string | Buffer, headers: readonly string[] = []) =>
  says(result, (id) => http(make(id), headers));

/** Begins with `head` and then pours `piece` for as long as anybody takes it. */
function pours(result: PollResult, head: (id: string) => string | Buffer, piece: string): Hostile {
  const block = piece.repeat(Math.ceil(65_536 / piece.length));
  return {
    result,
    serve: (socket, id) => {
      const pour = () => {
        while (socket.writable && socket.write(block));
      };
      socket.on('drain', pour);
      socket.write(head(id));
      pour();
    },
  };
}

/** Begins with `head` and then gives a byte now and then, far from the end of the time. */
function drips(head: (id: string) => string, byte: string): Hostile {
  return {
    result: 'timeout',
    serve: (socket, id) => {
      socket.write(head(id));
      const timer = setInterval(() => socket.write(byte), 20);
      socket.once('close', () => clearInterval(timer));
    },
  };
}

const head = (line: string, ...headers: string[]) => [line, ...headers, '', ''].join('\r\n');
const OK = 'HTTP/1.1 200 OK';
const GIGABYTE = 1 << 30;

export const HOSTILE: Readonly<Record<string, Hostile>> = {
  // XML
  'an entity in a DOCTYPE': body(
    'protocol',
    (id) => `<!DOCTYPE status [<!ENTITY s "Delivered">]><status id='${id}'><state>&s;</state></status>`,
  ),
  'a billion laughs': body('protocol', (id) => {
    const entities = Array.from({ length: 9 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join('');
    return `<!DOCTYPE s [<!ENTITY l0 "Delivered">${entities}]><status id='${id}'><state>&l9;</state></status>`;
  }),
  'an entity from another place': says('protocol', (id, trap) =>
    http(`<!DOCTYPE status [<!ENTITY s SYSTEM "${trap}">]><status id='${id}'><state>&s;</state></status>`),
  ),
  'a DTD from another place': says('protocol', (id, trap) =>
    http(`<!DOCTYPE status SYSTEM "${trap}">${delivered(id)}`),
  ),
  'a style sheet': body('protocol', (id) => `<?xml-stylesheet href="http://${MARK}/"?>${delivered(id)}`),
  'an element in a thousand others': body(
    'protocol',
    (id) => `${'<a>'.repeat(1000)}${delivered(id)}${'</a>'.repeat(1000)}`,
  ),
  'two documents': body('protocol', (id) => `${delivered(id)}${delivered(id)}`),
  'text after the document': body('protocol', (id) => `${delivered(id)} ${MARK}`),
  'two states': body('protocol', (id) => `<status id='${id}'><state>Delivered</state><state>Expired</state></status>`),
  'two ids': body('protocol', (id) => `<status id='${id}' id='${OTHER}'><state>Delivered</state></status>`),
  'an id that contradicts itself': body(
    'protocol',
    (id) => `<status id='${id}'><id>${OTHER}</id><state>Delivered</state></status>`,
  ),
  'an id in a namespace': body('mismatch', (id) => `<status x:id='${id}'><state>Delivered</state></status>`),
  'another id': body('mismatch', () => delivered(OTHER)),
  'no id': body('mismatch', () => `<status date='${DATE}'><state>Delivered</state></status>`),
  'a rejection without id and reason': body(
    'mismatch',
    () => `<status date=''><id></id><state>Rejected</state></status>`,
  ),
  'an error': body('protocol', () => `<status date=''><state error='${MARK}'>Delivered</state></status>`),
  // JSON
  'JSON with two states': body('protocol', (id) =>
    deliveredJson(id).replace('{', '{"\\u0073tate":{"value":"Expired"},'),
  ),
  'JSON with another id': body('mismatch', () => deliveredJson(OTHER)),
  'JSON with an id as a fraction': body('protocol', (id) => deliveredJson(`${id}.5`)),
  'JSON that is deep': body('protocol', (id) =>
    deliveredJson(id).replace('}', `},"x":${'['.repeat(3000)}${']'.repeat(3000)}`),
  ),
  'JSON in a list': body('protocol', (id) => `[${deliveredJson(id)}]`),
  'JSON that ends early': body('protocol', (id) => deliveredJson(id).slice(0, -1)),
  'a JSON error': body('protocol', () => `{"error":{"message":"${MARK}"}}`),
  // what is neither
  'an HTML page': body('protocol', () => `<!DOCTYPE html><html><body>${MARK}<state>Delivered</state></body></html>`),
  'the request repeated': body(
    'protocol',
    (id) => `Request not recognized - ${MARK}. Request text: <request id="${id}">`,
  ),
  'a plain text': body('protocol', (id) => `${id} Delivered ${MARK}`),
  nothing: body('protocol', () => ''),
  'spaces only': body('protocol', () => ' \r\n\t'),
  // encodings
  'UTF-16 with its mark': body('protocol', (id) => Buffer.from(`\ufeff${delivered(id)}`, 'utf16le')),
  'UTF-16 without it': body('protocol', (id) => Buffer.from(delivered(id), 'utf16le')),
  'UTF-16, most significant first': body('protocol', (id) => Buffer.from(`\ufeff${delivered(id)}`, 'utf16le').swap16()),
  'windows-1251': body('protocol', (id) =>
    Buffer.from(`<?xml version='1.0' encoding='windows-1251'?>${delivered(id).replace(MARK, '\xcf\xf0')}`, 'latin1'),
  ),
  'a zero byte': body('protocol', (id) => delivered(id).replace('<state>', '\0<state>')),
  gzip: body('protocol', (id) => gzipSync(delivered(id)), ['content-encoding: gzip']),
  deflate: body('protocol', (id) => deflateSync(delivered(id)), ['content-encoding: deflate']),
  brotli: body('protocol', (id) => brotliCompressSync(delivered(id)), ['content-encoding: br']),
  // status codes
  ...Object.fromEntries(
    [301, 302, 303, 307, 308].map((code) => [
      `a redirect with ${code}`,
      says('protocol', (id, trap) => http(delivered(id), [`location: ${trap}`], `HTTP/1.1 ${code} ${MARK}`)),
    ]),
  ),
  ...Object.fromEntries(
    [201, 202, 203, 206, 300].map((code) => [
      `a status with ${code}`,
      says('protocol', (id) => http(delivered(id), [], `HTTP/1.1 ${code} ${MARK}`)),
    ]),
  ),
  'a status with 204': says('protocol', () => head('HTTP/1.1 204 No Content', `server: ${MARK}`)),
  'a status with 304': says('protocol', () => head('HTTP/1.1 304 Not Modified', `server: ${MARK}`)),
  'a status with 404': says('http_4xx', (id) => http(delivered(id), [], `HTTP/1.1 404 ${MARK}`)),
  'a status with 500': says('http_5xx', (id) => http(delivered(id), [], `HTTP/1.1 500 ${MARK}`)),
  'a huge page with 502': pours('http_5xx', () => head('HTTP/1.1 502 Bad', `content-length: ${GIGABYTE}`), MARK),
  'half a page with 502': saysAndGoes('http_5xx', (id) =>
    http(delivered(id), ['content-length: 9999'], 'HTTP/1.1 502 Bad'),
  ),
  'a dripping page with 502': {
    ...drips(() => head('HTTP/1.1 502 Bad', `content-length: ${GIGABYTE}`), 'x'),
    result: 'http_5xx',
  },
  '100 first, unasked': says('network', (id) =>
    Buffer.concat([Buffer.from(head('HTTP/1.1 100 Continue')), http(delivered(id))]),
  ),
  'another protocol': says('network', () =>
    head('HTTP/1.1 101 Switching Protocols', 'upgrade: h2c', 'connection: upgrade'),
  ),
  'early hints without end': pours('timeout', () => '', head('HTTP/1.1 103 Early Hints', `link: <${MARK}>`)),
  // framing
  'a length that is too long': saysAndGoes('network', (id) => http(delivered(id), ['content-length: 9999'])),
  'a length that is too short': saysAndGoes('protocol', (id) => http(delivered(id), ['content-length: 40'])),
  'a length that is none': says('protocol', (id) => http(delivered(id), ['content-length: all'])),
  'a length below 0': says('protocol', (id) => http(delivered(id), ['content-length: -1'])),
  'two lengths': says('protocol', (id) => http(delivered(id), ['content-length: 5', 'content-length: 9999'])),
  'a length and chunks': says('protocol', (id) =>
    http(delivered(id), ['content-length: 5', 'transfer-encoding: chunked']),
  ),
  'chunks that are none': says('protocol', (id) => http(delivered(id), ['transfer-encoding: chunked'])),
  'a chunk that is too long': says('protocol', (id) =>
    http(`5\r\n${delivered(id)}\r\n0\r\n\r\n`, ['transfer-encoding: chunked']),
  ),
  'chunks without an end': saysAndGoes('network', (id) =>
    http(`${delivered(id).length.toString(16)}\r\n${delivered(id)}\r\n`, ['transfer-encoding: chunked']),
  ),
  'an encoding of the transfer that nobody has': saysAndGoes('protocol', (id) =>
    http(delivered(id), [`transfer-encoding: ${MARK}, chunked`]),
  ),
  // too much
  'a gigabyte': pours('protocol', () => head(OK, `content-length: ${GIGABYTE}`), `<a by='${MARK}'/>`),
  'a gigabyte in chunks': pours(
    'protocol',
    () => head(OK, 'transfer-encoding: chunked'),
    `400\r\n${'x'.repeat(1024)}\r\n`,
  ),
  'a gigabyte until the end of the connection': pours('protocol', () => head(OK), MARK),
  'a chunk that is described without end': pours('timeout', () => `${head(OK, 'transfer-encoding: chunked')}5;`, MARK),
  'trailers without end': pours(
    'protocol',
    (id) => http(`${delivered(id).length.toString(16)}\r\n${delivered(id)}\r\n0\r\n`, ['transfer-encoding: chunked']),
    `x-${MARK}: ${MARK}\r\n`,
  ),
  'headers without end': pours('protocol', () => `${OK}\r\n`, `x-${MARK}: ${MARK}\r\n`),
  'a header without end': pours('protocol', () => `${OK}\r\nx-long: `, MARK),
  // too slow
  silence: { result: 'timeout', serve: () => {} },
  'a body drop by drop': drips((id) => `${head(OK, 'content-length: 9999')}${delivered(id)}`, ' '),
  'headers drop by drop': drips(() => `${OK}\r\nx-slow: `, 'x'),
  // no HTTP
  'a banner of SSH': says('protocol', () => `SSH-2.0-${MARK}\r\n`),
  'an alert of TLS': says('protocol', () => Buffer.from([0x15, 3, 1, 0, 2, 2, 0x46])),
  'HTTP before it had headers': saysAndGoes('protocol', (id) => delivered(id)),
  'a version that is none': says('protocol', (id) => http(delivered(id), [], 'HTTP/9.9 200 OK')),
  'a code of zeros': says('protocol', (id) => http(delivered(id), [], 'HTTP/1.1 000 OK')),
  'a code that is none': says('protocol', (id) => http(delivered(id), [], 'HTTP/1.1 20 OK')),
  'an answer of another HTTP': says('protocol', () => Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])),
  'line ends of one character': says('protocol', (id) => http(delivered(id)).toString().replaceAll('\r', '')),
  'garbage before the answer': says('protocol', (id) =>
    Buffer.concat([Buffer.from(`${MARK}\r\n\r\n`), http(delivered(id))]),
  ),
  'an answer to another question first': says('mismatch', (id) =>
    Buffer.concat([http(delivered(OTHER)), http(delivered(id))]),
  ),
  // connections
  'a reset': { result: 'network', serve: (socket) => socket.resetAndDestroy() },
  'an end without an answer': { result: 'network', serve: (socket) => socket.end() },
  'an end in the first line': saysAndGoes('network', () => 'HTTP/1.1 2'),
  'an end in the headers': saysAndGoes('network', () => `${OK}\r\nserver: ${MARK}\r\n`),
  'a reset in the body': {
    result: 'network',
    serve: (socket, id) => socket.write(http(delivered(id), ['content-length: 9999']), () => socket.resetAndDestroy()),
  },
};

/** Answers that are odd, and right. */
export const ODD: Readonly<Record<string, Hostile>> = {
  'HTTP/1.0 with a length': saysAndGoes('ok', (id) => http(delivered(id), [], 'HTTP/1.0 200 OK')),
  'HTTP/1.0 without one': saysAndGoes('ok', (id) => `${head('HTTP/1.0 200 OK')}${delivered(id)}`),
  'HTTP/1.1 until the end of the connection': saysAndGoes('ok', (id) => `${head(OK)}${delivered(id)}`),
  'chunks of a byte': says('ok', (id) =>
    http(
      `${delivered(id)
        .split('')
        .map((byte) => `1\r\n${byte}\r\n`)
        .join('')}0\r\n\r\n`,
      ['transfer-encoding: chunked'],
    ),
  ),
  'trailers, which are no headers': says('ok', (id) =>
    http(
      `${delivered(id).length.toString(16)};a="b"\r\n${delivered(id)}\r\n0\r\nretry-after: 300\r\ndate: ${MARK}\r\n\r\n`,
      ['transfer-encoding: chunked'],
    ),
  ),
  'as many headers as are taken': body(
    'ok',
    delivered,
    Array.from({ length: 1_000 }, () => 'date: x'),
  ),
  'a switch of protocols that is none': body('ok', delivered, ['connection: upgrade', 'upgrade: h2c']),
  'processing for a while': says('ok', (id) =>
    Buffer.concat([Buffer.from(head('HTTP/1.1 102 Processing').repeat(500)), http(delivered(id))]),
  ),
  'a mark of the byte order': body('ok', (id) => `\ufeff${delivered(id)}`),
  'a declaration of another encoding, in plain letters': body(
    'ok',
    (id) => `<?xml version="1.0" encoding="windows-1251"?>\r\n${delivered(id)}\r\n`,
  ),
  'early hints': says('ok', (id) =>
    Buffer.concat([Buffer.from(head('HTTP/1.1 103 Early Hints')), http(delivered(id))]),
  ),
  'a second answer at once': says('ok', (id) => Buffer.concat([http(delivered(id)), http(delivered(OTHER))])),
  'bytes after the answer': says('ok', (id) => Buffer.concat([http(delivered(id)), Buffer.from(MARK)])),
  'a connection that dies after the answer': {
    result: 'ok',
    serve: (socket, id) => socket.write(http(delivered(id)), () => socket.resetAndDestroy()),
  },
};

export interface HostileGateway {
  readonly url: string;
  /** what it says to each request from now on */
  answer: (id: string) => Hostile;
  /** by id */
  readonly asked: Map<string, number>;
  /** connections that are open */
  readonly open: number;
  /** the most bytes that one connection took; of what goes on until the time is up nothing is kept, so it does not count */
  readonly mostWritten: number;
  /** requests that came where nobody should come */
  readonly trapped: number;
  close(): Promise<void>;
}

export const healthy: Hostile = body('ok', delivered);

export async function startHostileGateway(): Promise<HostileGateway> {
  const sockets = new Set<Socket>();
  const asked = new Map<string, number>();
  let trapped = 0;
  let mostWritten = 0;
  const trap = createServer((socket) => {
    trapped += 1;
    socket.destroy();
  });
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    let last: Hostile | undefined;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    socket.once('close', () => {
      sockets.delete(socket);
      if (last?.result !== 'timeout') mostWritten = Math.max(mostWritten, socket.bytesWritten);
    });
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const id = /<request id="([^"]+)">status<\/request>$/.exec(text)?.[1];
      if (id === undefined) return;
      text = '';
      asked.set(id, (asked.get(id) ?? 0) + 1);
      last = gateway.answer(id);
      last.serve(socket, id, trapUrl);
    });
  });
  for (const each of [trap, server]) {
    each.listen(0, '127.0.0.1');
    await once(each, 'listening');
  }
  const urlOf = (each: typeof server) => `http://127.0.0.1:${(each.address() as AddressInfo).port}`;
  const trapUrl = `${urlOf(trap)}/${MARK}`;
  const gateway: HostileGateway = {
    url: `${urlOf(server)}/ip2sms/`,
    answer: () => healthy,
    asked,
    get open() {
      return sockets.size;
    },
    get mostWritten() {
      return mostWritten;
    },
    get trapped() {
      return trapped;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      for (const each of [server, trap]) {
        each.close();
        await once(each, 'close');
      }
    },
  };
  return gateway;
}
