import { once } from 'node:events';
import { hostname } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import closeWithGrace from 'close-with-grace';
import { rereadableConfig, type Config } from '../settings.ts';
import { unknownSettings } from '../settings-shown.ts';
import { SmslogdError, toSmslogdError } from '../errors.ts';
import { createFigures } from '../figures/gauges.ts';
import { runHourly } from '../figures/counting.ts';
import { runRetention } from '../figures/retention.ts';
import { createHealth } from '../health.ts';
import { startHttp } from '../http/server.ts';
import { createLeadership } from '../leader/lease.ts';
import { createLog, logProblem, type Log } from '../log.ts';
import { createMetrics, type Metrics } from '../metrics.ts';
import { watchWaits } from '../mirror/locks.ts';
import { createMirror } from '../mirror/mirror.ts';
import { queryOfPool } from '../schema/objects.ts';
import { clearGateways } from '../gateway/certificates.ts';
import type { Poller } from '../poller/poller.ts';
import { repairQueue } from '../poller/requeue.ts';
import { openConnections } from '../postgres/connections.ts';
import type { Sql } from '../postgres/pools.ts';
import { requireSchema } from '../schema/migrate.ts';
import { backoff, pause, supervise } from '../supervise.ts';
import { requireSourceTimezone, requireTimezones } from '../timezones.ts';
import { VERSION } from '../package.ts';
import type { Command } from './command.ts';

/** A stop takes less than 10 s: what is not done by then is left to the next start, which resumes it. */
const GRACE_MS = 9_500;
const DRAIN_MS = 7_500;
/** Beside a database that does not answer this passes after it, and half a second until the connections are cut. */
const RELEASE_MS = 1_000;
const SUMMARY_MS = 60_000;
/** Polling and counting wait for the mirror's catch-up for so long at most. */
const FIRST_ROWS_MS = 2_500;
const CATCH_UP_MS = 300_000;

export const command: Command = {
  summary: 'the daemon: mirrors, polls, serves metrics',
  details: [
    'On SIGTERM or SIGINT it completes the work in progress, releases its claims and exits 0 within 10 s; a second signal',
    'ends it at once. LOOPS=mirror,poller chooses the loops. SIGHUP reads the files of secrets again, for new connections and',
    'requests, and ends a pause in polling; SIGUSR2 switches LOG_LEVEL to debug and back.',
  ].join('\n'),
  run: async (_, { env, stdoutIsTerminal, signalsTaken }) => {
    const { config, reread } = rereadableConfig(env, ['database', 'loops']);
    // the heap stays small: under a backlog V8 lets it grow, on Node.js 24 until the process is twice as large, and is no faster for it
    setFlagsFromString('--semi-space-growth-factor=1');
    setFlagsFromString('--heap-growing-percent=50');
    const metrics = createMetrics(VERSION);
    const terminal = stdoutIsTerminal ? { colour: (env['NO_COLOR'] ?? '') === '' } : undefined;
    const { log, flush } = createLog(config.LOG_LEVEL, () => metrics.logLinesLost.inc(), terminal);
    for (const { name, sentence } of unknownSettings(env)) {
      metrics.errors.inc({ code: 'setting_unknown' });
      logProblem(log, 'warn', new SmslogdError('setting_unknown', `${name} ${sentence}`));
    }
    try {
      await daemon(config, { metrics, log, flush, reread, stdoutIsTerminal }, signalsTaken);
    } finally {
      await flush();
    }
    return 0;
  },
};

interface Process {
  readonly metrics: Metrics;
  readonly log: Log;
  readonly flush: () => Promise<void>;
  readonly reread: () => void;
  readonly stdoutIsTerminal: boolean;
}

