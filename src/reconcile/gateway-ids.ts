/**
 * Backfill of gateway ids. Some versions of the OTP service insert a row before the gateway has answered, and set the id by an UPDATE. The publication
 * omits UPDATEs (src/schema/publication.ts says why), so this loop reads the source by key for queued SMS without an id: new ones each second, older ones
 * less often, none past its deadline. Where a scan found none and this daemon, which leads, has written no row since, the next one can wait.
 */
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Source } from '../source.ts';
import { pause, pauseAfter } from '../supervise.ts';
import { retryWhileLocked } from '../postgres/briefly.ts';
import { reportRefused } from './quarantine.ts';
import type { ReconcileStore } from './store.ts';

/** How often SMS of the last `seconds` are looked up (undefined: all). */
const SCANS: readonly { readonly everyMs: number; readonly seconds: number | undefined }[] = [
  { everyMs: 1_000, seconds: 60 },
  { everyMs: 10_000, seconds: 600 },
  { everyMs: 60_000, seconds: undefined },
];
/** The longest pause between two scans that find nothing, where they are not less frequent anyway. */
const IDLE_MS = 30_000;
/** Rows in one statement, which bounds how long it holds its locks. */
const CHUNK = 500;

export interface BackfillDeps {
  readonly store: ReconcileStore & {
    /** how often rows were written into the log */
    writes(): number;
  };
  readonly source: Source;
  readonly term: bigint;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'errors'>;
}

/** Fills in the gateway ids of the log rows `ids` from the source; returns the ids that the log rejects. */
export async function fillGatewayIds(
  { store, source, term }: Pick<BackfillDeps, 'store' | 'source' | 'term'>,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  const refused: string[] = [];
  for (let from = 0; from < ids.length && !signal.aborted; from += CHUNK) {
    const chunk = ids.slice(from, from + CHUNK);
    refused.push(...(await retryWhileLocked(signal, () => store.fillGatewayIds(source, chunk, term))).refused);
  }
  return refused;
}

/** Runs until `signal` aborts. Throws what the database throws; rejected rows are only logged, once. */
export async function backfillGatewayIds(
  { store, source, term, log, metrics }: BackfillDeps,
  signal: AbortSignal,
): Promise<void> {
  /** True if SMS wait for their ids. */
  const scan = async (seconds: number | undefined): Promise<boolean> => {
    let after: string | undefined;
    let found = false;
    do {
      const ids = await store.waitingForGatewayId(seconds, after, CHUNK);
      for (const id of await fillGatewayIds({ store, source, term }, ids, signal)) reportRefused(log, metrics, id);
      found ||= ids.length > 0;
      after = ids.length < CHUNK ? undefined : ids.at(-1);
    } while (after !== undefined && !signal.aborted);
    return found;
  };
  const repeat = async (everyMs: number, seconds: number | undefined) => {
    let waiting = true;
    let written = 0;
    let scannedAt = -Infinity;
    while (!signal.aborted) {
      const began = performance.now();
      if (waiting || written !== store.writes() || began - scannedAt >= IDLE_MS) {
        written = store.writes();
        scannedAt = began;
        waiting = await scan(seconds);
      }
      await pause(pauseAfter(everyMs, performance.now() - began), signal);
    }
  };
  await Promise.all(SCANS.map(({ everyMs, seconds }) => repeat(everyMs, seconds)));
}
