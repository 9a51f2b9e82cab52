/** `smslogd run` as a child process: started like this process, with its log in a file, killed and restarted. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { PROXY_NAMES } from '../gateway/http.ts';
import { settingNames } from '../settings.ts';

/** It must exit within 10 s after SIGTERM. */
const STOP_MS = 12_000;

export interface Daemon {
  start(): void;
  /** SIGKILL */
  kill(): Promise<void>;
  /** SIGTERM; returns the exit code, null if it had to be killed after the timeout */
  stop(): Promise<number | null>;
  /** messages of its warnings and errors, oldest first, at most 20; they contain no personal data */
  problems(): string[];
}

export interface DaemonOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly logFile: string;
  /** it exited unexpectedly */
  readonly onLost: (how: string) => void;
}

export function createDaemon({ env, logFile, onLost }: DaemonOptions): Daemon {
  let child: ChildProcess | undefined;
  const lastResort = () => void child?.kill('SIGKILL');

  const end = async (signal: NodeJS.Signals, patience: number): Promise<number | null> => {
    const ending = child;
    child = undefined;
    process.off('exit', lastResort);
    if (ending === undefined) return null;
    if (ending.exitCode !== null || ending.signalCode !== null) return ending.exitCode;
    const gone = once(ending, 'exit');
    const tooLate = setTimeout(() => ending.kill('SIGKILL'), patience);
    ending.kill(signal);
    await gone;
    clearTimeout(tooLate);
    return ending.exitCode;
  };

  return {
    start: () => {
      const out = openSync(logFile, 'a');
      // in its own session: Ctrl-C in the terminal goes to the demo, which stops the daemon
      const started = spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', 'run'], {
        env,
        stdio: ['ignore', out, out],
        detached: true,
      });
      closeSync(out);
      child = started;
      process.once('exit', lastResort);
      started.once('error', (error) => onLost(error.message));
      started.once('exit', (code, signal) => {
        if (child === started) onLost(signal === null ? `exit code ${code}` : signal);
      });
    },
    kill: async () => void (await end('SIGKILL', STOP_MS)),
    stop: () => end('SIGTERM', STOP_MS),
    problems: () => problemsIn(readFileSync(logFile, 'utf8')),
  };
}

/** The daemon's settings alone, without those of the shell that started the demo, nor its proxy, which cannot reach the demo's gateway. */
export function daemonEnv(shell: NodeJS.ProcessEnv, settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const own = new Set<string>([...settingNames().flatMap((name) => [name, `${name}_FILE`]), ...PROXY_NAMES]);
  return { ...Object.fromEntries(Object.entries(shell).filter(([name]) => !own.has(name))), ...settings };
}

/** Warnings and errors among JSON lines; a line that is not JSON comes from a crash. */
export function problemsIn(lines: string): string[] {
  const found: string[] = [];
  for (const line of lines.split('\n')) {
    if (line.trim() === '') continue;
    try {
      const { level, code, msg } = JSON.parse(line) as { level?: string; code?: string; msg?: string };
      if (level === 'warn' || level === 'error' || level === 'fatal')
        found.push(`${level} ${code === undefined ? '' : `${code}: `}${msg ?? ''}`);
    } catch {
      found.push(line);
    }
  }
  return found.slice(-20);
}
