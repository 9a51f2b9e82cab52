/** What a fault is. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Sql } from 'postgres';
import { openSession } from '../session.ts';
import type { Member, Stage } from '../stage.ts';

export interface Doing {
  readonly stage: Stage;
  /** numbers from 0 to 1 of this fault's own */
  readonly draws: readonly number[];
  /** for so long it lasts */
  readonly seconds: number;
}

/**
 * Does harm, and returns what takes it back: that is called when the fault's time is over, also in the middle of other faults, again and again until it succeeds.
 * What cannot be done now, as with the server away, throws, after it has taken back what it began.
 */
export type Fault = (doing: Doing) => Promise<(() => Promise<unknown>) | void>;

export function pick<T>(from: readonly T[], draw: number | undefined): T {
  return from[Math.min(from.length - 1, Math.floor((draw ?? 0) * from.length))]!;
}

export function someMember({ stage, draws }: Doing): Member {
  return pick(stage.members, draws[0]);
}

/** The daemon that leads, else any. */
export async function leading(doing: Doing): Promise<Member> {
  return (await doing.stage.leader().catch(() => undefined)) ?? someMember(doing);
}

/** Tries until it succeeds, for three minutes; throws the last failure. */
export async function stubbornly<T>(work: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + 180_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(300);
    }
  }
}

/** A session that holds a transaction open until the fault is over; `statements` run in it. */
export async function held(stage: Stage, statements: readonly string[], role?: 'owner'): Promise<() => Promise<void>> {
  const session = openSession(stage.address(role));
  try {
    await session.query(`begin; ${statements.join('; ')}`);
  } catch (error) {
    await session.end();
    throw error;
  }
  return () => session.end();
}

/** What ends sessions of the daemons. */
export const OURS = `application_name like 'smslogd %'`;

/** Ends whoever reads the slot and does something with it before somebody reads it again; throws where others are quicker for ten seconds. */
export async function withSlot(stage: Stage, statement: (slot: string) => string): Promise<void> {
  const slot = stage.db.name;
  const sql: Sql = stage.sql;
  const deadline = performance.now() + 10_000;
  for (;;) {
    try {
      await sql.unsafe(
        `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '${slot}' and active_pid is not null`,
      );
      await sql.unsafe(statement(slot));
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(20);
    }
  }
}
