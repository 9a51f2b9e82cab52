/** The demo's last screen: two tables and a sentence. Pure: figures in, lines out, at most 80 columns. */
import { isRight, STATUS_LINES, type Audit, type Tally } from './audit.ts';
import { FLAWS } from './correctness.ts';
import { count } from './progress.ts';
import { wrap } from '../wrap.ts';
import { DEMO_TYPES, type DemoType } from './sms.ts';

/** The mission's figures of one type and one period, as verification.sms_today_vs_yesterday has them. A ratio over nothing is null. */
export interface Figures {
  readonly sms: number;
  readonly success: number | null;
  readonly undelivered: number;
  readonly le2m: number;
  readonly m2to5: number;
  readonly m5to30: number;
  readonly gt30m: number;
  readonly open: number;
  readonly oldestOpenSeconds: number | null;
  readonly known: number | null;
  readonly onTime: number | null;
}

export type Period = 'today' | 'yesterday';

export type FiguresByType = Readonly<Record<DemoType, Readonly<Record<Period, Figures | undefined>>>>;

const FIGURE_LINES: readonly (readonly [string, (figures: Figures) => string])[] = [
  ['SMS', ({ sms }) => count(sms)],
  ['on time (within 2 min / all)', ({ onTime }) => ratio(onTime)],
  ['success (Delivered / processed)', ({ success }) => ratio(success)],
  ['undelivered', ({ undelivered }) => count(undelivered)],
  ['Delivered in up to 2 min', ({ le2m }) => count(le2m)],
  ['             2 to 5 min', ({ m2to5 }) => count(m2to5)],
  ['             5 to 30 min', ({ m5to30 }) => count(m5to30)],
  ['             more than 30 min', ({ gt30m }) => count(gt30m)],
  ['open now', ({ open }) => count(open)],
  ['oldest open', ({ oldestOpenSeconds }) => age(oldestOpenSeconds)],
  ['known (final / all)', ({ known }) => ratio(known)],
];

/** Table one: the figures by type, today against yesterday at the same time. */
export function figuresTable(figures: FiguresByType): string[] {
  const width = 32;
  return [
    `${'The figures of the day'.padEnd(width)}${DEMO_TYPES.map((type) => type.padStart(23)).join('')}`,
    `${' '.repeat(width)}${figureCells((_, period) => (period === 'today' ? 'today' : 'yesterday*'))}`,
    ...FIGURE_LINES.map(([name, write]) => {
      const row = figureCells((type, period) => {
        const each = figures[type][period];
        return each === undefined ? '-' : write(each);
      });
      return `${name.padEnd(width)}${row}`;
    }),
    '* up to the same time of the day',
  ];
}

const COLUMNS: readonly (keyof Tally)[] = ['written', 'logged', 'missing', 'doubled', 'differing'];
/** Columns of table two: what is wrong with any status stands together, and by its kind in the line below. */
const SHOWN: readonly (readonly [name: string, of: (tally: Tally) => number])[] = [
  ['written', ({ written }) => written],
  ['logged', ({ logged }) => logged],
  ['wrong', ({ missing, doubled, differing }) => missing + doubled + differing],
];

function figureCells(cell: (type: DemoType, period: Period) => string): string {
  return DEMO_TYPES.map((type) => cell(type, 'today').padStart(11) + cell(type, 'yesterday').padStart(12)).join('');
}

/** Table two: what was written against what is logged, by status. `written` counts the statuses at the gateway, `logged` those in the log. */
export function auditTable({ tallies, totals, flaws, behind }: Audit): string[] {
  const width = 14;
  const used = STATUS_LINES.filter((status) =>
    DEMO_TYPES.some((type) => COLUMNS.some((column) => tallies[type].get(status)![column] > 0)),
  );
  const found = FLAWS.filter((flaw) => flaws.has(flaw)).map((flaw) => `${flaw} ${count(flaws.get(flaw)!)}`);
  const all = allOf(totals);
  return [
    `${'The log'.padEnd(width)}${DEMO_TYPES.map((type) => type.padStart(CELL * SHOWN.length)).join('')}`,
    `${'status'.padEnd(width)}${tallyCells(([name]) => name)}`,
    ...used.map(
      (status) => `${status.padEnd(width)}${tallyCells(([, of], type) => count(of(tallies[type].get(status)!)))}`,
    ),
    `${'all'.padEnd(width)}${tallyCells(([, of], type) => count(of(totals[type])))}`,
    ...wrap(
      `wrong: ${count(all.missing)} missing, ${count(all.doubled)} doubled, ${count(all.differing)} differing in phone, text, gateway id, inserted_at to the microsecond, status or its date`,
      WIDTH,
    ),
    ...(found.length === 0 ? [] : [`differing in: ${found.join(', ')}`]),
    ...(behind.rows === 0
      ? []
      : wrap(
          `${sms(behind.rows)} changed after their last status request, at most ${age(behind.longestMs / 1000)} ago: not counted as wrong`,
          WIDTH,
        )),
  ];
}

const WIDTH = 80;
const CELL = 11;

function tallyCells(cell: (column: (typeof SHOWN)[number], type: DemoType) => string): string {
  return DEMO_TYPES.map((type) => SHOWN.map((column) => cell(column, type).padStart(CELL)).join('')).join('');
}

function allOf(totals: Audit['totals']): Tally {
  const all = { written: 0, logged: 0, missing: 0, doubled: 0, differing: 0 };
  for (const type of DEMO_TYPES) for (const column of COLUMNS) all[column] += totals[type][column];
  return all;
}

/** The result in words, one line. `exitCode`: the daemon's on SIGTERM. */
export function resultLine(audit: Audit, exitCode: number | null): string {
  const all = allOf(audit.totals);
  if (isRight(audit) && exitCode !== 0)
    return `Result: WRONG. The log is right, but the daemon did not end in order on SIGTERM (exit code ${exitCode}).`;
  if (isRight(audit))
    return `Result: right. Each of the ${sms(all.written)} is in the log exactly once, with its correct status.`;
  return (
    `Result: WRONG. Of ${sms(all.written)} ${count(all.missing)} are missing in the log, ${count(all.doubled)} rows are doubled ` +
    `and ${count(all.differing)} have wrong data.`
  );
}

function sms(value: number): string {
  return `${count(value)} SMS`;
}

function ratio(value: number | null): string {
  return value === null ? '-' : value.toFixed(4);
}

/** Seconds in the unit that suits them. */
export function age(seconds: number | null): string {
  if (seconds === null) return '-';
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6_000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

/** Where to go on from here. */
export const ONWARD: readonly string[] = [
  'To go on:',
  '  in containers, with Prometheus and Grafana   docker compose up --build',
  '  next to your own database                    docs/operations.md',
  '  what each alert and error means              docs/runbook.md',
];
