import { request as rawRequest } from 'node:http';
import { Agent, request, type Dispatcher } from 'undici';
import { afterEach, describe, expect, it } from 'vitest';
import { command, faultsOf } from '../../src/commands/simulate.ts';
import type { Fate } from '../../src/simulator/fate.ts';
import type { Faults } from '../../src/simulator/faults.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { startSimulator, type Simulator, type SimulatorOptions } from '../../src/simulator/simulator.ts';

const NOW = Date.UTC(2026, 0, 5, 8);
const PHONE = '+380001234567';
const LOGIN = { login: 'login', password: 'pass:word' };
const AUTHORIZATION = `Basic ${Buffer.from('login:pass:word').toString('base64')}`;
const SENDING = '/ip2sms/';
const STATUS = '/ip2sms-request/';
const FATE: Fate = [
  { status: 'Accepted', at: Date.UTC(2026, 0, 5, 10, 0, 0) },
  { status: 'Delivered', at: Date.UTC(2026, 0, 5, 10, 0, 4) },
];

let simulator: Simulator;
let agent: Agent;

async function start(options: Partial<SimulatorOptions> = {}): Promise<Simulator> {
  agent = new Agent();
  simulator = await startSimulator({ ...LOGIN, random: seededRandom(1), ...options });
  return simulator;
}

afterEach(async () => {
  await agent.destroy();
  await simulator.close();
});

const address = (path: string) => simulator.url.replace(SENDING, path);

async function ask(path: string, body: string, headers: Record<string, string> = {}, signal?: AbortSignal) {
  const reply: Dispatcher.ResponseData = await request(address(path), {
    method: 'POST',
    body,
    headers: { authorization: AUTHORIZATION, 'content-type': 'text/xml; charset=utf-8', ...headers },
    dispatcher: agent,
    ...(signal === undefined ? {} : { signal }),
  });
  return { code: reply.statusCode, headers: reply.headers, text: await reply.body.text() };
}

/** The reply to a status request for id 1 while `faults` are in force. */
async function askedUnder(faults: Faults) {
  simulator.setFaults(faults);
  return await ask(STATUS, statusRequest('1'));
}

async function truth(method: 'GET' | 'PUT' | 'DELETE', query = '', body?: string, authorization = AUTHORIZATION) {
  const reply = await request(address(`/truth${query}`), {
    method,
    headers: { authorization },
    dispatcher: agent,
    ...(body === undefined ? {} : { body }),
  });
  return { code: reply.statusCode, text: await reply.body.text() };
}

const line = (id: string) => JSON.stringify({ id, fate: FATE });
const delays = (fate: Fate, sentAt: number) => fate.map(({ at }) => at - sentAt);
const statusRequest = (id: string) => `<request id="${id}">status</request>`;
const message = (to: string, more = '') =>
  `<message><service id="single" source="CLINIC"${more}/><to>${to}</to><body>text</body></message>`;

