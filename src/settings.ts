/**
 * The settings: one table that reads them, checks them, prints them and documents them.
 */
import * as z from 'zod';
import { SmslogdError } from './errors.ts';
import { readAddress } from './postgres/address.ts';
import { AddressProblem } from './postgres/conninfo.ts';
import { splitTable } from './postgres/quoting.ts';
import { unreadableFile } from './postgres/tls.ts';
import { readValueFile, reasonOf, shownPath, whyUnreadable } from './secret-file.ts';
import { isTimezone, nearestZone, runtimeZones } from './timezones.ts';

const text = z.string().min(1);
const identifier = text.regex(/^[a-z0-9_]{1,63}$/, 'lower-case letters, digits and underscores, at most 63');
/** A number; `form` says what of. Blanks are none, though Number() takes them for 0. */
const number = (form: string, checked: z.ZodType<number, number>) =>
  text.regex(/\S/, form).transform(Number).pipe(checked);
const whole = (low: number, high: number) => {
  const form = `a whole number from ${low} to ${high}`;
  return number(form, z.int(form).min(low).max(high));
};
const minutes = number(
  'a number of minutes',
  z.number('a number of minutes').positive('more than 0').max(525_600, 'at most a year'),
);
const webAddress = z.url({ protocol: /^https?$/, error: 'an http:// or https:// address' });
/** Basic authentication takes the first colon for the end of the name (RFC 7617, section 2). */
const login = text.regex(/^[^:]*$/, 'a name without a colon');
const file = text.refine((path) => whyUnreadable(path) === undefined, {
  error: ({ input }) => `a file that can be read; ${shownPath(String(input))}: ${whyUnreadable(String(input))}`,
});
const timezone = text.refine(isTimezone, {
  error: ({ input }) => `an IANA time zone; the nearest is ${nearestZone(String(input), runtimeZones())}`,
});
const LOOPS = ['mirror', 'poller'] as const;

/** Whose time the dates of the gateway's replies are: not known yet, the change's, or the reply's own. */
export const LATENCY_SOURCES = ['unconfirmed', 'change', 'reply'] as const;
const loops = text
  .transform((value) => value.split(',').map((name) => name.trim()))
  .pipe(z.array(z.enum(LOOPS, `some of ${LOOPS.join(',')}`)).min(1));

const hosts = text
  .transform((value) => value.split(',').map((name) => name.trim()))
  .pipe(z.array(z.string().regex(/^[\p{L}\p{M}\p{N}._-]+$/u, 'host names without ports, separated by commas')));

export interface Setting {
  readonly type: z.ZodType;
  /** the default in its written form; absent: there is none */
  readonly initial?: string;
  readonly secret?: true;
  /** an address of PostgreSQL: read as libpq reads it, with its environment */
  readonly address?: true;
  readonly about: string;
}

