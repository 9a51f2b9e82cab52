/** A limit of time for a parser: one that hangs nothing in its own thread could end. */
import { Worker } from 'node:worker_threads';

/** Milliseconds that a case may take by what it costs, and all of them beside that: a hundred times as long as on a quiet machine. */
const [CASE_MS, ALL_MS] = [10, 60_000];

const WATCH = `
const { name, ms } = require('node:worker_threads').workerData;
setTimeout(() => {
  require('node:fs').writeSync(2, name + ': hangs, as it takes longer than ' + ms / 1000 + ' s\\n');
  process.kill(process.pid, 'SIGKILL');
}, ms);`;

/** Does `work` of so many cases, and kills the process where that takes too long. */
export async function limited<T>(name: string, cases: number, work: () => T | Promise<T>): Promise<T> {
  const watch = new Worker(WATCH, { eval: true, execArgv: [], workerData: { name, ms: ALL_MS + cases * CASE_MS } });
  try {
    return await work();
  } finally {
    await watch.terminate();
  }
}
