import type { RejectReason } from '../metrics.ts';

/** Prefixes of the gateway's reasons, in lower case; one of them is followed by an operator's code. */
const BEGINNINGS: readonly (readonly [string, RejectReason])[] = [
  ['uniq_key dupe', 'uniq_key_dupe'],
  ['unknown operator code', 'unknown_operator'],
  ['message text not found', 'no_text'],
  ['invalid abonent number', 'invalid_number'],
  ['prepaid messages limit exceed', 'prepaid_limit'],
  ['prepaid bill error', 'prepaid_bill'],
  ['text don`t match allowed templates', 'text_not_in_templates'],
  ["text don't match allowed templates", 'text_not_in_templates'],
  ['2 or more numbers required', 'two_numbers_required'],
  ['invalid source number', 'invalid_source'],
];

/** The gateway's reason as a label of the closed list; `other` if it is unknown. */
export function rejectReason(text: string): RejectReason {
  const lower = text.trim().toLowerCase();
  return BEGINNINGS.find(([beginning]) => lower.startsWith(beginning))?.[1] ?? 'other';
}