describe('an SMS sent over HTTP', () => {
  it('has its status told by its fate as time goes on, at both addresses and on the one for both', async () => {
    let now = Date.UTC(2026, 0, 5, 12);
    await start({ now: () => now });
    const sent = await ask(SENDING, message(PHONE));
    const id = /id='([0-9]+)'/.exec(sent.text)![1]!;
    expect(sent.text).toBe(
      `<status id='${id}' date='Mon, 05 Jan 2026 14:00:00 +0200'><state>Accepted</state></status>`,
    );
    const fate = simulator.fate(id)!;
    for (const { status, at } of fate) {
      now = at;
      for (const path of [STATUS, '/clients.php']) {
        const told = await ask(path, statusRequest(id));
        expect(told.code).toBe(200);
        expect(told.text).toContain(`<state>${status}</state>`);
      }
    }
    expect(simulator.requests).toEqual({
      send: 1,
      status: fate.length * 2,
      unauthorized: 0,
      unrecognized: 0,
      faults: 0,
    });
  });

  it('can be asked for in JSON', async () => {
    await start();
    const json = { 'content-type': 'application/json;charset=UTF-8' };
    const body = JSON.stringify({ id: 'single', to: [{ msisdn: '380001234567' }], body: { value: 'text' } });
    const sent = await ask(SENDING, body, json);
    expect(sent.headers['content-type']).toBe('application/json; charset=utf-8');
    expect(JSON.parse(sent.text)).toMatchObject({ state: { value: 'Accepted' } });
    simulator.load('6614012446421', FATE);
    const told = await ask(STATUS, '{"extended":true,"id":6614012446421,"value":"state"}', json);
    expect(JSON.parse(told.text)).toEqual({
      state: { value: 'Delivered' },
      id: 6614012446421,
      date: 'Mon, 05 Jan 2026 12:00:04 +0200',
      execTime: 3,
    });
  });

  it('is refused with a reason, and a unique key is remembered', async () => {
    await start();
    expect((await ask(SENDING, message('12'))).text).toBe(
      "<status date=''><state error='Invalid abonent number'>Rejected</state></status>",
    );
    expect((await ask(SENDING, message(PHONE, ' uniq_key="k"'))).text).toContain('Accepted');
    expect((await ask(SENDING, message(PHONE, ' uniq_key="k"'))).text).toContain("error='uniq_key dupe'");
    expect(simulator.size).toBe(1);
  });

  it('sent from within the process is the same, with an id of its own each time', async () => {
    await start({ random: () => 0.2, now: () => NOW });
    const ids = Array.from({ length: 100 }, () => simulator.send(PHONE).id);
    expect(new Set(ids).size).toBe(100);
    expect(simulator.size).toBe(100);
  });

  it('is delivered the faster the higher the speed is', async () => {
    await start({ now: () => NOW });
    const { fate } = simulator.send(PHONE);
    const other = await startSimulator({ ...LOGIN, random: seededRandom(1), now: () => NOW, speed: 100 });
    const [slow, quick] = [delays(fate, NOW), delays(other.send(PHONE).fate, NOW)];
    expect(slow.at(-1)).toBeGreaterThan(1_000);
    expect(quick).toEqual(slow.map((ms) => Math.round(ms / 100)));
    await other.close();
  });
});

describe('the gateway’s other answers', () => {
  it('a wrong login is 401 in plain text', async () => {
    await start();
    for (const authorization of ['', 'Basic xyz', `Basic ${Buffer.from('login:other').toString('base64')}`]) {
      const { code, text } = await ask(STATUS, statusRequest('1'), { authorization });
      expect([code, text]).toEqual([401, '401 Unauthorized']);
    }
    expect(simulator.requests).toMatchObject({ unauthorized: 3, status: 0 });
  });

  it('what is not recognised is repeated in plain text, also where it is right but at the other address', async () => {
    await start();
    for (const [path, body] of [
      [STATUS, '<request id="1">'],
      [STATUS, message(PHONE)],
      [SENDING, statusRequest('1')],
    ] as const) {
      const { code, text, headers } = await ask(path, body);
      expect(code).toBe(200);
      expect(headers['content-type']).toBe('text/plain; charset=utf-8');
      expect(text).toBe(`Request not recognized - xml parse failed. Request text: ${body}`);
    }
    expect(simulator.requests.unrecognized).toBe(3);
  });

  it('an id that is not known, or not yet sent, is Unknown without id and date', async () => {
    await start({ now: () => FATE[0]!.at - 1 });
    simulator.load('1', FATE);
    for (const id of ['1', '2']) {
      expect((await ask(STATUS, statusRequest(id))).text).toBe("<status date=''><state>Unknown</state></status>");
    }
  });

  it('another path, another method and a huge body are refused', async () => {
    await start();
    expect((await ask('/other', 'x')).code).toBe(404);
    expect((await request(address(STATUS), { dispatcher: agent })).statusCode).toBe(405);
    expect((await ask(SENDING, 'x'.repeat(100_000))).code).toBe(413);
  });

  it('the date may be that of the reply, and the clock may be ahead', async () => {
    const now = Date.UTC(2026, 0, 5, 11, 30, 0);
    await start({ now: () => now, dates: 'reply', form: 'element', faults: { skewMs: 90_000 } });
    simulator.load('1', FATE);
    const { text, headers } = await ask(STATUS, statusRequest('1'));
    expect(text).toBe("<status date='Mon, 05 Jan 2026 13:31:30 +0200'><id>1</id><state>Delivered</state></status>");
    expect(headers['date']).toBe('Mon, 05 Jan 2026 11:31:30 GMT');
  });
});

