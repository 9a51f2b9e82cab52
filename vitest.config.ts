import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, platform } from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Test files at once: they wait for servers and signals half of the time. */
const FILES = availableParallelism() + 6;
/** Milliseconds that a test may take, and what prepares it: beside other work many times as long as on a quiet machine. */
const PATIENCE = 300_000;
/** The files of a worker share what they import: loading the program anew for each took nearly half of the unit tests' processor time. */
const SHARED = { isolate: false };

// Each database of a test is some 600 files, made and deleted: in memory that takes an eighth of the processor time that a disk's file system takes.
if (process.env['TMPDIR'] === undefined && platform() === 'linux' && roomInMemory('/dev/shm'))
  process.env['TMPDIR'] = '/dev/shm';

// The gateways of tests are on this machine, which a shell's proxy does not reach.
for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY']) delete process.env[name];

function roomInMemory(path: string): boolean {
  const mount = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[1] === path);
  if (mount === undefined || /\b(ro|noexec)\b/.test(mount.split(' ')[3]!)) return false;
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize >= 8 * 2 ** 30;
}

/** Files that wait for most of their time, as for a lease to end. All at once they would leave the cores idle, and so would one that begins last. */
const WAIT = [
  'e2e/sessions',
  'db/leadership',
  'db/liveness',
  'e2e/locked',
  'db/connections',
  'db/slot-life',
  'db/refused-rows',
  'db/publication-life',
  'db/source-locked',
  'e2e/takeover',
];
/** So many of them begin first, the others each behind so many files that do not wait. */
const [FIRST, BETWEEN] = [3, 5];

const placeOf = ({ moduleId }: TestSpecification) =>
  WAIT.findIndex((name) => moduleId.endsWith(`test/${name}.test.ts`));

class Order extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const waiting = sorted.filter((file) => placeOf(file) !== -1).toSorted((a, b) => placeOf(a) - placeOf(b));
    const order = waiting.splice(0, FIRST);
    for (const [i, file] of sorted.filter((each) => placeOf(each) === -1).entries()) {
      if (i % BETWEEN === BETWEEN - 1) order.push(...waiting.splice(0, 1));
      order.push(file);
    }
    return [...order, ...waiting];
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: Order },
    projects: [
      {
        test: {
          ...SHARED,
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: PATIENCE,
          hookTimeout: PATIENCE,
          maxWorkers: FILES,
        },
      },
      {
        test: {
          ...SHARED,
          name: 'db',
          include: ['test/db/**/*.test.ts'],
          globalSetup: 'test/support/postgres.ts',
          testTimeout: PATIENCE,
          hookTimeout: PATIENCE,
          maxWorkers: FILES,
        },
      },
      {
        test: {
          ...SHARED,
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/program.ts', 'test/support/postgres.ts'],
          testTimeout: PATIENCE,
          hookTimeout: PATIENCE,
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
          testTimeout: PATIENCE,
          hookTimeout: PATIENCE,
        },
      },
    ],
  },
});