/** Builds every part, turns the loops until a signal or until one of them fails for good, and takes everything down in reverse. */
async function daemon(
  config: Config,
  { metrics, log, flush, reread, stdoutIsTerminal }: Process,
  signalsTaken?: () => void,
): Promise<void> {
  metrics.latencySource.set({ source: config.LATENCY_SOURCE }, 1);
  const health = createHealth(metrics, config.LOOPS);
  health.starting = true;
  const mirrors = config.LOOPS.includes('mirror');
  const connections = openConnections(config);
  const { control, figures: reading, upkeep } = connections;
  const stop = new AbortController();
  let finished!: () => void;
  const done = new Promise<void>((resolve) => {
    finished = resolve;
  });
  let stopping = false;
  // a terminal that is closed ends what was started in it
  const skip = stdoutIsTerminal ? (['SIGUSR2'] as const) : (['SIGUSR2', 'SIGHUP'] as const);
  const signals = closeWithGrace({ delay: GRACE_MS, logger: false, skip: [...skip] }, async ({ signal, err }) => {
    if (err !== undefined) logProblem(log, 'fatal', err);
    else log.info({ signal }, 'stopping: completing the work in progress');
    stopping = true;
    stop.abort();
    await done;
    log.info('stopped');
    await flush();
  });
  signalsTaken?.();
  const reloads = [reread];
  const onReload = (tryNow: () => void) => void reloads.push(tryNow);
  const unhandle = handle({
    ...(stdoutIsTerminal ? {} : { SIGHUP: () => reload(reloads, log) }),
    SIGUSR2: () => {
      const level = log.level === config.LOG_LEVEL ? 'debug' : config.LOG_LEVEL;
      log.level = 'info';
      log.info({ to: level }, 'the log level changes until the next SIGUSR2');
      log.level = level;
    },
  });

  try {
    const figures = createFigures({ config, sql: reading, metrics, log });
    // from the first second on, whatever the database does
    const http = await startHttp({
      config,
      metrics,
      health,
      figures,
      log,
      version: VERSION,
      databaseAnswers: () => answers(control),
    });
    const summarize = createSummary(log, metrics);
    const summary = setInterval(() => void figures.refresh().then(summarize.tell), SUMMARY_MS);
    const onProblem = ({ code }: SmslogdError) => metrics.errors.inc({ code });
    const leader = createLeadership({
      connections,
      slot: config.SLOT_NAME,
      holder: `${hostname()} ${process.pid} ${connections.tag}`,
      mirrors,
      log,
      onStanding: (standing) => health.stand(standing),
      onAnswer: (problem) => (health.databaseProblem = problem?.code),
    });
    const loops: Promise<void>[] = [];
    const run = (name: string, loop: (signal: AbortSignal, works: () => void) => Promise<void>) =>
      void loops.push(supervise({ name, log, onProblem }, loop, stop.signal));
    const lead = (name: string, loop: (signal: AbortSignal, works: () => void) => Promise<void>) =>
      run(name, leader.whileLeading(loop));
    const fence = () => leader.fence();
    let onCaughtUp!: () => void;
    const caughtUp = new Promise<void>((resolve) => {
      onCaughtUp = resolve;
    });
    try {
      log.info({ version: VERSION, loops: config.LOOPS, port: http.port, host: config.HTTP_HOST }, 'smslogd runs');
      if (config.LOOPS.includes('poller')) warnOfClearText(config, log);
      run('connections', (signal) => connections.watch(signal));
      run('waits', (signal) => watchWaits({ ...connections, config, log, metrics }, signal));
      // it may wait for a lock
      await Promise.race([databaseAtStart(config, upkeep, log, stop.signal), once(stop.signal, 'abort')]);
      health.starting = false;
      // what is counted from: before anything is written
      const begun = figures.begin().then(summarize.begin);
      run('leader', (signal, works) => leader.run(signal, works));
      const mirror = createMirror({ config, connections, lead: leader, metrics, log, health, onCaughtUp });
      if (mirrors)
        lead('mirror', async (signal, works) => {
          await begun;
          await mirror(signal, works);
        });
      let poller: Poller | undefined;
      if (config.LOOPS.includes('poller'))
        run('poller', async (signal) => {
          // the backlog comes first: to load the client for the gateway takes a moment
          if (poller === undefined && mirrors) await Promise.race([caughtUp, pause(FIRST_ROWS_MS, signal)]);
          const { createPoller } = await import('../poller/poller.ts');
          poller ??= createPoller({ config, connections, metrics, log, health, onReload });
          await poller(signal);
        });
      lead('queue', (signal, works) => repairQueue({ sql: upkeep, log, fence, works }, signal));
      lead('figures', async (signal, works) => {
        // the backlog comes first
        if (mirrors) await Promise.race([caughtUp, pause(CATCH_UP_MS, signal)]);
        await runHourly({ sql: upkeep, log, fence, works }, signal);
      });
      if (config.RETENTION_DAYS > 0)
        lead('retention', (signal, works) => runRetention({ config, sql: upkeep, log, fence, works }, signal));
      await Promise.race([...loops, once(stop.signal, 'abort')]);
    } finally {
      stop.abort();
      // what hangs on a lock or an open transaction is left: it is not acknowledged, and its lease ends
      await Promise.race([Promise.allSettled(loops), pause(DRAIN_MS, new AbortController().signal)]);
      clearInterval(summary);
      const released = Promise.race([leader.release(), pause(RELEASE_MS, new AbortController().signal)]);
      await Promise.all([released, http.close()]);
    }
  } finally {
    await connections.end();
    unhandle();
    // a signal's handler exits the process once this is known; without a signal it must not stand in the way
    if (!stopping) signals.uninstall();
    finished();
  }
}

