/** Faults as text: the flags of `simulate`, which are also the fields of /faults. */
import { SmslogdError } from '../errors.ts';
import { FAULT_KINDS, FAULTS, inForce, shareOf, type Faults } from './faults.ts';

interface Word {
  /** the value's name in the help */
  readonly value: string;
  readonly about: string;
}

/** All flags of faults. */
export const FAULT_WORDS: Readonly<Record<string, Word>> = {
  latency: { value: 'MS', about: 'milliseconds before each answer; default 0' },
  'latency-p99': {
    value: 'MS',
    about: '99th percentile of a log-normal latency with the median --latency; default: constant',
  },
  jitter: { value: 'MS', about: 'up to this many milliseconds more, evenly distributed; default 0' },
  skew: { value: 'MS', about: "milliseconds by which the gateway's clock is ahead (or -MS behind); default 0" },
  from: {
    value: 'WHEN',
    about: 'start of the faults: 12:00 or 12:00:30 on the clock of this host, or +90s, +5m, +1h; default now',
  },
  for: { value: 'TIME', about: 'their duration: 90s, 10m, 1h; default: no end' },
  operator: {
    value: 'NUMBERS',
    about: 'SMS to numbers with these prefixes (38050,38066) wait until --for is over; default none',
  },
  'retry-after': {
    value: 'S',
    about: 'seconds in the Retry-After of --busy (default 1) and of --error (default: no such header)',
  },
  ...Object.fromEntries(
    FAULT_KINDS.map((kind) => [
      kind,
      { value: 'SHARE', about: `share of requests (0 to 1, default 0) ${FAULTS[kind]}` },
    ]),
  ),
};

/**
 * Parses faults; an empty value counts as none. `before`: the latency and clock to keep if `words` does not set them. Throws usage for an unknown word or an
 * invalid value; the message repeats no value.
 */
export function readFaults(words: Readonly<Record<string, string>>, now: number, before: Faults = {}): Faults {
  const unknown = Object.keys(words).find((word) => !Object.hasOwn(FAULT_WORDS, word));
  if (unknown !== undefined) throw wrong(`there is no such fault; there are ${Object.keys(FAULT_WORDS).join(', ')}`);
  const number = (word: string, low: number, high: number) => numberOf(word, words[word], low, high);
  const shares = FAULT_KINDS.map((kind) => [kind, number(kind, 0, 1)] as const);
  const from = fromOf(words['from'], now);
  const length = durationOf('for', words['for']);
  const given = {
    latencyMs: number('latency', 0, 3_600_000) ?? before.latencyMs,
    latencyP99Ms: number('latency-p99', 0, 3_600_000) ?? before.latencyP99Ms,
    jitterMs: number('jitter', 0, 3_600_000) ?? before.jitterMs,
    skewMs: number('skew', -86_400_000, 86_400_000) ?? before.skewMs,
    retryAfter: number('retry-after', 0, 86_400),
    operators: operatorsOf(words['operator']),
    from,
    until: length === undefined ? undefined : (from ?? now) + length,
    ...Object.fromEntries(shares),
  };
  const faults: Faults = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  // shares are decimals: ten times 0.1 is a little less than 1, three times 0.1 a little more than 0.3
  if (shareOf(faults) > 1 + 1e-9) throw wrong('the shares of the faults are more than 1 together');
  return faults;
}

/** The active faults as flags, or `none`. */
export function tellFaults(faults: Faults, now: number): string {
  if (!inForce(faults, now)) return 'none';
  const told: string[] = FAULT_KINDS.flatMap((kind) =>
    faults[kind] === undefined || faults[kind] === 0 ? [] : `${kind} ${faults[kind]}`,
  );
  if (faults.operators !== undefined) told.push(`operator ${faults.operators.join(',')}`);
  return told.join(', ') || 'none';
}

function wrong(sentence: string): SmslogdError {
  return new SmslogdError('usage', sentence, { hint: '`smslogd simulate --help` lists its flags.' });
}

/** The number after a flag; undefined if there is none. Throws usage. */
export function numberOf(
  word: string,
  text: string | undefined,
  low: number,
  high: number,
  whole = false,
): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = text.trim() === '' ? NaN : Number(text);
  if (!Number.isFinite(value) || value < low || value > high || (whole && !Number.isInteger(value))) {
    const range = Number.isFinite(low) ? ` from ${low} to ${high}` : '';
    throw wrong(`--${word}: must be a ${whole ? 'whole ' : ''}number${range}`);
  }
  return value;
}

/** One of `values`; undefined if the flag is absent. Throws usage. */
export function oneOf<T extends string>(word: string, text: string | undefined, values: readonly T[]): T | undefined {
  if (text === undefined || text === '') return undefined;
  const value = values.find((each) => each === text);
  if (value === undefined) throw wrong(`--${word}: must be one of ${values.join(', ')}`);
  return value;
}

function operatorsOf(text: string | undefined): string[] | undefined {
  if (text === undefined || text === '') return undefined;
  const operators = text.split(',').map((each) => each.trim().replace(/^\+/, ''));
  if (!operators.every((each) => /^\d{1,15}$/.test(each)))
    throw wrong('--operator: must be beginnings of numbers: 38050,38066');
  return operators;
}

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000 };

function durationOf(word: string, text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  const [, count, unit = 's'] = /^(\d{1,6}(?:\.\d+)?)([smh]?)$/.exec(text) ?? [];
  if (count === undefined) throw wrong(`--${word}: must be a time such as 90s, 10m or 1h`);
  return Number(count) * (UNITS[unit || 's'] ?? 1_000);
}

/** The next moment at which this host's clock shows the time, or a time from now. */
function fromOf(text: string | undefined, now: number): number | undefined {
  if (text === undefined || text === '') return undefined;
  // a plus is a space in a form that was not encoded
  if (/^[+ ]/.test(text)) return now + (durationOf('from', text.slice(1)) ?? 0);
  const [, hour, minute, second = '0'] = /^([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?$/.exec(text) ?? [];
  if (hour === undefined) throw wrong('--from: must be a time of the day such as 12:00, or +90s, +5m, +1h');
  const at = new Date(now);
  at.setHours(Number(hour), Number(minute), Number(second), 0);
  if (at.getTime() < now) at.setDate(at.getDate() + 1);
  return at.getTime();
}
