import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';
import { createWakeup } from '../../src/mirror/wakeup.ts';

test('a wait ends by a notification and by an abort, also by one that came before it, and leaves nothing on the signal', async () => {
  const wakeup = createWakeup();
  const stop = new AbortController();
  const notified = wakeup.wait(stop.signal);
  wakeup.notify();
  await notified;
  expect(getEventListeners(stop.signal, 'abort')).toEqual([]);
  const aborted = wakeup.wait(stop.signal);
  stop.abort();
  await aborted;
  await wakeup.wait(stop.signal);
  expect(getEventListeners(stop.signal, 'abort')).toEqual([]);
});
