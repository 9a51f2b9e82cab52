/**
 * The gateway without its HTTP: it sends nothing; each SMS gets an id and a fate, and status requests are answered from it.
 *
 * Where the real gateway's manner is not known, this one chooses what is hardest to take: an id that is not known is answered with Unknown, no
 * id and no date. Only mode `single` is simulated; bulk and individual with enough numbers are not recognised.
 */
import { drawFate, makeGatewayId, type Fate } from './fate.ts';
import type { FaultKind, Faults } from './faults.ts';
import { jsonReply, xmlReply, type Answer, type Form } from './replies.ts';
import { askedId, CHANCE_REFUSALS, refusal, sentMessage, type Message } from './requests.ts';
import { createTruth, type Truth } from './truth.ts';

export interface GatewayOptions {
  /** of XML replies; default classic */
  readonly form?: Form | undefined;
  /** what the date of a status reply is: the time of the change (default) or that of the reply. Nobody knows yet which the real one gives. */
  readonly dates?: 'change' | 'reply' | undefined;
  /** the drawn delays of SMS sent here are divided by it; default 1 */
  readonly speed?: number | undefined;
  readonly random: () => number;
  /** epoch milliseconds */
  readonly now: () => number;
}

/** What an address takes: some installations have one address for both. */
export type Service = 'send' | 'status' | 'both';

export interface Asked {
  readonly service: Service;
  readonly json: boolean;
  readonly text: string;
}

export interface Gateway {
  readonly truth: Truth;
  send(phone: string): { id: string; fate: Fate };
  /** The reply and what was asked for; undefined: the request is not recognised. Only faults that spoil the reply matter here. */
  reply(asked: Asked, faults: Faults, fault?: FaultKind): { to: 'status' | 'send'; text: string } | undefined;
}

export function createGateway({ form = 'classic', dates = 'change', speed = 1, random, now }: GatewayOptions): Gateway {
  const truth = createTruth();
  const usedKeys = new Set<string>();

  const send = (phone: string): { id: string; fate: Fate } => {
    const sentAt = now();
    let id = makeGatewayId(phone, sentAt, random);
    // after a few draws that were all taken, the next free number: a caller's `random` may not be one
    for (let draws = 1; truth.has(id); draws++) {
      id = draws < 8 ? makeGatewayId(phone, sentAt, random) : String(6_000_000_000_000 + truth.size + draws);
    }
    const drawn = drawFate(sentAt, random);
    const fate =
      speed === 1 ? drawn : drawn.map(({ status, at }) => ({ status, at: sentAt + Math.round((at - sentAt) / speed) }));
    truth.set(id, fate);
    return { id, fate };
  };

  const statusAnswer = (id: string, faults: Faults, fault: FaultKind | undefined): Answer => {
    const state = truth.stateAt(id, now());
    if (state === undefined) return { state: 'Unknown' };
    const date = (dates === 'reply' ? now() : state.at) + (faults.skewMs ?? 0);
    const answer = { id, date, state: state.status };
    if (fault === 'emptyDate') return { ...answer, date: undefined };
    if (fault === 'brokenDate') return { ...answer, date: 'Thu, 00 Foo 0000 99:99:99' };
    if (fault === 'wrongId') return { ...answer, id: id === '1000003' ? '1000004' : '1000003' };
    if (fault === 'unknownWord') return { ...answer, state: 'Teleported' };
    return answer;
  };

  const sendAnswer = (message: Message, faults: Faults, fault: FaultKind | undefined): Answer => {
    const { number = '', extId } = message.to[0] ?? {};
    const error =
      fault === 'reject'
        ? CHANCE_REFUSALS[Math.floor(random() * CHANCE_REFUSALS.length)]
        : refusal(message, (key) => usedKeys.has(key));
    if (error !== undefined) return { state: 'Rejected', error, extId };
    if (message.uniqueKey !== undefined) usedKeys.add(message.uniqueKey);
    const { id, fate } = send(number);
    return { id, date: fate[0]!.at + (faults.skewMs ?? 0), state: fate[0]!.status, extId };
  };

  return {
    truth,
    send,
    reply: ({ service, json, text }, faults, fault) => {
      const write = json ? jsonReply : (answer: Answer) => xmlReply(form, answer);
      const id = service === 'send' ? undefined : askedId(text, json);
      if (id !== undefined) return { to: 'status', text: write(statusAnswer(id, faults, fault)) };
      const message = service === 'status' ? undefined : sentMessage(text, json);
      if (message === undefined || (message.mode !== 'single' && message.to.length > 1)) return undefined;
      return { to: 'send', text: write(sendAnswer(message, faults, fault)) };
    },
  };
}
