/** The upper part of the page: one card for each type of SMS, with today against yesterday and the last hours, and the open SMS. */
import { HOURS } from '../figures/gauges.ts';
import type { Period } from '../figures/readings.ts';
import { OPEN_STATUSES, SMS_TYPES, type SmsType } from '../status.ts';
import { deliveryChart, latencyChart, PARTS, partsOf, type Slot } from './charts.ts';
import type { StatusFacts } from './facts.ts';
import { MEANINGS, type Term } from './meanings.ts';
import { isJudged } from './verdict.ts';
import { age, clock, count, latency, percent } from './wording.ts';

const PERIODS = [
  ['today', 'today'],
  ['yesterday_same_time', 'yesterday by this time'],
  ['yesterday', 'yesterday'],
] as const;

/** The two kinds that the reports are about; the others show where there are any. */
const ALWAYS: readonly SmsType[] = ['verification', 'medication_request'];

/** The figures of a period, in the order of their weight. */
export const ROWS: readonly (readonly [Term, (row: Period) => string])[] = [
  ['On time', (row) => percent(row.on_time_ratio)],
  ['Success', (row) => percent(row.success_ratio)],
  ['Final status', (row) => percent(row.known_ratio)],
  ['SMS', (row) => count(row.total)],
  ['Delivered', (row) => count(row.delivered)],
  ['≤ 2 min', (row) => count(row.le_2m)],
  ['2 – 5 min', (row) => count(row.m2_5)],
  ['5 – 30 min', (row) => count(row.m5_30)],
  ['> 30 min', (row) => count(row.gt_30m)],
  ['Undelivered', (row) => count(row.undelivered)],
  ['Open', (row) => count(row.open)],
  ['Oldest open', (row) => age(row.oldest_open_age)],
];
export const UNTRACKED_ROW: (typeof ROWS)[number] = ['Untracked', (row) => count(row.untracked)];

/** The types to show: the two of the reports, and others that there are any of. */
export function typesShown({ periods }: StatusFacts): SmsType[] {
  return SMS_TYPES.filter((type) => ALWAYS.includes(type) || periods.some((row) => row.type === type && row.total > 0));
}

export function typeCards(facts: StatusFacts): string {
  return typesShown(facts)
    .map((type) => typeCard(type, facts))
    .join('\n');
}

function typeCard(type: SmsType, facts: StatusFacts): string {
  const row = (period: string) => facts.periods.find((each) => each.type === type && each.period === period);
  const slots = slotsOf(type, facts);
  return `<section class="card kind" aria-labelledby="${type}">
<div><h2 id="${type}">${nameOf(type)}</h2>
<div class="head"><p class="big">${onTimeToday(row('today'))}</p>
<p>on time today <span class="soft">delivered within 2 minutes, of all · yesterday by this time ${percent(row('yesterday_same_time')?.on_time_ratio ?? null)}</span></p></div></div>
${periodTable(type, row)}
<figure><figcaption><h3>SMS by hour, last ${HOURS} hours</h3>${legend(PARTS.filter(([part]) => part !== 'untracked' || slots.some(({ row }) => (row?.untracked ?? 0) > 0)))}</figcaption>
${deliveryChart(slots, `${type}-delivery`)}</figure>
<figure><figcaption><h3>Time to delivery by hour</h3>${legend([
    ['p50 line', 'median', MEANINGS.Median],
    ['p95 line', '95th percentile', MEANINGS['95th percentile']],
  ])}</figcaption>
${latencyChart(slots, `${type}-latency`)}</figure>
${hourTable(type, slots)}
</section>`;
}

/** The last hours, oldest first, those without SMS too. */
function slotsOf(type: SmsType, { hours, read_at: readAt, timezone }: StatusFacts): Slot[] {
  const now = readAt === null ? 0 : Date.parse(readAt) / 1000;
  const label = clock(timezone);
  return Array.from({ length: HOURS }, (_, i) => {
    const hour = (Math.floor(now / 3_600) - HOURS + 1 + i) * 3_600;
    return { label: label(hour), row: hours.find((each) => each.type === type && each.hour === hour) };
  });
}