const SETTINGS = {
  DATABASE_URL: {
    type: text,
    address: true,
    about: 'connection for queries, as in libpq: URL parameters, environment, password file (required)',
  },
  DATABASE_REPLICATION_URL: {
    type: text,
    address: true,
    about:
      'connection for the stream and the slot: a role of its own, and never through a pooler; default `DATABASE_URL`',
  },
  DATABASE_POOLED: {
    type: z.enum(['auto', 'true', 'false'], 'auto, true or false'),
    initial: 'auto',
    about: '`true` if `DATABASE_URL` goes through a pooler in transaction mode; `auto` detects PgBouncer',
  },
  SOURCE_TABLE: {
    type: text.refine(
      (value) => splitTable(value) !== undefined,
      'schema.table; a part with dots or quotes in "quotes"',
    ),
    initial: 'verification.verifications',
    about: 'the source, `schema.table`, as PostgreSQL spells it; a part with dots in `"quotes"`',
  },
  SOURCE_TIMEZONE: { type: timezone, initial: 'UTC', about: "time zone of the source's timestamps without time zone" },
  REPORT_TIMEZONE: {
    type: timezone,
    initial: 'Europe/Kyiv',
    about: 'time zone of days and hours in the views; `migrate` writes it into the database',
  },
  SLOT_NAME: { type: identifier, initial: 'smslogd', about: 'the replication slot' },
  PUBLICATION_NAME: { type: text.max(63, 'at most 63 characters'), initial: 'smslogd', about: 'the publication' },
  SNAPSHOT: {
    type: z.enum(['initial', 'never'], 'initial or never'),
    initial: 'initial',
    about: '`initial` copies existing rows at the first start, `never` does not',
  },
  SMS_BODY: {
    type: z.enum(['full', 'masked'], 'full or masked'),
    initial: 'full',
    about: '`masked`: always `****` for the code, and the code column is not published',
  },
  OTP_CODE_TEXT: { type: text, initial: 'Код авторизації дій в системі eHealth: ', about: 'text before the code' },
  IP2SMS_URL: { type: webAddress, about: 'address for sending SMS (required for the poller and `send`)' },
  IP2SMS_STATUS_URL: {
    type: webAddress,
    about: 'address for status requests; default `IP2SMS_URL` with `/ip2sms-request/` for `/ip2sms/`',
  },
  IP2SMS_LOGIN: { type: login, secret: true, about: 'Basic authentication (required likewise)' },
  IP2SMS_PASSWORD: { type: text, secret: true, about: 'Basic authentication (required likewise)' },
  IP2SMS_CA_FILE: {
    type: file,
    about: "file with the certificate of the gateway's authority; default: the authorities that Node.js trusts",
  },
  IP2SMS_CERT_FILE: { type: file, about: 'file with the client certificate, if the gateway asks for one' },
  IP2SMS_KEY_FILE: { type: file, about: 'file with its key' },
  IP2SMS_SOURCE: { type: text, about: 'alpha name of the sender, for `send`' },
  IP2SMS_FORMAT: { type: z.enum(['xml', 'json'], 'xml or json'), initial: 'xml', about: '`xml` or `json`' },
  LATENCY_SOURCE: {
    type: z.enum(LATENCY_SOURCES, `one of ${LATENCY_SOURCES.join(', ')}`),
    initial: 'unconfirmed',
    about:
      "whether the gateway's dates are the time of the `change` or of the `reply`; docs/runbook.md says how to find out. Until it is set, the page marks latencies as unconfirmed",
  },
  IP2SMS_MAX_CONCURRENCY: { type: whole(1, 10_000), initial: '64', about: 'most concurrent status requests' },
  IP2SMS_MAX_RPS: { type: whole(0, 1_000_000), initial: '0', about: 'requests per second; 0: no limit' },
  IP2SMS_TIMEOUT_MS: { type: whole(100, 600_000), initial: '8000', about: 'time limit of a whole request' },
  SMS_STATUSES_EXPIRATION: { type: minutes, initial: '35', about: 'life of an SMS in minutes; decimals are allowed' },
  SMS_STATUSES_GIVE_UP: {
    type: minutes,
    initial: '4320',
    about: 'minutes until an SMS becomes Terminated without any answer; at most `RETENTION_DAYS`',
  },
  RETENTION_DAYS: {
    type: whole(0, 36_500),
    initial: '0',
    about: 'rows older than this are removed, also open ones; the counters stay. 0: keep all',
  },
  HTTP_HOST: { type: text, initial: '127.0.0.1', about: 'address to listen on; the container image sets `0.0.0.0`' },
  HTTP_PORT: { type: whole(0, 65_535), initial: '9464', about: 'metrics, health and status page; 0: any free port' },
  HTTP_ALLOWED_HOSTS: {
    type: hosts,
    about:
      'further host names that are answered, separated by commas; on a loopback address all but loopback names are refused',
  },
  LOG_LEVEL: {
    type: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], 'debug, info, warn or error'),
    initial: 'info',
    about: 'level of the log on stdout',
  },
  LOOPS: { type: loops, initial: 'mirror,poller', about: 'loops to run' },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof SETTINGS;
type Value<N extends SettingName> = z.output<(typeof SETTINGS)[N]['type']>;
type Optional = { [N in SettingName]: (typeof SETTINGS)[N] extends { initial: string } ? never : N }[SettingName];

/** The settings under their own names. Those without a default are undefined where nothing is set. */
export type Config = Readonly<
  { [N in Exclude<SettingName, Optional>]: Value<N> } & { [N in Optional]: Value<N> | undefined }
>;

/** What a command cannot work without. */
export type Need =
  | 'database'
  | 'gateway'
  /** the gateway where LOOPS names the poller, as it does by default */
  | 'loops';

const GATEWAY = ['IP2SMS_URL', 'IP2SMS_LOGIN', 'IP2SMS_PASSWORD'] as const satisfies readonly SettingName[];

function needed(need: Need, values: Readonly<Record<string, unknown>>): readonly SettingName[] {
  if (need === 'database') return ['DATABASE_URL'];
  const turned = values['LOOPS'] as Value<'LOOPS'> | undefined;
  return need === 'gateway' || turned?.includes('poller') !== false ? GATEWAY : [];
}

/** The settings, and what is wrong with them: a sentence by the name of the setting or of the variable of libpq, without its value. */
export interface Read {
  readonly values: Readonly<Record<string, unknown>>;
  readonly wrong: ReadonlyMap<string, string>;
}

