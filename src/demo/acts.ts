/** The steps of the demo and their output. */
import { pause } from '../supervise.ts';
import type { Daemon } from './daemon.ts';
import { planHistory, writeHistory } from './history.ts';
import { runOtpService } from './otp-service.ts';
import { every, waitFor } from './pace.ts';
import { count, progressLine, type Screen } from './progress.ts';
import { runReimbursementService } from './reimbursement-service.ts';
import { countAbsent, readLag, waitingVerifications, type Score } from './scoreboard.ts';
import type { Sms } from './sms.ts';
import type { Stage } from './stage.ts';

/** So many that history and live traffic can both be seen on the page for some minutes. */
const VERIFICATIONS_PER_SECOND = 20;
const REIMBURSEMENTS_PER_SECOND = 5;
export const TRAFFIC = `${VERIFICATIONS_PER_SECOND} verifications a second with the owner's later updates, ${REIMBURSEMENTS_PER_SECOND} medication_request`;

/** The fraction of the demo's time after which live traffic starts even if the history is not final yet. */
const SETTLE_SHARE = 0.45;
const SETTLE_SECONDS = 60;
const DOWN_SECONDS = 1.5;
const SCORE_SECONDS = 0.4;
/** Generous timeouts: for the copy, for catching up after the kill, and at the end. */
export const PATIENCE_SECONDS = 60;

/** Generates the history and writes it. */
export async function writePast(
  stage: Stage,
  size: number,
  random: () => number,
  screen: Screen,
): Promise<readonly Sms[]> {
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

/** The addresses to open while it runs. */
export function sayAddresses(stage: Stage, screen: Screen, endless: boolean): void {
  screen.phase('daemon', 'starts: copies the verifications into the log and asks the gateway about every SMS');
  screen.line();
  screen.line(`  status page   ${stage.web}/`);
  screen.line(`  psql ${stage.psql}`);
  screen.line(`                table verification.sms_today_vs_yesterday;`);
  screen.line(`  metrics       curl ${stage.web}/metrics`);
  if (endless) {
    screen.line();
    screen.line('  Ctrl-C ends it, with a comparison of the log with what was sent');
  }
  screen.line();
}

export interface Watch {
  readonly scoreNow: () => Promise<Score>;
  /** seconds since the daemon's first start */
  readonly elapsed: () => number;
  readonly screen: Screen;
  readonly endless: boolean;
  /** SMS of the live services */
  readonly written: () => number;
}

/** Keeps the live line up to date until `signal` aborts. */
export async function watchProgress(
  stage: Stage,
  { scoreNow, elapsed, screen, endless, written }: Watch,
  signal: AbortSignal,
): Promise<void> {
  await every(
    SCORE_SECONDS,
    async () => {
      // read before the log, which may have more rows by then
      const writtenNow = written();
      const [score, lagSeconds] = await Promise.all([scoreNow(), readLag(stage.web)]);
      if (signal.aborted) return;
      screen.live(
        progressLine({
          seconds: elapsed(),
          copied: score.copied,
          endless,
          written: writtenNow,
          logged: score.live,
          lagSeconds,
          open: score.open,
        }),
      );
    },
    signal,
  );
}

interface Settling extends Omit<Watch, 'written' | 'endless'> {
  readonly past: readonly Sms[];
  readonly seconds: number | undefined;
}

/** Waits until the history is copied, and then until no SMS past its deadline is open; false on a timeout. */
export async function settle(
  { scoreNow, elapsed, screen, past, seconds }: Settling,
  signal: AbortSignal,
): Promise<boolean> {
  const verifications = past.filter(({ type }) => type === 'verification').length;
  const copied = await waitFor(async () => (await scoreNow()).copied >= verifications, {
    seconds: PATIENCE_SECONDS,
    signal,
  });
  if (signal.aborted) return false;
  if (copied) screen.phase('copied', `the whole history is in the log after ${seconds1(elapsed())}`);
  else screen.phase('NOT COPIED', `the history is not all in the log after ${PATIENCE_SECONDS} s`);
  const patience = seconds === undefined ? SETTLE_SECONDS : seconds * SETTLE_SHARE - elapsed();
  if (await finishSettling({ scoreNow, elapsed, screen }, patience, signal)) return true;
  if (signal.aborted) return false;
  const left = (await scoreNow()).overdue;
  screen.phase(
    'settling',
    `goes on beside the live traffic: ${count(left)} SMS past their life are still to be asked for`,
  );
  return false;
}

/** Waits until no SMS past its deadline is open; false if that takes longer than `patience` seconds. */
export async function finishSettling(
  { scoreNow, elapsed, screen }: Omit<Watch, 'written' | 'endless'>,
  patience: number,
  signal: AbortSignal,
): Promise<boolean> {
  const settled = await waitFor(async () => (await scoreNow()).overdue === 0, { seconds: patience, signal });
  if (settled) screen.phase('settled', `every SMS past its life has its final status after ${seconds1(elapsed())}`);
  return settled;
}

/** Runs both services until `signal` aborts; throws the first failure. Calls `written` for each committed SMS. */
export async function runTraffic(
  { owner, writer, simulator, config }: Stage,
  { written, random }: { readonly written: (sms: Sms) => void; readonly random: () => number },
  signal: AbortSignal,
): Promise<void> {
  const shared = { send: (phone: string) => simulator.send(phone).id, written, random };
  const codeText = config.OTP_CODE_TEXT;
  await Promise.all([
    runOtpService({ ...shared, sql: owner, codeText, perSecond: VERIFICATIONS_PER_SECOND }, signal),
    runReimbursementService({ ...shared, sql: writer, perSecond: REIMBURSEMENTS_PER_SECOND }, signal),
  ]);
}

/** The time from the restart until the log has all verifications that the source has now. */
export async function killAndRestart(
  daemon: Daemon,
  stage: Stage,
  { elapsed, screen }: Pick<Watch, 'elapsed' | 'screen'>,
  signal: AbortSignal,
): Promise<void> {
  await daemon.kill();
  screen.phase('kill -9', `the daemon is gone after ${seconds1(elapsed())}; the services go on`);
  await pause(DOWN_SECONDS * 1000, new AbortController().signal);
  const waiting = await waitingVerifications(stage.owner);
  const restarted = performance.now();
  daemon.start();
  const done = await waitFor(async () => (await countAbsent(stage.owner, waiting)) === 0, {
    seconds: PATIENCE_SECONDS,
    signal,
  });
  if (signal.aborted) return;
  if (done)
    screen.phase(
      'restarted',
      `${DOWN_SECONDS} s later; ${took(restarted)} after that the log had all ${count(waiting.length)} verifications that were waiting`,
    );
  else screen.phase('restarted', `but the log had NOT caught up after ${PATIENCE_SECONDS} s`);
}

/** Seconds since `began`, by performance.now(), as a text. */
export function took(began: number): string {
  return seconds1((performance.now() - began) / 1000);
}

function seconds1(seconds: number): string {
  return `${seconds.toFixed(1)} s`;
}