function onTimeToday(row: Period | undefined): string {
  if (row !== undefined && row.total > 0 && !isJudged(row)) return 'not judged';
  return percent(row?.on_time_ratio ?? null);
}

function periodTable(type: SmsType, row: (period: string) => Period | undefined): string {
  const columns = PERIODS.map(([period]) => row(period));
  const line = ([label, show]: (typeof ROWS)[number]) =>
    `<tr${label === 'On time' ? ' class="main"' : ''}><th scope="row" title="${MEANINGS[label]}">${label}</th>${columns.map((each) => `<td>${each === undefined ? '–' : show(each)}</td>`).join('')}</tr>`;
  const untracked = columns.some((each) => (each?.untracked ?? 0) > 0);
  const rows = [...ROWS, ...(untracked ? [UNTRACKED_ROW] : [])].map(line);
  return region(
    `${type}-periods`,
    `${type}: today against yesterday`,
    `<table>
<caption>Today against yesterday</caption>
<thead><tr><td></td>${PERIODS.map(([, label]) => `<th scope="col">${label}</th>`).join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`,
  );
}

function hourTable(type: SmsType, slots: readonly Slot[]): string {
  const rows = slots.toReversed().map(({ label, row }) => {
    if (row === undefined)
      return `<tr><th scope="row">${label}</th><td class="zero">0</td><td></td><td></td><td></td><td></td><td></td></tr>`;
    const { undelivered, waiting, untracked } = partsOf(row);
    const cells = [
      count(row.total),
      percent(row.on_time_ratio),
      count(undelivered),
      count(waiting + untracked),
      latency(row.p50),
      latency(row.p95),
    ];
    return `<tr><th scope="row">${label}</th>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  });
  const heads: readonly (readonly [string, Term?])[] = [
    ['from'],
    ['SMS', 'SMS'],
    ['on time', 'On time'],
    ['not delivered', 'Undelivered'],
    ['open', 'Open'],
    ['median', 'Median'],
    ['95th percentile', '95th percentile'],
  ];
  return `<details id="${type}-table"><summary id="${type}-summary">The hours as a table</summary>
${region(
  `${type}-hours`,
  `${type} by hour`,
  `<table><caption>The last ${HOURS} hours, the latest first</caption><thead><tr>${heads.map(([head, term]) => `<th scope="col"${term === undefined ? '' : ` title="${MEANINGS[term]}"`}>${head}</th>`).join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`,
)}</details>`;
}

export function openTable({ open }: StatusFacts): string {
  const types = SMS_TYPES.filter(
    (type) => ALWAYS.includes(type) || open.some((row) => row.type === type && row.sms > 0),
  );
  const body = OPEN_STATUSES.map((status) => {
    const cells = types.map((type) => {
      const row = open.find((each) => each.type === type && each.status === status);
      if (row === undefined || row.sms === 0) return '<td class="zero">0</td>';
      return `<td>${count(row.sms)} <small>${age(row.oldest_age)}</small></td>`;
    });
    return `<tr><th scope="row">${status}</th>${cells.join('')}</tr>`;
  });
  return region(
    'open-table',
    'Open SMS by status',
    `<table>
<caption>Open SMS by status, and the age of the oldest</caption>
<thead><tr><td></td>${types.map((type) => `<th scope="col">${nameOf(type)}</th>`).join('')}</tr></thead>
<tbody>
${body.join('\n')}
</tbody></table>`,
  );
}

/** The contract's word, which may break where it is long, with the mission's word for it. */
function nameOf(type: SmsType): string {
  return type === 'medication_request' ? 'medication_<wbr>request <small>reimbursement</small>' : type;
}

function legend(entries: readonly (readonly [mark: string, label: string, meaning?: string])[]): string {
  const items = entries.map(
    ([mark, label, meaning]) =>
      `<li class="${mark}"${meaning === undefined ? '' : ` title="${meaning}"`}>${label}</li>`,
  );
  return `<ul class="legend">${items.join('')}</ul>`;
}

/** What may be wider than a phone scrolls by itself, also by keyboard. */
function region(id: string, label: string, inside: string): string {
  return `<div class="scroll" role="region" id="${id}" aria-label="${label}" tabindex="0">${inside}</div>`;
}