describe('faults over HTTP', () => {
  it('answer as each is stated, and stop when they are lifted', async () => {
    await start();
    simulator.load('1', FATE);
    const fine = "<status id='1' date='Mon, 05 Jan 2026 12:00:04 +0200'><state>Delivered</state></status>";
    expect(await askedUnder({ error: 1 })).toMatchObject({ code: 503, text: expect.stringContaining('<html>') });
    const busy = await askedUnder({ busy: 1, retryAfter: 7 });
    expect([busy.code, busy.headers['retry-after']]).toEqual([429, '7']);
    expect(await askedUnder({ unauthorized: 1 })).toMatchObject({ code: 401, text: '401 Unauthorized' });
    expect(await askedUnder({ broken: 1 })).toMatchObject({ code: 200, text: fine.slice(0, fine.length / 2) });
    expect((await askedUnder({ plain: 1 })).text).toContain(statusRequest('1'));
    expect((await askedUnder({ 'empty-date': 1 })).text).toBe(fine.replace(/date='[^']*'/, "date=''"));
    const brokenDate = /date='([^']+)'/.exec((await askedUnder({ 'broken-date': 1 })).text)![1]!;
    expect(new Date(brokenDate).getTime()).toBeNaN();
    expect((await askedUnder({ 'wrong-id': 1 })).text).toBe(
      "<status id='1000003' date='Mon, 05 Jan 2026 11:59:04 +0200'><state>Undeliverable</state></status>",
    );
    expect((await askedUnder({ 'unknown-word': 1 })).text).toBe(fine.replace('Delivered', 'Teleported'));
    expect(simulator.requests.faults).toBe(9);
    expect((await askedUnder({})).text).toBe(fine);
  });

  it('reset connections, or never answer', async () => {
    await start({ faults: { reset: 1 } });
    await expect(ask(STATUS, statusRequest('1'))).rejects.toThrow(/ECONNRESET|other side closed/);
    simulator.setFaults({ silence: 1 });
    const patience = new AbortController();
    const answer = ask(STATUS, statusRequest('1'), {}, patience.signal);
    await waitFor(() => simulator.requests.faults === 2);
    patience.abort();
    await expect(answer).rejects.toThrow('aborted');
    expect(simulator.requests.status).toBe(0);
  });

  it('refuse an SMS for a reason that is not its own', async () => {
    await start({ faults: { reject: 1 } });
    const { text } = await ask(SENDING, message(PHONE));
    expect(text).toMatch(/^<status date=''><state error='(Prepaid|Text)[^']*'>Rejected<\/state><\/status>$/);
    expect(simulator.size).toBe(0);
  });

  it('wait before the answer', async () => {
    await start({ faults: { latencyMs: 20, jitterMs: 10 } });
    const before = performance.now();
    await ask(STATUS, statusRequest('1'));
    expect(performance.now() - before).toBeGreaterThan(19);
  });

  it('let others be answered while one waits', async () => {
    await start({ faults: { latencyMs: 3_600_000 } });
    const patience = new AbortController();
    const waiting = ask(STATUS, statusRequest('1'), {}, patience.signal);
    expect((await truth('GET', '?id=1')).code).toBe(404);
    patience.abort();
    await expect(waiting).rejects.toThrow('aborted');
    expect(simulator.requests.status).toBe(0);
  });

  it('are the same for the same seed', async () => {
    const draw = async (seed: number) => {
      await start({ random: seededRandom(seed), faults: { error: 0.3, busy: 0.2 } });
      const codes = [];
      for (let i = 0; i < 30; i++) codes.push((await ask(STATUS, statusRequest('1'))).code);
      await agent.destroy();
      await simulator.close();
      return codes.join(' ');
    };
    const [first, again, other] = [await draw(1), await draw(1), await draw(2)];
    await start();
    expect(first).toBe(again);
    expect(first).not.toBe(other);
  });
});

