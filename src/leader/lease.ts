/**
 * Leadership: one daemon leads, whatever works or does not. Only the leader streams, copies, reconciles, repairs the publication, audits, counts, refills the
 * queue and applies retention; all daemons poll.
 *
 *   standby ── the lease is free or over, or its holder streamed and nobody reads the slot ──> leading
 *   leading ── a renewal finds that another daemon holds the lease ──> standby
 *   leading ── stop ──> released: the next daemon leads at once
 *
 * The lease is a row of smslogd.leader, renewed each second. A standby takes it where its time is over by the database's clock, or where it has not been
 * renewed for that long by the standby's own clock: a clock that is set back keeps nobody from leading.
 *
 * Time alone makes nothing safe: a frozen process does not know that its lease is over. So the lease has a term, which is raised when it changes hands and
 * when the leader's mirror starts over, and every write of the leader names the term under which it began: one of an older term writes nothing. That is why
 * a leader whose renewals fail goes on until it is told that another one leads. No advisory lock: a frozen process would keep it.
 *
 * A daemon whose LOOPS has no mirror leads only where no other does, so that counters, queue and retention are looked after; one that mirrors takes the
 * lease from it at once.
 */
import { SmslogdError, toSmslogdError } from '../errors.ts';
import type { Standing } from '../health.ts';
import type { Log } from '../log.ts';
import type { Connections } from '../postgres/connections.ts';
import { quoteLiteral } from '../postgres/quoting.ts';
import { pause } from '../supervise.ts';

/** A leader that died without a word while it did not stream is replaced within this time and one look. */
export const LEASE_MS = 4_000;
const RENEW_MS = 1_000;
const LOOK_MS = 300;
/** A lock on the lease's table, which nobody needs to take, must not occupy the control connection. */
const LOCK_MS = 1_000;

export interface Leadership {
  /** `standby`: another daemon was seen to lead */
  readonly standing: Standing;
  /** of this daemon's lease; undefined: it does not lead */
  readonly term: bigint | undefined;
  /** Raises the term: what an earlier life of the mirror still has under way writes nothing from now on. Throws stepped_down. */
  raiseTerm(): Promise<bigint>;
  /** SQL that is true while the term that this daemon has now is the latest one: every statement that only the leader may run has it. */
  fence(): string;
  /** Tells the standbys whether this daemon reads the slot: one that died is then noticed at once, by the slot that nobody reads. */
  streams(on: boolean): void;
  /** A loop for the supervisor that runs `loop` while this daemon leads. */
  whileLeading(loop: Loop): Loop;
  /** Seeks and keeps the lease until `signal` aborts; `works` is called each time that the database answers. */
  run(signal: AbortSignal, works?: () => void): Promise<void>;
  /** Gives the lease back, once all that was done under it has ended. Never rejects. */
  release(): Promise<void>;
}

type Loop = (signal: AbortSignal, works: () => void) => Promise<void>;

export interface LeadershipDeps {
  readonly connections: Pick<Connections, 'control' | 'refresh'>;
  readonly slot: string;
  /** names this daemon among all */
  readonly holder: string;
  /** false: it has no mirror, and leads only where no other daemon does */
  readonly mirrors: boolean;
  readonly log: Log;
  /** told when `standing` changes */
  readonly onStanding?: (standing: Standing) => void;
  /** told how each statement ended; undefined: well */
  readonly onAnswer?: (problem: SmslogdError | undefined) => void;
}

interface Seen {
  readonly term: string;
  readonly holder: string | null;
  readonly renewed: string;
  /** nothing speaks against taking it now */
  readonly free: boolean;
  /** its holder reads the slot, by its own word, and nobody does */
  readonly unread: boolean;
}

