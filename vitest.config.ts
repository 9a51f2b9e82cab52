import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, platform } from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Test files at once: they wait for servers and signals half of the time. */
const FILES = availableParallelism() + 3;
/** The files of a worker share what they import: loading the program anew for each took nearly half of the unit tests' processor time. */
const SHARED = { isolate: false };

// Each database of a test is some 600 files, made and deleted: in memory that takes an eighth of the processor time that a disk's file system takes.
if (process.env['TMPDIR'] === undefined && platform() === 'linux' && roomInMemory('/dev/shm'))
  process.env['TMPDIR'] = '/dev/shm';

function roomInMemory(path: string): boolean {
  const mount = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[1] === path);
  if (mount === undefined || /\b(ro|noexec)\b/.test(mount.split(' ')[3]!)) return false;
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize >= 8 * 2 ** 30;
}

/** Waits for more than a minute for what a daemon waits for: begun last it would leave the cores idle. */
const isFirst = ({ moduleId }: TestSpecification) => moduleId.endsWith('test/e2e/sessions.test.ts');

class Order extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).toSorted((a, b) => Number(isFirst(b)) - Number(isFirst(a)));
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: Order },
    projects: [
      {
        test: { ...SHARED, name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 30_000, maxWorkers: FILES },
      },
      {
        test: {
          ...SHARED,
          name: 'db',
          include: ['test/db/**/*.test.ts'],
          globalSetup: 'test/support/postgres.ts',
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: FILES,
        },
      },
      {
        test: {
          ...SHARED,
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/program.ts', 'test/support/postgres.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: FILES,
        },
      },
      // needs programs that npm does not bring: `npm run test:system`
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          globalSetup: 'test/support/program.ts',
          maxWorkers: availableParallelism(),
          sequence: { groupOrder: 1 },
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
