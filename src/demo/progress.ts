/** The demo's output while it runs: permanent lines, and one live line, rewritten on a terminal and printed every 2 s elsewhere. */
import { wrap } from '../wrap.ts';

/** No line is longer, even on a wider terminal: the output is often pasted. */
const WIDTH = 80;
const NAME = 11;
const PRINT_EVERY_MS = 2_000;
const CLEAR = '\r\u001b[2K';

export interface Screen {
  /** a line that stays */
  line(text?: string): void;
  /** a permanent line: the current step */
  phase(name: string, text: string): void;
  /** the live line */
  live(text: string): void;
  /** a live line that is printed only on a terminal */
  passing(text: string): void;
}

export interface ScreenOptions {
  readonly write: (text: string) => void;
  readonly isTerminal: boolean;
  /** width of the terminal; a longer live line would wrap and could not be rewritten */
  readonly columns: () => number;
  /** monotonic, ms */
  readonly now?: () => number;
}

export function createScreen({ write, isTerminal, columns, now = () => performance.now() }: ScreenOptions): Screen {
  let shown = '';
  let printed = -Infinity;
  const rewrite = (text: string) => {
    const cut = text.slice(0, columns() - 1);
    if (!isTerminal || cut === shown) return;
    write(`${CLEAR}${cut}`);
    shown = cut;
  };
  const line = (text = '') => {
    write(`${shown === '' ? '' : CLEAR}${text}\n`);
    shown = '';
  };
  return {
    line,
    phase: (name, text) => {
      for (const each of wrap(`${name.padEnd(NAME)}${text}`, Math.min(WIDTH, columns()), NAME)) line(each);
    },
    live: (text) => {
      if (isTerminal) return rewrite(text);
      if (now() - printed < PRINT_EVERY_MS) return;
      printed = now();
      write(`${text}\n`);
    },
    passing: rewrite,
  };
}

/** The figures of the live line. */
export interface Snapshot {
  readonly seconds: number;
  /** verifications of the history that are in the log */
  readonly copied: number;
  /** nothing ends it but Ctrl-C */
  readonly endless: boolean;
  /** SMS that the live services wrote, and those of them that are in the log */
  readonly written: number;
  readonly logged: number;
  /** source commit to log, in seconds; undefined: the daemon does not answer */
  readonly lagSeconds: number | undefined;
  /** rows without a final status */
  readonly open: number;
}

/** Fits in 80 columns. */
export function progressLine(snapshot: Snapshot): string {
  const { seconds, copied, endless, written, logged, lagSeconds, open } = snapshot;
  return [
    `${String(Math.floor(seconds)).padStart(4)} s`,
    // what is known to be copied gives way to what the reader must know
    endless && written > 0 ? 'Ctrl-C ends it' : `history ${count(copied, 6)}`,
    `live ${count(written, 6)}`,
    `logged ${count(logged, 6)}`,
    `lag ${duration(lagSeconds).padStart(6)}`,
    `open ${count(open, 6)}`,
  ].join('  ');
}

function duration(seconds: number | undefined): string {
  if (seconds === undefined) return '-';
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

/** An integer with separated thousands. */
export function count(value: number, width = 0): string {
  return String(value)
    .replaceAll(/\B(?=(\d{3})+$)/g, ',')
    .padStart(width);
}