export function createLeadership(deps: LeadershipDeps): Leadership {
  const { connections, holder, mirrors, log, onStanding, onAnswer } = deps;
  const slot = quoteLiteral(deps.slot);
  const me = quoteLiteral(holder);
  const lease = `clock_timestamp() + ${LEASE_MS} * interval '1 millisecond'`;
  let standing: Standing = 'unknown';
  let term: bigint | undefined;
  let streaming = false;
  let leading: AbortController | undefined;
  let answered: (() => void) | undefined;
  const waiting = new Set<() => void>();
  let renewal = new AbortController();
  const renewNow = () => renewal.abort();

  const stand = (now: Standing) => {
    if (now === standing) return;
    standing = now;
    onStanding?.(now);
  };

  /**
   * One statement with its limits, sent as one: no session state is left behind. `durable`: a term that a crash took back would be given twice; no standby is
   * waited for.
   */
  const run = async <Row>(text: string, durable: boolean): Promise<Row | undefined> => {
    const statement = connections.control
      .unsafe(
        `set local lock_timeout = ${LOCK_MS}; set local jit = off; set local synchronous_commit = ${durable ? 'local' : 'off'};\n${text}`,
      )
      .simple();
    try {
      const results = (await statement) as unknown as Row[][];
      onAnswer?.(undefined);
      answered?.();
      return results.at(-1)?.[0];
    } catch (error) {
      connections.refresh(error);
      onAnswer?.(toSmslogdError(error));
      throw error;
    }
  };
  const look = async () =>
    await run<Seen>(
      `select term::text, holder, renewed_at::text as renewed,
              holder is null or holder = ${me} or expires_at <= clock_timestamp() or (${mirrors} and not mirrors) as free,
              streaming and not exists (select from pg_replication_slots s where s.slot_name = l.slot_name and s.active_pid is not null) as unread
         from smslogd.leader l where slot_name = ${slot}`,
      false,
    );
  /** Takes the lease as it was seen: who was quicker has changed it. */
  const take = async (seen: Seen | undefined) => {
    const values = `holder = ${me}, mirrors = ${mirrors}, streaming = false, renewed_at = clock_timestamp(), expires_at = ${lease}`;
    const row = await run<{ term: string }>(
      seen === undefined
        ? `insert into smslogd.leader (slot_name, term, holder, mirrors, renewed_at, expires_at)
           values (${slot}, (select coalesce(max(c.term), 0) + 1 from smslogd.checkpoint c where c.slot_name = ${slot}),
                   ${me}, ${mirrors}, clock_timestamp(), ${lease}) on conflict do nothing returning term::text`
        : `update smslogd.leader set term = term + 1, ${values}
            where slot_name = ${slot} and term = ${seen.term} and renewed_at = ${quoteLiteral(seen.renewed)} returning term::text`,
      true,
    );
    return row === undefined ? undefined : BigInt(row.term);
  };
  const renew = async () =>
    await run<{ term: string }>(
      `update smslogd.leader set streaming = ${streaming}, renewed_at = clock_timestamp(), expires_at = ${lease}
        where slot_name = ${slot} and holder = ${me} returning term::text`,
      false,
    );

  /** Waits for the lease; undefined: `signal` aborted. */
  const seek = async (signal: AbortSignal): Promise<bigint | undefined> => {
    let before: Seen | undefined;
    let unchanged = performance.now();
    while (!signal.aborted) {
      const seen = await look();
      if (seen?.term !== before?.term || seen?.renewed !== before?.renewed) unchanged = performance.now();
      const abandoned = performance.now() - unchanged > LEASE_MS;
      // seen twice: the leader itself may just have lost its stream, and says so at once
      const unread = seen?.unread === true && before?.unread === true && seen.term === before.term;
      if (seen === undefined || seen.free || abandoned || unread) {
        const taken = await take(seen);
        if (taken !== undefined) return taken;
      } else {
        if (standing !== 'standby') log.info({ term: seen.term }, 'standing by: another daemon leads');
        stand('standby');
      }
      before = seen;
      await pause(LOOK_MS, signal);
    }
    return undefined;
  };

  /** Renews the lease until another daemon has it or `signal` aborts. */
  const keep = async (signal: AbortSignal): Promise<void> => {
    let failing = false;
    let told = false;
    // once, and not for each renewal: what AbortSignal.any leaves on a signal stays as long as that signal
    signal.addEventListener('abort', renewNow);
    for (;;) {
      renewal = new AbortController();
      // it may have changed while the last renewal was under way
      if (told === streaming && !signal.aborted) await pause(RENEW_MS, renewal.signal);
      if (signal.aborted) break;
      try {
        told = streaming;
        if ((await renew()) === undefined) {
          log.info({ term: String(term) }, 'another daemon leads: this one steps down');
          break;
        }
        failing = false;
      } catch (error) {
        if (!failing) log.debug({ code: toSmslogdError(error).code }, 'the lease could not be renewed');
        failing = true;
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
    async raiseTerm() {
      const row = await run<{ term: string }>(
        `update smslogd.leader l set term = 1 + greatest(term, (select max(c.term) from smslogd.checkpoint c where c.slot_name = l.slot_name)),
                streaming = false, renewed_at = clock_timestamp(), expires_at = ${lease}
          where slot_name = ${slot} and holder = ${me} returning term::text`,
        true,
      );
      if (row === undefined) throw new SmslogdError('stepped_down', 'another daemon leads');
      streaming = false;
      term = BigInt(row.term);
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
      answered = works;
      while (!signal.aborted) {
        try {
          term = await seek(signal);
        } catch (error) {
          standing = 'unknown';
          onStanding?.(standing);
          throw error;
        }
        if (term === undefined) return;
        leading = new AbortController();
        stand('leading');
        log.info({ term: String(term) }, 'this daemon leads');
        for (const wake of waiting) wake();
        await keep(signal);
        const lost = !signal.aborted;
        const ended = leading;
        leading = undefined;
        term = undefined;
        streaming = false;
        if (lost) stand('standby');
        ended.abort();
      }
    },
    async release() {
      await run(
        `update smslogd.leader set holder = null, streaming = false, expires_at = '-infinity' where slot_name = ${slot} and holder = ${me}`,
        false,
      ).catch(() => {});
    },
  };
}
