/**
 * What each kind of answer does: to the SMS (a status, or when it is asked for again), to the throttle, and to the counters. Pure. Past its deadline
 * final-status.ts decides about the SMS.
 *
 *   answer              SMS is asked for again   concurrency limit   breaker
 *   a status            by schedule              grows               closes
 *   401, 403            when allowed, last       stays               opens for minutes, or for a longer Retry-After
 *   429, 408            by schedule              is halved           a fault; opens for Retry-After
 *   5xx                 by schedule              is halved           a fault; opens for Retry-After
 *   other 4xx           after its age            grows               closes: only this id is rejected
 *   unusable reply      by schedule              grows               closes
 *   timeout, network    by schedule              is halved           a fault
 *   id may not be sent  after the longest gap    stays               stays
 *
 * limit.ts and breaker.ts say what a fault and an overload do; schedule.ts has the gaps.
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
  /** `ok` is ok or unchanged: only the database knows which; undefined: nothing was sent */
  readonly result: Exclude<PollResult, 'unchanged'> | undefined;
  readonly answer?: Answer;
  /** when to ask again if the SMS stays open */
  readonly again: 'schedule' | 'rejected' | 'longest gap' | 'when allowed';
  readonly breaker: BreakerEvent | undefined;
  /** the concurrency limit is halved */
  readonly overload: boolean;
  readonly retryAfterMs?: number | undefined;
  /** the gateway is rate limiting */
  readonly busy?: boolean;
  /** of a protocol fault */
  readonly why?: Fault | 'garbage' | 'redirect' | 'status_code';
  /** of a network fault: its code, such as ECONNREFUSED */
  readonly cause?: string | undefined;
}

const ANSWERED = { again: 'schedule', breaker: 'answer', overload: false } as const;
const FAULT = { again: 'schedule', breaker: 'fault', overload: true } as const;

/** The table of the header in code. */
const EFFECTS = {
  status: { ...ANSWERED, result: 'ok' },
  unauthorized: { result: 'unauthorized', again: 'when allowed', breaker: 'unauthorized', overload: false },
  rateLimited: { ...FAULT, result: 'http_4xx', busy: true },
  serverError: { ...FAULT, result: 'http_5xx', busy: false },
  rejected: { ...ANSWERED, result: 'http_4xx', again: 'rejected' },
  protocol: { ...ANSWERED, result: 'protocol' },
  mismatch: { ...ANSWERED, result: 'mismatch' },
  timeout: { ...FAULT, result: 'timeout' },
  network: { ...FAULT, result: 'network' },
  unsendable: { result: undefined, again: 'longest gap', breaker: undefined, overload: false },
} as const satisfies Readonly<Record<string, Outcome>>;

/** `asked` is the gateway id of the SMS. */
export function outcomeOf(exchange: Exchange, asked: string): Outcome {
  if (exchange.kind === 'response') return ofResponse(exchange, asked);
  if (exchange.kind === 'garbage') return { ...EFFECTS.protocol, why: 'garbage' };
  if (exchange.kind === 'network') return { ...EFFECTS.network, cause: exchange.cause };
  return EFFECTS[exchange.kind];
}

function ofResponse({ status, body, retryAfterMs }: Extract<Exchange, { kind: 'response' }>, asked: string): Outcome {
  if (status === 401 || status === 403) return { ...EFFECTS.unauthorized, retryAfterMs };
  // 503 with Retry-After is rate limiting, too
  if (status >= 500)
    return { ...EFFECTS.serverError, retryAfterMs, busy: status === 503 && retryAfterMs !== undefined };
  if (status === 429 || status === 408) return { ...EFFECTS.rateLimited, retryAfterMs };
  if (status >= 400) return EFFECTS.rejected;
  if (status >= 300) return { ...EFFECTS.protocol, why: 'redirect' };
  if (status !== 200) return { ...EFFECTS.protocol, why: 'status_code' };
  const reply = parseReply(body, asked);
  if (reply.kind === 'status') return { ...EFFECTS.status, answer: reply };
  if (reply.kind === 'protocol') return { ...EFFECTS.protocol, why: reply.why };
  return EFFECTS[reply.kind];
}
