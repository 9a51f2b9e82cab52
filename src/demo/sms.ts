/** An SMS as its service sent it, which the audit compares with the log. */
import { randomUUID } from 'node:crypto';
import type { SmsType } from '../status.ts';

/** The two kinds of SMS that the demo sends. */
export const DEMO_TYPES = ['verification', 'medication_request'] as const satisfies readonly SmsType[];

export type DemoType = (typeof DEMO_TYPES)[number];

export interface Sms {
  readonly id: string;
  readonly type: DemoType;
  readonly phone: string;
  readonly body: string;
  /** null: the gateway did not accept it, or the service gets the id after the row is written */
  gatewayId: string | null;
  /** UTC to the microsecond, `2026-01-31T12:00:00.123456` */
  readonly insertedAt: string;
}

/** Creates an SMS; `at` in epoch ms. */
export function makeSms(
  type: DemoType,
  phone: string,
  body: string,
  gatewayId: string | null,
  at: number,
  random: () => number,
): Sms {
  return { id: randomUUID(), type, phone, body, gatewayId, insertedAt: microsecondText(at, random) };
}

/** Epoch ms as UTC text with random microseconds. */
export function microsecondText(at: number, random: () => number): string {
  const micros = String(Math.floor(random() * 1000)).padStart(3, '0');
  return `${new Date(at).toISOString().slice(0, 23)}${micros}`;
}

/** A test phone number: +38000 and seven digits, `subscriber` below ten million. */
export function testPhone(subscriber: number): string {
  return `+38000${String(subscriber).padStart(7, '0')}`;
}

/** Four digits, 1000 to 9999. */
export function drawCode(random: () => number): number {
  return 1000 + Math.floor(random() * 9000);
}

/** The text of a reimbursement SMS with an invented prescription number. */
export function reimbursementText(random: () => number): string {
  const group = () => String(Math.floor(random() * 10_000)).padStart(4, '0');
  return `Ваш рецепт: 0000-${group()}-${group()}-${group()}. Код погашення: ${drawCode(random)}`;
}
