/**
 * Whether the status of a row is one that the gateway said for its id, with its date, or a verdict by the rule. Knows the gateway's fates and what was wrong with
 * the gateway; nothing of the product.
 */
import { LIFE_MINUTES, type Stage } from './stage.ts';

/** Times in epoch ms. */
export interface Logged {
  readonly id: string;
  readonly gatewayId: string | null;
  readonly status: string | null;
  readonly changedAt: number | null;
  readonly updatedAt: number;
  readonly insertedAt: number;
}

const OPEN = ['Accepted', 'Enroute', 'Pending', 'Unknown'];
const LIFE_MS = LIFE_MINUTES * 60_000;
/** Between an answer and its row lie a request of 8 s and a write, which may have waited for a lock for as long as a fault lasts. */
const VERDICT_MS = 75_000;
/** The answer that ends an SMS is heard past its life, and was given so long before at most: 8 s, or for as long as a daemon may be frozen. */
const HEARD_MS = 35_000;

/** What is untrue of it; undefined: nothing. */
export function untrue(row: Logged, { gateway, said }: Pick<Stage, 'gateway' | 'said'>): string | undefined {
  const { gatewayId, status, changedAt, updatedAt, insertedAt } = row;
  const overAt = insertedAt + LIFE_MS;
  const then = said.filter(({ from, until }) => from <= updatedAt && updatedAt <= until + VERDICT_MS);
  const lied = (...kinds: string[]) => then.some(({ words }) => kinds.some((kind) => kind in words));
  if (gatewayId === null) {
    if (status === null) return changedAt === null ? undefined : 'a date without a status';
    if (status !== 'Unaccepted') return `${status} without a gateway id`;
    return changedAt !== null && changedAt >= overAt ? undefined : 'Unaccepted before its time';
  }
  const fate = gateway.fate(gatewayId);
  if (fate === undefined) return 'a gateway id that the gateway does not know';
  if (status === null) return 'a gateway id without a status';
  if (status === 'Terminated') {
    if (changedAt === null || changedAt < overAt) return 'Terminated before its time';
    const heardAt = Math.max(overAt - HEARD_MS, changedAt - VERDICT_MS);
    const heard = fate.findLast(({ at }) => at <= heardAt)?.status ?? 'Accepted';
    return OPEN.includes(heard) || lied('unknown-word')
      ? undefined
      : `Terminated, though the gateway had said ${heard} for long`;
  }
  // as its service wrote it
  if (status === 'Accepted' && changedAt === null) return undefined;
  if (status === 'Unknown' && lied('unknown-word')) return undefined;
  const had = fate.filter((each) => each.status === status && each.at <= updatedAt + 1_000);
  if (had.length === 0) return `${status}, which the gateway never said`;
  const dated = had.some(({ at }) =>
    [0, ...then.map(({ words }) => words['skew'] ?? 0)].some(
      (skew) => Math.floor((at + skew) / 1000) * 1000 === changedAt,
    ),
  );
  const undated =
    lied('empty-date', 'no-date', 'broken-date', 'bare-rejection') &&
    changedAt !== null &&
    had.some(({ at }) => at <= changedAt && changedAt <= updatedAt);
  return dated || undated ? undefined : `${status} with a date that the gateway did not say`;
}
