/**
 * The whole of smslogd on one screen: two days of history, a daemon that copies and settles it, live traffic, a kill -9 in the middle, the
 * comparison with the truth. Acquire, act, report; then everything goes back in reverse order, however it ended.
 */
import { SmslogdError } from '../errors.ts';
import { seededRandom } from '../simulator/random.ts';
import { pause } from '../supervise.ts';
import { VERSION } from '../version.ts';
import { auditLog, isRight } from './audit.ts';
import { createDaemon, daemonEnv, type Daemon } from './daemon.ts';
import { readFigures } from './figures.ts';
import { planHistory, writeHistory } from './history.ts';
import { runOtpService } from './otp-service.ts';
import { every, waitFor } from './pace.ts';
import { count, progressLine, type Screen } from './progress.ts';
import { runReimbursementService } from './reimbursement-service.ts';
import { auditTable, figuresTable, resultLine } from './report.ts';
import { countAbsent, readLag, readScore, waitingVerifications, type Score } from './scoreboard.ts';
import { microsecondText, type Sms } from './sms.ts';
import { setStage, type Stage } from './stage.ts';

export const HISTORY = 20_000;
const SEED = 20_170_926;
const VERIFICATIONS_PER_SECOND = 60;
const REIMBURSEMENTS_PER_SECOND = 15;

/** Of the seconds that the demo may run, the part that the settling of the history may take before live traffic begins anyway. */
const SETTLE_SHARE = 0.45;
const SETTLE_SECONDS = 60;
/** Live traffic has at least this long, however few seconds are given. */
const LEAST_LIVE_SECONDS = 6;
/** When the daemon is killed: a share of the live part, or seconds where it has no end. */
const KILL_SHARE = 0.4;
const KILL_SECONDS = 20;
const DOWN_SECONDS = 1.5;
/** Waits for the daemon that should end long before: for the copy, for catching up after the kill and at the end. */
const PATIENCE_SECONDS = 60;
const SCORE_SECONDS = 0.4;

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

/** Returns true where the log is right at the end; undefined where it was interrupted before there was anything to compare. */
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
  const sent: Sms[] = [];
  screen.line(`smslogd ${VERSION} demo: every verification SMS in a table, exactly once, with its true fate`);
  screen.line();

  const stage = await setStage(random, release);
  const { config, simulator, owner, writer } = stage;
  screen.phase('database', `PostgreSQL ${stage.postgres}, new, with the schema; the IP2SMS gateway is a simulator`);
  if (interrupt.aborted) return undefined;

  const past = await writePast(stage, history, random, screen);
  sent.push(...past);
  if (interrupt.aborted) return undefined;

  // what fails beside the main line, the services or the daemon, ends it like an interruption, and then says so
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
  sayAddresses(stage, screen);

  const scoreNow = () => readScore(owner, liveSince, config.SMS_STATUSES_EXPIRATION);
  const watching = new AbortController();
  const watch = watchProgress(
    stage,
    { scoreNow, elapsed, screen, written: () => sent.length - past.length },
    watching.signal,
  ).catch(fail);
  release(async () => {
    watching.abort();
    await watch;
  });

  await settle({ scoreNow, elapsed, screen, past, seconds }, ending);
  checkTrouble();

  const live = new AbortController();
  const services = {
    send: (phone: string) => simulator.send(phone).id,
    written: (sms: Sms) => void sent.push(sms),
    random,
  };
  const traffic = Promise.all([
    runOtpService(
      { ...services, sql: owner, codeText: config.OTP_CODE_TEXT, perSecond: VERIFICATIONS_PER_SECOND },
      live.signal,
    ),
    runReimbursementService({ ...services, sql: writer, perSecond: REIMBURSEMENTS_PER_SECOND }, live.signal),
  ]).catch(fail);
  release(async () => {
    live.abort();
    await traffic;
  });
  if (!ending.aborted) {
    screen.phase(
      'live',
      `${VERIFICATIONS_PER_SECOND} verifications a second with all that follows, ${REIMBURSEMENTS_PER_SECOND} medication_request`,
    );
    const liveSeconds = seconds === undefined ? Infinity : Math.max(LEAST_LIVE_SECONDS, seconds - elapsed());
    const liveBegan = elapsed();
    await pause(1000 * (seconds === undefined ? KILL_SECONDS : liveSeconds * KILL_SHARE), ending);
    if (!ending.aborted) await killAndRestart(daemon, stage, elapsed, screen);
    await until(() => liveBegan + liveSeconds - elapsed(), ending);
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
      return score.overdue === 0 && score.rows >= sent.length && (await waitingVerifications(owner)).length === 0;
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
  screen.line(resultLine(audit));
  return right;
}

