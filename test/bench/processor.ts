/** Processor time of processes, which says more than a rate on a machine that does something else beside. */
import { readdirSync, readFileSync } from 'node:fs';

/** What all threads of the process have used so far; microseconds. */
export function processorMicros(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const nanos = readdirSync(tasks).map((task) =>
    Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]),
  );
  return nanos.reduce((sum, each) => sum + each, 0) / 1_000;
}
