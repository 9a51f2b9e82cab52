/**
 * Big tables are read in pieces, by one short statement each. A statement holds its tables' locks to its end: whoever wants to change the
 * source waits for that, and everybody else behind him. So a piece is to take an eighth of a second, a statement that has to wait for a lock
 * itself gives up soon, and so does one that takes too long by itself: the machine may be busy, or the piece cost more than the one before it.
 * A smaller one is tried then. The least one has no limit, for it must come to an end somewhere: it takes long where the source has no index on
 * its id, which doctor warns of.
 *
 * By id a table is read exactly once, whatever is written meanwhile. By place (pages of the file) only the rows that are wanted cost
 * anything, but one that is moved by an UPDATE during the look may be passed over: right for looks that are repeated.
 */
import { codeOf } from '../errors.ts';
import { pause } from '../supervise.ts';

const PIECE_MS = 120;

/** What the sizes of pieces are held between. */
export interface Sizes {
  readonly least: number;
  readonly most: number;
}

/** The size of the next piece after one of `size` took `ms`: at most twice as much. */
export function nextSize(size: number, ms: number, { least, most }: Sizes): number {
  return Math.round(Math.min(most, Math.max(least, size * Math.min(2, PIECE_MS / ms))));
}

/**
 * The piece that `work` makes of at most `size`, and the size for the next one. One that takes too long is given up, and a quarter of it is tried.
 */
export async function inTime<T>(
  size: number,
  sizes: Sizes,
  work: (size: number, limited: boolean) => Promise<T>,
): Promise<{ result: T; next: number }> {
  for (;;) {
    const limited = size > sizes.least;
    const began = performance.now();
    try {
      const result = await work(size, limited);
      return { result, next: nextSize(size, performance.now() - began, sizes) };
    } catch (error) {
      if (codeOf(error) !== '57014' || !limited) throw error;
      size = Math.max(sizes.least, size >> 2);
    }
  }
}

/** What a statement adds to read one piece; `filter` goes into WHERE, `tail` behind it. Made for the alias `t`. */
export interface Piece {
  readonly filter: string;
  readonly tail: string;
  readonly parameters: readonly string[];
  readonly limited: boolean;
}

/**
 * Walks a table by id: `read` runs the statement for a piece and returns the last id of it, or null where the end is reached.
 * `parameter` is the number of the first parameter that a piece may use.
 */
export async function walkById(
  largest: number,
  parameter: number,
  read: (piece: Piece) => Promise<string | null>,
  signal: AbortSignal,
): Promise<void> {
  const sizes = sizesUpTo(largest);
  let size = Math.ceil(largest / 32);
  let after: string | null = null;
  while (!signal.aborted) {
    const from: string | null = after;
    const { result, next }: { result: string | null; next: number } = await inTime(size, sizes, (rows, limited) => {
      const tail = `order by t.id limit ${rows}`;
      return read(
        from === null
          ? { filter: 'true', tail, parameters: [], limited }
          : { filter: `t.id > $${parameter}::text::uuid`, tail, parameters: [from], limited },
      );
    });
    after = result;
    if (after === null) return;
    size = next;
  }
}

/**
 * Walks a table by place, `pages` in all (of its longest partition), at most `largest` pages at once, with pauses that leave the reading `share` of the
 * time. What is added behind them meanwhile is not read: it may be any amount.
 */
export async function walkByPlace(
  pages: number,
  largest: number,
  { parameter, share }: { parameter: number; share: number },
  read: (piece: Piece) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const sizes = sizesUpTo(largest);
  let size = Math.ceil(largest / 32);
  for (let from = 0; from < pages && !signal.aborted;) {
    const first = from;
    const began = performance.now();
    const { result, next } = await inTime(size, sizes, async (count, limited) => {
      const to = Math.min(pages, first + count);
      await read({
        filter: `t.ctid >= $${parameter}::text::tid and t.ctid < $${parameter + 1}::text::tid`,
        tail: '',
        parameters: [`(${first},0)`, `(${to},0)`],
        limited,
      });
      return to;
    });
    from = result;
    size = next;
    if (from < pages && share < 1) await pause((performance.now() - began) * (1 / share - 1), signal);
  }
}

function sizesUpTo(largest: number): Sizes {
  return { least: Math.ceil(largest / 100), most: largest };
}
