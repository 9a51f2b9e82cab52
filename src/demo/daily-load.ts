/** The daily load curve: many SMS by day, few by night. */

/** SMS of each hour of the day, as shares of the busiest. */
const HOURS = [
  0.05, 0.03, 0.02, 0.02, 0.02, 0.04, 0.12, 0.35, 0.7, 0.95, 1, 0.98, 0.9, 0.82, 0.85, 0.86, 0.78, 0.62, 0.45, 0.34,
  0.26, 0.2, 0.14, 0.08,
];

const SLICE_MS = 15 * 60_000;

/** The hour of the day, 0 to 23, in a time zone. */
export function hourIn(timezone: string): (at: number) => number {
  const format = new Intl.DateTimeFormat('en-GB', { timeZone: timezone, hour: '2-digit', hourCycle: 'h23' });
  return (at) => Number(format.format(at));
}

/** Draws `count` times (epoch ms, oldest first) from `from` up to `to`, distributed by the load curve. */
export function drawMoments(
  count: number,
  { from, to }: { readonly from: number; readonly to: number },
  hourOf: (at: number) => number,
  random: () => number,
): number[] {
  const ends: number[] = [];
  let total = 0;
  for (let at = from; at < to; at += SLICE_MS) {
    total += (HOURS[hourOf(at)] ?? 0) * Math.min(SLICE_MS, to - at);
    ends.push(total);
  }
  const moments = Array.from({ length: count }, () => {
    const point = random() * total;
    const slice = ends.findIndex((end) => point < end);
    const start = from + slice * SLICE_MS;
    return start + Math.floor(random() * Math.min(SLICE_MS, to - start));
  });
  return moments.sort((a, b) => a - b);
}
