/**
 * The eleven statuses of an SMS, which of them are final, and the words (the gateway's and the source's) that mean them.
 * Mirror and poller both read this table; nothing else knows a status word.
 */
export const STATUSES = [
  'Accepted',
  'Enroute',
  'Pending',
  'Unknown',
  'Delivered',
  'Expired',
  'Deleted',
  'Undeliverable',
  'Rejected',
  'Unaccepted',
  'Terminated',
] as const;

export type Status = (typeof STATUSES)[number];

export const OPEN_STATUSES = ['Accepted', 'Enroute', 'Pending', 'Unknown'] as const satisfies readonly Status[];

export type OpenStatus = (typeof OPEN_STATUSES)[number];

export const SMS_TYPES = ['verification', 'medication_request', 'text', '2FA'] as const;

export type SmsType = (typeof SMS_TYPES)[number];

/** True for a status that will never change again. */
export function isFinal(status: Status): boolean {
  return !(OPEN_STATUSES as readonly Status[]).includes(status);
}

/** Lower-case word → status: our own names and the other words seen in IP2SMS replies. */
export const STATUS_WORDS: Readonly<Record<string, Status>> = {
  ...(Object.fromEntries(STATUSES.map((status) => [status.toLowerCase(), status])) as Record<string, Status>),
  waiting: 'Pending',
  sending: 'Pending',
  sent: 'Enroute',
  canceled: 'Deleted',
};

/** The status that `word` means, in any case and with spaces around; undefined for a word that is not in the table. */
export function statusOfWord(word: string): Status | undefined {
  const key = word.trim().toLowerCase();
  return Object.hasOwn(STATUS_WORDS, key) ? STATUS_WORDS[key] : undefined;
}

/** A word from outside as it may be logged: at most 40 characters; empty where it is not a plain word, since it could be anything of an SMS. */
export function loggableWord(word: string): string {
  const cut = word.trim().slice(0, 40);
  return /^[A-Za-z _-]+$/.test(cut) ? cut : '';
}
