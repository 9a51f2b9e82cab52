/** From samples to the table: medians, spreads, ratios, and whether a target is reached. */
import { round, type Bench, type Comparison, type Figures } from './stage.ts';

export interface Sample {
  readonly bench: string;
  readonly side: string;
  readonly figures: Figures;
}

interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly count: number;
}

export interface Summary {
  readonly bench: string;
  readonly title: string;
  readonly unit: string;
  readonly smslogd: Spread;
  readonly reference?: { readonly name: string; readonly spread: Spread; readonly ratio: number };
  readonly target: string;
  /** undefined: nothing to compare with in this run */
  readonly reached?: boolean;
}

/** A line for each comparison that was measured. */
export function summarize(benches: readonly Bench[], samples: readonly Sample[]): Summary[] {
  return benches.flatMap((bench) =>
    bench.comparisons.flatMap((comparison) => {
      const own = spreadOf(samples, bench.name, 'smslogd', comparison.figure);
      if (own === undefined) return [];
      const { against, reference: name = against ?? '' } = comparison;
      const spread = against === undefined ? undefined : spreadOf(samples, bench.name, against, comparison.figure);
      const reference = spread === undefined ? undefined : { name, spread, ratio: own.median / spread.median };
      const line = { bench: bench.name, title: comparison.title, unit: comparison.unit, smslogd: own };
      const verdict = reached(comparison, own.median, reference?.ratio);
      return [
        {
          ...line,
          target: describeTarget(comparison),
          ...(reference === undefined ? {} : { reference }),
          ...(verdict === undefined ? {} : { reached: verdict }),
        },
      ];
    }),
  );
}

/** A line for each figure of smslogd, this tree beside another commit. */
export function versus(benches: readonly Bench[], samples: readonly Sample[], revision: string): Summary[] {
  return benches.flatMap((bench) =>
    bench.comparisons
      .filter(({ figure }, i, all) => all.findIndex((other) => other.figure === figure) === i)
      .flatMap(({ title, unit, figure, target }) => {
        const own = spreadOf(samples, bench.name, 'smslogd', figure);
        const other = spreadOf(samples, bench.name, 'other', figure);
        if (own === undefined || other === undefined) return [];
        const reference = { name: revision, spread: other, ratio: own.median / other.median };
        return [
          {
            bench: bench.name,
            title,
            unit,
            smslogd: own,
            reference,
            target: target === undefined ? '' : `${target.better} is better`,
          },
        ];
      }),
  );
}

/** The lines as a table in Markdown. */
export function table(lines: readonly Summary[]): string {
  const cells = [
    ['bench', 'figure', 'smslogd', 'reference', 'ratio', 'target', ''],
    ...lines.map(({ bench, title, unit, smslogd, reference, target, reached }) => [
      bench,
      title,
      `${spreadText(smslogd)} ${unit}`,
      reference === undefined ? '' : `${reference.name}: ${spreadText(reference.spread)} ${unit}`,
      reference === undefined ? '' : reference.ratio.toFixed(2),
      target,
      reached === undefined ? '' : reached ? 'yes' : 'no',
    ]),
  ];
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length), 3));
  const text = cells.map((row) => `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`);
  return [text[0], `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...text.slice(1)].join('\n');
}

function spreadOf(samples: readonly Sample[], bench: string, side: string, figure: string): Spread | undefined {
  const values = samples
    .filter((sample) => sample.bench === bench && sample.side === side)
    .flatMap(({ figures }) => figures[figure] ?? [])
    .sort((a, b) => a - b);
  if (values.length === 0) return undefined;
  const middle = values.length >> 1;
  const median = values.length % 2 === 1 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2;
  return { median, least: values[0]!, most: values.at(-1)!, count: values.length };
}

function reached({ target }: Comparison, own: number, ratio: number | undefined): boolean | undefined {
  if (target === undefined) return undefined;
  const value = 'limit' in target ? own : ratio;
  if (value === undefined) return undefined;
  const bound = 'limit' in target ? target.limit : target.ratio;
  return target.better === 'more' ? value >= bound : value <= bound;
}

function describeTarget({ target, unit }: Comparison): string {
  if (target === undefined) return '';
  const sign = target.better === 'more' ? '≥' : '≤';
  return 'limit' in target ? `${sign} ${round(target.limit)} ${unit}` : `${sign} ${target.ratio} ×`;
}

function spreadText({ median, least, most, count }: Spread): string {
  return count === 1 ? round(median) : `${round(median)} (${round(least)} – ${round(most)})`;
}
