/**
 * Writes to stdout and stderr without ever keeping the event loop waiting. A pipe or a socket is written by Node.js, which waits for a slow reader beside
 * the loop; a file or a device takes what it can at once, or fails at once.
 */
import { fstatSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

/** Writes `bytes` and tells how many were written, and the failure where these are not all. */
export type Output = (bytes: Buffer, done: (written: number, error?: NodeJS.ErrnoException) => void) => void;

/** process.stdout or process.stderr. Whoever uses it listens to its errors: they are told by `done`. */
export function outputOf(stream: Writable & { readonly fd: number }): Output {
  if (!isPipe(stream.fd)) return (bytes, done) => writeFile(stream.fd, bytes, done);
  return (bytes, done) => void stream.write(bytes, (error) => (error ? done(0, error) : done(bytes.length)));
}

function isPipe(fd: number): boolean {
  try {
    const stat = fstatSync(fd);
    return stat.isFIFO() || stat.isSocket();
  } catch {
    return false;
  }
}

function writeFile(fd: number, bytes: Buffer, done: Parameters<Output>[1]): void {
  let written = 0;
  try {
    while (written < bytes.length) written += writeSync(fd, bytes, written);
    done(written);
  } catch (error) {
    done(written, error as NodeJS.ErrnoException);
  }
}

/** Bytes that wait for a slow reader; what comes then is lost. */
const WAITING = 1024 * 1024;
const RETRY_MS = 1_000;

export interface Lines {
  /** a line with its line break */
  write(line: string): void;
  /** Resolves when nothing waits any more, at the latest after `limitMs`. */
  flush(limitMs: number): Promise<void>;
}

/**
 * Lines on an output that may fail for a while. A line that cannot be written is lost: it is told to `lost`, and as soon as the output takes something
 * again `notice` is written in the place of all that were lost.
 */
export function createLines(
  output: Output,
  { lost, notice, waiting: limit = WAITING }: { lost: () => void; notice: (lines: number) => string; waiting?: number },
): Lines {
  let waiting = 0;
  /** lines that were lost and are not told of yet */
  let untold = 0;
  /** the last line was written in part */
  let torn = false;
  let retry: NodeJS.Timeout | undefined;
  let drained: (() => void) | undefined;

  const put = (line: string, failed: () => void) => {
    const bytes = Buffer.from(torn ? `\n${line}` : line);
    waiting += bytes.length;
    output(bytes, (written, error) => {
      waiting -= bytes.length;
      if (error === undefined) torn = false;
      else {
        torn ||= written > 0;
        failed();
      }
      if (waiting === 0) drained?.();
    });
  };
  const tell = () => {
    if (untold === 0) return;
    const lines = untold;
    untold = 0;
    put(notice(lines), () => keep(lines));
  };
  const keep = (lines: number) => {
    untold += lines;
    retry ??= setTimeout(() => {
      retry = undefined;
      if (waiting === 0) tell();
      else keep(0);
    }, RETRY_MS).unref();
  };
  const lose = () => {
    keep(1);
    lost();
  };
  return {
    write(line) {
      if (waiting >= limit) return lose();
      tell();
      // in vain: it does not overtake what must be told before it
      if (untold > 0) return lose();
      put(line, lose);
    },
    async flush(limitMs) {
      if (waiting === 0) return;
      const limit = new AbortController();
      await Promise.race([
        new Promise<void>((resolve) => (drained = resolve)),
        delay(limitMs, undefined, { signal: limit.signal }).catch(() => {}),
      ]);
      limit.abort();
    },
  };
}
