import { once } from 'node:events';
import { FAULT_WORDS, numberOf, oneOf, readFaults, tellFaults } from '../simulator/fault-words.ts';
import { seededRandom } from '../simulator/random.ts';
import { FORMS, SPELLINGS } from '../simulator/replies.ts';
import { startSimulator, type Simulator } from '../simulator/simulator.ts';
import type { Command, Flag, Flags, Io } from './command.ts';

const LOGIN = 'smslogd';
const COUNTS_EVERY_MS = 10_000;

const faultFlags: Record<string, Flag> = Object.fromEntries(
  Object.entries(FAULT_WORDS).map(([word, { value, about }]) => [word, { type: 'string', value, about }]),
);

export const command: Command = {
  summary: 'an IP2SMS simulator over HTTP, for rehearsals',
  details: [
    'Sending at /ip2sms/, status at /ip2sms-request/, both at /clients.php; XML, and JSON by Content-Type. No SMS is sent.',
    'Of 100 SMS 95 are delivered (87 with a median of 4 s, 8 between 30 s and 33 min), 3 end undelivered, 2 never end.',
    'A request has at most one fault, so the sum of the shares is at most 1. --from and --for limit the faults in time, but not',
    'latency and clock.',
    '',
    'While it runs, with the same login:',
    '  GET /truth lists the course of each SMS, GET /truth?id=ID that of one; PUT /truth loads them.',
    '  PUT /faults sets faults by the names of the flags, DELETE /faults removes them, GET /faults shows them.',
    '',
    'Examples:',
    '  smslogd simulate --reset 1 --from 12:00 --for 10m          fails at 12:00 and comes back',
    '  smslogd simulate --error 1 --retry-after 30 --for 2m       503 with Retry-After, from now',
    '  smslogd simulate --latency 150 --latency-p99 3000          slow at times',
    '  smslogd simulate --operator 38050,38066 --from +1m --for 20m',
    "  curl -u smslogd:smslogd -X PUT -d 'silence=0.5&for=5m' http://127.0.0.1:9465/faults",
    '',
    'docs/operations.md, "Rehearse an outage", has a walk-through.',
  ].join('\n'),
  flags: {
    port: { type: 'string', value: 'PORT', about: 'default 9465; 0: any free port' },
    host: { type: 'string', value: 'HOST', about: 'default 127.0.0.1' },
    login: { type: 'string', value: 'NAME', about: `Basic authorization; default ${LOGIN}` },
    password: { type: 'string', value: 'WORD', about: `default ${LOGIN}` },
    seed: {
      type: 'string',
      value: 'N',
      about: 'repeats outcomes and faults for the same requests in the same order; default: random',
    },
    form: { type: 'string', value: 'FORM', about: `of XML replies: ${FORMS.join(', ')}; default classic` },
    words: { type: 'string', value: 'WHICH', about: 'status words: own (default), other (sent, waiting, …), upper' },
    dates: { type: 'string', value: 'WHICH', about: 'date of a status reply: change (default) or reply' },
    speed: { type: 'string', value: 'N', about: 'makes deliveries N times as fast; default 1' },
    adopt: {
      type: 'boolean',
      about: 'treats an unknown id as an SMS that was sent at the first request for it; default: Unknown',
    },
    ...faultFlags,
  },
  run,
};

async function run(flags: Flags, io: Io): Promise<number> {
  const text = (name: string) => {
    const value = flags[name];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const seed = numberOf('seed', text('seed'), -Infinity, Infinity);
  const login = text('login') ?? LOGIN;
  const password = text('password');
  const simulator = await startSimulator({
    port: numberOf('port', text('port'), 0, 65_535, true) ?? 9465,
    host: text('host') ?? '127.0.0.1',
    login,
    password: password ?? LOGIN,
    faults: faultsOf(flags),
    form: oneOf('form', text('form'), FORMS),
    words: oneOf('words', text('words'), SPELLINGS),
    dates: oneOf('dates', text('dates'), ['change', 'reply'] as const),
    speed: numberOf('speed', text('speed'), 0.001, 1_000_000),
    adopt: flags['adopt'] === true,
    ...(seed === undefined ? {} : { random: seededRandom(seed) }),
  });
  const signals = new AbortController();
  const stopped = Promise.race(['SIGINT', 'SIGTERM'].map((name) => once(process, name, { signal: signals.signal })));
  // who gives a password knows it: it is not shown
  const secret = password === undefined ? LOGIN : '(the one you gave)';
  io.print(
    `listening; point smslogd at it: IP2SMS_URL=${simulator.url} IP2SMS_LOGIN=${login} IP2SMS_PASSWORD=${secret}`,
  );
  const { from, until } = simulator.faults;
  if (from !== undefined || until !== undefined)
    io.print(
      `faults ${from === undefined ? '' : `from ${clock(from)} `}${until === undefined ? '' : `until ${clock(until)}`}`.trimEnd(),
    );
  const counts = setInterval(() => io.print(countsLine(simulator)), COUNTS_EVERY_MS);
  await stopped;
  signals.abort();
  clearInterval(counts);
  await simulator.close();
  io.print(countsLine(simulator));
  return 0;
}

function clock(at: number): string {
  return new Date(at).toTimeString().slice(0, 8);
}

function countsLine({ requests, size, faults: now }: Simulator): string {
  const { status, send, unauthorized, unrecognized, faults } = requests;
  return `SMS ${size}, status requests ${status}, sent ${send}, faults ${faults}, unauthorized ${unauthorized}, not recognized ${unrecognized}; now: ${tellFaults(now, Date.now())}`;
}

/** The faults that the flags tell. Throws usage. */
export function faultsOf(flags: Flags): ReturnType<typeof readFaults> {
  const words = Object.keys(FAULT_WORDS).flatMap((word) => {
    const value = flags[word];
    return typeof value === 'string' ? [[word, value] as const] : [];
  });
  return readFaults(Object.fromEntries(words), Date.now());
}
