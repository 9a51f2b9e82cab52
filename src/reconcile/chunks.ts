/**
 * Large tables are read in chunks, with one short statement each. A statement holds its table locks until it ends: DDL on the source waits for it, and all
 * other sessions queue behind that DDL. So the chunk size adapts to an eighth of a second, and a statement that exceeds its lock or statement timeout is
 * retried with a smaller chunk. The smallest chunk has no statement timeout, because it must finish: it takes long if the source has no index on its id,
 * which doctor warns of.
 *
 * A scan by id reads each row exactly once, whatever is written meanwhile. A scan by ctid (pages of the table) filters rows cheaply, but may miss a row that
 * an UPDATE moves during the scan: good enough for scans that are repeated.
 */
import { codeOf } from '../errors.ts';
import { arrayLiteral } from '../postgres/quoting.ts';
import { pause } from '../supervise.ts';

const CHUNK_MS = 120;

/** Bounds of the chunk size. */
export interface Sizes {
  readonly min: number;
  readonly max: number;
}

/** The size of the next chunk after one of `size` took `ms`: at most twice as much. */
export function nextSize(size: number, ms: number, { min, max }: Sizes): number {
  return Math.round(Math.min(max, Math.max(min, size * Math.min(2, CHUNK_MS / ms))));
}

/** Runs `work` for a chunk of `size`, and returns its result and the next size. After a statement timeout it retries with a quarter of the size. */
export async function withAdaptiveSize<T>(
  size: number,
  sizes: Sizes,
  work: (size: number, limited: boolean) => Promise<T>,
): Promise<{ result: T; next: number }> {
  for (;;) {
    const limited = size > sizes.min;
    const began = performance.now();
    try {
      const result = await work(size, limited);
      return { result, next: nextSize(size, performance.now() - began, sizes) };
    } catch (error) {
      if (codeOf(error) !== '57014' || !limited) throw error;
      size = Math.max(sizes.min, size >> 2);
    }
  }
}

/** The SQL that limits a statement to one chunk: `filter` goes into WHERE, `tail` after it. The table's alias is `t`. */
export interface ChunkQuery {
  readonly filter: string;
  readonly tail: string;
  readonly parameters: readonly string[];
  /** the statement has a time limit */
  readonly limited: boolean;
}

/**
 * Scans a table by id: `read` runs the statement for a chunk and returns its last id, or null at the end. `parameter` is the number of the first parameter
 * that a chunk may use.
 */
export async function scanById(
  largest: number,
  parameter: number,
  read: (chunk: ChunkQuery) => Promise<string | null>,
  signal: AbortSignal,
): Promise<void> {
  const sizes = sizesUpTo(largest);
  let size = Math.ceil(largest / 32);
  let after: string | null = null;
  while (!signal.aborted) {
    const from: string | null = after;
    const { result, next }: { result: string | null; next: number } = await withAdaptiveSize(
      size,
      sizes,
      (rows, limited) => {
        const tail = `order by t.id limit ${rows}`;
        return read(
          from === null
            ? { filter: 'true', tail, parameters: [], limited }
            : { filter: `t.id > $${parameter}::text::uuid`, tail, parameters: [from], limited },
        );
      },
    );
    after = result;
    if (after === null) return;
    size = next;
  }
}

/**
 * Scans a table by ctid: `pages` in all (of its largest partition), at most `largest` pages at once, with pauses so that reading takes `share` of the time.
 * Pages that are added meanwhile are not read.
 */
export async function scanByCtid(
  pages: number,
  largest: number,
  { parameter, share }: { parameter: number; share: number },
  read: (chunk: ChunkQuery) => Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const sizes = sizesUpTo(largest);
  let size = Math.ceil(largest / 32);
  for (let from = 0; from < pages && !signal.aborted;) {
    const first = from;
    const began = performance.now();
    const { result, next } = await withAdaptiveSize(size, sizes, async (count, limited) => {
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
  return { min: Math.ceil(largest / 100), max: largest };
}

/** The source rows of a chunk: `size` rows after an id, or these. */
export type ChunkRange =
  { readonly after: string | undefined; readonly size: number } | { readonly ids: readonly string[] };

/** Of such rows: a condition, a limit, and the fourth parameter of the statement. */
export function rangeSql(range: ChunkRange): { filter: string; limit: string; parameter: string | null } {
  if ('ids' in range) return { filter: 's.id = any ($4::text::uuid[])', limit: '', parameter: arrayLiteral(range.ids) };
  const { after, size } = range;
  const filter = after === undefined ? 's.id is not null' : 's.id > $4::uuid';
  return { filter, limit: `limit ${size}`, parameter: after ?? null };
}
