import * as fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { createLines, type Output } from '../../src/output.ts';

afterEach(() => void vi.useRealTimers());

/** An output that takes as much of each write as `step` says; all: undefined. */
function scripted(step: () => number | undefined) {
  let text = '';
  const output: Output = (bytes, done) => {
    const taken = Math.min(bytes.length, step() ?? bytes.length);
    text += bytes.toString('utf8', 0, taken);
    if (taken < bytes.length) done(taken, Object.assign(new Error('full'), { code: 'ENOSPC' }));
    else done(taken);
  };
  return { output, text: () => text };
}
const lost = (counter: { n: number }) => ({
  lost: () => void (counter.n += 1),
  notice: (lines: number) => `lost ${lines}\n`,
});

test('an output that fails, in the middle of a line too, loses lines that are counted, and says how many in their place', () => {
  vi.useFakeTimers();
  // never all of a line but its end
  const steps = fc.array(fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined }), { maxLength: 60 });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), steps, (count, script) => {
      const counted = { n: 0 };
      const { output, text } = scripted(() => script.shift());
      const lines = createLines(output, lost(counted));
      for (let i = 0; i < count; i += 1) lines.write(`line ${1000 + i}\n`);
      script.length = 0;
      vi.runAllTimers();
      lines.write('last 9999\n');
      // torn lines aside, what came out is in order, and each gap has its notice
      let next = 1000;
      let told = 0;
      let ordered = true;
      for (const line of text().split('\n')) {
        const gap = /^lost (\d+)$/.exec(line);
        if (gap !== null) [next, told] = [next + Number(gap[1]), told + Number(gap[1])];
        else if (/^line \d{4}$/.test(line)) {
          ordered &&= Number(line.slice(5)) === next;
          next += 1;
        }
      }
      expect(text()).toMatch(/(^|\n)last 9999\n$/);
      expect({ ordered, next, told }).toEqual({ ordered: true, next: 1000 + count, told: counted.n });
    }),
  );
});

test('as soon as the output takes something again the loss is told, without waiting for a line', () => {
  vi.useFakeTimers();
  let full = true;
  const { output, text } = scripted(() => (full ? 0 : undefined));
  const lines = createLines(output, lost({ n: 0 }));
  lines.write('one\n');
  lines.write('two\n');
  vi.advanceTimersByTime(10_000);
  expect(text()).toBe('');
  full = false;
  vi.advanceTimersByTime(1_000);
  expect(text()).toBe('lost 2\n');
});

test('a reader that stops reading costs bounded memory: what comes then is lost, and told once it reads again', async () => {
  const waiting: (() => void)[] = [];
  let text = '';
  const output: Output = (bytes, done) => {
    waiting.push(() => {
      text += bytes.toString();
      done(bytes.length);
    });
  };
  const counted = { n: 0 };
  const lines = createLines(output, { ...lost(counted), waiting: 30 });
  for (let i = 0; i < 10; i += 1) lines.write(`line ${i}...\n`);
  expect(counted.n).toBe(7);
  expect(waiting).toHaveLength(3);
  let flushed = false;
  const flush = lines.flush(60_000).then(() => (flushed = true));
  for (const take of waiting.splice(0)) take();
  await flush;
  expect(flushed).toBe(true);
  lines.write('again\n');
  for (const take of waiting.splice(0)) take();
  expect(text).toBe('line 0...\nline 1...\nline 2...\nlost 7\nagain\n');
});

test('a flush gives up on a reader that has stopped', async () => {
  const lines = createLines(() => {}, lost({ n: 0 }));
  lines.write('one\n');
  await expect(lines.flush(1)).resolves.toBeUndefined();
});
