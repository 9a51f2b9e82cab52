/** The lower part of the page: what smslogd itself does, the mirror and the poller of this process. */
import { POLL_RESULTS, type MirrorState } from '../metrics.ts';
import type { StatusFacts } from './facts.ts';
import { age, bytes, clock, count, escape } from './wording.ts';

const STATES: Readonly<Record<MirrorState, string>> = {
  starting: 'starting',
  snapshot: 'streaming, first copy under way',
  streaming: 'streaming',
  standby: 'standing by: another daemon works',
  repairing: 'repairing',
  stopped: 'stopped',
};

export function pipelineCard({ loops, mirror, pipeline, slot, ready, reason, timezone }: StatusFacts): string {
  const checkpoint =
    pipeline.checkpoint_at === null ? 'none yet' : clock(timezone)(Date.parse(pipeline.checkpoint_at) / 1000);
  const reads = slot === null ? 'there is none' : slot.active ? 'being read' : 'nobody reads it';
  return card('pipeline', 'Mirror: source to log', [
    ['State', loops.includes('mirror') ? STATES[mirror] : 'not run by this daemon'],
    ['Ready', ready ? 'yes' : `no: ${escape(reason ?? '')}`],
    ...(mirror === 'standby'
      ? []
      : [
          ['Behind the source', `${age(pipeline.lag_seconds)}, ${bytes(pipeline.lag_bytes)}`] as const,
          ['Rows found missing', count(pipeline.missing_rows)] as const,
        ]),
    ['Replication slot', `${reads}${slot?.wal_status == null ? '' : `, ${slot.wal_status}`}`],
    ['WAL it keeps', bytes(slot?.retained ?? null)],
    ['WAL till it is lost', slot !== null && slot.safe === null ? 'no limit is set' : bytes(slot?.safe ?? null)],
    ['Last checkpoint', checkpoint],
  ]);
}

export function gatewayCard({ loops, gateway, poll_due: due }: StatusFacts): string {
  if (!loops.includes('poller'))
    return card('gateway', 'Poller: gateway to log', [['State', 'not run by this daemon']]);
  const { requests } = gateway;
  const results = POLL_RESULTS.filter((result) => requests[result] > 0 || result === 'ok');
  const last = gateway.last_success_age;
  return card('gateway', 'Poller: gateway to log', [
    ['State', gateway.breaker_open ? 'leaves the gateway alone' : 'asking'],
    ['Last answer', last === null ? 'none since the start' : `${age(last)} ago`],
    ['SMS due now', due === null ? '–' : count(due)],
    ['Requests at once', `${count(gateway.in_flight)}, at most ${count(gateway.concurrency_limit)}`],
    ['Requests, last 20 min', results.map((result) => `${count(requests[result])} ${result}`).join(', ')],
  ]);
}

function card(id: string, title: string, rows: readonly (readonly [string, string])[]): string {
  return `<section class="card" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>
<dl>${rows.map(([term, value]) => `<dt>${term}</dt><dd>${value}</dd>`).join('\n')}</dl></section>`;
}
