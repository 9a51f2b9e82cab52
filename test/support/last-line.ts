/** The last line of `npm test`, after failures too: how many tests ran, how long that took, what was left out and how to run it. */
import { readFileSync } from 'node:fs';
import type { Reporter } from 'vitest/node';

const OTHERS = /^(?:test:|soak:|bench|chaos|fuzz|model)/;
const PROGRAMS = 'test:system needs apt-get install prometheus chromium postgresql pgbouncer';

/** vitest calls it with `new`. */
export default function lastLine(): Reporter {
  const began = performance.now();
  return {
    onTestRunEnd(modules) {
      const tests = modules.flatMap(({ children }) => [...children.allTests()]);
      const leftOut = tests.filter((test) => !['passed', 'failed'].includes(test.result().state));
      const names = leftOut.map(({ fullName }) => `'${fullName}', `).join('');
      const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> };
      const others = Object.keys(scripts).filter((name) => OTHERS.test(name));
      const ran = `${tests.length - leftOut.length} tests ran in ${Math.round((performance.now() - began) / 1000)} s`;
      process.stdout.write(`${ran}. Left out: ${names}npm run ${others.join(' | ')} (${PROGRAMS})\n`);
    },
  };
}
