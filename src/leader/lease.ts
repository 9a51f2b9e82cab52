/**
 * Leadership: one daemon leads, whatever works or does not. Only the leader streams, copies, reconciles, repairs the publication, audits, counts, refills the
 * queue and applies retention; all daemons poll.
 *
 *   standby ── the lease is free or over, or its holder streamed and nobody reads the slot ──> leading
 *   leading ── a renewal finds that another daemon holds the lease ──> standby
 *   leading ── stop ──> released: the next daemon leads at once
 *   leading ── it cannot do its work ──> offered for a moment: another daemon takes it, or this one leads on and tries again
 *
 * The lease is a row of smslogd.leader, renewed every 1.5 seconds. A standby takes it where its time is over by the database's clock, or where it has not been
 * renewed for that long by the standby's own clock: a clock that is set back keeps nobody from leading.
 *
 * Time alone makes nothing safe: a frozen process does not know that its lease is over. So the lease has a term, which is raised when it changes hands and
 * when the leader's mirror starts over, and every write of the leader names the term under which it began: one of an older term writes nothing. That is why
 * a leader whose renewals fail goes on until it is told that another one leads. No advisory lock: a frozen process would keep it. A renewal restores a term
 * that somebody lowered in the row, as a restore may, and takes over one that was raised: with another term than its own the leader could do nothing more.
 *
 * A daemon whose LOOPS has no mirror leads only where no other does, so that counters, queue and retention are looked after; one that mirrors takes the
 * lease from it at once. In the same way a leader offers a lease that it keeps: it is then in the row as one that does not mirror. A daemon that could not do
 * the leader's work either declines it, for longer after each time, so that a lease with which nobody can do anything does not change hands for ever. What is
 * free for another reason it takes, and soon that of one that has no mirror.
 */
import { toSmslogdError } from '../errors.ts';
import type { Standing } from '../health.ts';
import { logProblem, type Log } from '../log.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { pause } from '../supervise.ts';
import { createRow, LEASE_MS, type RowDeps, type Seen } from './row.ts';
import { steppedDown } from './stepped-down.ts';

const RENEW_MS = 1_500;
const LOOK_MS = 300;
/** The lease is offered for so long: each of the others has looked several times. */
const OFFER_MS = 5 * LOOK_MS;
/** A leader that does not mirror for longer than one offers the lease whose tries fail quickly has no mirror. */
const NO_MIRROR_MS = 10_000;
/** One that could not do the leader's work declines what is offered for so long, at first and at most. */
const DECLINE_MS = 5_000;
const DECLINE_LONGEST_MS = 300_000;
/** One that cannot do it again so soon has told of it. */
const TOLD_MS = 2 * DECLINE_LONGEST_MS;

export interface Leadership {
  /** `standby`: another daemon was seen to lead */
  readonly standing: Standing;
  /** of this daemon's lease; undefined: it does not lead */
  readonly term: bigint | undefined;
  /** when it began to lead the last time, by performance.now() */
  readonly since: number;
  /** Raises the term: what an earlier life of the mirror still has under way writes nothing from now on. Throws stepped_down. */
  raiseTerm(): Promise<bigint>;
  /** SQL that is true while the term that this daemon has now is the latest one: every statement that only the leader may run has it. */
  fence(): string;
  /** Tells the standbys whether this daemon reads the slot: one that died is then noticed at once, by the slot that nobody reads. */
  streams(on: boolean): void;
  /**
   * Told that this daemon cannot do what the leader must, for a reason that another one may not have: offers the lease, and leads until it is taken.
   * `notWithinMs`: not where it did so already, since what is wrong may be wrong for all.
   */
  giveUp(notWithinMs?: number): void;
  /** Told that this daemon does what the leader must. */
  works(): void;
  /** A loop for the supervisor that runs `loop` while this daemon leads. */
  whileLeading(loop: Loop): Loop;
  /** Seeks and keeps the lease until `signal` aborts; `works` is called after each look, unless taking the lease failed, and after each renewal. */
  run(signal: AbortSignal, works?: () => void): Promise<void>;
  /** Gives the lease back, once all that was done under it has ended. Never rejects. */
  release(): Promise<void>;
}

type Loop = (signal: AbortSignal, works: () => void) => Promise<void>;

export interface LeadershipDeps extends RowDeps {
  readonly log: Log;
  /** told when `standing` changes */
  readonly onStanding?: (standing: Standing) => void;
  /** how long it declines an offered lease after its first failure; milliseconds */
  readonly declineMs?: number;
}

