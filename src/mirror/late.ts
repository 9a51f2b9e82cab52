/**
 * Gateway ids that come after the row: some versions of the OTP service insert the row before the gateway has answered and fill the id in by an
 * UPDATE. No publication has those UPDATEs (src/publication.ts says why), so the source is asked for the SMS that wait for their id, by key: new
 * ones each second, others less often, none past its life. The queue knows which ones wait, and takes those that are completed.
 */
import type { Source } from '../source.ts';
import { pause } from '../supervise.ts';
import { patiently } from './pieces.ts';
import type { Store } from './store.ts';

const TICK_MS = 1_000;
/** Each so many ticks those are looked for that came in the last so many seconds (undefined: all), from the widest look to the usual one. */
const LOOKS: readonly { readonly ticks: number; readonly seconds: number | undefined }[] = [
  { ticks: 60, seconds: undefined },
  { ticks: 10, seconds: 600 },
  { ticks: 1, seconds: 60 },
];
const PIECE = 2_000;
/** However many wait, a look takes a twentieth of the time at most. */
const REST = 20;

/** Looks until `signal` aborts. Throws what the database throws. */
export async function completeLate(store: Store, source: Source, signal: AbortSignal): Promise<void> {
  for (let tick = 0; !signal.aborted; tick += 1) {
    const { seconds } = LOOKS.find(({ ticks }) => tick % ticks === 0)!;
    const began = performance.now();
    let after: string | undefined;
    do {
      const from = after;
      const piece = await patiently(signal, () => store.completeWaiting(source, seconds, from, PIECE));
      after = piece.looked < PIECE ? undefined : piece.last;
    } while (after !== undefined && !signal.aborted);
    await pause(Math.max(TICK_MS, REST * (performance.now() - began)), signal);
  }
}
