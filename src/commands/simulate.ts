import { once } from 'node:events';
import { SmslogdError } from '../errors.ts';
import { FAULT_KINDS, shareOf, type FaultKind, type Faults } from '../simulator/faults.ts';
import { seededRandom } from '../simulator/random.ts';
import { FORMS } from '../simulator/replies.ts';
import { startSimulator, type Simulator } from '../simulator/simulator.ts';
import type { Command, Flag, Flags, Io } from './command.ts';

/** The flag of each fault; their values are shares of the requests, from 0 to 1. */
const FAULT_FLAGS: Readonly<Record<FaultKind, { flag: string; about: string }>> = {
  error: { flag: 'error', about: 'answered with 503' },
  busy: { flag: 'busy', about: 'answered with 429 and Retry-After' },
  unauthorized: { flag: 'unauthorized', about: 'answered with 401' },
  reset: { flag: 'reset', about: 'whose connection is reset' },
  silence: { flag: 'silence', about: 'never answered' },
  broken: { flag: 'broken', about: 'answered with half a reply' },
  plain: { flag: 'plain', about: 'answered with a plain text that repeats them' },
  reject: { flag: 'reject', about: 'refused with a reason, where they send' },
  emptyDate: { flag: 'empty-date', about: 'answered without a date' },
  brokenDate: { flag: 'broken-date', about: 'answered with a date that is none' },
  wrongId: { flag: 'wrong-id', about: 'answered with the status of another SMS' },
  unknownWord: { flag: 'unknown-word', about: 'answered with a status word that nobody knows' },
};

const LOGIN = 'smslogd';
const COUNTS_EVERY_MS = 10_000;

const faultFlags: Record<string, Flag> = Object.fromEntries(
  FAULT_KINDS.map((kind) => [
    FAULT_FLAGS[kind].flag,
    { type: 'string', value: 'SHARE', about: `share of requests (0 to 1) ${FAULT_FLAGS[kind].about}` },
  ]),
);

export const command: Command = {
  summary: 'an IP2SMS simulator over HTTP, for rehearsals',
  details: [
    'Sending at /ip2sms/, status at /ip2sms-request/, both at /clients.php; XML, and JSON by Content-Type. No SMS is sent.',
    'Of 100 SMS 95 are delivered (87 with a median of 4 s, 8 between 30 s and 33 min), 3 end undelivered, 2 never end.',
    'GET /truth lists what becomes of each SMS, GET /truth?id=ID of one, PUT /truth loads; all with the same login.',
    'At most one fault befalls a request, so the shares together may be 1 at the most.',
  ].join('\n'),
  flags: {
    port: { type: 'string', value: 'PORT', about: 'default 9465; 0: any free port' },
    host: { type: 'string', value: 'HOST', about: 'default 127.0.0.1' },
    login: { type: 'string', value: 'NAME', about: `Basic authorization; default ${LOGIN}` },
    password: { type: 'string', value: 'WORD', about: `default ${LOGIN}` },
    seed: { type: 'string', value: 'N', about: 'the same fates and faults for the same requests in the same order' },
    form: { type: 'string', value: 'FORM', about: `of XML replies: ${FORMS.join(', ')}; default classic` },
    dates: { type: 'string', value: 'WHICH', about: 'date of a status reply: change (default) or reply' },
    speed: { type: 'string', value: 'N', about: 'deliveries are N times as fast; default 1' },
    latency: { type: 'string', value: 'MS', about: 'milliseconds before each answer; default 0' },
    jitter: { type: 'string', value: 'MS', about: 'up to so many milliseconds more' },
    'retry-after': { type: 'string', value: 'S', about: 'seconds in the Retry-After of --busy; default 1' },
    skew: { type: 'string', value: 'MS', about: "milliseconds by which the gateway's clock is ahead (or -MS behind)" },
    ...faultFlags,
  },
  run,
};

async function run(flags: Flags, io: Io): Promise<number> {
  const seed = numberOf(flags, 'seed', -Infinity, Infinity);
  const speed = numberOf(flags, 'speed', 0.001, 1_000_000);
  const form = oneOf(flags, 'form', FORMS);
  const dates = oneOf(flags, 'dates', ['change', 'reply'] as const);
  const login = textOf(flags, 'login') ?? LOGIN;
  const password = textOf(flags, 'password');
  const simulator = await startSimulator({
    port: numberOf(flags, 'port', 0, 65_535) ?? 9465,
    host: textOf(flags, 'host') ?? '127.0.0.1',
    login,
    password: password ?? LOGIN,
    faults: faultsOf(flags),
    form,
    dates,
    speed,
    ...(seed === undefined ? {} : { random: seededRandom(seed) }),
  });
  const signals = new AbortController();
  const stopped = Promise.race(['SIGINT', 'SIGTERM'].map((name) => once(process, name, { signal: signals.signal })));
  // who gives a password knows it: it is not shown
  const secret = password === undefined ? LOGIN : '(the one you gave)';
  io.print(
    `listening; point smslogd at it: IP2SMS_URL=${simulator.url} IP2SMS_LOGIN=${login} IP2SMS_PASSWORD=${secret}`,
  );
  const counts = setInterval(() => io.print(countsLine(simulator)), COUNTS_EVERY_MS);
  await stopped;
  signals.abort();
  clearInterval(counts);
  await simulator.close();
  io.print(countsLine(simulator));
  return 0;
}

function countsLine({ requests, size }: Simulator): string {
  const { status, send, unauthorized, unrecognized, faults } = requests;
  return `SMS ${size}, status requests ${status}, sent ${send}, faults ${faults}, unauthorized ${unauthorized}, not recognized ${unrecognized}`;
}

/** Throws usage for a share that is none, or where they are more than 1 together. */
export function faultsOf(flags: Flags): Faults {
  const shares = FAULT_KINDS.flatMap((kind) => {
    const share = numberOf(flags, FAULT_FLAGS[kind].flag, 0, 1);
    return share === undefined ? [] : [[kind, share] as const];
  });
  const faults: Faults = {
    ...Object.fromEntries(shares),
    latencyMs: numberOf(flags, 'latency', 0, 3_600_000) ?? 0,
    jitterMs: numberOf(flags, 'jitter', 0, 3_600_000) ?? 0,
    retryAfter: numberOf(flags, 'retry-after', 0, 86_400) ?? 1,
    skewMs: numberOf(flags, 'skew', -86_400_000, 86_400_000) ?? 0,
  };
  // shares are decimals: ten times 0.1 is a little less than 1, three times 0.1 a little more than 0.3
  if (shareOf(faults) > 1 + 1e-9) throw new SmslogdError('usage', 'the shares of the faults are more than 1 together');
  return faults;
}

function textOf(flags: Flags, name: string): string | undefined {
  const value = flags[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function numberOf(flags: Flags, name: string, low: number, high: number): number | undefined {
  const text = textOf(flags, name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isFinite(value) || value < low || value > high) {
    const range = Number.isFinite(low) ? ` from ${low} to ${high}` : '';
    throw new SmslogdError('usage', `--${name}: must be a number${range}`);
  }
  return value;
}

function oneOf<T extends string>(flags: Flags, name: string, values: readonly T[]): T | undefined {
  const text = textOf(flags, name);
  if (text === undefined) return undefined;
  const value = values.find((each) => each === text);
  if (value === undefined) throw new SmslogdError('usage', `--${name}: must be one of ${values.join(', ')}`);
  return value;
}
