/**
 * Time zones as PostgreSQL takes them, since it does all that is done with them: `at time zone` looks a name up among the abbreviations first, and such
 * a one (EET, CET, IST) is an offset that never changes, whatever zone has the same name. So a zone must be a name of pg_timezone_names and no
 * abbreviation. UTC is both, and the same.
 */
import { SmslogdError } from './errors.ts';
import { nearest } from './nearest.ts';
import { quoteLiteral } from './postgres/quoting.ts';

type Query = <Row extends object>(text: string) => Promise<readonly Row[]>;

/** Throws config_invalid where PostgreSQL would read a zone of the settings otherwise than it was meant. */
export async function requireTimezones(
  query: Query,
  config: { readonly SOURCE_TIMEZONE: string; readonly REPORT_TIMEZONE: string },
): Promise<void> {
  const { SOURCE_TIMEZONE, REPORT_TIMEZONE } = config;
  const asked = Object.entries({ SOURCE_TIMEZONE, REPORT_TIMEZONE }).filter(([, zone]) => zone !== 'UTC');
  if (asked.length === 0) return;
  const places = await Promise.all(asked.map(([, zone]) => isPlace(query, zone)));
  const problems = places.every(Boolean) ? [] : await otherwise(query, asked);
  // counters are kept by hours, and days made of them
  const broken = await query(
    `select from generate_series(timestamptz '2000-01-01 00:00+00', '2050-01-01 00:00+00', '1 month') as at
      where extract(minute from (at at time zone ${quoteLiteral(REPORT_TIMEZONE)}) - (at at time zone 'UTC')) <> 0 limit 1`,
  ).catch(() => []);
  if (broken.length > 0)
    problems.push(
      'REPORT_TIMEZONE: its offset is not always a whole number of hours, and figures are kept by the hour; UTC and Europe/Kyiv are',
    );
  if (problems.length > 0) throw new SmslogdError('config_invalid', `wrong settings:\n  ${problems.join('\n  ')}`);
}

/** Throws source_timezone where the log was filled with another zone than that of the settings. */
export async function requireSourceTimezone(
  query: Query,
  { SOURCE_TIMEZONE }: { readonly SOURCE_TIMEZONE: string },
): Promise<void> {
  const [there] = await query(`select where to_regclass('smslogd.checkpoint') is not null`);
  if (there === undefined) return;
  const [other] = await query<{ zone: string }>(
    `select source_timezone as zone from smslogd.checkpoint where source_timezone <> ${quoteLiteral(SOURCE_TIMEZONE)} limit 1`,
  );
  if (other !== undefined) throw filledWith(other.zone, SOURCE_TIMEZONE);
}

export function filledWith(zone: string, asked: string): SmslogdError {
  return new SmslogdError('source_timezone', `SOURCE_TIMEZONE is ${asked}, but the log was filled with ${zone}`);
}

/**
 * True for the name of a place, spelt as PostgreSQL spells it: no abbreviation has a slash, and without a digit it is a zone or nothing. To look into
 * pg_timezone_names instead is to read the file of each zone.
 */
async function isPlace(query: Query, zone: string): Promise<boolean> {
  if (!/^[A-Z][A-Za-z_]+\/[A-Za-z_/]+$/.test(zone)) return false;
  const name = quoteLiteral(zone);
  return (await query(`select where set_config('timezone', ${name}, true) = ${name}`).catch(() => [])).length > 0;
}

