/**
 * What an exchange with the gateway means: for the SMS (a status, or only when to ask again), for the gateway's health, and for the counters.
 * Pure; the verdict on an SMS past its life is the database's.
 */
import type { PollResult, RejectReason } from '../metrics.ts';
import type { Status } from '../status.ts';
import type { BreakerEvent } from './breaker.ts';
import type { Exchange } from '../gateway/client.ts';
import { parseReply } from '../gateway/reply.ts';
import type { Fault } from '../gateway/reply-fault.ts';

export interface Answer {
  readonly status: Status;
  /** milliseconds since 1970; undefined: the database's time of the write */
  readonly date: number | undefined;
  readonly word?: string;
  readonly reason?: RejectReason;
}

export interface Outcome {
  /** `ok` here is ok or unchanged: only the log knows which; undefined where nothing was sent */
  readonly result: Exclude<PollResult, 'unchanged'> | undefined;
  readonly answer?: Answer;
  /** when to ask again if the SMS stays open: by its age, ever less often, as late as can be, or at once when the gateway may be asked again */
  readonly again: 'schedule' | 'refused' | 'late' | 'now';
  readonly breaker: BreakerEvent | undefined;
  readonly overload: boolean;
  readonly retryAfterMs?: number | undefined;
  /** it answers, and wants to be asked less */
  readonly busy?: boolean;
  /** of a protocol fault */
  readonly why?: Fault | 'garbage' | 'redirect' | 'status_code';
  /** of a network fault: its code, such as ECONNREFUSED */
  readonly cause?: string | undefined;
}

/** `asked` is the gateway id of the SMS. */
export function outcomeOf(exchange: Exchange, asked: string): Outcome {
  if (exchange.kind === 'response') return ofResponse(exchange, asked);
  if (exchange.kind === 'unsendable') return { result: undefined, again: 'late', breaker: undefined, overload: false };
  if (exchange.kind === 'garbage')
    return { result: 'protocol', again: 'schedule', breaker: 'answer', overload: false, why: 'garbage' };
  const cause = exchange.kind === 'network' ? exchange.cause : undefined;
  return { result: exchange.kind, again: 'schedule', breaker: 'fault', overload: true, cause };
}

function ofResponse({ status, body, retryAfterMs }: Extract<Exchange, { kind: 'response' }>, asked: string): Outcome {
  if (status === 401 || status === 403) return REFUSED;
  const fault = { again: 'schedule', breaker: 'fault', overload: true, retryAfterMs } as const;
  if (status >= 500) return { ...fault, result: 'http_5xx', busy: status === 503 && retryAfterMs !== undefined };
  if (status === 429 || status === 408) return { ...fault, result: 'http_4xx', busy: true };
  // the gateway refuses this one id: it lives, and the row waits
  if (status >= 400) return { result: 'http_4xx', again: 'refused', breaker: 'answer', overload: false };
  const alive = { again: 'schedule', breaker: 'answer', overload: false } as const;
  if (status >= 300) return { ...alive, result: 'protocol', why: 'redirect' };
  if (status !== 200) return { ...alive, result: 'protocol', why: 'status_code' };
  const reply = parseReply(body, asked);
  if (reply.kind === 'status') return { ...alive, result: 'ok', answer: reply };
  if (reply.kind === 'unauthorized') return REFUSED;
  if (reply.kind === 'mismatch') return { ...alive, result: 'mismatch' };
  return { ...alive, result: 'protocol', why: reply.why };
}

const REFUSED: Outcome = { result: 'unauthorized', again: 'now', breaker: 'unauthorized', overload: false };
