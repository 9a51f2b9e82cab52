import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import closeWithGrace from 'close-with-grace';
import { loadConfig, type Config } from '../config.ts';
import { DAEMON_CONNECTIONS, openDatabase, type Sql } from '../postgres/pools.ts';
import { toSmslogdError, type SmslogdError } from '../errors.ts';
import { createFigures } from '../figures/gauges.ts';
import { runHourly } from '../figures/hourly.ts';
import { runRetention } from '../figures/retention.ts';
import { createHealth } from '../health.ts';
import { startHttp } from '../http.ts';
import { createLog, logProblem, type Log } from '../log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { createMirror } from '../mirror/mirror.ts';
import { createPoller } from '../poller/poller.ts';
import { requireSchema } from '../schema.ts';
import { backoff, pause, supervise } from '../supervise.ts';
import { VERSION } from '../version.ts';
import type { Command } from './command.ts';

/** A stop takes less than 10 s: what is not done by then is left to the next start, which resumes it. */
const GRACE_MS = 9_500;
const DRAIN_MS = 7_800;
const START_PATIENCE_MS = 15_000;
const SUMMARY_MS = 60_000;

export const command: Command = {
  summary: 'the daemon: mirrors, polls, serves metrics',
  details: [
    'Runs until SIGTERM or SIGINT: then it finishes what is in hand, gives back what it claimed and exits 0 within 10 s;',
    'a second signal ends it at once. LOOPS=mirror,poller chooses what it does.',
  ].join('\n'),
  run: async (_, { env, signalsTaken }) => {
    const config = loadConfig(env, ['database', 'loops']);
    // the heap stays small: under a backlog V8 lets it grow, on Node.js 24 until the process is twice as large, and is no faster for it
    setFlagsFromString('--semi-space-growth-factor=1');
    setFlagsFromString('--heap-growing-percent=50');
    const metrics = createMetrics(VERSION);
    const { log, flush } = createLog(config.LOG_LEVEL, () => metrics.logLinesLost.inc());
    try {
      await daemon(config, { metrics, log, flush }, signalsTaken);
    } finally {
      await flush();
    }
    return 0;
  },
};

/** Builds every part, turns the loops until a signal or until one of them fails for good, and takes everything down in reverse. */
async function daemon(
  config: Config,
  { metrics, log, flush }: { metrics: Metrics; log: Log; flush: () => Promise<void> },
  signalsTaken?: () => void,
): Promise<void> {
  metrics.latencySource.set({ source: config.LATENCY_SOURCE }, 1);
  const health = createHealth(metrics, config.LOOPS);
  const sql = openDatabase(config, { max: DAEMON_CONNECTIONS, name: 'daemon' });
  const stop = new AbortController();
  let finished!: () => void;
  const done = new Promise<void>((resolve) => {
    finished = resolve;
  });
  let stopping = false;
  const signals = closeWithGrace({ delay: GRACE_MS, logger: false }, async ({ signal, err }) => {
    if (err !== undefined) logProblem(log, 'fatal', err);
    else log.info({ signal }, 'stopping: finishing what is in hand');
    stopping = true;
    stop.abort();
    await done;
    log.info('stopped');
    await flush();
  });
  signalsTaken?.();

  try {
    await databaseAtStart(sql, log, stop.signal);
    const onProblem = ({ code }: SmslogdError) => metrics.errors.inc({ code });
    const figures = createFigures({ config, sql, metrics, log });
    const http = await startHttp({
      config,
      metrics,
      health,
      figures,
      log,
      version: VERSION,
      databaseAnswers: () => answers(sql),
    });
    log.info({ version: VERSION, loops: config.LOOPS, port: http.port, host: config.HTTP_HOST }, 'smslogd runs');
    const summarize = createSummary(log, metrics);
    const summary = setInterval(() => void figures.refresh().then(summarize), SUMMARY_MS);
    const run = (name: string, loop: (signal: AbortSignal, works: () => void) => Promise<void>) =>
      supervise({ name, log, onProblem }, loop, stop.signal);
    const loops = [run('figures', (signal, works) => runHourly({ sql, log, works }, signal))];
    if (config.RETENTION_DAYS > 0) {
      loops.push(run('retention', (signal, works) => runRetention({ config, sql, log, works }, signal)));
    }
    if (config.LOOPS.includes('mirror')) loops.push(run('mirror', createMirror({ config, sql, metrics, log, health })));
    if (config.LOOPS.includes('poller')) loops.push(run('poller', createPoller({ config, sql, metrics, log, health })));
    try {
      await Promise.race([...loops, once(stop.signal, 'abort')]);
    } finally {
      stop.abort();
      // what hangs on a lock or an open transaction is left: it is not acknowledged, and its lease ends
      await Promise.race([Promise.allSettled(loops), pause(DRAIN_MS, new AbortController().signal)]);
      clearInterval(summary);
      await Promise.all([http.close(), sql.end({ timeout: 1 })]);
    }
  } finally {
    await sql.end({ timeout: 1 });
    // a signal's handler exits the process once this is known; without a signal it must not stand in the way
    if (!stopping) signals.uninstall();
    finished();
  }
}

/** A database that is starting together with us is waited for; what no waiting mends is thrown, and so is a wait that takes too long. */
async function databaseAtStart(sql: Sql, log: Log, signal: AbortSignal): Promise<void> {
  const began = performance.now();
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      await requireSchema(sql);
      return;
    } catch (error) {
      const problem = toSmslogdError(error);
      if (problem.reaction !== 'retry' || performance.now() - began > START_PATIENCE_MS) throw problem;
      if (failures === 1) logProblem(log, 'warn', problem, { waiting: true });
      await pause(backoff('retry', failures), signal);
    }
  }
}

async function answers(sql: Sql): Promise<boolean> {
  await sql`select 1`;
  return true;
}

/** The one info line a minute: SMS mirrored into the log and requests to the gateway since the last line, SMS open and lag now. */
function createSummary(log: Log, metrics: Metrics): () => Promise<void> {
  let last: { mirrored: number | undefined; polled: number } | undefined;
  return async () => {
    // undefined until the database was read
    const mirrored = (await metrics.smsTotal.get()).values.find(({ labels }) => labels.type === 'verification')?.value;
    const polled = await total(metrics.pollRequests);
    log.info(
      {
        mirrored: (mirrored ?? 0) - (last?.mirrored ?? mirrored ?? 0),
        polled: polled - (last?.polled ?? 0),
        open: await total(metrics.open),
        lagSeconds: await total(metrics.mirrorLagSeconds),
      },
      'running',
    );
    last = { mirrored, polled };
  };
}

/** A metric over all its labels. */
async function total(metric: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await metric.get()).values.reduce((sum, { value }) => sum + value, 0);
}