export function createLeadership(deps: LeadershipDeps): Leadership {
  const { holder, log, onStanding } = deps;
  const slot = quoteLiteral(deps.slot);
  const me = quoteLiteral(holder);
  let standing: Standing = 'unknown';
  let term: bigint | undefined;
  let since = -Infinity;
  let streaming = false;
  /** how often in a row it led and could not do its work, whether it is so now, and when that was found last */
  let failures = 0;
  let failing = false;
  let failedAt = -Infinity;
  const failedWithin = (ms: number) => performance.now() - failedAt < ms;
  const mirrors = () => deps.mirrors && !(failing && failedWithin(OFFER_MS));
  /** what the row is to tell of this daemon */
  const state = () => `${streaming} ${mirrors()}`;
  const declines = () => failures > 0 && failedWithin(declineFor(failures, deps.declineMs));
  const level = () => (failures > 1 && failedWithin(TOLD_MS) ? 'debug' : 'info');
  let leading: AbortController | undefined;
  const waiting = new Set<() => void>();
  let renewal = new AbortController();
  const renewNow = () => renewal.abort();

  const stand = (now: Standing) => {
    if (now === standing) return;
    standing = now;
    onStanding?.(now);
  };

  const { look, take, renew, raise, release } = createRow(deps);

  /** Waits for the lease; undefined: `signal` aborted. */
  const seek = async (signal: AbortSignal, works?: () => void): Promise<bigint | undefined> => {
    let before: Seen | undefined;
    let unchanged = performance.now();
    let mirrored = performance.now();
    while (!signal.aborted) {
      const offered = performance.now() - mirrored < NO_MIRROR_MS;
      const seen = await look(deps.mirrors && !(offered && declines()));
      if (seen?.mirrors !== false) mirrored = performance.now();
      if (seen?.term !== before?.term || seen?.renewed !== before?.renewed) unchanged = performance.now();
      const abandoned = performance.now() - unchanged > LEASE_MS;
      // seen twice: the leader itself may just have lost its stream, and says so at once
      const unread = seen?.unread === true && before?.unread === true && seen.term === before.term;
      if (seen === undefined || seen.free || abandoned || unread) {
        const taken = await take(seen);
        if (taken !== undefined) return taken;
      } else {
        if (standing !== 'standby') log[level()]({ term: seen.term }, 'standing by: another daemon leads');
        stand('standby');
      }
      // not after the look alone: while the row is locked that works, and taking it fails
      works?.();
      before = seen;
      await pause(LOOK_MS, signal);
    }
    return undefined;
  };

  /** Renews the lease until another daemon has it or `signal` aborts. */
  const keep = async (signal: AbortSignal, works?: () => void): Promise<void> => {
    let renewalFails = false;
    let told = state();
    // once, and not for each renewal: what AbortSignal.any leaves on a signal stays as long as that signal
    signal.addEventListener('abort', renewNow);
    for (;;) {
      renewal = new AbortController();
      // it may have changed while the last renewal was under way
      if (told === state() && !signal.aborted) await pause(RENEW_MS, renewal.signal);
      if (signal.aborted) break;
      try {
        told = state();
        const kept = await renew(term ?? 0n, streaming, mirrors());
        if (kept === undefined) {
          log[level()](
            { term: String(term) },
            'the lease went to another daemon, or its row was deleted: this one steps down',
          );
          break;
        }
        if (kept > (term ?? 0n)) term = kept;
        works?.();
        renewalFails = false;
      } catch (error) {
        const problem = toSmslogdError(error);
        // what does not pass by itself
        if (!renewalFails && problem.reaction === 'slow') logProblem(log, 'warn', problem, { part: 'lease' });
        else if (!renewalFails) log.debug({ code: problem.code }, 'the lease could not be renewed');
        renewalFails = true;
      }
    }
    signal.removeEventListener('abort', renewNow);
  };

  /** The leadership of this daemon, once it has it; undefined: `signal` aborted. */
  const elected = async (signal: AbortSignal): Promise<AbortController | undefined> => {
    for (;;) {
      if (signal.aborted) return undefined;
      if (leading !== undefined) return leading;
      await new Promise<void>((resolve) => {
        const wake = () => {
          waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        waiting.add(wake);
        signal.addEventListener('abort', wake);
      });
    }
  };

  return {
    get standing() {
      return standing;
    },
    get term() {
      return term;
    },
    get since() {
      return since;
    },
    async raiseTerm() {
      const raised = await raise();
      if (raised === undefined) throw steppedDown();
      streaming = false;
      term = raised;
      return term;
    },
    fence: () =>
      term === undefined
        ? 'false'
        : `exists (select from smslogd.leader l where l.slot_name = ${slot} and l.holder = ${me} and l.term = ${String(term)})`,
    streams(on) {
      if (streaming === on) return;
      streaming = on;
      renewNow();
    },
    works() {
      failures = 0;
      failing = false;
    },
    giveUp(notWithinMs = 0) {
      if (leading === undefined || failedWithin(notWithinMs)) return;
      if (!failing) failures += 1;
      log[failing ? 'debug' : level()](
        { term: String(term) },
        'this daemon cannot do what the leader must: another one may lead',
      );
      failing = true;
      failedAt = performance.now();
      renewNow();
    },
    whileLeading: (loop) => async (signal, works) => {
      const mine = await elected(signal);
      if (mine === undefined) return;
      try {
        await loop(AbortSignal.any([signal, mine.signal]), works);
      } catch (error) {
        // it failed for another daemon leads now
        if (!mine.signal.aborted) throw error;
      }
    },
    async run(signal, works) {
      while (!signal.aborted) {
        try {
          term = await seek(signal, works);
        } catch (error) {
          standing = 'unknown';
          onStanding?.(standing);
          throw error;
        }
        if (term === undefined) return;
        leading = new AbortController();
        since = performance.now();
        stand('leading');
        log[level()]({ term: String(term) }, 'this daemon leads');
        for (const wake of waiting) wake();
        await keep(signal, works);
        const lost = !signal.aborted;
        const ended = leading;
        leading = undefined;
        term = undefined;
        streaming = false;
        failing = false;
        if (lost) stand('standby');
        ended.abort();
      }
    },
    release,
  };
}

/** How long one that led so often in a row and could not do its work declines a lease that is offered; milliseconds. */
export function declineFor(failures: number, first = DECLINE_MS): number {
  return Math.min(first * 2 ** (failures - 1), DECLINE_LONGEST_MS);
}
