/** The last hours drawn: SVG made here, each with its text for who cannot see it. */
import type { Hour } from '../figures/readings.ts';
import { count, latency, percent } from './wording.ts';

/** An hour of one type, drawn also where it has no SMS. */
export interface Slot {
  /** its beginning on the clocks of the reports */
  readonly label: string;
  readonly row: Hour | undefined;
}

const WIDTH = 440;
const HEIGHT = 150;
const LEFT = 58;
const RIGHT = WIDTH - 18;
const TOP = 10;
const BOTTOM = 20;
const FLOOR = HEIGHT - BOTTOM;
const DRAWN = FLOOR - TOP;

export const PARTS = [
  ['on_time', 'within 2 min', 'Delivered within 2 minutes of being sent'],
  ['late', 'later', 'Delivered in more than 2 minutes'],
  ['undelivered', 'not delivered', 'Has a final status that is not Delivered'],
  ['waiting', 'still open', 'Has no final status yet'],
  ['untracked', 'untracked', 'Its source had no gateway ids: nobody can ask what became of it'],
] as const;

/** What became of an hour's SMS, each in one part. */
export function partsOf(row: Hour): Readonly<Record<(typeof PARTS)[number][0], number>> {
  const undelivered = row.total - row.delivered - row.open - row.untracked;
  return {
    on_time: row.le_2m,
    late: row.delivered - row.le_2m,
    undelivered,
    waiting: row.open,
    untracked: row.untracked,
  };
}

/** Bars of SMS by hour, parted by what became of them. */
export function deliveryChart(slots: readonly Slot[], id: string): string {
  const most = Math.max(1, ...slots.map(({ row }) => row?.total ?? 0));
  const top = niceAbove(most);
  const step = (RIGHT - LEFT) / slots.length;
  const bars = slots.map(({ label, row }, i) => {
    if (row === undefined) return '';
    let y = FLOOR;
    const parts = partsOf(row);
    const rects = PARTS.map(([part]) => {
      const height = (parts[part] / top) * DRAWN;
      y -= height;
      return height === 0 ? '' : `<rect class="${part}" ${box(LEFT + i * step + 1, y, step - 2, height)}/>`;
    });
    const hover = `<rect class="hit" ${box(LEFT + i * step, TOP, step, DRAWN)}/>`;
    return `<g><title>${label}: ${describe(row)}</title>${rects.join('')}${hover}</g>`;
  });
  const grid = [0, top / 2, top].map((value) => gridLine(FLOOR - (value / top) * DRAWN, count(value)));
  return drawing(id, deliveryText(slots), [...grid, ...hourLabels(slots, step), ...bars]);
}

/** Latencies on a logarithmic scale, from a second to an hour. */
const LATENCY = { least: 1, most: 3_600 };
const MARKS = [
  [1, '1 s'],
  [10, '10 s'],
  [120, '2 min'],
  [1_800, '30 min'],
] as const;

/** The median and the 95th percentile of the time to delivery by hour. */
export function latencyChart(slots: readonly Slot[], id: string): string {
  const step = (RIGHT - LEFT) / slots.length;
  const x = (i: number) => LEFT + (i + 0.5) * step;
  const lines = (['p50', 'p95'] as const).flatMap((figure) => {
    const points = slots.map(({ row }, i) => ({ i, value: row?.[figure] ?? null }));
    const drawn = runs(points).map(
      (run) =>
        `<polyline class="${figure}" points="${run.map(({ i, value }) => `${tenth(x(i))},${tenth(y(value))}`).join(' ')}"/>`,
    );
    const dots = points.map(({ i, value }) =>
      value === null ? '' : `<circle class="${figure}" cx="${tenth(x(i))}" cy="${tenth(y(value))}" r="2.5"/>`,
    );
    return [...drawn, ...dots];
  });
  const hovers = slots.map(({ label, row }, i) =>
    row?.p50 === null || row === undefined
      ? ''
      : `<g><title>${label}: median ${latency(row.p50)}, 95th percentile ${latency(row.p95)}</title><rect class="hit" ${box(LEFT + i * step, TOP, step, DRAWN)}/></g>`,
  );
  const grid = MARKS.map(([seconds, label]) => gridLine(y(seconds), label, seconds === 120 ? 'goal' : 'grid'));
  return drawing(id, latencyText(slots), [...grid, ...hourLabels(slots, step), ...lines, ...hovers]);
}

