/** The page for a terminal of 80 columns: the same verdict, the same figures, in words and a table. */
import { OPEN_STATUSES, type SmsType } from '../status.ts';
import { wrap } from '../wrap.ts';
import { ROWS, typesShown, UNTRACKED_ROW } from './channel.ts';
import type { StatusFacts } from './facts.ts';
import { leaderWords, resultWords, slotWords, STATES, walTillLost } from './machinery.ts';
import { notesOf, SIGNS } from './page.ts';
import type { Level } from './verdict.ts';
import { age, bytes, clock, count } from './wording.ts';

const WIDTH = 80;
const LABEL = 13;
const PERIODS = [
  ['today', 'today'],
  ['yesterday_same_time', 'by now*'],
  ['yesterday', 'yesterday'],
] as const;
const COLUMN = 11;
const COLOURS: Readonly<Record<Level, number>> = { well: 32, impaired: 33, failing: 31, unknown: 35 };

/** Lines of at most 80 columns; `colour`: with the codes of a terminal. */
export function statusText(facts: StatusFacts, colour: boolean): string[] {
  const { verdict } = facts;
  const paint = (level: Level, lines: readonly string[]) =>
    colour ? lines.map((line) => `\u001b[1;${COLOURS[level]}m${line}\u001b[0m`) : lines;
  return [
    ...paint(verdict.level, wrap(`${SIGNS[verdict.level]} ${verdict.sentence}`, WIDTH, 2)),
    ...(verdict.because === null ? [] : wrap(`  ${verdict.because}`, WIDTH, 2)),
    ...verdict.findings.flatMap(({ level, sentence, runbook }) =>
      paint(level, wrap(`  - ${sentence} (docs/runbook.md, ${runbook})`, WIDTH, 4)),
    ),
    ...(facts.read_at === null ? [] : figures(facts)),
  ];
}

/** What fits into `rows` of a terminal, from the top: the verdict must not scroll away. */
export function inSight(lines: readonly string[], rows: number): readonly string[] {
  // the last row is the cursor's
  if (lines.length < rows) return lines;
  const shown = lines.slice(0, Math.max(1, rows - 2));
  return [...shown, `(${lines.length - shown.length} more lines; they need a taller terminal. Ctrl-C ends it)`];
}

function figures(facts: StatusFacts): string[] {
  const types = typesShown(facts);
  const pairs = types.flatMap((_, i) => (i % 2 === 0 ? [types.slice(i, i + 2)] : []));
  const time = clock(facts.timezone)(Date.parse(facts.read_at ?? '') / 1000);
  return [
    ...pairs.flatMap((pair) => ['', ...table(pair, facts)]),
    `* yesterday up to this time, ${time} in ${facts.timezone ?? ''}`,
    '',
    ...machinery(facts).flatMap(([label, text]) => wrap(`${label.padEnd(LABEL)}${text}`, WIDTH, LABEL)),
    ...notesOf(facts).flatMap((note) => wrap(note, WIDTH)),
  ];
}

function table(types: readonly SmsType[], facts: StatusFacts): string[] {
  const rows = types.map((type) =>
    PERIODS.map(([period]) => facts.periods.find((each) => each.type === type && each.period === period)),
  );
  const untracked = rows.flat().some((row) => (row?.untracked ?? 0) > 0);
  const line = (label: string, cells: readonly (readonly string[])[]) =>
    `${label.padEnd(LABEL)}${cells.map((each) => each.map((cell) => cell.padStart(COLUMN)).join('')).join('')}`.trimEnd();
  return [
    ' '.repeat(LABEL) + types.map((type) => type.padStart(COLUMN * PERIODS.length)).join(''),
    line(
      '',
      types.map(() => PERIODS.map(([, name]) => name)),
    ),
    ...[...ROWS, ...(untracked ? [UNTRACKED_ROW] : [])].map(([label, show]) =>
      line(
        label,
        rows.map((each) => each.map((row) => (row === undefined ? '–' : show(row)))),
      ),
    ),
  ];
}

function machinery(facts: StatusFacts): (readonly [string, string])[] {
  const { mirror, pipeline, leader, slot, gateway, poll_due: due, open } = facts;
  const opened = OPEN_STATUSES.flatMap((status) => {
    const rows = open.filter((row) => row.status === status && row.sms > 0);
    const sms = rows.reduce((sum, row) => sum + row.sms, 0);
    return sms === 0
      ? []
      : [`${count(sms)} ${status}, the oldest for ${age(Math.max(...rows.map((row) => row.oldest_age ?? 0)))}`];
  });
  const renewed = leader?.leads === true ? `, term ${leader.term}, renewed ${age(leader.renewed_age)} ago` : '';
  const news = gateway.last_success_age;
  return [
    ['Open now', opened.length === 0 ? 'none' : opened.join('; ')],
    ['Leader', `${leaderWords(facts)}${renewed}`],
    [
      'Mirror',
      pipeline.lag_bytes === null ? STATES[mirror] : `${STATES[mirror]}, ${bytes(pipeline.lag_bytes)} of WAL behind`,
    ],
    [
      'Slot',
      slot === null || slot.wal_status === 'lost'
        ? slotWords(facts)
        : `${slotWords(facts)}; retains ${bytes(slot.retained)} of WAL, ${walTillLost(facts)}${slot.safe === null ? '' : ' until it is lost'}`,
    ],
    [
      'Gateway',
      `last change of a status ${news === null ? 'never' : `${age(news)} ago`}; ${count(due ?? 0)} SMS due; last requests for open SMS: ${resultWords(gateway.requests)}`,
    ],
  ];
}
