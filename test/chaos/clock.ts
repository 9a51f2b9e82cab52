/** A process whose clock is wrong by as many milliseconds as a file says, looked at again and again. The time that timers count is not changed, as by a step of a real clock. */

const CLOCK = `
import { readFileSync } from 'node:fs';
const Right = Date;
let wrong = 0;
const look = () => {
  try { wrong = Number(readFileSync(process.env.CHAOS_CLOCK, 'utf8')); } catch { /* it is right so far */ }
};
look();
setInterval(look, 100).unref();
globalThis.Date = class Date extends Right {
  constructor(...words) { if (words.length === 0) super(Right.now() + wrong); else super(...words); }
  static now() { return Right.now() + wrong; }
};`;

/** Environment of such a process. */
export function wrongClock(file: string): Record<string, string> {
  return {
    CHAOS_CLOCK: file,
    NODE_OPTIONS: `--import=data:text/javascript;base64,${Buffer.from(CLOCK).toString('base64')}`,
  };
}