/** Reads the settings from `env` (`NAME`, or `NAME_FILE` with the path of a file that holds the value, see secret-file.ts). An empty variable counts as unset. */
export function readSettings(env: NodeJS.ProcessEnv, needs: readonly Need[] = []): Read {
  const values: Record<string, unknown> = {};
  const wrong = new Map<string, string>();
  const wrongs = new Set<string>();
  const complain = (name: string, sentence: string, by = name) => {
    wrongs.add(name);
    if (!wrong.has(by)) wrong.set(by, sentence);
  };
  for (const name of settingNames()) {
    const setting: Setting = SETTINGS[name];
    let given: string | undefined;
    try {
      given = written(env, name);
    } catch (error) {
      const path = shownPath(env[`${name}_FILE`] ?? '');
      complain(name, `${path} cannot be read: ${reasonOf(error)}`, `${name}_FILE`);
      continue;
    }
    const source = given ?? setting.initial;
    if (source === undefined) {
      values[name] = undefined;
      continue;
    }
    const parsed = setting.type.safeParse(source);
    const address = setting.address === true ? wrongAddress(source, env) : undefined;
    if (address !== undefined) complain(name, address.message, address.variable ?? name);
    else if (parsed.success) values[name] = parsed.data;
    else complain(name, `must be ${[...new Set(parsed.error.issues.map((issue) => issue.message))].join(', ')}`);
  }
  for (const name of needs.flatMap((need) => needed(need, values)))
    if (values[name] === undefined && !wrongs.has(name)) complain(name, 'is required');
  const [cert, key] = ['IP2SMS_CERT_FILE', 'IP2SMS_KEY_FILE'] as const;
  const alone = values[cert] === undefined ? cert : key;
  if ((values[cert] === undefined) !== (values[key] === undefined) && !wrongs.has(alone))
    complain(alone, `is required with ${alone === cert ? key : cert}`);
  // an SMS has its verdict before its row leaves, and none while it lives
  const [life = 0, giveUp = Infinity, days = 0] = [
    'SMS_STATUSES_EXPIRATION',
    'SMS_STATUSES_GIVE_UP',
    'RETENTION_DAYS',
  ].map((name) => values[name] as number | undefined);
  const retention = days * 1440 || Infinity;
  if (Math.min(giveUp, retention) < life)
    complain(
      giveUp < life ? 'SMS_STATUSES_GIVE_UP' : 'RETENTION_DAYS',
      'must be no shorter than SMS_STATUSES_EXPIRATION: SMS would be given up while they live',
    );
  else if (giveUp !== Infinity) values['SMS_STATUSES_GIVE_UP'] = Math.min(giveUp, retention);
  values['DATABASE_REPLICATION_URL'] ??= values['DATABASE_URL'];
  values['IP2SMS_STATUS_URL'] ??= statusAddress(values['IP2SMS_URL'] as string | undefined);
  return { values, wrong };
}

/** The settings that readSettings reads. Throws config_invalid with a line for each wrong one: its name and the form it wants, never its value. */
export function loadConfig(env: NodeJS.ProcessEnv, needs: readonly Need[] = []): Config {
  const { values, wrong } = readSettings(env, needs);
  if (wrong.size > 0)
    throw new SmslogdError(
      'config_invalid',
      `wrong settings:\n${[...wrong].map(([name, sentence]) => `  ${name}: ${sentence}`).join('\n')}`,
    );
  return Object.freeze(values) as Config;
}

/** The settings of a daemon, whose addresses of PostgreSQL may be read again: a new connection then has the password of now. */
export function rereadableConfig(
  env: NodeJS.ProcessEnv,
  needs: readonly Need[],
): { readonly config: Config; readonly reread: () => void } {
  let now = loadConfig(env, needs);
  const config = { ...now };
  for (const name of ['DATABASE_URL', 'DATABASE_REPLICATION_URL'] as const)
    Object.defineProperty(config, name, { enumerable: true, get: () => now[name] });
  return { config, reread: () => void (now = loadConfig(env, needs)) };
}

function written(env: NodeJS.ProcessEnv, name: SettingName): string | undefined {
  const path = env[`${name}_FILE`];
  const { secret, address }: Setting = SETTINGS[name];
  const isSecret = secret === true || address === true;
  const value = path === undefined || path === '' ? env[name] : readValueFile(path, { secret: isSecret });
  return value === '' ? undefined : value;
}

function statusAddress(sending: string | undefined): string | undefined {
  return sending?.replace(/\/ip2sms\/(?=$|\?)/, '/ip2sms-request/');
}

/** What is wrong with an address of PostgreSQL or with a variable of libpq beside it. */
function wrongAddress(source: string, env: NodeJS.ProcessEnv): AddressProblem | undefined {
  try {
    const { parameter, why } = unreadableFile(readAddress(source, env).tls) ?? {};
    if (parameter === undefined) return undefined;
    throw new AddressProblem(`an address whose ${parameter} is a file that can be read: ${why}`);
  } catch (error) {
    if (!(error instanceof AddressProblem)) throw error;
    return error;
  }
}

export function settingNames(): SettingName[] {
  return Object.keys(SETTINGS) as SettingName[];
}

export function settingOf(name: SettingName): Setting {
  return SETTINGS[name];
}
