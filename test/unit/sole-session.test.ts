/** How many sessions a control connection may leave on the server: one, which the next login terminates. */
import { EventEmitter, once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { addressOf } from '../../src/postgres/address.ts';
import { logIn, type Session } from '../../src/postgres/login.ts';
import { soleSession } from '../../src/postgres/sole-session.ts';
import { runningMs } from '../../src/running-time.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

/** In steps as a process that runs has them: a longer one would be a standstill, which counts for nothing. */
function pass(seconds: number): void {
  for (let each = 0; each < 2 * seconds; each += 1) {
    vi.advanceTimersByTime(500);
    runningMs();
  }
}

/** A control connection, and how many sessions each statement of the next login finds. */
function control(found: number[] = [], pooled = () => false) {
  const asked: string[] = [];
  const sole = soleSession(() => 'select the others', pooled);
  const ask = async (statement: string) => {
    asked.push(statement);
    return String(found.shift() ?? 0);
  };
  /** Opens a session and returns what ends it. */
  const open = async () => {
    const socket = new EventEmitter() as Socket;
    await sole.around!(async () => ({ socket }) as Session);
    await sole.first!(ask);
    return {
      /** no word of the server's, as where a machine between ended it */
      cut: () => socket.emit('close'),
      ended: () => {
        socket.emit('error', Object.assign(new Error('terminated'), { severity_local: 'FATAL' }));
        socket.emit('close');
      },
    };
  };
  const fail = (error: Error) =>
    sole.around!(async () => {
      throw error;
    });
  return { asked, open, fail };
}

/** Why a login failed whose path died before it was answered. */
async function lostLogin(): Promise<Error> {
  const server = createServer((socket) => socket.once('data', () => socket.resetAndDestroy())).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const address = addressOf(`postgres://daemon@127.0.0.1:${port}/db?sslmode=disable`);
  const error = await logIn(address, {}, {}).then(
    () => new Error('it was let in'),
    (lost: Error) => lost,
  );
  server.close();
  return error;
}

const TOO_MANY = 'the server may have two sessions left of the control connection';

test('the first session asks nothing, and the next one terminates what was cut off', async () => {
  const { asked, open } = control([1, 0]);
  (await open()).cut();
  expect(asked).toEqual([]);
  await open();
  expect(asked).toHaveLength(2);
  expect(asked[0]).toMatch(/pg_terminate_backend\(pid, 1000\).*select the others/);
});

test('what is terminated is gone: the session after it asks nothing', async () => {
  const { asked, open } = control([0]);
  (await open()).cut();
  await open();
  await open();
  expect(asked).toHaveLength(1);
});

test('a session that two statements could not terminate counts on', async () => {
  const { asked, open } = control([1, 1, 0]);
  (await open()).cut();
  (await open()).cut();
  await expect(open()).rejects.toThrow(TOO_MANY);
  pass(15);
  await open();
  expect(asked).toHaveLength(3);
});

test('beside two that the server may have left no third login begins, until one must be over', async () => {
  const { open, fail } = control();
  const error = await lostLogin();
  await expect(fail(error)).rejects.toBe(error);
  pass(10);
  await expect(fail(error)).rejects.toBe(error);
  await expect(open()).rejects.toThrow(TOO_MANY);
  pass(4);
  await expect(open()).rejects.toThrow(TOO_MANY);
  pass(1.5);
  await open();
});

test('a session that the server says it ends is gone after a second', async () => {
  const { asked, open } = control();
  const [one, two] = [await open(), await open()];
  one.ended();
  two.ended();
  await expect(open()).rejects.toThrow(TOO_MANY);
  pass(1.5);
  await open();
  expect(asked).toEqual([]);
});

test('a login that the server refused left no session', async () => {
  const { asked, open, fail } = control();
  const refusal = Object.assign(new Error('wrong password'), { code: '28P01', severity_local: 'FATAL' });
  for (const _ of [1, 2]) await expect(fail(refusal)).rejects.toThrow('wrong password');
  await open();
  expect(asked).toEqual([]);
});

test("a pooler's sessions are the pooler's: they are neither counted nor terminated", async () => {
  let pooled = false;
  const { asked, open } = control([], () => pooled);
  (await open()).cut();
  pooled = true;
  for (const _ of [1, 2, 3]) (await open()).cut();
  await open();
  expect(asked).toEqual([]);
});
