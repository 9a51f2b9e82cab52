import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from '../errors.ts';

const TRIES = 10;

/**
 * Runs `work` again where it was the victim of a deadlock, or of another transaction in a stricter isolation level: it has written nothing. Not at once,
 * or those who met meet again: each time after up to twice as long, a second in all.
 */
export async function withRetry<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (codeOf(error)?.startsWith('40') !== true || tries === TRIES) throw error;
      await delay(Math.random() * 2 ** tries);
    }
  }
}
