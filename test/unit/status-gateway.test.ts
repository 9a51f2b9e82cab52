/** The poller's HTTP edge against real sockets that misbehave. */
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createHttpsServer } from 'node:https';
import { createServer as createTlsServer } from 'node:tls';
import { afterEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { createGateway, escapeXml, type Exchange, type Gateway } from '../../src/gateway/client.ts';
import { createPoster, readRetryAfter } from '../../src/gateway/http.ts';
import { outcomeOf } from '../../src/poller/outcome.ts';
import { reply, startGateway, type Script, type TestGateway } from '../support/gateway.ts';

const ID = '6614012446421';
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function client(url: string, env: Record<string, string> = {}, password = () => 'secret'): Gateway {
  const config = loadConfig({ IP2SMS_URL: url, IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'x', ...env }, []);
  const gateway = createGateway(config, () => ({ login: 'login', password: password() }));
  closers.push(() => gateway.close());
  return gateway;
}

async function scripted(script: Script): Promise<TestGateway> {
  const server = await startGateway(script);
  closers.push(() => server.close());
  return server;
}

/** A server that does with each connection what the test says. */
async function sockets(serve: (socket: Socket) => void): Promise<{ url: string; connections: () => number }> {
  let connections = 0;
  const open = new Set<Socket>();
  const server: Server = createServer((socket) => {
    connections += 1;
    open.add(socket);
    socket.on('error', () => {});
    socket.once('data', () => serve(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(async () => {
    for (const socket of open) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/ip2sms/`, connections: () => connections };
}

function result(exchange: Exchange): string | undefined {
  return outcomeOf(exchange, ID).result;
}

/** Of other.example, signed by itself, valid for a hundred years; the key of nothing else. */
const OTHERS_CERTIFICATE = {
  cert: `-----BEGIN CERTIFICATE-----
MIIBojCCAUegAwIBAgIUKJ4p4y/qyI+5K19kjNfh4rxicx4wCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTAgFw0yNjExMjUyMDI4MDFaGA8yMTI2
MTEwMTIwMjgwMVowGDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABKhTwPZJNn8QLjYnCtrOb+DU2LweGQHhaXDnO2ziZWHr
+CH6hZ1fK+Hy8JOloUL945TLeU1p2Kzuf1y0YV+5BjijbTBrMB0GA1UdDgQWBBTR
oaA7evo7QeFOZLpSeFrFN7hQQjAfBgNVHSMEGDAWgBTRoaA7evo7QeFOZLpSeFrF
N7hQQjAPBgNVHRMBAf8EBTADAQH/MBgGA1UdEQQRMA+CDW90aGVyLmV4YW1wbGUw
CgYIKoZIzj0EAwIDSQAwRgIhALLoizNG7vWva4pFUAh3zRXT69ywEF6rnW0Zap0x
RurIAiEAk0xH47VDNGwkPHtjuA+d7tO4uf8a+bZYuEyoExFYBRY=
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgR/dyukXoUytMHGK7
Mp2OoWcssyKgjgHbIVpCZqAHSAihRANCAASoU8D2STZ/EC42Jwrazm/g1Ni8HhkB
4Wlw5zts4mVh6/gh+oWdXyvh8vCTpaFC/eOUy3lNadis7n9ctGFfuQY4
-----END PRIVATE KEY-----
`,
};

test('the question is the classic one, with the login of the moment, on the status address', async () => {
  const server = await scripted(({ id }) => reply(id, 'Accepted'));
  let password = 'before';
  const gateway = client(server.url, {}, () => password);
  await gateway.askStatus(ID);
  password = 'after';
  await gateway.askStatus(ID);
  expect(server.asked.map(({ body }) => body)).toEqual(
    Array.from({ length: 2 }, () => `<request id="${ID}">status</request>`),
  );
  expect(
    server.asked.map(({ authorization }) => Buffer.from(authorization?.slice(6) ?? '', 'base64').toString()),
  ).toEqual(['login:before', 'login:after']);
  expect(server.asked[0]).toMatchObject({ path: '/ip2sms-request/', contentType: 'text/xml; charset=utf-8' });
});

test('in JSON all the digits of an id are sent', async () => {
  const long = '3800012345671174984921384';
  const server = await scripted(() => ({ body: `{"state":{"value":"Delivered"},"id":${long},"date":""}` }));
  const exchange = await client(server.url, { IP2SMS_FORMAT: 'json' }).askStatus(long);
  expect(server.asked[0]).toMatchObject({
    contentType: 'application/json; charset=utf-8',
    body: `{"extended":true,"id":${long},"value":"state"}`,
  });
  expect(outcomeOf(exchange, long)).toMatchObject({ result: 'ok', answer: { status: 'Delivered' } });
  // a number has no leading zero
  await client(server.url, { IP2SMS_FORMAT: 'json' }).askStatus('0123456');
  expect(server.asked[1]?.body).toBe('{"extended":true,"id":"0123456","value":"state"}');
});

test('an id that is not plain is never sent', async () => {
  const server = await scripted(({ id }) => reply(id, 'Accepted'));
  const gateway = client(server.url);
  for (const id of ['', '1"/>', '1&2', 'a b', 'x'.repeat(65), 'ї'])
    expect((await gateway.askStatus(id)).kind).toBe('unsendable');
  expect(server.asked).toEqual([]);
});

test('an SMS is sent to the sending address in the form of the gateway, XML or JSON', async () => {
  const server = await scripted(({ id }) => reply(id, 'Accepted'));
  const sms = { to: '380000000001', text: 'Код' };
  const more = { IP2SMS_SOURCE: 'NAME', SMS_STATUSES_EXPIRATION: '30' };
  await client(server.url, more).sendSms(sms);
  await client(server.url, { IP2SMS_FORMAT: 'json', ...more }).sendSms(sms);
  expect(server.asked.map(({ path, body }) => [path, body])).toEqual([
    [
      '/ip2sms/',
      '<message><service id="single" source="NAME" validity="+30 min"/><to>380000000001</to><body content-type="text/plain">Код</body></message>',
    ],
    [
      '/ip2sms/',
      '{"id":"single","extended":true,"source":"NAME","to":[{"msisdn":"380000000001"}],"body":{"value":"Код"}}',
    ],
  ]);
});

test('what a text has of XML is escaped when it is sent, and what XML has not is left out', async () => {
  const server = await scripted(({ id }) => reply(id, 'Accepted'));
  await client(server.url, { IP2SMS_SOURCE: 'A&B' }).sendSms({ to: '38<', text: `<b>"Код" & 'x'</b>\u0000` });
  expect(server.asked[0]?.body).toContain('source="A&amp;B"');
  expect(server.asked[0]?.body).toContain('<to>38&lt;</to>');
  expect(server.asked[0]?.body).toContain('&lt;b&gt;&quot;Код&quot; &amp; &apos;x&apos;&lt;/b&gt;</body>');
  expect(escapeXml('a\ud800b')).toBe('a\ufffdb');
});

test.each([
  [200, {}, 'ok', 'answer', false, 'schedule'],
  [301, { location: '/elsewhere' }, 'protocol', 'answer', false, 'schedule'],
  [204, {}, 'protocol', 'answer', false, 'schedule'],
  [400, {}, 'http_4xx', 'answer', false, 'rejected'],
  [401, {}, 'unauthorized', 'unauthorized', false, 'when allowed'],
  [403, { 'retry-after': '7' }, 'unauthorized', 'unauthorized', false, 'when allowed'],
  [408, {}, 'http_4xx', 'fault', true, 'schedule'],
  [429, { 'retry-after': '7' }, 'http_4xx', 'fault', true, 'schedule'],
  [500, {}, 'http_5xx', 'fault', true, 'schedule'],
  [503, { 'retry-after': '7' }, 'http_5xx', 'fault', true, 'schedule'],
] as const)('HTTP %s %j is %s', async (status, headers, expected, breaker, overload, again) => {
  const server = await scripted(({ id }) => ({ ...(status === 204 ? {} : reply(id, 'Accepted')), status, headers }));
  const outcome = outcomeOf(await client(server.url).askStatus(ID), ID);
  expect(outcome).toMatchObject({ result: expected, breaker, overload, again });
  expect(outcome.retryAfterMs).toBe('retry-after' in headers ? 7000 : undefined);
  expect(server.asked).toHaveLength(1);
});

test('a login that is refused in the text of an answer with 200 is refused', async () => {
  const server = await scripted(() => ({ body: '401 Unauthorized' }));
  expect(outcomeOf(await client(server.url).askStatus(ID), ID)).toMatchObject({
    result: 'unauthorized',
    breaker: 'unauthorized',
    again: 'when allowed',
  });
});

test('a Retry-After is heard, and a login refused, whatever page comes with it', async () => {
  const page = 'x'.repeat(100_000);
  const server = await scripted(() => ({ status: 503, headers: { 'retry-after': '7' }, body: page }));
  expect(outcomeOf(await client(server.url).askStatus(ID), ID)).toMatchObject({
    result: 'http_5xx',
    retryAfterMs: 7000,
  });
  server.script = () => ({ status: 401, body: page });
  expect(result(await client(server.url).askStatus(ID))).toBe('unauthorized');
  const cut = await sockets((socket) =>
    socket.end('HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\nx'),
  );
  expect(outcomeOf(await client(cut.url).askStatus(ID), ID)).toMatchObject({ result: 'http_4xx', retryAfterMs: 7000 });
});

test('no coding of the reply is asked for', async () => {
  let coding: unknown;
  const server = await scripted(({ id, headers }) => {
    coding = headers['accept-encoding'];
    return reply(id, 'Accepted');
  });
  await client(server.url).askStatus(ID);
  expect(coding).toBe('identity');
});

test('a gateway that speaks TLS where we do not, or not where we do, is a fault', async () => {
  const plain = await scripted(({ id }) => reply(id, 'Delivered'));
  expect(result(await client(plain.url.replace('http:', 'https:')).askStatus(ID))).toBe('network');
  expect(plain.asked).toEqual([]);
  // a server without a certificate for us
  const secure = createTlsServer({ ciphers: 'PSK', pskCallback: () => null, pskIdentityHint: 'x' });
  secure.on('tlsClientError', () => {});
  secure.listen(0, '127.0.0.1');
  await once(secure, 'listening');
  closers.push(async () => {
    secure.close();
    await once(secure, 'close');
  });
  const address = `127.0.0.1:${(secure.address() as AddressInfo).port}/ip2sms/`;
  expect(result(await client(`https://${address}`).askStatus(ID))).toBe('network');
  expect(['network', 'protocol']).toContain(result(await client(`http://${address}`).askStatus(ID)));
});

test('a gateway with a certificate that nobody vouches for gets no question, and so no login', async () => {
  let asked = 0;
  let offered: readonly string[] = [];
  const ALPNCallback = ({ protocols }: { protocols: string[] }) => {
    offered = protocols;
    return protocols[0];
  };
  const server = createHttpsServer({ ...OTHERS_CERTIFICATE, ALPNCallback }, (_, response) => {
    asked += 1;
    response.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(async () => {
    server.close();
    await once(server, 'close');
  });
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/ip2sms/`;
  expect(await client(url).askStatus(ID)).toEqual({ kind: 'network', cause: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
  expect(asked).toBe(0);
  // and HTTP/2 is not offered
  expect(offered).toEqual(['http/1.1']);
});

test('a connection that is reset before the first byte is tried once more at once, and only once', async () => {
  let resets = 1;
  const server = await scripted(({ id }) => (resets-- > 0 ? 'reset' : reply(id, 'Delivered')));
  expect(result(await client(server.url).askStatus(ID))).toBe('ok');
  expect(server.asked).toHaveLength(2);
  resets = Infinity;
  expect(result(await client(server.url).askStatus(ID))).toBe('network');
  expect(server.asked).toHaveLength(4);
});

test.each([
  [
    'a reset in the body',
    'network',
    (socket: Socket) =>
      void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx', () => socket.resetAndDestroy()),
  ],
  ['what is no HTTP', 'protocol', (socket: Socket) => void socket.write('SSH-2.0-x\r\n')],
  ['silence', 'timeout', () => {}],
])('%s is not tried again at once, and says whether the gateway can take more', async (_, expected, serve) => {
  const server = await sockets(serve);
  const short: Record<string, string> = expected === 'timeout' ? { IP2SMS_TIMEOUT_MS: '400' } : {};
  const alive = expected === 'protocol';
  expect(outcomeOf(await client(server.url, short).askStatus(ID), ID)).toMatchObject({
    result: expected,
    breaker: alive ? 'answer' : 'fault',
    overload: !alive,
  });
  expect(server.connections()).toBe(1);
});

test('no more questions are under way than are allowed, and the others wait for their place', async () => {
  const answers: (() => void)[] = [];
  const server = await scripted(async ({ id }) => {
    if (id === ID) await new Promise<void>((resolve) => answers.push(resolve));
    return reply(id, 'Delivered');
  });
  const gateway = client(server.url, { IP2SMS_MAX_CONCURRENCY: '2' });
  const results = Promise.all(Array.from({ length: 6 }, async () => result(await gateway.askStatus(ID))));
  const other = client(server.url);
  for (let answered = 0; answered < 6; answered += 2) {
    await expect.poll(() => answers.length, { timeout: 10_000 }).toBe(2);
    // whatever else was sent is there by now
    await other.askStatus('1000001');
    expect(answers).toHaveLength(2);
    for (const answer of answers.splice(0)) answer();
  }
  expect(await results).toEqual(Array.from({ length: 6 }, () => 'ok'));
});

test('a connection that does not come about is left when the time of its request is over', async () => {
  let closed = false;
  const server = await sockets((socket) => void socket.once('close', () => (closed = true)));
  // TLS begins, and is never answered
  const gateway = client(server.url.replace('http:', 'https:'), { IP2SMS_TIMEOUT_MS: '400' });
  expect(result(await gateway.askStatus(ID))).toBe('timeout');
  await expect.poll(() => closed, { timeout: 5_000 }).toBe(true);
});

test('the time limit of a request goes with it, whatever it ends with', async () => {
  let limits = 0;
  const deadlines = {
    begin: () => {
      limits += 1;
      return { endsAt: Infinity, end: () => void (limits -= 1) };
    },
  };
  const server = await scripted(({ id }) => (id === ID ? reply(id, 'Delivered') : 'reset'));
  const poster = createPoster(new URL(server.url), 1, 10_000, deadlines);
  closers.push(() => poster.close());
  const kindOf = async (id: string) => (await poster.post({}, `<request id="${id}">status</request>`, true)).kind;
  expect([await kindOf(ID), await kindOf('1'), limits]).toEqual(['response', 'network', 0]);
});

test('what a frozen process finds past its time is not asked: the SMS may be with another daemon', async () => {
  const over = { begin: () => ({ endsAt: performance.now() - 1, end: () => {} }) };
  const server = await scripted(() => 'reset');
  const reset = createPoster(new URL(server.url), 1, 400, { begin: () => ({ endsAt: Infinity, end: () => {} }) });
  closers.push(() => reset.close());
  expect(await reset.post({}, '<request id="1">status</request>', true)).toMatchObject({ kind: 'network' });
  expect(server.asked).toHaveLength(2);
  // while it waited for a connection
  const late = createPoster(new URL(server.url), 1, 400, over);
  closers.push(() => late.close());
  expect(await late.post({}, '<request id="1">status</request>', true)).toEqual({ kind: 'timeout' });
  // and where the connection was reset meanwhile
  let endsAt = Infinity;
  const frozen = createPoster(new URL(server.url), 1, 400, {
    begin: () => ({
      get endsAt() {
        return endsAt;
      },
      end: () => {},
    }),
  });
  closers.push(() => frozen.close());
  server.script = () => {
    endsAt = 0;
    return 'reset';
  };
  expect(await frozen.post({}, '<request id="1">status</request>', true)).toMatchObject({ kind: 'network' });
  expect(server.asked).toHaveLength(3);
});

test('an SMS is never sent twice', async () => {
  const server = await scripted(() => 'reset');
  expect((await client(server.url).sendSms({ to: '380000000001', text: 'text' })).kind).toBe('network');
  expect(server.asked).toHaveLength(1);
});

test('nobody there is a network fault', async () => {
  const nobody = await client('http://127.0.0.1:9/ip2sms/').askStatus(ID);
  expect(nobody).toEqual({ kind: 'network', cause: 'ECONNREFUSED' });
  expect(outcomeOf(nobody, ID)).toMatchObject({ result: 'network', cause: 'ECONNREFUSED' });
});

test("the gateway's clock is compared by the Date header", async () => {
  const server = await scripted(({ id }) => ({
    ...reply(id, 'Accepted'),
    headers: { date: new Date(Date.now() + 3_600_000).toUTCString() },
  }));
  const exchange = await client(server.url).askStatus(ID);
  expect(Math.round((exchange.kind === 'response' ? (exchange.clockOffsetMs ?? 0) : 0) / 60_000)).toBe(60);
});

test('a Retry-After that is a date is taken by the clock of the gateway', async () => {
  for (const skew of [-3_600_000, 3_600_000]) {
    const at = Math.floor(Date.now() / 1000) * 1000 + skew;
    const server = await scripted(() => ({
      status: 503,
      headers: { date: new Date(at).toUTCString(), 'retry-after': new Date(at + 20_000).toUTCString() },
    }));
    expect(await client(server.url).askStatus(ID)).toMatchObject({ retryAfterMs: 20_000 });
  }
});

test('Retry-After is read in seconds and as a date', () => {
  const now = Date.UTC(2026, 0, 1);
  expect(readRetryAfter('120', now)).toBe(120_000);
  expect(readRetryAfter('9'.repeat(20), now)).toBeGreaterThan(1e15);
  expect(readRetryAfter('Thu, 01 Jan 2026 00:01:00 GMT', now)).toBe(60_000);
  expect(readRetryAfter('soon', now)).toBeUndefined();
  expect(readRetryAfter(undefined, now)).toBeUndefined();
});
