/** Faulty answers: another answer in place of the right one, or a right one with faulty bytes, timing, size or connection. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import type { FaultKind, Faults } from './faults.ts';

type Say = (status: number, type: string, body: string, more?: Record<string, string>) => void;
type Instead = (say: Say, request: IncomingMessage, faults: Faults) => void;

const page = (title: string) => `<html><body>${title}</body></html>`;
const after = (seconds: number | undefined) => (seconds === undefined ? {} : { 'retry-after': String(seconds) });

/** By fault; the request is not read. */
export const INSTEAD: Readonly<Partial<Record<FaultKind, Instead>>> = {
  error: (say, _, { retryAfter }) => say(503, 'text/html', page('503 Service Unavailable'), after(retryAfter)),
  busy: (say, _, { retryAfter = 1 }) => say(429, 'text/plain', 'Too many requests', after(retryAfter)),
  'not-found': (say) => say(404, 'text/html', page('404 Not Found')),
  redirect: (say) => say(302, 'text/html', page('302 Found'), { location: '/moved/' }),
  html: (say) => say(200, 'text/html', page('We will be back soon')),
  reset: (_, { socket }) => socket.resetAndDestroy(),
  'half-closed': (_, { socket }) => socket.end(),
  silence: () => {},
};

export interface Reply {
  readonly type: string;
  readonly text: string;
}

type Spoil = (
  response: ServerResponse,
  reply: Reply,
  head: (length: number, more?: Record<string, string>) => ServerResponse,
) => void;

const DRIP_MS = 1_000;
const HUGE = 1 << 30;
const LEVELS = 1_000;

/** By fault; `head` writes the head of a 200 with the type of the reply. */
export const SPOILED: Readonly<Partial<Record<FaultKind, Spoil>>> = {
  drip: (response, { text }, head) => {
    const bytes = Buffer.from(text);
    head(bytes.length);
    let at = 0;
    const timer = setInterval(() => {
      response.write(bytes.subarray(at, ++at));
      if (at < bytes.length) return;
      clearInterval(timer);
      response.end();
    }, DRIP_MS);
    response.once('close', () => clearInterval(timer));
  },
  cut: (response, { text }, head) => {
    head(Buffer.byteLength(text)).write(text.slice(0, text.length / 2), () => response.destroy());
  },
  huge: (response, { text }, head) => {
    const block = Buffer.from(text.repeat(Math.ceil(65_536 / text.length)));
    let left = HUGE;
    const pour = () => {
      while (left > 0) {
        const piece = block.subarray(0, left);
        left -= piece.length;
        if (!response.write(piece)) return;
      }
      response.end();
    };
    head(HUGE);
    response.on('drain', pour);
    pour();
  },
  broken: (_, { text }, head) => end(head, Buffer.from(text.slice(0, text.length / 2))),
  gzip: (_, { text }, head) => end(head, gzipSync(text), { 'content-encoding': 'gzip' }),
  utf16: (_, { text }, head) => end(head, Buffer.from(`\ufeff${text}`, 'utf16le')),
  doctype: (_, { text }, head) => {
    const entity = text.replace(/>[A-Za-z]+<\/state>/, '>&word;</state>');
    end(head, Buffer.from(`<!DOCTYPE status [<!ENTITY word "Delivered">]>${entity}`));
  },
  deep: (_, { text }, head) => {
    const deep = text.startsWith('{')
      ? text.replace('{', `{"more":${'['.repeat(LEVELS)}${']'.repeat(LEVELS)},`)
      : `${'<more>'.repeat(LEVELS)}${text}${'</more>'.repeat(LEVELS)}`;
    end(head, Buffer.from(deep));
  },
  http10: ({ socket }, { type, text }) => socket?.end(`HTTP/1.0 200 OK\r\ncontent-type: ${type}\r\n\r\n${text}`),
  pipelined: ({ socket }, { text }, head) => {
    const bytes = Buffer.from(text);
    head(bytes.length).end(bytes, () => socket?.write(bytes));
  },
  'two-states': (_, { text }, head) => {
    const two = text.startsWith('{')
      ? text.replace('{', '{"state":{"value":"Expired"},')
      : text.replace('<state>', '<state>Expired</state><state>');
    end(head, Buffer.from(two));
  },
};

function end(head: Parameters<Spoil>[2], bytes: Buffer, more: Record<string, string> = {}): void {
  head(bytes.length, more).end(bytes);
}