describe('the truth over HTTP', () => {
  it('is loaded as lines or as an array, asked for one by one and listed', async () => {
    await start();
    expect(await truth('PUT', '', `${line('1')}\n\n${line('2')}`)).toEqual({ code: 200, text: '{"loaded":2}' });
    expect(await truth('PUT', '', `\n [${line('3')},\n${line('4')}]`)).toEqual({ code: 200, text: '{"loaded":2}' });
    expect((await ask(STATUS, statusRequest('4'))).text).toContain('Delivered');
    expect(JSON.parse((await truth('GET', '?id=2')).text)).toEqual({ id: '2', fate: FATE });
    expect((await truth('GET', '?id=5')).code).toBe(404);
    expect((await truth('GET')).text).toBe(['1', '2', '3', '4'].map((id) => `${line(id)}\n`).join(''));
  });

  it('lists thousands whole', async () => {
    await start();
    const ids = Array.from({ length: 2_500 }, () => simulator.send(PHONE).id);
    const lines = (await truth('GET')).text.trimEnd().split('\n');
    expect(lines.map((each) => (JSON.parse(each) as { id: string }).id)).toEqual(ids);
  });

  it('puts changes that come in disorder into the order of time', async () => {
    await start();
    await truth('PUT', '', JSON.stringify({ id: '1', fate: FATE.toReversed() }));
    expect(simulator.fate('1')).toEqual(FATE);
  });

  it.each([
    '{"id":"1"}',
    'text',
    '[{"id":1,"fate":[]}]',
    '[{"id":',
    '{"id":"<1>","fate":[{"status":"Accepted","at":1}]}',
  ])('refuses %j and repeats nothing of it', async (body) => {
    await start();
    const { code, text } = await truth('PUT', '', body);
    expect(code).toBe(400);
    expect(text).not.toContain(body);
    expect(simulator.size).toBe(0);
  });

  it('wants the login, and GET or PUT', async () => {
    await start();
    expect((await truth('GET', '', undefined, 'Basic xyz')).code).toBe(401);
    expect((await truth('DELETE')).code).toBe(405);
  });

  it('survives a client that goes in the middle', async () => {
    await start();
    const client = rawRequest(address('/truth'), { method: 'PUT', headers: { authorization: AUTHORIZATION } });
    client.on('error', () => {});
    client.write(`${line('1')}\n${line('2')}\n`);
    await waitFor(() => simulator.size === 2);
    client.destroy();
    expect((await truth('GET', '?id=2')).code).toBe(200);
  });
});

describe('the server', () => {
  it('says so where its port is taken', async () => {
    await start();
    const port = Number(new URL(simulator.url).port);
    await expect(startSimulator({ ...LOGIN, port })).rejects.toMatchObject({ code: 'port_in_use' });
  });

  it('closes though a request is under way', async () => {
    await start({ faults: { silence: 1 } });
    const failure = ask(STATUS, statusRequest('1')).catch((error: unknown) => error);
    await waitFor(() => simulator.requests.faults === 1);
    await simulator.close();
    expect(await failure).toBeInstanceOf(Error);
    await start();
  });
});

describe('the flags of simulate', () => {
  it('are told in the help with what each does and its default', () => {
    for (const [name, { about }] of Object.entries(command.flags!))
      expect([name, about]).toEqual([name, expect.stringMatching(/.{10}.*default|default /)]);
  });

  it('give faults by their shares', () => {
    expect(faultsOf({ error: '0.25', 'wrong-id': '0.5', latency: '80', 'retry-after': '3', skew: '-1000' })).toEqual({
      error: 0.25,
      'wrong-id': 0.5,
      latencyMs: 80,
      retryAfter: 3,
      skewMs: -1000,
    });
    expect(faultsOf({ error: '0.1', busy: '0.2', reset: '0.7' })).toMatchObject({ reset: 0.7 });
  });

  it.each([
    { error: '1.5' },
    { busy: 'often' },
    { latency: '-1' },
    { jitter: ' ' },
    { error: '0.6', reset: '0.6' },
    { from: '24:00' },
    { from: 'noon' },
    { from: '+soon' },
    { for: 'long' },
    { operator: 'MTS' },
    { form: 'other' },
    { words: 'none' },
    { dates: 'never' },
    { speed: '0' },
    { seed: 'x' },
    { port: '70000' },
    { port: '1.5' },
  ])('are refused before anything listens, with a hint at the help of this command: %j', async (flags) => {
    await start();
    const io = { env: {}, print: () => {}, stdoutIsTerminal: false };
    await expect(command.run(flags, io)).rejects.toMatchObject({
      code: 'usage',
      hint: '`smslogd simulate --help` lists its flags.',
    });
  });
});

async function waitFor(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('waited 10 s in vain');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
