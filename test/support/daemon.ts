/** smslogd as a process of its own, as users run it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { PROGRAM } from './program.ts';

export interface Process {
  readonly child: ChildProcess;
  /** lines of stdout so far */
  readonly lines: readonly string[];
  readonly stderr: () => string;
  /** resolves with the first line, past or to come, that `matches`; rejects when the process ends before */
  line(what: string, matches: (line: string) => boolean): Promise<string>;
  /** exit code, or the signal's name */
  readonly exited: Promise<number | string>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts `smslogd WORDS` with exactly `env` beside PATH and HOME; `file`: its stdout is this file, not a pipe. */
export function startProcess(
  words: readonly string[],
  env: Record<string, string>,
  program = PROGRAM,
  file?: string,
): Process {
  const stdout = file === undefined ? undefined : openSync(file, 'a');
  const child = spawn(process.execPath, [...program, ...words], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    stdio: ['ignore', stdout ?? 'pipe', 'pipe'],
  });
  if (stdout !== undefined) closeSync(stdout);
  const lines: string[] = [];
  const watchers = new Set<() => void>();
  let stderr = '';
  let over = false;
  createInterface({ input: child.stdout ?? follow(file!, child.pid!) }).on('line', (line) => {
    lines.push(line);
    for (const watcher of watchers) watcher();
  });
  child.stderr!.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const exited = once(child, 'close').then(([code, signal]) => {
    over = true;
    for (const watcher of watchers) watcher();
    return (code ?? signal) as number | string;
  });
  return {
    child,
    lines,
    stderr: () => stderr,
    exited,
    kill: (signal) => void child.kill(signal),
    line: (what, matches) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find(matches);
          if (found !== undefined) resolve(found);
          else if (over)
            reject(new Error(`the process ended before ${what}:\n${lines.slice(-10).join('\n')}\n${stderr}`));
          else return;
          watchers.delete(look);
        };
        watchers.add(look);
        look();
      }),
  };
}

/** What is in `file`, and what comes until process `pid` has ended. */
function follow(file: string, pid: number): Readable {
  return spawn('tail', ['-n', '+1', '-f', `--pid=${pid}`, file], { stdio: ['ignore', 'pipe', 'ignore'] }).stdout;
}

export interface Daemon extends Process {
  /** address of its HTTP server, once it runs */
  url(): Promise<string>;
  /** peak resident memory so far; bytes */
  peakMemory(): number;
}

export function startDaemon(env: Record<string, string>, program?: readonly string[], file?: string): Daemon {
  const daemon = startProcess(['run'], env, program, file);
  return {
    ...daemon,
    url: async () => {
      const line = await daemon.line('it runs', (text) => text.includes('"smslogd runs"'));
      return `http://127.0.0.1:${(JSON.parse(line) as { port: number }).port}`;
    },
    peakMemory: () => {
      const status = readFileSync(`/proc/${daemon.child.pid}/status`, 'utf8');
      return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
    },
  };
}
