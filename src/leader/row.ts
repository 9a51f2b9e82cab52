/** The lease's row: each statement, as one of the control connection's, which nothing holds up for long. */
import { toSmslogdError, type SmslogdError } from '../errors.ts';
import type { Connections } from '../postgres/connections.ts';
import { instantText, quoteLiteral } from '../postgres/quoting.ts';

/** A leader that died without a word while it did not stream is replaced within this time and one look. */
export const LEASE_MS = 4_000;
/** A lock on the lease's table, which nobody needs to take, must not occupy the control connection. */
const LOCK_MS = 1_000;

export interface RowDeps {
  readonly connections: Pick<Connections, 'control' | 'refresh'>;
  readonly slot: string;
  /** names this daemon among all */
  readonly holder: string;
  /** false: it has no mirror, and leads only where no other daemon does */
  readonly mirrors: boolean;
  /** told how each statement ended; undefined: well */
  readonly onAnswer?: (problem: SmslogdError | undefined) => void;
}

export interface Seen {
  readonly term: string;
  readonly holder: string | null;
  readonly renewed: string;
  /** by its holder's word: not where it has no mirror, nor while it offers the lease */
  readonly mirrors: boolean;
  /** nothing speaks against taking it now */
  readonly free: boolean;
  /** its holder reads the slot, by its own word, and nobody does */
  readonly unread: boolean;
}

export function createRow({ connections, holder, mirrors, onAnswer, ...deps }: RowDeps) {
  const slot = quoteLiteral(deps.slot);
  const me = quoteLiteral(holder);
  const lease = `clock_timestamp() + ${LEASE_MS} * interval '1 millisecond'`;

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
      return results.at(-1)?.[0];
    } catch (error) {
      connections.refresh(error);
      onAnswer?.(toSmslogdError(error));
      throw error;
    }
  };

  /** Its term is a bigint, which JSON and the clients know as text. */
  const termOf = async (text: string, durable = true) => {
    const row = await run<{ term: string }>(text, durable);
    return row === undefined ? undefined : BigInt(row.term);
  };

  return {
    /** `accepts`: a lease whose holder does not mirror is free for it. */
    look: async (accepts = mirrors) =>
      await run<Seen>(
        `select term::text, holder, ${instantText('renewed_at')} as renewed, mirrors,
                holder is null or holder = ${me} or expires_at <= clock_timestamp() or (${accepts} and not mirrors) as free,
                streaming and not exists (select from pg_replication_slots s where s.slot_name = l.slot_name and s.active_pid is not null) as unread
           from smslogd.leader l where slot_name = ${slot}`,
        false,
      ),

    /** Takes the lease as it was seen: who was quicker has changed it. Returns the term; undefined: another one was quicker. */
    take: async (seen: Seen | undefined) =>
      await termOf(
        seen === undefined
          ? `insert into smslogd.leader (slot_name, term, holder, mirrors, renewed_at, expires_at)
             values (${slot}, (select coalesce(max(c.term), 0) + 1 from smslogd.checkpoint c where c.slot_name = ${slot}),
                     ${me}, ${mirrors}, clock_timestamp(), ${lease}) on conflict do nothing returning term::text`
          : `update smslogd.leader
                set term = term + 1, holder = ${me}, mirrors = ${mirrors}, streaming = false, renewed_at = clock_timestamp(), expires_at = ${lease}
              where slot_name = ${slot} and term = ${seen.term} and renewed_at = ${quoteLiteral(seen.renewed)} returning term::text`,
      ),

    /** Returns the term, which somebody may have raised; one that was lowered is restored. Undefined: another daemon has the lease. */
    renew: async (term: bigint, streaming: boolean, mirroring = mirrors) =>
      await termOf(
        `update smslogd.leader set term = greatest(term, ${term}), mirrors = ${mirroring}, streaming = ${streaming}, renewed_at = clock_timestamp(), expires_at = ${lease}
          where slot_name = ${slot} and holder = ${me} returning term::text`,
        false,
      ),

    /** Raises the term; undefined: another daemon has the lease. */
    raise: async () =>
      await termOf(
        `update smslogd.leader l set term = 1 + greatest(term, (select max(c.term) from smslogd.checkpoint c where c.slot_name = l.slot_name)),
                streaming = false, renewed_at = clock_timestamp(), expires_at = ${lease}
          where slot_name = ${slot} and holder = ${me} returning term::text`,
      ),

    /** Gives it back. Never rejects. */
    release: async (): Promise<void> => {
      await run(
        `update smslogd.leader set holder = null, streaming = false, expires_at = '-infinity' where slot_name = ${slot} and holder = ${me}`,
        false,
      ).catch(() => {});
    },
  };
}