/** A database that is not there yet is waited for; what no waiting mends is thrown. */
async function databaseAtStart(config: Config, sql: Sql, log: Log, signal: AbortSignal): Promise<void> {
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      await requireSchema(sql);
      await requireTimezones(queryOfPool(sql), config);
      if (config.LOOPS.includes('mirror')) await requireSourceTimezone(queryOfPool(sql), config);
      return;
    } catch (error) {
      const { reaction } = toSmslogdError(error);
      if (reaction === 'fatal') throw error;
      // said at once, and then every tenth time
      if (failures % 10 === 1) logProblem(log, 'warn', error, { waiting: true });
      await pause(backoff(reaction, failures), signal);
    }
  }
}

function warnOfClearText(config: Config, log: Log): void {
  const names = clearGateways(config);
  if (names.length === 0) return;
  const sentence = `login and ids of SMS go to the gateway in clear text (${names.join(', ')})`;
  logProblem(log, 'warn', new SmslogdError('gateway_in_clear', sentence));
}

async function answers(sql: Sql): Promise<boolean> {
  await sql`select 1`;
  return true;
}

/** Handles signals until the returned function is called. */
function handle(handlers: Readonly<Partial<Record<NodeJS.Signals, () => void>>>): () => void {
  const all = Object.entries(handlers);
  for (const [signal, handler] of all) process.on(signal, handler);
  return () => {
    for (const [signal, handler] of all) process.off(signal, handler);
  };
}

/** What SIGHUP asks for; where a file cannot be read all stays as it was. */
function reload(steps: readonly (() => void)[], log: Log): void {
  try {
    for (const step of steps) step();
    log.info('the secret files were read again; a pause in polling is ended');
  } catch (error) {
    logProblem(log, 'error', error, { signal: 'SIGHUP' });
  }
}

/**
 * The one info line a minute: SMS that entered the log and requests to the gateway since the last line, or since `begin`, which is told how many
 * SMS had entered it by then; SMS open and lag now.
 */
export function createSummary(log: Log, metrics: Metrics) {
  let last: { mirrored: number; polled: number } | undefined;
  const read = async () => {
    // undefined until the database was read
    const mirrored = (await metrics.smsTotal.get()).values.find(({ labels }) => labels.type === 'verification')?.value;
    return mirrored === undefined ? undefined : { mirrored, polled: await total(metrics.pollRequests) };
  };
  return {
    begin: (mirrored: number | undefined): void => {
      if (mirrored !== undefined) last ??= { mirrored, polled: 0 };
    },
    tell: async (): Promise<void> => {
      const now = await read();
      log.info(
        {
          ...(now === undefined ? {} : { mirrored: now.mirrored - (last ?? now).mirrored }),
          // none either where the database was not read for long
          ...((await metrics.open.get()).values.length === 0 ? {} : { open: await total(metrics.open) }),
          polled: (await total(metrics.pollRequests)) - (last?.polled ?? 0),
          lagSeconds: await total(metrics.mirrorLagSeconds),
        },
        'running',
      );
      last = now ?? last;
    },
  };
}

/** A metric over all its labels. */
async function total(metric: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await metric.get()).values.reduce((sum, { value }) => sum + value, 0);
}
