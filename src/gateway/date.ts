const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

const FORM =
  /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) (?:([+-])(\d{2})(\d{2})|GMT|UTC)$/;

/**
 * Parses an RFC 1123 date, `Wed, 28 Mar 2007 12:35:00 +0300`, as milliseconds since 1970; undefined for anything else: another format, a day that the month
 * does not have, an hour past 23, a zone past 14 hours, a year outside 1990 to 2200. The name of the day is ignored.
 */
export function parseDate(text: string): number | undefined {
  const match = FORM.exec(text.trim());
  if (match === null) return undefined;
  const [, day = '', month = '', year = '', hour = '', minute = '', second = '', sign, zoneHour, zoneMinute] = match;
  const monthIndex = MONTHS.indexOf(month);
  if (Number(year) < 1990 || Number(year) > 2200) return undefined;
  const local = Date.UTC(Number(year), monthIndex, Number(day), Number(hour), Number(minute), Number(second));
  const read = new Date(local);
  // Date.UTC carries overflows into the next unit: compare the result with the input
  const same =
    read.getUTCMonth() === monthIndex &&
    read.getUTCDate() === Number(day) &&
    read.getUTCHours() === Number(hour) &&
    read.getUTCMinutes() === Number(minute) &&
    read.getUTCSeconds() === Number(second);
  const zone = Number(zoneHour ?? 0) * 60 + Number(zoneMinute ?? 0);
  if (!same || Number(zoneMinute ?? 0) > 59 || zone > 14 * 60) return undefined;
  return local - (sign === '-' ? -zone : zone) * 60_000;
}
