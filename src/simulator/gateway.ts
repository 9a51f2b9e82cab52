/**
 * The gateway without HTTP. It sends nothing: each SMS gets an id and a fate, and status requests are answered from the fate.
 *
 * Where the behavior of the real gateway is not known, the simulator chooses the hardest case for a client: an unknown id is answered with Unknown, no id and no
 * date. Only mode `single` is simulated.
 */
import { drawFate, makeGatewayId, type Fate } from './fate.ts';
import type { FaultKind, Faults } from './faults.ts';
import { createOperators } from './operators.ts';
import { jsonReply, spelled, xmlReply, type Answer, type Form, type Spelling } from './replies.ts';
import { askedId, CHANCE_REFUSALS, refusal, sentMessage, type Message } from './requests.ts';
import { createTruth, type Truth } from './truth.ts';

export interface GatewayOptions {
  /** of XML replies; default classic */
  readonly form?: Form | undefined;
  /** of the status words; default own */
  readonly words?: Spelling | undefined;
  /** true: an unknown id is an SMS that was sent at its first status request */
  readonly adopt?: boolean | undefined;
  /** the date of a status reply: the time of the change (default) or of the reply. It is not known which one the real gateway sends. */
  readonly dates?: 'change' | 'reply' | undefined;
  /** the drawn delays of SMS sent here are divided by it; default 1 */
  readonly speed?: number | undefined;
  readonly random: () => number;
  /** epoch milliseconds */
  readonly now: () => number;
}

/** The requests that an address accepts: some installations have one address for both. */
export type Service = 'send' | 'status' | 'both';

export interface Asked {
  readonly service: Service;
  readonly json: boolean;
  readonly text: string;
}

export interface Gateway {
  readonly truth: Truth;
  send(phone: string, faults: Faults): { id: string; fate: Fate };
  /** To be called regularly: SMS that waited for their operator continue after its outage. */
  release(faults: Faults): void;
  /** The reply and what was requested; undefined: the request is not recognized. Only faults of the reply's content apply here. */
  reply(asked: Asked, faults: Faults, fault?: FaultKind): { to: 'status' | 'send'; text: string } | undefined;
}

export function createSimulatedGateway(options: GatewayOptions): Gateway {
  const { form = 'classic', words = 'own', dates = 'change', speed = 1, adopt = false, random, now } = options;
  const truth = createTruth();
  const operators = createOperators(truth, now);
  const usedKeys = new Set<string>();

  const drawn = (sentAt: number): Fate => {
    const fate = drawFate(sentAt, random);
    if (speed === 1) return fate;
    return fate.map(({ status, at }) => ({ status, at: sentAt + Math.round((at - sentAt) / speed) }));
  };

  const send = (phone: string, faults: Faults): { id: string; fate: Fate } => {
    const sentAt = now();
    let id = makeGatewayId(phone, sentAt, random);
    // after a few used ids take the next free number: a caller's `random` may repeat itself
    for (let draws = 1; truth.has(id); draws++) {
      id = draws < 8 ? makeGatewayId(phone, sentAt, random) : String(6_000_000_000_000 + truth.size + draws);
    }
    const fate = operators.hold(id, phone, drawn(sentAt), faults);
    truth.set(id, fate);
    return { id, fate };
  };

  const statusAnswer = (id: string, json: boolean, faults: Faults, fault: FaultKind | undefined): Answer => {
    if (adopt && !truth.has(id)) truth.set(id, drawn(now()));
    const state = truth.stateAt(id, now());
    if (state === undefined) return { state: 'Unknown' };
    const date = (dates === 'reply' ? now() : state.at) + (faults.skewMs ?? 0);
    const answer = { id, date, state: spelled(words, state.status) };
    if (fault === 'empty-date') return { ...answer, date: undefined };
    if (fault === 'no-date') return { ...answer, date: null };
    if (fault === 'broken-date') return { ...answer, date: 'Thu, 00 Foo 0000 99:99:99' };
    if (fault === 'wrong-id')
      return {
        id: id === '1000003' ? '1000004' : '1000003',
        date: date - 60_000,
        state: spelled(words, state.status === 'Undeliverable' ? 'Delivered' : 'Undeliverable'),
      };
    if (fault === 'unknown-word') return { ...answer, state: 'Teleported' };
    if (fault === 'bare-rejection' && state.status === 'Rejected' && !json)
      return { state: answer.state, error: 'Invalid abonent number' };
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
    const { id, fate } = send(number, faults);
    return { id, date: fate[0]!.at + (faults.skewMs ?? 0), state: spelled(words, fate[0]!.status), extId };
  };

  return {
    truth,
    send,
    release: (faults) => operators.release(faults),
    reply: ({ service, json, text }, faults, fault) => {
      operators.release(faults);
      const write = json ? jsonReply : (answer: Answer) => xmlReply(form, answer);
      const id = service === 'send' ? undefined : askedId(text, json);
      if (fault === 'gateway-error' && (id !== undefined || service !== 'status'))
        return {
          to: id === undefined ? 'send' : 'status',
          text: write({ state: 'Accepted', error: 'Invalid message' }),
        };
      if (id !== undefined) return { to: 'status', text: write(statusAnswer(id, json, faults, fault)) };
      const message = service === 'status' ? undefined : sentMessage(text, json);
      if (message === undefined || (message.mode !== 'single' && message.to.length > 1)) return undefined;
      return { to: 'send', text: write(sendAnswer(message, faults, fault)) };
    },
  };
}
