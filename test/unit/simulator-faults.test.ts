/** What the simulator says, as the poller takes it: every form, every fault, and when the faults are there. */
import { request } from 'undici';
import { afterEach, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import type { PollResult } from '../../src/metrics.ts';
import { createGateway, type Gateway } from '../../src/gateway/client.ts';
import { outcomeOf, type Outcome } from '../../src/poller/outcome.ts';
import { parseReply } from '../../src/gateway/reply.ts';
import { readFaults } from '../../src/simulator/fault-words.ts';
import { drawLatency, FAULT_KINDS, type FaultKind } from '../../src/simulator/faults.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { FORMS, jsonReply, SPELLINGS, spelled, xmlReply } from '../../src/simulator/replies.ts';
import { startSimulator, type Simulator, type SimulatorOptions } from '../../src/simulator/simulator.ts';
import { STATUSES } from '../../src/status.ts';

const LOGIN = { login: 'login', password: 'password' };
const AUTHORIZATION = `Basic ${Buffer.from('login:password').toString('base64')}`;
const ID = '6614012446421';
const NOW = Date.UTC(2026, 0, 5, 8);

let simulator: Simulator;
const gateways: Gateway[] = [];

async function start(options: Partial<SimulatorOptions> = {}): Promise<void> {
  simulator = await startSimulator({ ...LOGIN, random: seededRandom(1), ...options });
}

afterEach(async () => {
  for (const gateway of gateways.splice(0)) await gateway.close();
  await simulator.close();
});

async function ask(id = ID, env: Record<string, string> = {}): Promise<Outcome> {
  const config = loadConfig(
    { IP2SMS_URL: simulator.url, IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'x', IP2SMS_TIMEOUT_MS: '400', ...env },
    [],
  );
  const gateway = createGateway(config, () => LOGIN);
  gateways.push(gateway);
  return outcomeOf(await gateway.askStatus(id), id);
}

async function faults(method: 'GET' | 'PUT' | 'DELETE' | 'PATCH', body?: string, authorization = AUTHORIZATION) {
  const reply = await request(simulator.url.replace('/ip2sms/', '/faults'), {
    method,
    headers: { authorization },
    ...(body === undefined ? {} : { body }),
  });
  return { code: reply.statusCode, text: await reply.body.text() };
}

describe('every form', () => {
  it.each(['6614012', ID, '380000535130309161501', '3800012345671174984921380'])(
    'of a status of %s is read back, in every spelling',
    async (id) => {
      await start();
      for (const status of STATUSES) {
        for (const spelling of SPELLINGS) {
          const answer = { id, date: NOW, state: spelled(spelling, status) };
          for (const text of [...FORMS.map((form) => xmlReply(form, answer)), jsonReply(answer)])
            expect(parseReply(Buffer.from(text), id)).toMatchObject({ kind: 'status', id, status, date: NOW });
        }
      }
    },
  );

  it.each(FORMS)('%s goes over HTTP to the poller', async (form) => {
    await start({ form, words: 'other' });
    simulator.load(ID, [{ status: 'Deleted', at: NOW }]);
    expect(await ask()).toMatchObject({ result: 'ok', answer: { status: 'Deleted', date: NOW } });
  });
});

/** What the poller makes of each fault that befalls a status request, in XML and in JSON. */
const RESULTS: Readonly<Record<FaultKind, PollResult>> = {
  error: 'http_5xx',
  busy: 'http_4xx',
  unauthorized: 'unauthorized',
  'not-found': 'http_4xx',
  redirect: 'protocol',
  reset: 'network',
  'half-closed': 'network',
  silence: 'timeout',
  drip: 'timeout',
  cut: 'network',
  huge: 'protocol',
  broken: 'protocol',
  html: 'protocol',
  plain: 'protocol',
  gzip: 'protocol',
  utf16: 'protocol',
  doctype: 'protocol',
  deep: 'protocol',
  http10: 'ok',
  pipelined: 'ok',
  'gateway-error': 'protocol',
  reject: 'ok',
  'empty-date': 'ok',
  'no-date': 'ok',
  'broken-date': 'ok',
  'wrong-id': 'mismatch',
  'two-states': 'protocol',
  'unknown-word': 'ok',
  'bare-rejection': 'ok',
};

describe('every fault', () => {
  it.each(FAULT_KINDS)('%s is taken by the poller for what it is, in both dialects', async (kind) => {
    await start({ faults: { [kind]: 1 } });
    simulator.load(ID, [{ status: 'Enroute', at: NOW }]);
    for (const format of ['xml', 'json']) {
      const { result, answer } = await ask(ID, { IP2SMS_FORMAT: format });
      expect(result).toBe(RESULTS[kind]);
      expect([answer?.status, answer?.date]).toEqual(
        result === 'ok'
          ? [kind === 'unknown-word' ? 'Unknown' : 'Enroute', kind.endsWith('-date') ? undefined : NOW]
          : [undefined, undefined],
      );
    }
    expect(simulator.requests.faults).toBeGreaterThanOrEqual(2);
  });

  it('a rejection may come bare of its id, with a reason', async () => {
    await start({ faults: { 'bare-rejection': 1 } });
    simulator.load(ID, [{ status: 'Rejected', at: NOW }]);
    expect(await ask()).toMatchObject({ answer: { status: 'Rejected', id: undefined, reason: 'invalid_number' } });
  });

  it('a 503 has a Retry-After where it is given', async () => {
    await start({ faults: { error: 1, retryAfter: 9 } });
    expect(await ask()).toMatchObject({ result: 'http_5xx', retryAfterMs: 9_000 });
    simulator.setFaults({ error: 1 });
    expect((await ask()).retryAfterMs).toBeUndefined();
  });
});

describe('when the faults are there', () => {
  it('is from a time of the day or a while from now, for a while', () => {
    const noon = new Date(2026, 0, 5, 12).getTime();
    const until = (words: Record<string, string>) => {
      const { from = 0, until: end = Infinity } = readFaults(words, noon);
      return [from - noon, end - noon];
    };
    expect(until({ from: '12:30', for: '10m' })).toEqual([1_800_000, 2_400_000]);
    expect(until({ from: '12:00:30', for: '1.5h' })).toEqual([30_000, 5_430_000]);
    expect(until({ from: '+90s', for: '45' })).toEqual([90_000, 135_000]);
    expect(until({ for: '2m' })[1]).toBe(120_000);
    // what is past today comes tomorrow
    expect(readFaults({ from: '11:59' }, noon).from).toBe(new Date(2026, 0, 6, 11, 59).getTime());
  });

  it('decides each request, while latency and clock are always as told', async () => {
    let now = NOW;
    await start({ now: () => now, faults: readFaults({ error: '1', from: '+1m', for: '1m', skew: '5000' }, NOW) });
    simulator.load(ID, [{ status: 'Enroute', at: NOW - 1000 }]);
    const seen = [];
    for (; now <= NOW + 120_000; now += 60_000) seen.push(await ask());
    expect(seen.map(({ result }) => result)).toEqual(['ok', 'http_5xx', 'ok']);
    expect(seen[2]?.answer?.date).toBe(NOW + 4_000);
  });
});

describe('an operator that delivers nothing', () => {
  it('keeps what is sent to it on the way until it is over, and others are delivered', async () => {
    let now = NOW;
    // the first ending of the distribution: Accepted, Enroute, Delivered
    await start({ now: () => now, random: () => 0.5 });
    simulator.setFaults(readFaults({ operator: '38050,+38066', for: '20m' }, now));
    const mts = simulator.send('+380501234567');
    const other = simulator.send('+380671234567');
    now += 15 * 60_000;
    expect(await ask(mts.id)).toMatchObject({ answer: { status: 'Enroute' } });
    expect(await ask(other.id)).toMatchObject({ answer: { status: 'Delivered' } });
    now += 5 * 60_000;
    expect(await ask(mts.id)).toMatchObject({ answer: { status: 'Enroute' } });
    now += 60_000;
    const end = NOW + 20 * 60_000;
    const delivered = await ask(mts.id);
    expect(delivered).toMatchObject({ answer: { status: 'Delivered' } });
    expect(delivered.answer?.date).toBeGreaterThanOrEqual(end);
    expect(simulator.fate(mts.id)!.map(({ status }) => status)).toEqual(['Accepted', 'Enroute', 'Delivered']);
  });

  it('lets all go that it held when nobody asked meanwhile, each time', async () => {
    let now = NOW;
    await start({ now: () => now, random: () => 0.5 });
    for (let round = 0; round < 2; round += 1) {
      simulator.setFaults({ operators: ['38050'] });
      const { id } = simulator.send('380501234567');
      now += 60_000;
      simulator.setFaults({});
      await ask(id);
      now += 60_000;
      expect(await ask(id)).toMatchObject({ answer: { status: 'Delivered' } });
    }
  });
});

describe('an id that is not known', () => {
  it('is taken for an SMS that is sent now, where that is wanted', async () => {
    let now = NOW;
    await start({ now: () => now, adopt: true, random: () => 0.5 });
    expect(await ask('7000001')).toMatchObject({ answer: { status: 'Accepted', date: NOW } });
    now += 60_000;
    expect(await ask('7000001')).toMatchObject({ answer: { status: 'Delivered' } });
  });
});

describe('the faults over HTTP', () => {
  it('are told, set as a form or as JSON, and lifted, while latency and clock stay', async () => {
    await start({ faults: { latencyMs: 1, reset: 1 } });
    expect(JSON.parse((await faults('GET')).text)).toEqual({
      now: 'reset 1',
      faults: { latencyMs: 1, reset: 1 },
      requests: { status: 0, send: 0, unauthorized: 0, unrecognized: 0, faults: 0 },
    });
    expect((await faults('PUT', 'error=0.5&busy=0.5&retry-after=3\n')).code).toBe(200);
    expect(simulator.faults).toEqual({ latencyMs: 1, error: 0.5, busy: 0.5, retryAfter: 3 });
    expect((await faults('PUT', '{"operator":"38050","html":1,"latency":0}')).text).toContain(
      '"html 1, operator 38050"',
    );
    expect(simulator.faults).toEqual({ latencyMs: 0, html: 1, operators: ['38050'] });
    expect(JSON.parse((await faults('PUT', 'silence=1&from=+1h&for=1m')).text)).toMatchObject({ now: 'none' });
    expect(simulator.faults.until! - simulator.faults.from!).toBe(60_000);
    await faults('DELETE');
    expect(simulator.faults).toEqual({ latencyMs: 0 });
  });

  it.each(['error=2', 'nonsense=1', 'error=1&reset=1', '{"error":', '{"error":[1]}', 'from=380001234567'])(
    'stay as they are where %j is told, and nothing of it is repeated',
    async (body) => {
      await start({ faults: { error: 0.25 } });
      const { code, text } = await faults('PUT', body);
      expect(code).toBe(400);
      expect(text).not.toMatch(/nonsense|380001234567/);
      expect(simulator.faults).toEqual({ error: 0.25 });
    },
  );

  it('want the login, and a method that there is', async () => {
    await start();
    expect((await faults('PUT', 'error=1', 'Basic xyz')).code).toBe(401);
    expect((await faults('PATCH', 'error=1')).code).toBe(405);
    expect(simulator.faults).toEqual({});
  });
});

describe('latency', () => {
  it('is log-normal where its 99th percentile is given, about its median', async () => {
    await start();
    const random = seededRandom(3);
    const drawn = Array.from({ length: 20_000 }, () => drawLatency({ latencyMs: 100, latencyP99Ms: 2000 }, random));
    const share = (ms: number) => drawn.filter((each) => each > ms).length / drawn.length;
    expect(share(100)).toBeCloseTo(0.5, 1);
    expect(share(2000)).toBeCloseTo(0.01, 2);
    expect(share(2000)).toBeGreaterThan(0.005);
    expect(drawLatency({ latencyMs: 100, jitterMs: 10 }, () => 0.5)).toBe(105);
  });
});
