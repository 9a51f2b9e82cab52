/** A small disk (a tmpfs, which root may make) that can be filled. */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface SmallDisk {
  readonly path: string;
  /** `last`: the file that has what is left of a block of its own */
  fill(last?: string): void;
  free(): void;
  remove(): void;
}

/** Under `directory`. */
export function smallDisk(directory: string, megabytes: number): SmallDisk {
  const path = mkdtempSync(join(directory, 'disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', path]);
  const filler = join(path, 'filler');
  return {
    path,
    fill: (last = filler) => {
      for (const [file, size] of [
        [filler, 65_536],
        [filler, 1],
        [last, 1],
      ] as const)
        fillWith(file, size);
    },
    free: () => rmSync(filler, { force: true }),
    // who still reads a file on it does so to its end
    remove: () => void execFileSync('umount', ['-l', path]),
  };
}

function fillWith(path: string, size: number): void {
  const file = openSync(path, 'a');
  try {
    for (;;) writeSync(file, Buffer.alloc(size, ' '));
  } catch {
    // full, as it is meant to be
  } finally {
    closeSync(file);
  }
}
