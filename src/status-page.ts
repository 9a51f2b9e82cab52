/** The status page `/` and its facts, /status.json: is the SMS channel well? HTML without scripts and without anything from elsewhere. */
import { createHash } from 'node:crypto';
import type { Facts, Period, Slot } from './figures/store.ts';
import type { Health, LoopName } from './health.ts';
import type { MirrorState } from './metrics.ts';
import { OPEN_STATUSES, SMS_TYPES, type OpenStatus, type SmsType } from './status.ts';

export interface StatusFacts {
  readonly version: string;
  readonly ready: boolean;
  /** why it is not ready */
  readonly reason: string | null;
  readonly loops: readonly LoopName[];
  readonly silent_loops: readonly LoopName[];
  readonly mirror: MirrorState;
  /** when the database was read, ISO 8601; null: not yet */
  readonly read_at: string | null;
  readonly timezone: string | null;
  readonly periods: readonly Period[];
  /** SMS without a final status now; ages in seconds */
  readonly open: readonly OpenCount[];
  /** SMS whose next status request is due */
  readonly poll_due: number | null;
  readonly slot: Slot | null;
}

interface OpenCount {
  readonly type: SmsType;
  readonly status: OpenStatus;
  readonly sms: number;
  readonly oldest_age: number | null;
}

interface Known {
  readonly version: string;
  readonly health: Health;
  readonly facts: Facts | undefined;
  readonly notReady: string | undefined;
}

export function statusFacts({ version, health, facts, notReady }: Known): StatusFacts {
  return {
    version,
    ready: notReady === undefined,
    reason: notReady ?? null,
    loops: health.loops,
    silent_loops: health.silentLoops(),
    mirror: health.mirrorState,
    read_at: facts === undefined ? null : new Date(facts.at * 1000).toISOString(),
    timezone: facts?.timezone ?? null,
    periods: facts?.periods ?? [],
    open: facts === undefined ? [] : openCounts(facts),
    poll_due: facts?.due ?? null,
    slot: facts?.slot ?? null,
  };
}

function openCounts({ statuses }: Facts): OpenCount[] {
  return SMS_TYPES.flatMap((type) =>
    OPEN_STATUSES.map((status) => {
      const row = statuses.find((each) => each.type === type && each.status === status);
      return { type, status, sms: row?.sms ?? 0, oldest_age: row?.oldest_age ?? null };
    }),
  );
}

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { margin: 0; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: bold; padding: .5rem 0; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); font-variant-numeric: tabular-nums; }
th[scope=row] { text-align: left; font-weight: normal; }
.wide { overflow-x: auto; }
.alarm { font-weight: bold; border-left: .4rem solid #c00; padding-left: .6rem; }
`;

/** Nothing is allowed but the page's own style, by its hash. */
export const STATUS_PAGE_POLICY = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

const PERIODS = [
  ['today', 'today'],
  ['yesterday_same_time', 'yesterday, same time'],
  ['yesterday', 'yesterday'],
] as const;

/** The two kinds that the reports are about; the others show where there are any. */
const ALWAYS: readonly SmsType[] = ['verification', 'medication_request'];

const ROWS: readonly (readonly [string, (row: Period) => string])[] = [
  ['On time (within 2 min)', (row) => percent(row.on_time_ratio)],
  ['Success', (row) => percent(row.success_ratio)],
  ['Fate known', (row) => percent(row.known_ratio)],
  ['SMS', (row) => count(row.total)],
  ['Delivered', (row) => count(row.delivered)],
  ['Undelivered', (row) => count(row.undelivered)],
  ['≤ 2 min', (row) => count(row.le_2m)],
  ['2 – 5 min', (row) => count(row.m2_5)],
  ['5 – 30 min', (row) => count(row.m5_30)],
  ['> 30 min', (row) => count(row.gt_30m)],
  ['Open', (row) => count(row.open)],
  ['Oldest open', (row) => age(row.oldest_open_age)],
  ['Untracked', (row) => count(row.untracked)],
];

export function statusPage(facts: StatusFacts): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="30">
<title>smslogd: SMS channel</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>SMS channel</h1>
${pipeline(facts)}
</header>
<main>
${facts.read_at === null ? '<p class="alarm">The database has not answered yet.</p>' : `${periodTable(facts)}\n${openTable(facts)}`}
</main>
<footer><p>smslogd ${escape(facts.version)} · <a href="/metrics">metrics</a> · <a href="/status.json">JSON</a></p></footer>
</body>
</html>
`;
}

