import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Test files at once: they wait for servers most of the time. What runs whole daemons as well gets half as many. */
const FILES = availableParallelism() + 1;
const WHOLE = Math.ceil(FILES / 2);
/** The files of a worker share what they import: loading the program anew for each took nearly half of the unit tests' processor time. */
const SHARED = { isolate: false };

export default defineConfig({
  test: {
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
          maxWorkers: WHOLE,
          sequence: { groupOrder: 1 },
        },
      },
      // needs programs that npm does not bring: `npm run test:system`
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          globalSetup: 'test/support/program.ts',
          maxWorkers: WHOLE,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
