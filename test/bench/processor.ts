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

/** Clock ticks a second in which the kernel counts, on every Linux (`getconf CLK_TCK`). */
const TICKS = 100;

/** What the server that `backend` is a process of has used so far, with all of its processes, those too that have ended; microseconds. */
export function serverMicros(backend: number): number {
  const postmaster = statOf(backend)![PARENT];
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && statOf(name)?.[PARENT] === postmaster);
  const alive = [postmaster, ...processes].reduce((sum, pid) => sum + microsIfAlive(Number(pid)), 0);
  const own = statOf(postmaster!)!;
  return alive + ((Number(own[ENDED_USER]) + Number(own[ENDED_SYSTEM])) * 1e6) / TICKS;
}

function microsIfAlive(pid: number): number {
  try {
    return processorMicros(pid);
  } catch {
    return 0;
  }
}

/** Fields of /proc/PID/stat behind the name (proc(5)): its parent, and the time of its children that have ended. */
const [PARENT, ENDED_USER, ENDED_SYSTEM] = [1, 13, 14] as const;

function statOf(pid: string | number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined;
  }
}
