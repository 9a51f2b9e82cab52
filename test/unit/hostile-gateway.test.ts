/** The poller's HTTP edge against every reply of test/support/hostile.ts. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { createGateway } from '../../src/poller/gateway.ts';
import { outcomeOf } from '../../src/poller/outcome.ts';
import { healthy, HOSTILE, MARK, ODD, startHostileGateway, type HostileGateway } from '../support/hostile.ts';

const ID = '6614012446421';

let server: HostileGateway;
beforeAll(async () => {
  server = await startHostileGateway();
});
afterAll(() => server.close());

async function ask(url = server.url) {
  const config = loadConfig(
    { IP2SMS_URL: url, IP2SMS_LOGIN: 'login', IP2SMS_PASSWORD: 'x', IP2SMS_TIMEOUT_MS: '400' },
    [],
  );
  const gateway = createGateway(config, () => ({ login: 'login', password: 'secret' }));
  try {
    const first = outcomeOf(await gateway.askStatus(ID), ID);
    server.answer = () => healthy;
    const second = outcomeOf(await gateway.askStatus(ID), ID);
    return { first, second };
  } finally {
    await gateway.close();
  }
}

test.each(Object.entries(HOSTILE))('%s is no status, and the next answer is read', async (_, hostile) => {
  server.answer = () => hostile;
  const { first, second } = await ask();
  expect(first).toMatchObject({ result: hostile.result });
  expect(first.answer).toBeUndefined();
  expect(JSON.stringify(first)).not.toContain(MARK);
  expect(second).toMatchObject({ result: 'ok', answer: { status: 'Delivered' } });
});

test.each(Object.entries(ODD))('%s is a status, and so is the next answer', async (_, odd) => {
  server.answer = () => odd;
  for (const outcome of Object.values(await ask()))
    expect(outcome).toMatchObject({ result: 'ok', answer: { status: 'Delivered' } });
});

test('nobody went where a reply pointed to, nothing was taken by the megabyte, and no connection is left', async () => {
  expect(server.trapped).toBe(0);
  await expect.poll(() => server.open, { timeout: 10_000 }).toBe(0);
  expect(server.mostWritten).toBeLessThan(32 * 1024 * 1024);
});
