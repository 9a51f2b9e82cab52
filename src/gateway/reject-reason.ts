import type { RejectReason } from '../metrics.ts';

/** How the reasons begin that ip2sms.md lists, in lower case; one of them names an operator's code after it. */
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

/** The gateway's reason as a value of the closed list; `other` for one that is not known. */
export function rejectReason(text: string): RejectReason {
  const lower = text.trim().toLowerCase();
  return BEGINNINGS.find(([beginning]) => lower.startsWith(beginning))?.[1] ?? 'other';
}
