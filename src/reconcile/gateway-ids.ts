/**
 * Gateway ids that come after the row: some versions of the OTP service insert the row before the gateway has answered and fill the id in by an
 * UPDATE. No publication has those UPDATEs (src/schema/publication.ts says why), so the source is asked for the SMS that wait for their id, by key: new
 * ones each second, others less often, none past its life. The queue knows which ones wait, and takes those that are completed.
 */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Source } from '../source.ts';
import { pause, restAfter } from '../supervise.ts';
import { patiently } from '../postgres/briefly.ts';
import { reportRefused } from './quarantine.ts';
import type { ReconcileStore } from './store.ts';

/** How often those are looked for that came in the last so many seconds (undefined: all). */
const LOOKS: readonly { readonly everyMs: number; readonly seconds: number | undefined }[] = [
  { everyMs: 1_000, seconds: 60 },
  { everyMs: 10_000, seconds: 600 },
  { everyMs: 60_000, seconds: undefined },
];
/** Rows that one statement completes: it holds their locks, and the source's, to its end. */
const PIECE = 500;

export interface Late {
  readonly store: ReconcileStore;
  readonly source: Source;
  readonly term: bigint;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors'>;
}

/** Gives the rows `ids` of the log the gateway ids that the source has by now; returns those that the log refuses. */
export async function complete(
  { store, source, term }: Pick<Late, 'store' | 'source' | 'term'>,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  const refused: string[] = [];
  for (let from = 0; from < ids.length && !signal.aborted; from += PIECE) {
    const piece = ids.slice(from, from + PIECE);
    refused.push(...(await patiently(signal, () => store.complete(source, piece, term))).refused);
  }
  return refused;
}

/** Looks until `signal` aborts. Throws what the database throws, but for what it has against single rows: that is said once. */
export async function completeLate({ store, source, term, log, metrics }: Late, signal: AbortSignal): Promise<void> {
  const look = async (seconds: number | undefined) => {
    let after: string | undefined;
    do {
      const ids = await store.waiting(seconds, after, PIECE);
      for (const id of await complete({ store, source, term }, ids, signal)) reportRefused(log, metrics, id);
      after = ids.length < PIECE ? undefined : ids.at(-1);
    } while (after !== undefined && !signal.aborted);
  };
  const again = async (everyMs: number, seconds: number | undefined) => {
    while (!signal.aborted) {
      const began = performance.now();
      await look(seconds);
      await pause(restAfter(everyMs, performance.now() - began), signal);
    }
  };
  await Promise.all(LOOKS.map(({ everyMs, seconds }) => again(everyMs, seconds)));
}
