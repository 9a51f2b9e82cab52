/** The poller's HTTP edge against every reply of test/support/hostile.ts. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/settings.ts';
import { createGateway } from '../../src/gateway/client.ts';
import { outcomeOf } from '../../src/poller/outcome.ts';
import { healthy, HOSTILE, MARK, ODD, startHostileGateway, type HostileGateway } from '../support/hostile.ts';

const ID = '6614012446421';

let server: HostileGateway;
beforeAll(async () => {
  server = await startHostileGateway();
});
afterAll(() => server.close());

/** Asks twice, of which the first one lasts as long as may be only where nothing else ends it. */
async function ask(forLong: boolean) {
  const config = loadConfig(
    {
      IP2SMS_URL: server.url,
      IP2SMS_LOGIN: 'login',
      IP2SMS_PASSWORD: 'x',
      IP2SMS_TIMEOUT_MS: forLong ? '500' : '10000',
      // the next question needs the place of the first one
      IP2SMS_MAX_CONCURRENCY: '1',
    },
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

test.each(Object.entries(HOSTILE))('%s is no status, and the next answer is read', async (name, hostile) => {
  server.answer = () => hostile;
  const { first, second } = await ask(hostile.result === 'timeout' || name.includes('dripping'));
  expect(first).toMatchObject({ result: hostile.result });
  expect(first.answer).toBeUndefined();
  expect(JSON.stringify(first)).not.toContain(MARK);
  expect(second).toMatchObject({ result: 'ok', answer: { status: 'Delivered' } });
});

test.each(Object.entries(ODD))('%s is a status, and so is the next answer', async (_, odd) => {
  server.answer = () => odd;
  for (const outcome of Object.values(await ask(false)))
    expect(outcome).toMatchObject({ result: 'ok', answer: { status: 'Delivered' } });
});

test('nobody went where a reply pointed to, nothing was taken by the megabyte, and no connection is left', async () => {
  expect(server.trapped).toBe(0);
  await expect.poll(() => server.open, { timeout: 10_000 }).toBe(0);
  expect(server.mostWritten).toBeLessThan(32 * 1024 * 1024);
});
