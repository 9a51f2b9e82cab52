/** The lower part of the page: what smslogd itself does, the mirror and the poller of this process. */
import { POLL_RESULTS, type MirrorState } from '../metrics.ts';
import type { StatusFacts } from './facts.ts';
import { MEANINGS, type Term } from './meanings.ts';
import { age, bytes, clock, count, escape } from './wording.ts';

export const STATES: Readonly<Record<MirrorState, string>> = {
  starting: 'starting',
  snapshot: 'streaming, first copy under way',
  streaming: 'streaming',
  standby: 'standby: another daemon leads',
  repairing: 'repairing',
  stopped: 'stopped',
};

export function slotWords({ slot }: Pick<StatusFacts, 'slot'>): string {
  const reads = slot === null ? 'none' : slot.active ? 'active' : 'inactive';
  return `${reads}${slot?.wal_status == null ? '' : `, ${slot.wal_status}`}`;
}

export function walTillLost({ slot }: Pick<StatusFacts, 'slot'>): string {
  if (slot === null || slot.wal_status === 'lost') return bytes(null);
  return slot.safe === null ? 'no limit is set' : bytes(slot.safe);
}

export function leaderWords({ leader }: Pick<StatusFacts, 'leader'>): string {
  return leader?.leads === true ? (leader.holder ?? '').split(' ', 2).join(', process ') : 'none';
}

/** Results with how often each came, those that failed only where any did. */
export function resultWords(requests: StatusFacts['gateway']['requests']): string {
  const results = POLL_RESULTS.filter((result) => requests[result] > 0 || result === 'ok');
  return results.map((result) => `${count(requests[result])} ${result}`).join(', ');
}

export function pipelineCard(facts: StatusFacts): string {
  const { loops, mirror, pipeline, slot, ready, reason, timezone } = facts;
  const checkpoint =
    pipeline.checkpoint_at === null ? 'none yet' : clock(timezone)(Date.parse(pipeline.checkpoint_at) / 1000);
  return card('pipeline', 'Mirror: source to log', [
    ['State', loops.includes('mirror') ? STATES[mirror] : 'not run by this daemon', 'State of the mirror'],
    ['Leader', escape(leaderWords(facts))],
    ['Ready', ready ? 'yes' : `no: ${escape(reason ?? '')}`],
    ...(mirror === 'standby'
      ? []
      : [
          ['Behind the source', `${age(pipeline.lag_seconds)}, ${bytes(pipeline.lag_bytes)}`] as const,
          ['Rows found missing', count(pipeline.missing_rows ?? 0)] as const,
        ]),
    ['Replication slot', slotWords(facts)],
    ['WAL retained', bytes(slot?.retained ?? null)],
    ['WAL until it is lost', walTillLost(facts)],
    ['Last checkpoint', checkpoint],
  ]);
}

export function gatewayCard({ loops, gateway, poll_due: due }: StatusFacts): string {
  const title = 'Poller: gateway to log';
  if (!loops.includes('poller'))
    return card('gateway', title, [['State', 'not run by this daemon', 'State of the poller']]);
  const last = gateway.last_success_age;
  return card('gateway', title, [
    ['State', gateway.breaker_open ? 'paused: the gateway fails' : 'polling', 'State of the poller'],
    ['Last answer', last === null ? 'none since the start' : `${age(last)} ago`],
    ['SMS due now', due === null ? '–' : count(due)],
    ['Requests at once', `${count(gateway.in_flight ?? 0)}, at most ${count(gateway.concurrency_limit ?? 0)}`],
    ['Requests, last 20 min', resultWords(gateway.requests)],
  ]);
}

type Row = readonly [label: Term, value: string] | readonly [label: string, value: string, meaning: Term];

function card(id: string, title: string, rows: readonly Row[]): string {
  const line = ([label, value, meaning = label as Term]: Row) =>
    `<dt title="${MEANINGS[meaning]}">${label}</dt><dd>${value}</dd>`;
  return `<section class="card" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>
<dl>${rows.map(line).join('\n')}</dl></section>`;
}

/** All meanings in one place, for who cannot point at a figure. */
export function meaningsList(): string {
  const items = Object.entries(MEANINGS).map(([term, meaning]) => `<dt>${term}</dt><dd>${meaning}</dd>`);
  return `<details class="card meanings" id="meanings"><summary id="meanings-summary">What the figures mean</summary><dl>${items.join('\n')}</dl></details>`;
}