/** A sentence for each zone that PostgreSQL would read otherwise. */
async function otherwise(query: Query, asked: readonly (readonly [string, string])[]): Promise<string[]> {
  const names = (await query<{ name: string }>('select name from pg_timezone_names')).map(({ name }) => name);
  const abbreviations = new Set(
    (await query<{ abbrev: string }>('select abbrev from pg_timezone_abbrevs')).map(({ abbrev }) => abbrev),
  );
  const isAbbreviation = (zone: string) => zone !== 'UTC' && abbreviations.has(zone.toUpperCase());
  // Debian's has each zone three times
  const zones = names.filter((name) => !isAbbreviation(name) && !/^(?:posix|right)\//.test(name));
  return asked
    .filter(([, zone]) => !zones.includes(zone))
    .map(([setting, zone]) => {
      const is = isAbbreviation(zone)
        ? 'to PostgreSQL it is an abbreviation, an offset that never changes'
        : 'PostgreSQL has no such zone in pg_timezone_names';
      return `${setting}: ${is}; the nearest is ${nearestZone(zone, zones)}`;
    });
}

/** The zones of most settings: nothing is asked about them, and where several are as near, they come first. */
const USUAL = ['UTC', 'Europe/Kyiv'];

/** What the runtime knows, without names that PostgreSQL may not have. */
export function runtimeZones(): string[] {
  const offsets = Array.from({ length: 12 }, (_, i) => [`Etc/GMT-${i + 1}`, `Etc/GMT+${i + 1}`]);
  return [...USUAL, ...Intl.supportedValuesOf('timeZone'), ...offsets.flat()];
}

/** Offsets such as +03:00 are none: PostgreSQL reads them with the opposite sign. What the database makes of a name is asked later. */
export function isTimezone(name: string): boolean {
  // without the runtime's tables, which take their time to load
  if (USUAL.includes(name)) return true;
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** The one of `zones` that was most likely meant: spelt otherwise, of the same offset or clocks, with that abbreviation, or spelt alike. */
export function nearestZone(name: string, zones: readonly string[]): string {
  const ranked = [...USUAL.filter((zone) => zones.includes(zone)), ...zones];
  const plain = name
    .replace(/^(?:posix|right)\//, '')
    .replaceAll(' ', '_')
    .toLowerCase();
  const places = ranked.filter((zone) => zone === 'UTC' || (zone.includes('/') && !zone.startsWith('Etc/')));
  return (
    ranked.find((zone) => zone.toLowerCase() === plain) ??
    places.find((zone) => zone.toLowerCase().endsWith(`/${plain}`)) ??
    ranked.find((zone) => zone === offsetZone(name)) ??
    withClocks(name, places) ??
    withAbbreviation(name, places) ??
    nearest(name, ranked)
  );
}

/** A zone of the Etc area, whose signs are those of POSIX: for +03:00, UTC+3 and GMT+3 as people write them, and <+03>-3 as POSIX does. */
function offsetZone(name: string): string | undefined {
  const [, sign, hours] = /^(?:UTC|GMT)?([+-])0?(\d{1,2})(?::?00)?$/i.exec(name) ?? [];
  if (hours !== undefined) return `Etc/GMT${sign === '+' ? '-' : '+'}${hours}`;
  const [, posixSign, posixHours] = /^<[+-]?\w+>([+-]?)0?(\d{1,2})$/.exec(name) ?? [];
  return posixHours === undefined ? undefined : `Etc/GMT${posixSign === '-' ? '-' : '+'}${posixHours}`;
}

const WINTER_AND_SUMMER = [Date.UTC(2026, 0, 15), Date.UTC(2026, 6, 15)];

/** What the clocks of a zone are called in winter and in summer, in a place's English; undefined where the runtime does not know the zone. */
function clocks(zone: string, style: 'longOffset' | 'short', locale = 'en'): string[] | undefined {
  try {
    const format = new Intl.DateTimeFormat(locale, { timeZone: zone, timeZoneName: style });
    return WINTER_AND_SUMMER.map(
      (at) => format.formatToParts(at).find(({ type }) => type === 'timeZoneName')?.value ?? '',
    );
  } catch {
    return undefined;
  }
}

/** The zone that the runtime takes `name` for, or the first whose clocks go as its do. */
function withClocks(name: string, places: readonly string[]): string | undefined {
  const wanted = clocks(name, 'longOffset')?.join();
  if (wanted === undefined) return undefined;
  const same = (zone: string) => clocks(zone, 'longOffset')?.join() === wanted;
  const meant = new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone;
  return [...USUAL, meant].filter((zone) => places.includes(zone)).find(same) ?? places.find(same);
}

/** The first zone whose clocks are called so where they are spoken of. */
function withAbbreviation(name: string, places: readonly string[]): string | undefined {
  const called = (zone: string) =>
    ['en-US', 'en-GB', 'en-AU', 'en-IN'].some((locale) => clocks(zone, 'short', locale)?.includes(name.toUpperCase()));
  return /^[A-Za-z]{3,5}$/.test(name) ? places.find(called) : undefined;
}
