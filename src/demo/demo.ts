/**
 * The demo: two days of history, a daemon that copies it and polls its statuses, live traffic, a kill -9, and a comparison of the log with what was sent.
 * Whatever it acquired is released in reverse order, however it ends.
 */
import { SmslogdError } from '../errors.ts';
import { seededRandom } from '../simulator/random.ts';
import { pause } from '../supervise.ts';
import { VERSION } from '../package.ts';
import {
  finishSettling,
  killAndRestart,
  PATIENCE_SECONDS,
  runTraffic,
  sayAddresses,
  settle,
  took,
  TRAFFIC,
  watchProgress,
  writePast,
} from './acts.ts';
import { auditLog, isRight } from './audit.ts';
import { createDaemon, daemonEnv } from './daemon.ts';
import { readFigures } from './figures.ts';
import { pauseWhile, waitFor } from './pace.ts';
import type { Screen } from './progress.ts';
import { auditTable, figuresTable, ONWARD, resultLine } from './report.ts';
import { countIncomplete, readScore, waitingVerifications } from './scoreboard.ts';
import { microsecondText, type Sms } from './sms.ts';
import { setStage } from './stage.ts';
import { wrap } from '../wrap.ts';

export const HISTORY = 30_000;
const SEED = 20_170_926;

/** The shortest time for live traffic. */
const LEAST_LIVE_SECONDS = 6;
/** When the daemon is killed: a fraction of the live traffic's time, or seconds if the demo has no time limit. */
const KILL_SHARE = 0.4;
const KILL_SECONDS = 20;

export interface DemoOptions {
  /** how long the daemon and the services run; undefined: until `interrupt` */
  readonly seconds: number | undefined;
  /** SMS of the past two days */
  readonly history: number;
  readonly screen: Screen;
  readonly env: NodeJS.ProcessEnv;
  /** ends it in order, with the report */
  readonly interrupt: AbortSignal;
}

/** Returns true if the log is correct at the end; undefined if it was interrupted before there was anything to compare. */
export async function runDemo(options: DemoOptions): Promise<boolean | undefined> {
  const releases: (() => Promise<void>)[] = [];
  try {
    return await perform(options, (undo) => releases.push(undo));
  } finally {
    for (const undo of releases.toReversed()) await undo().catch(() => {});
  }
}

async function perform(
  { seconds, history, screen, env, interrupt }: DemoOptions,
  release: (undo: () => Promise<void>) => void,
): Promise<boolean | undefined> {
  const random = seededRandom(SEED);
  screen.line(`smslogd ${VERSION} demo: every verification SMS in a table, exactly once`);
  screen.line();

  const stage = await setStage(random, release);
  const { config, simulator, owner } = stage;
  screen.phase('database', `PostgreSQL ${stage.postgres}, new, with the schema; the IP2SMS gateway is a simulator`);
  if (interrupt.aborted) return undefined;

  const past = await writePast(stage, history, random, screen);
  const sent: Sms[] = [...past];
  if (interrupt.aborted) return undefined;

  // a failure of the services or the daemon ends the demo like an interruption, and is thrown then
  const trouble = new AbortController();
  const ending = AbortSignal.any([interrupt, trouble.signal]);
  const fail = (error: unknown) => trouble.abort(error);
  const checkTrouble = () => {
    if (trouble.signal.aborted) throw trouble.signal.reason;
  };

  const daemon = createDaemon({
    env: daemonEnv(env, stage.settings),
    logFile: stage.logFile,
    onLost: (how) => {
      for (const problem of daemon.problems()) screen.line(`  daemon: ${problem}`);
      fail(
        new SmslogdError('unexpected', `the daemon ended by itself: ${how}`, { hint: 'Its last words stand above.' }),
      );
    },
  });
  release(() => daemon.kill());
  const liveSince = microsecondText(Date.now(), () => 0);
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  daemon.start();
  sayAddresses(stage, screen, seconds === undefined);

  const scoreNow = () => readScore(owner, liveSince, config.SMS_STATUSES_EXPIRATION);
  const watching = new AbortController();
  const watch = watchProgress(
    stage,
    { scoreNow, elapsed, screen, endless: seconds === undefined, written: () => sent.length - past.length },
    watching.signal,
  ).catch(fail);
  release(async () => {
    watching.abort();
    await watch;
  });

  const settled = await settle({ scoreNow, elapsed, screen, past, seconds }, ending);
  checkTrouble();

  const live = new AbortController();
  const traffic = runTraffic(stage, { written: (sms) => void sent.push(sms), random }, live.signal).catch(fail);
  release(async () => {
    live.abort();
    await traffic;
  });
  if (!ending.aborted) {
    screen.phase('live', TRAFFIC);
    const liveSeconds = seconds === undefined ? Infinity : Math.max(LEAST_LIVE_SECONDS, seconds - elapsed());
    const liveBegan = elapsed();
    await pause(1000 * (seconds === undefined ? KILL_SECONDS : liveSeconds * KILL_SHARE), ending);
    // an SMS past its deadline that the killed daemon had claimed is claimed again after its lease: too late for the end of the demo
    if (!settled) await finishSettling({ scoreNow, elapsed, screen }, PATIENCE_SECONDS, ending);
    if (!ending.aborted) await killAndRestart(daemon, stage, { elapsed, screen }, trouble.signal);
    await pauseWhile(() => liveBegan + liveSeconds - elapsed(), ending);
  }
  checkTrouble();

  const why = interrupt.aborted ? 'interrupted' : 'the time is up';
  screen.phase('stopping', `${why}: the services stop, the daemon gets what it needs to catch up`);
  live.abort();
  await traffic;
  checkTrouble();
  const caughtUp = await waitFor(
    async () => {
      const score = await scoreNow();
      if (score.overdue > 0 || score.rows < sent.length) return false;
      return (await waitingVerifications(owner)).length === 0 && (await countIncomplete(owner)) === 0;
    },
    { seconds: PATIENCE_SECONDS, signal: trouble.signal },
  );
  watching.abort();
  await watch;
  checkTrouble();
  const stopping = performance.now();
  const code = await daemon.stop();
  screen.phase(
    'stopped',
    `${caughtUp ? 'all is in the log' : `NOT caught up within ${PATIENCE_SECONDS} s`}; the daemon ended on SIGTERM in ${took(stopping)} with exit code ${code}`,
  );

  const audit = await auditLog({
    sql: owner,
    sent,
    fate: (id) => simulator.fate(id),
    lifeMs: config.SMS_STATUSES_EXPIRATION * 60_000,
  });
  const figures = await readFigures(owner);
  const right = isRight(audit) && code === 0;
  for (const line of ['', ...figuresTable(figures), '', ...auditTable(audit)]) screen.line(line);
  if (!right) for (const problem of daemon.problems()) screen.line(`  daemon: ${problem}`);
  screen.line();
  for (const line of [...wrap(resultLine(audit, code), 80), '', ...ONWARD]) screen.line(line);
  return right;
}
