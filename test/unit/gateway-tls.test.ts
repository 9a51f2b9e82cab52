/** The poller's way to the gateway: its own authority, a client certificate, a proxy; and what is said where it fails. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createHttp, type Server } from 'node:http';
import { createServer as createHttps, type ServerOptions } from 'node:https';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { freePort } from '../../src/demo/cluster.ts';
import { findingOf } from '../../src/doctor/gateway.ts';
import { clearGateways } from '../../src/gateway/certificates.ts';
import { createGateway } from '../../src/gateway/client.ts';
import { outcomeOf } from '../../src/poller/outcome.ts';
import { createAuthority, type Authority } from '../support/certificates.ts';
import { until } from '../support/database.ts';

const ID = '6614012446421';
let ours: Authority;
let others: Authority;
const closers: (() => void)[] = [];
beforeAll(() => {
  [ours, others] = [createAuthority(), createAuthority('another authority')];
});
afterAll(() => {
  ours.remove();
  others.remove();
});
afterEach(() => {
  vi.unstubAllEnvs();
  for (const close of closers.splice(0)) close();
});

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const REPLY = `<status id="${ID}" date="Wed, 28 Mar 2007 12:35:00 +0300"><state>Delivered</state></status>`;

/** A gateway with a certificate, whose clients are as `options` say; returns its port. */
async function gateway(
  certificate: { hosts?: string[]; days?: number },
  options: ServerOptions = {},
  by = ours,
): Promise<number> {
  const { certFile, keyFile } = by.issue({ hosts: ['127.0.0.1'], ...certificate });
  const files = { cert: readFileSync(certFile), key: readFileSync(keyFile) };
  return listening(
    createHttps({ ...files, ...options }, (request, response) => request.resume().on('end', () => response.end(REPLY))),
  );
}

