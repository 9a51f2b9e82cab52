/**
 * `npm run bench:schedule` (`-- --json`): how late the poller's schedule learns of a final status, and for how many requests, beside a poll of all
 * open SMS each minute and beside the optimum for the same number of requests. A simulation (test/support/schedule.ts), the same at each run.
 */
import { DISTRIBUTIONS, drawMoments, oneMinutePoll, optimum, smslogd } from '../support/schedule.ts';
import { wordsOf } from '../support/words.ts';

const DRAWS = 50_000;
const { json } = wordsOf(import.meta.filename, { json: { type: 'boolean', default: false } }).values;

const tables = DISTRIBUTIONS.map((distribution) => {
  const moments = drawMoments(distribution, DRAWS);
  const fixed = oneMinutePoll(moments);
  const ours = smslogd(moments);
  const results = {
    smslogd: ours,
    'optimum, as many requests': optimum(distribution, moments, ours.requests),
    'one-minute poll': fixed,
    'optimum, as many requests as the one-minute poll': optimum(distribution, moments, fixed.requests),
  };
  const rows = Object.entries(results).map(([policy, { requests, mean, p95 }]) => {
    const ratios = { requestsOfFixed: requests / fixed.requests, meanOfFixed: mean / fixed.mean };
    return { policy, requests, meanSeconds: mean / 1000, p95Seconds: p95 / 1000, ...ratios };
  });
  const { name, stated } = distribution;
  return { name, stated, draws: DRAWS, rows, meanOfOptimum: ours.mean / results['optimum, as many requests'].mean };
});

const line = (cells: readonly (string | number)[]) =>
  cells.map((cell, n) => (n === 0 ? String(cell).padEnd(50) : String(cell).padStart(14))).join('');
const shown = tables.flatMap(({ name, stated, rows, meanOfOptimum }) => [
  '',
  `${name} (${stated})`,
  line(['', 'requests', 'mean delay', 'p95 delay', 'requests ×', 'mean delay ×']),
  ...rows.map(({ policy, requests, meanSeconds, p95Seconds, requestsOfFixed, meanOfFixed }) =>
    line([
      policy,
      requests.toFixed(2),
      `${meanSeconds.toFixed(2)} s`,
      `${p95Seconds.toFixed(1)} s`,
      requestsOfFixed.toFixed(2),
      meanOfFixed.toFixed(3),
    ]),
  ),
  `smslogd's mean delay is ${meanOfOptimum.toFixed(2)} of the optimum's`,
]);
const heading = `Delay from the gateway's final status to the row in the log; requests for each SMS; × of the one-minute poll; ${DRAWS} SMS`;
process.stdout.write(json ? `${JSON.stringify(tables, null, 2)}\n` : `${[heading, ...shown].join('\n')}\n`);
