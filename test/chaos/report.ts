/** What a campaign came to, in lines. */
import type { FaultName } from './plan.ts';
import type { Figures } from './watch.ts';

export interface Report {
  readonly minutes: number;
  readonly rounds: number;
  /** server_version_num */
  readonly version: number;
  readonly faults: ReadonlyMap<FaultName, { readonly done: number; readonly failed: readonly string[] }>;
  /** invariants that were looked at in calms */
  readonly checks: number;
  /** seconds of the calm after which each had come true, at most */
  readonly slowest: ReadonlyMap<string, number>;
  readonly workload: Readonly<Record<string, number>>;
  /** words of the simulator for what the gateway did, each time */
  readonly said: readonly string[];
  readonly figures: Figures;
  readonly breaches: readonly string[];
  /** directory with the logs, where there were breaches */
  readonly kept: string | undefined;
}

const list = (entries: Iterable<readonly [string, number]>) =>
  [...entries].map(([name, n]) => `${name} ${n}`).join(', ');

export function describeReport(report: Report): string {
  const { minutes, rounds, version, faults, checks, slowest, workload, figures, said, breaches, kept } = report;
  const done = [...faults].flatMap(([name, each]) => (each.done === 0 ? [] : [[name, each.done] as const]));
  const failed = [...faults].flatMap(([name, each]) => each.failed.map((why) => `${name} (${why})`));
  const words = [...new Set(said)].map((word) => [word, said.filter((each) => each === word).length] as const);
  return [
    `${minutes.toFixed(1)} minutes, ${rounds} rounds, PostgreSQL ${Math.trunc(version / 10_000)}: ${done.reduce((all, [, n]) => all + n, 0)} faults of ${done.length} kinds, ${checks} checks`,
    `faults: ${list(done)}`,
    `could not be done: ${failed.join('; ') || 'none'}`,
    `the gateway: ${list(words) || 'right'}`,
    `workload: ${list(Object.entries(workload))}`,
    `calm: ${[...slowest].map(([name, s]) => `${name} after ${s.toFixed(1)} s`).join('; ')}`,
    `log lines ${figures.lines}, scrapes ${figures.scrapes}, most sessions of a daemon ${figures.mostSessions}, most sockets ${figures.mostSockets}, most memory ${Math.round(figures.mostMemory / 1024 / 1024)} MiB`,
    `codes: ${list(figures.codes)}`,
    breaches.length === 0
      ? 'every invariant held'
      : `${breaches.length} breaches; logs in ${kept}:\n${breaches.join('\n')}`,
  ].join('\n');
}