function y(seconds: number): number {
  const held = Math.min(LATENCY.most, Math.max(LATENCY.least, seconds));
  return FLOOR - (Math.log(held / LATENCY.least) / Math.log(LATENCY.most / LATENCY.least)) * DRAWN;
}

function deliveryText(slots: readonly Slot[]): string {
  const rows = slots.flatMap(({ label, row }) => (row === undefined ? [] : [{ label, row }]));
  const total = rows.reduce((sum, { row }) => sum + row.total, 0);
  if (total === 0) return 'No SMS in these hours.';
  const onTime = rows.reduce((sum, { row }) => sum + row.le_2m, 0);
  const judged = rows.filter(({ row }) => row.on_time_ratio !== null && row.total >= 10);
  const worst = judged.toSorted((a, b) => a.row.on_time_ratio! - b.row.on_time_ratio!)[0];
  const low =
    worst === undefined ? '' : ` The worst hour began at ${worst.label}: ${percent(worst.row.on_time_ratio)}.`;
  return `${count(total)} SMS in ${slots.length} hours; ${percent(onTime / total)} arrived within 2 minutes.${low}`;
}

function latencyText(slots: readonly Slot[]): string {
  const values = slots.flatMap(({ row }) => (row?.p50 == null || row.p95 === null ? [] : [row as Timed]));
  if (values.length === 0) return 'No SMS was delivered in these hours.';
  const span = (figure: 'p50' | 'p95') => {
    const all = values.map((row) => row[figure]);
    return `${latency(Math.min(...all))} to ${latency(Math.max(...all))}`;
  };
  return `Time to delivery by hour: median ${span('p50')}, 95th percentile ${span('p95')}.`;
}

type Timed = Hour & { readonly p50: number; readonly p95: number };

function describe(row: Hour): string {
  const parts = partsOf(row);
  const named = PARTS.flatMap(([part, name]) => (parts[part] === 0 ? [] : [`${count(parts[part])} ${name}`]));
  return `${count(row.total)} SMS: ${named.join(', ')}`;
}

function drawing(id: string, text: string, inside: readonly string[]): string {
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="${id}-text"><desc id="${id}-text">${text}</desc>
${inside.filter((each) => each !== '').join('\n')}
</svg>`;
}

function gridLine(y: number, label: string, kind = 'grid'): string {
  return `<line class="${kind}" x1="${LEFT}" x2="${RIGHT}" y1="${tenth(y)}" y2="${tenth(y)}"/><text x="${LEFT - 5}" y="${tenth(y + 3.5)}" text-anchor="end">${label}</text>`;
}

function hourLabels(slots: readonly Slot[], step: number): string[] {
  return slots.map(({ label }, i) =>
    i % 4 === 3
      ? `<text x="${tenth(LEFT + (i + 0.5) * step)}" y="${HEIGHT - 5}" text-anchor="middle">${label}</text>`
      : '',
  );
}

/** Values in a row, without the holes. */
function runs(points: readonly { i: number; value: number | null }[]): { i: number; value: number }[][] {
  const found: { i: number; value: number }[][] = [[]];
  for (const { i, value } of points) {
    if (value === null) found.push([]);
    else found.at(-1)!.push({ i, value });
  }
  return found.filter((run) => run.length > 1);
}

/** The next number above that is easily read and halves well. */
function niceAbove(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return [2, 4, 6, 8, 10, 20].map((factor) => factor * power).find((nice) => nice >= value)!;
}

const tenth = (value: number) => String(Math.round(value * 10) / 10);
const box = (x: number, y: number, width: number, height: number) =>
  `x="${tenth(x)}" y="${tenth(y)}" width="${tenth(width)}" height="${tenth(height)}"`;