async function writePast(stage: Stage, size: number, random: () => number, screen: Screen): Promise<readonly Sms[]> {
  const began = performance.now();
  const { REPORT_TIMEZONE: timezone, OTP_CODE_TEXT: codeText } = stage.config;
  const past = planHistory({ count: size, now: Date.now(), random, timezone, codeText });
  const onProgress = (written: number) => screen.passing(`history: ${count(written)} of ${count(past.length)} SMS`);
  await writeHistory(
    past,
    { sql: stage.owner, load: (id, fate) => stage.simulator.load(id, fate), onProgress },
    random,
  );
  await stage.owner`analyze verification.verifications`;
  const verifications = past.filter(({ type }) => type === 'verification').length;
  screen.phase(
    'history',
    `two days, ${count(past.length)} SMS: ${count(verifications)} verifications, ${count(past.length - verifications)} medication_request, written in ${took(began)}`,
  );
  return past;
}

function sayAddresses(stage: Stage, screen: Screen): void {
  screen.phase('daemon', 'starts: copies the verifications into the log and asks the gateway about every SMS');
  screen.line();
  screen.line(`  status page   ${stage.web}/`);
  screen.line(`  the log       psql ${stage.psql}`);
  screen.line(`                table verification.sms_today_vs_yesterday;`);
  screen.line(`  metrics       curl ${stage.web}/metrics`);
  screen.line();
}

interface Watch {
  readonly scoreNow: () => Promise<Score>;
  /** seconds since the daemon's first start */
  readonly elapsed: () => number;
  readonly screen: Screen;
  /** SMS of the live services */
  readonly written: () => number;
}

async function watchProgress(
  stage: Stage,
  { scoreNow, elapsed, screen, written }: Watch,
  signal: AbortSignal,
): Promise<void> {
  await every(
    SCORE_SECONDS,
    async () => {
      // read before the log is: what it has more is no error
      const writtenNow = written();
      const [score, lagSeconds] = await Promise.all([scoreNow(), readLag(stage.web)]);
      if (signal.aborted) return;
      const pollsPerSms = stage.simulator.requests.status / Math.max(1, score.rows);
      screen.live(
        progressLine({
          seconds: elapsed(),
          copied: score.copied,
          written: writtenNow,
          logged: score.live,
          lagSeconds,
          open: score.open,
          pollsPerSms,
        }),
      );
    },
    signal,
  );
}

interface Settling extends Omit<Watch, 'written'> {
  readonly past: readonly Sms[];
  readonly seconds: number | undefined;
}

/** Until the history is copied, and then until no SMS past its life is open, or the time for that is over. */
async function settle({ scoreNow, elapsed, screen, past, seconds }: Settling, signal: AbortSignal): Promise<void> {
  const verifications = past.filter(({ type }) => type === 'verification').length;
  const copied = await waitFor(async () => (await scoreNow()).copied >= verifications, {
    seconds: PATIENCE_SECONDS,
    signal,
  });
  if (signal.aborted) return;
  if (copied) screen.phase('copied', `the whole history is in the log after ${seconds1(elapsed())}`);
  else screen.phase('NOT COPIED', `the history is not all in the log after ${PATIENCE_SECONDS} s`);
  const patience = seconds === undefined ? SETTLE_SECONDS : seconds * SETTLE_SHARE - elapsed();
  const settled = await waitFor(async () => (await scoreNow()).overdue === 0, { seconds: patience, signal });
  if (signal.aborted) return;
  if (settled)
    return screen.phase('settled', `every SMS past its life has its final status after ${seconds1(elapsed())}`);
  const left = (await scoreNow()).overdue;
  screen.phase(
    'settling',
    `goes on beside the live traffic: ${count(left)} SMS past their life are still to be asked for`,
  );
}

/** What is measured: from the restart until the log holds every verification that stood in the source at that moment. */
async function killAndRestart(daemon: Daemon, stage: Stage, elapsed: () => number, screen: Screen): Promise<void> {
  await daemon.kill();
  screen.phase('kill -9', `the daemon is gone after ${seconds1(elapsed())}; the services go on`);
  await pause(DOWN_SECONDS * 1000, new AbortController().signal);
  const waiting = await waitingVerifications(stage.owner);
  const restarted = performance.now();
  daemon.start();
  const done = await waitFor(async () => (await countAbsent(stage.owner, waiting)) === 0, {
    seconds: PATIENCE_SECONDS,
  });
  if (done)
    screen.phase(
      'restarted',
      `${DOWN_SECONDS} s later; ${took(restarted)} after that the log had all ${count(waiting.length)} verifications that were waiting`,
    );
  else screen.phase('restarted', `but the log had NOT caught up after ${PATIENCE_SECONDS} s`);
}

/** Pauses until `left` seconds are none. */
async function until(left: () => number, signal: AbortSignal): Promise<void> {
  while (left() > 0 && !signal.aborted) await pause(Math.min(left() * 1000, 1_000), signal);
}

function took(began: number): string {
  return seconds1((performance.now() - began) / 1000);
}

function seconds1(seconds: number): string {
  return `${seconds.toFixed(1)} s`;
}
