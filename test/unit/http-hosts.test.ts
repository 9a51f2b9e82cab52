import { expect, test } from 'vitest';
import { hostCheck } from '../../src/http/hosts.ts';

const LOOPBACK = ['localhost', 'LOCALHOST:9464', 'localhost.', '127.0.0.1:80', '127.9.8.7', '[::1]', '[::1]:9464'];
const NAMES = [
  'rebind.example',
  'rebind.example:9464',
  'localhost.example',
  '127.0.0.1.example:80',
  'localhost@x',
  '',
  'a b',
  '[::1',
];
// 0.0.0.0 leads to this host, too, and may be what a web page asks for
const ADDRESSES = ['0.0.0.0:9464', '192.0.2.1', '10.1.2.3:9464', '[2001:db8::1]:9464'];

test.each(['127.0.0.1', '127.0.0.2', '::1'])('a server on %s answers to loopback names alone', (address) => {
  const known = hostCheck(address, []);
  for (const host of LOOPBACK) expect([host, known(host)]).toEqual([host, true]);
  for (const host of [...NAMES, ...ADDRESSES]) expect([host, known(host)]).toEqual([host, false]);
});

test('a server on a loopback address answers to the names that are allowed, too', () => {
  const known = hostCheck('127.0.0.1', ['Page.Example', 'other.example']);
  for (const host of [...LOOPBACK, 'page.example', 'PAGE.example:443', 'other.example.'])
    expect([host, known(host)]).toEqual([host, true]);
  for (const host of [...NAMES, ...ADDRESSES, 'sub.page.example']) expect([host, known(host)]).toEqual([host, false]);
});

test('a name of another script, or with a dot at its end, is allowed as a browser sends it', () => {
  const known = hostCheck('127.0.0.1', ['Канал.укр', 'page.example.']);
  for (const host of ['xn--80aa2agi.xn--j1amh', 'xn--80aa2agi.xn--j1amh:9464', 'page.example', 'page.example.'])
    expect([host, known(host)]).toEqual([host, true]);
});

test.each(['0.0.0.0', '::', '192.0.2.1'])(
  'a server on %s, whose names only its operator knows, answers to all',
  (at) => {
    const known = hostCheck(at, []);
    for (const host of [...LOOPBACK, ...NAMES, ...ADDRESSES]) expect([host, known(host)]).toEqual([host, true]);
  },
);

test.each(['0.0.0.0', '::'])(
  'a server on %s with allowed names answers to these, to addresses and to loopback names',
  (at) => {
    const known = hostCheck(at, ['page.example']);
    for (const host of [...LOOPBACK, ...ADDRESSES, 'page.example']) expect([host, known(host)]).toEqual([host, true]);
    for (const host of NAMES) expect([host, known(host)]).toEqual([host, false]);
  },
);

test('a request without a Host header, which no browser sends, is answered', () => {
  expect(hostCheck('127.0.0.1', [])(undefined)).toBe(true);
});
