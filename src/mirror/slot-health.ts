/**
 * Judges the replication slot: the one place that says whether it is lost, or about to be. The mirror (mode.ts), doctor and the status page use it.
 */
import type { Server } from '../replication/server.ts';
import type { Slot } from './slot.ts';

/** wal_status of a slot whose WAL is gone, or is removed at the next checkpoint; SmslogdSlotAboutToBeLost in ops/alerts.yml has the same. */
export const WAL_AT_RISK: readonly string[] = ['unreserved', 'lost'];

/** Bytes of WAL that a working daemon is never behind. */
const FAR_BEHIND = 1024 * 1024 * 1024;

export type SlotHealth =
  /** it does not exist */
  | 'missing'
  /** it is a physical slot, or has another database or plugin */
  | 'foreign'
  /** the server has removed its WAL or invalidated it */
  | 'lost'
  /** its position is ahead of the server, as after a restore: it belongs to another history */
  | 'in the future'
  /** it sends prepared transactions before their commit, in messages that the mirror does not request */
  | 'two-phase'
  /** the next checkpoint may remove its WAL */
  | 'at risk'
  /** no session reads it, so it retains WAL */
  | 'unread'
  /** its reader is more than a gigabyte behind */
  | 'behind'
  | 'healthy';

/** A slot in one of these states must be dropped and created again, and a reconcile must follow. */
export const UNUSABLE: ReadonlySet<SlotHealth> = new Set(['lost', 'in the future', 'two-phase']);

export function slotHealth(slot: Slot | undefined, server: Pick<Server, 'database'>): SlotHealth {
  if (slot === undefined) return 'missing';
  if (slot.plugin !== 'pgoutput' || slot.database !== server.database) return 'foreign';
  if (slot.walStatus === 'lost') return 'lost';
  if (slot.inFuture) return 'in the future';
  if (slot.twoPhase) return 'two-phase';
  if (WAL_AT_RISK.includes(slot.walStatus)) return 'at risk';
  if (slot.reader === undefined) return 'unread';
  return slot.behindBytes > FAR_BEHIND ? 'behind' : 'healthy';
}