/** Ends the handshake as most servers do where the certificate is missing or wrong: Node.js only cuts the connection. Returns its port. */
async function strictGateway(): Promise<number> {
  const port = await freePort();
  const { certFile, keyFile } = ours.issue({ hosts: ['127.0.0.1'] });
  const flags = ['-accept', `127.0.0.1:${port}`, '-cert', certFile, '-key', keyFile, '-CAfile', ours.caFile];
  const server = spawn('openssl', ['s_server', ...flags, '-Verify', '1', '-verify_return_error'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  closers.push(() => server.kill('SIGKILL'));
  let said = '';
  server.stdout.on('data', (words: Buffer) => (said += words.toString()));
  await until('openssl to listen', () => said.includes('ACCEPT'));
  return port;
}

/** How a question ends: `ok`, or what doctor says of it. */
async function ask(url: string, env: Record<string, string> = {}): Promise<string> {
  const config = loadConfig({ IP2SMS_URL: url, IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'secret', ...env });
  const asking = createGateway(config, () => ({ login: 'login', password: 'secret' }));
  try {
    const outcome = outcomeOf(await asking.askStatus(ID), ID);
    if (outcome.answer !== undefined) return outcome.answer.status;
    const { says, fix } = findingOf(outcome, config);
    return `${says}; ${fix}`;
  } finally {
    await asking.close();
  }
}

test('a gateway of an own authority is trusted with IP2SMS_CA_FILE; else it is said what to set', async () => {
  const url = `https://127.0.0.1:${await gateway({})}/ip2sms/`;
  expect(await ask(url, { IP2SMS_CA_FILE: ours.caFile })).toBe('Delivered');
  for (const env of [{}, { IP2SMS_CA_FILE: others.caFile }])
    expect(await ask(url, env)).toMatch(/certificate is not trusted .*IP2SMS_CA_FILE/);
});

test('a certificate for another host, and one that has expired, are told of', async () => {
  const trusting = { IP2SMS_CA_FILE: ours.caFile };
  const elsewhere = await gateway({ hosts: ['gateway.example'] });
  expect(await ask(`https://127.0.0.1:${elsewhere}/ip2sms/`, trusting)).toMatch(
    /not trusted .*host name in IP2SMS_URL/,
  );
  const expired = await gateway({ days: -1 });
  expect(await ask(`https://127.0.0.1:${expired}/ip2sms/`, trusting)).toMatch(/not trusted .*has expired/);
});

test('a client certificate that the gateway wants is sent; without it, or with one that it does not take, it is said what to set', async () => {
  const port = await gateway({}, { ca: readFileSync(ours.caFile), requestCert: true, rejectUnauthorized: true });
  const url = `https://127.0.0.1:${port}/ip2sms/`;
  const { certFile, keyFile } = ours.issue({ name: 'client' });
  const env = { IP2SMS_CA_FILE: ours.caFile, IP2SMS_CERT_FILE: certFile, IP2SMS_KEY_FILE: keyFile };
  expect(await ask(url, env)).toBe('Delivered');
  const strict = `https://127.0.0.1:${await strictGateway()}/ip2sms/`;
  expect(await ask(strict, { IP2SMS_CA_FILE: ours.caFile })).toMatch(
    /requires a client certificate .*IP2SMS_CERT_FILE/,
  );
  const strange = others.issue({ name: 'client' });
  const wrong = { ...env, IP2SMS_CERT_FILE: strange.certFile, IP2SMS_KEY_FILE: strange.keyFile };
  expect(await ask(strict, wrong)).toMatch(/rejects our client certificate .*IP2SMS_CERT_FILE/);
  expect(await ask(url, { ...env, IP2SMS_KEY_FILE: strange.keyFile })).toMatch(/is invalid .*IP2SMS_KEY_FILE/);
  expect(() => loadConfig({ IP2SMS_CERT_FILE: certFile })).toThrow(
    'IP2SMS_KEY_FILE: is required with IP2SMS_CERT_FILE',
  );
  expect(() => loadConfig({ IP2SMS_CA_FILE: '/nowhere/secret' })).toThrow(
    /IP2SMS_CA_FILE: must be a file that can be read; \/nowhere\/secret: no such file$/,
  );
});

/** A proxy that tunnels; returns its address and what was asked of it. */
async function proxy(status = 200): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createHttp();
  server.on('connect', (request, socket: Socket) => {
    asked.push(request.url ?? '');
    if (status !== 200) {
      socket.end(`HTTP/1.1 ${status} No\r\n\r\n`);
      return;
    }
    const [host, port] = (request.url ?? '').split(':');
    const way = connect(Number(port), host).on('error', () => socket.destroy());
    socket.on('error', () => way.destroy()).write('HTTP/1.1 200 OK\r\n\r\n');
    way.pipe(socket).pipe(way);
    closers.push(() => way.destroy());
  });
  return { url: `http://127.0.0.1:${await listening(server)}`, asked };
}

test.for(['https', 'http'])(
  'the proxy of the environment leads to a gateway with %s, but not where NO_PROXY says so',
  async (scheme) => {
    const port =
      scheme === 'https'
        ? await gateway({})
        : await listening(createHttp((request, response) => request.resume().on('end', () => response.end(REPLY))));
    const url = `${scheme}://127.0.0.1:${port}/ip2sms/`;
    const { url: way, asked } = await proxy();
    vi.stubEnv(`${scheme.toUpperCase()}_PROXY`, way);
    const trusting = { IP2SMS_CA_FILE: ours.caFile };
    expect(await ask(url, trusting)).toBe('Delivered');
    expect(asked).toEqual([`127.0.0.1:${port}`]);
    vi.stubEnv('NO_PROXY', '127.0.0.1');
    expect(await ask(url, trusting)).toBe('Delivered');
    expect(asked).toHaveLength(1);
  },
);

test('what a proxy refuses is told of, and so is a certificate behind it', async () => {
  const url = `https://127.0.0.1:${await gateway({})}/ip2sms/`;
  vi.stubEnv('HTTPS_PROXY', (await proxy()).url);
  expect(await ask(url)).toMatch(/not trusted .*IP2SMS_CA_FILE/);
  vi.stubEnv('HTTPS_PROXY', (await proxy(407)).url);
  expect(await ask(url)).toMatch(/PROXY_407/);
});

test('a proxy is taken as curl takes it: without a scheme it speaks HTTP, and that of http:// is not for https://', async () => {
  const port = await gateway({});
  const url = `https://127.0.0.1:${port}/ip2sms/`;
  const trusting = { IP2SMS_CA_FILE: ours.caFile };
  const { url: way, asked } = await proxy();
  vi.stubEnv('HTTP_PROXY', way);
  expect(await ask(url, trusting)).toBe('Delivered');
  expect(asked).toEqual([]);
  vi.stubEnv('HTTPS_PROXY', way.replace('http://', ''));
  expect(await ask(url, trusting)).toBe('Delivered');
  expect(asked).toEqual([`127.0.0.1:${port}`]);
});

test.each(['http://user:secret@[proxy', 'ftp://user:secret@proxy.example', 'http://user:secret%zz@proxy.example'])(
  'a proxy %s that is none is a wrong setting, named without its value',
  (wrong) => {
    vi.stubEnv('HTTPS_PROXY', wrong);
    const config = loadConfig({ IP2SMS_URL: 'https://gateway.example/ip2sms/' });
    let said: unknown;
    try {
      createGateway(config, () => ({ login: 'login', password: 'x' }));
    } catch (error) {
      said = error;
    }
    expect(said).toMatchObject({ code: 'config_invalid', message: expect.stringContaining('HTTPS_PROXY: must be') });
    expect((said as Error).message).not.toContain('secret');
  },
);

const clear = (IP2SMS_URL: string, IP2SMS_STATUS_URL = IP2SMS_URL) => clearGateways({ IP2SMS_URL, IP2SMS_STATUS_URL });

test('an address over a network without TLS is told of, a loopback one is not', () => {
  expect(clear('http://gateway.example/ip2sms/')).toEqual(['IP2SMS_URL', 'IP2SMS_STATUS_URL']);
  expect(clear('https://gateway.example/', 'http://10.0.0.1/')).toEqual(['IP2SMS_STATUS_URL']);
  expect(clear('http://localhost.example/', 'https://gateway.example/')).toEqual(['IP2SMS_URL']);
  for (const loopback of ['http://127.0.0.1:1/', 'http://localhost/', 'http://[::1]:1/', 'https://gateway.example/'])
    expect(clear(loopback)).toEqual([]);
});