function pipeline({
  ready,
  reason,
  mirror,
  silent_loops: silent,
  read_at: readAt,
  timezone,
  poll_due: due,
}: StatusFacts): string {
  const lines = [
    ready ? '<p>Ready.' : `<p class="alarm">Not ready: ${escape(reason ?? '')}.`,
    ` Mirror: ${mirror}.`,
    due === null ? '' : ` Status requests due: ${count(due)}.`,
    '</p>',
  ];
  if (silent.length > 0) lines.push(`<p class="alarm">Loops that do not turn: ${silent.join(', ')}.</p>`);
  if (readAt !== null) {
    lines.push(
      `<p>Figures of <time datetime="${readAt}">${readAt.slice(0, 19).replace('T', ' ')} UTC</time>; days in ${escape(timezone ?? '')}.</p>`,
    );
  }
  return lines.join('');
}

function periodTable({ periods }: StatusFacts): string {
  const types = SMS_TYPES.filter(
    (type) => ALWAYS.includes(type) || periods.some((row) => row.type === type && row.total > 0),
  );
  const columns = types.flatMap((type) =>
    PERIODS.map(([period]) => periods.find((row) => row.type === type && row.period === period)),
  );
  const head = types.map((type) => `<th scope="colgroup" colspan="${PERIODS.length}">${type}</th>`).join('');
  const second = types.flatMap(() => PERIODS.map(([, label]) => `<th scope="col">${label}</th>`)).join('');
  const body = ROWS.map(([label, show]) => {
    const cells = columns.map((row) => `<td>${row === undefined ? '–' : show(row)}</td>`).join('');
    return `<tr><th scope="row">${label}</th>${cells}</tr>`;
  });
  return `<div class="wide" role="region" aria-label="Today against yesterday" tabindex="0"><table>
<caption>Today against yesterday</caption>
<colgroup></colgroup>${types.map(() => `<colgroup span="${PERIODS.length}"></colgroup>`).join('')}
<thead><tr><td></td>${head}</tr><tr><td></td>${second}</tr></thead>
<tbody>
${body.join('\n')}
</tbody></table></div>`;
}

function openTable({ open }: StatusFacts): string {
  const types = SMS_TYPES.filter(
    (type) => ALWAYS.includes(type) || open.some((row) => row.type === type && row.sms > 0),
  );
  const body = types.map((type) => {
    const cells = OPEN_STATUSES.map((status) => {
      const row = open.find((each) => each.type === type && each.status === status);
      return `<td>${row === undefined || row.sms === 0 ? '0' : `${count(row.sms)} (${age(row.oldest_age)})`}</td>`;
    });
    return `<tr><th scope="row">${type}</th>${cells.join('')}</tr>`;
  });
  return `<div class="wide" role="region" aria-label="Open SMS" tabindex="0"><table>
<caption>Open SMS by status (age of the oldest)</caption>
<thead><tr><td></td>${OPEN_STATUSES.map((status) => `<th scope="col">${status}</th>`).join('')}</tr></thead>
<tbody>
${body.join('\n')}
</tbody></table></div>`;
}

const count = (value: number) => value.toLocaleString('en-US');
const percent = (ratio: number | null) => (ratio === null ? '–' : `${(ratio * 100).toFixed(1)} %`);

/** Seconds as the two largest units that say something. */
function age(seconds: number | null): string {
  if (seconds === null) return '–';
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172_800) return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d`;
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character] ?? character);
}
